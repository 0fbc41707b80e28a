"""Numbers that depend on the room of each node, kept per question: only rows that moved are reckoned anew.

Between two Pods of one kind a single node has changed, the one that got the first; so the second costs one row and not
five thousand.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from haven.scheduler.snapshot import Snapshot

__all__ = ["RowCache", "Rows"]

QUESTIONS_MAX = 128
Rows = slice | NDArray[np.intp]
"""All rows, or some: what indexes the last axis of the snapshot's arrays."""
_ALL = slice(None)


class _Known:
    __slots__ = ("numbers", "version")

    def __init__(self, numbers: NDArray[Any], version: int) -> None:
        self.numbers = numbers
        self.version = version


class RowCache:
    """Answers of one plugin over one snapshot."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._known: OrderedDict[Hashable, _Known] = OrderedDict()

    def answers(self, snapshot: Snapshot, question: Hashable, reckon: Callable[[Rows], NDArray[Any]]) -> NDArray[Any]:
        """Return a number per row, which the caller must not change; `reckon` returns those of the rows it is given."""
        if snapshot is not self._snapshot:
            self._snapshot = snapshot
            self._known.clear()
        known = self._known.get(question)
        moved = snapshot.moved_since(known.version) if known is not None else None
        if known is None or moved is None or len(known.numbers) != snapshot.width:
            if known is None and len(self._known) == QUESTIONS_MAX:
                self._known.popitem(last=False)
            known = self._known[question] = _Known(reckon(_ALL), snapshot.version)
        elif moved:
            rows = np.array(moved, np.intp)
            known.numbers[rows] = reckon(rows)
            known.version = snapshot.version
        self._known.move_to_end(question)
        return known.numbers

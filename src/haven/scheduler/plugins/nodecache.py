"""Answers that depend on one node's own facts, kept per question and node until the node changes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np

from haven.scheduler.snapshot import Ints, NodeRow, Snapshot

__all__ = ["NodeCache"]

QUESTIONS_MAX = 256
_UNKNOWN = -1


class NodeCache:
    """Many Pods ask the same (same tolerations, same affinity): each node answers such a question once."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._answers: OrderedDict[Hashable, Ints] = OrderedDict()
        self._complete: set[Hashable] = set()  # Questions that every row has answered.
        snapshot.on_node_change(self._forget)

    def answers(self, question: Hashable, ask: Callable[[NodeRow], int]) -> Ints:
        """Return a non-negative number per row; rows without a node hold 0."""
        known = self._answers.get(question)
        width = self._snapshot.width
        if known is None:
            if len(self._answers) == QUESTIONS_MAX:
                self._complete.discard(self._answers.popitem(last=False)[0])
            known = self._answers[question] = np.full(width, _UNKNOWN, np.int64)
        elif len(known) < width:
            known = self._answers[question] = np.pad(known, (0, width - len(known)), constant_values=_UNKNOWN)
            self._complete.discard(question)
        self._answers.move_to_end(question)
        if question in self._complete:
            return known
        for index in np.flatnonzero(known == _UNKNOWN):
            row = self._snapshot.rows[index]
            known[index] = ask(row) if row is not None and row.node is not None else 0
        self._complete.add(question)
        return known

    def _forget(self, index: int) -> None:
        self._complete.clear()
        for known in self._answers.values():
            if index < len(known):
                known[index] = _UNKNOWN

"""What a plugin is: a filter, a scorer, or both, over all nodes at once.

A filter answers with a mask (True: the node will do) and tells why a given node will not. A scorer answers raw numbers
for all rows; the cycle normalises them to 0…100 over the feasible rows as the plugin says, and multiplies by the
weight. Reasons are upstream's texts: humans and tests know them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from haven.apimachinery.names import UID
from haven.scheduler.podinfo import PodInfo
from haven.scheduler.snapshot import Mask, NodeRow, Snapshot

__all__ = ["Filter", "Floats", "PreFilter", "Scorer"]

Floats = NDArray[np.float64]


class PreFilter(Protocol):
    """Rules out all nodes for what is wrong with the Pod itself, before any node is looked at."""

    name: str

    def objection(self, info: PodInfo) -> str:
        """Return why the Pod can go nowhere now, "" if nodes are to be asked."""
        ...


class Filter(Protocol):
    """Rules out nodes."""

    name: str
    preemption_helps: bool  # Whether evicting Pods of the node could let the Pod in.

    def mask(self, info: PodInfo, snapshot: Snapshot) -> Mask | None:
        """Return which rows will do; None when all will."""
        ...

    def reasons(self, info: PodInfo, row: NodeRow, snapshot: Snapshot) -> list[str]:
        """Return why a row that the mask ruled out will not do."""
        ...

    def fits_without(self, info: PodInfo, row: NodeRow, snapshot: Snapshot, gone: Collection[UID]) -> bool:
        """Tell whether one row would do if some Pods were gone; asked only where `preemption_helps`."""
        ...


class Scorer(Protocol):
    """Likes some nodes better than others."""

    name: str
    weight: int

    def scores(self, info: PodInfo, snapshot: Snapshot, feasible: NDArray[np.intp]) -> Floats | None:
        """Return 0…100 for each feasible row, in their order; None when all are alike."""
        ...

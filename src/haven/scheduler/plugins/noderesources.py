"""NodeResourcesFit and NodeResourcesBalancedAllocation: room on the node, and an even use of it.

Source: https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from haven.apimachinery.names import UID
from haven.scheduler.plugins.interface import Floats
from haven.scheduler.plugins.rowcache import RowCache, Rows
from haven.scheduler.podinfo import PodInfo
from haven.scheduler.snapshot import MEMORY, PODS, Ints, Mask, NodeRow, Snapshot

__all__ = ["BalancedAllocation", "NodeResourcesFit"]


class NodeResourcesFit:
    """Filter: every requested amount is free. Score (LeastAllocated): the emptier, the better."""

    name = "NodeResourcesFit"
    weight = 1
    preemption_helps = True

    def __init__(self) -> None:
        self._masks = RowCache()
        self._scores = RowCache()

    def mask(self, info: PodInfo, snapshot: Snapshot) -> Mask | None:
        amounts = [(snapshot.resource_index(name), amount) for name, amount in info.amounts.items() if amount > 0]

        def reckon(rows: Rows) -> Mask:
            mask: Mask = snapshot.requested[PODS, rows] < snapshot.allocatable[PODS, rows]
            for index, amount in amounts:
                mask &= snapshot.allocatable[index, rows] - snapshot.requested[index, rows] >= amount
            return mask

        return self._masks.answers(snapshot, tuple(amounts), reckon)

    def reasons(self, info: PodInfo, row: NodeRow, snapshot: Snapshot) -> list[str]:
        found = []
        if snapshot.requested[PODS, row.index] + 1 > snapshot.allocatable[PODS, row.index]:
            found.append("Too many pods")
        for name, amount in info.amounts.items():
            index = snapshot.resource_index(name)
            if amount > 0 and amount > snapshot.allocatable[index, row.index] - snapshot.requested[index, row.index]:
                found.append(f"Insufficient {name}")
        return found

    def hopeless(self, info: PodInfo, row: NodeRow, snapshot: Snapshot) -> bool:
        """Tell whether the node would be too small even when empty: no eviction helps then."""
        return any(
            amount > snapshot.allocatable[snapshot.resource_index(name), row.index]
            for name, amount in info.amounts.items()
        )

    def fits_without(self, info: PodInfo, row: NodeRow, snapshot: Snapshot, gone: Collection[UID]) -> bool:
        freed = [row.pods[uid] for uid in gone if uid in row.pods]
        if snapshot.requested[PODS, row.index] - len(freed) + 1 > snapshot.allocatable[PODS, row.index]:
            return False
        for name, amount in info.amounts.items():
            index = snapshot.resource_index(name)
            room = snapshot.allocatable[index, row.index] - snapshot.requested[index, row.index]
            if amount > 0 and amount > room + sum(other.amounts.get(name, 0) for other in freed):
                return False
        return True

    def scores(self, info: PodInfo, snapshot: Snapshot, feasible: NDArray[np.intp]) -> Floats | None:
        cpu, memory = info.scored_cpu, info.scored_memory

        def reckon(rows: Rows) -> Floats:
            capacity = snapshot.allocatable[: MEMORY + 1, rows]
            has = capacity > 0
            free = np.maximum(capacity - snapshot.scored[:, rows] - np.array([[cpu], [memory]]), 0)
            shares = np.where(has, free * 100 // np.where(has, capacity, 1), 0)
            result: Floats = (shares.sum(axis=0) // np.maximum(has.sum(axis=0), 1)).astype(np.float64)
            return result

        found: Floats = self._scores.answers(snapshot, (cpu, memory), reckon)[feasible]
        return found


class BalancedAllocation:
    """Score: cpu and memory used to similar shares; compares the node with and without the Pod."""

    name = "NodeResourcesBalancedAllocation"
    weight = 1

    def __init__(self) -> None:
        self._scores = RowCache()

    def scores(self, info: PodInfo, snapshot: Snapshot, feasible: NDArray[np.intp]) -> Floats | None:
        cpu, memory = info.amounts.get("cpu", 0), info.amounts.get("memory", 0)
        if not cpu and not memory:
            return None  # A Pod that asks for neither cannot unbalance a node.

        def reckon(rows: Rows) -> Floats:
            capacity = snapshot.allocatable[: MEMORY + 1, rows]
            before = snapshot.requested[: MEMORY + 1, rows]
            after = before + np.array([[cpu], [memory]])
            gain = _balance(after, capacity) - _balance(before, capacity)
            return (50 + np.trunc((50 + gain) / 2)).astype(np.float64)

        found: Floats = self._scores.answers(snapshot, (cpu, memory), reckon)[feasible]
        return found


def _balance(requested: Ints, capacity: Ints) -> Ints:
    has = capacity > 0
    fractions = np.minimum(np.where(has, requested / np.where(has, capacity, 1), 0.0), 1.0)
    deviation = np.where(has.all(axis=0), np.abs(fractions[0] - fractions[1]) / 2, 0.0)
    result: Ints = ((1 - deviation) * 100).astype(np.int64)
    return result

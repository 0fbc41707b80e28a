"""Counting Pods by topology: shared by inter-Pod affinity and topology spread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator

from haven.apimachinery.names import UID
from haven.scheduler.podinfo import PodInfo
from haven.scheduler.snapshot import NodeRow, Snapshot

__all__ = ["count_by_topology", "pods_with_rows"]


def pods_with_rows(snapshot: Snapshot, gone: Collection[UID] = ()) -> Iterator[tuple[NodeRow, PodInfo]]:
    """Yield every Pod on a node that exists."""
    for row in snapshot.live_rows():
        for uid, info in row.pods.items():
            if uid not in gone:
                yield row, info


def count_by_topology(
    snapshot: Snapshot, topology_key: str, counts: Callable[[PodInfo], bool], gone: Collection[UID] = ()
) -> Counter[str]:
    """Return how many Pods that count there are per value of a node label."""
    result: Counter[str] = Counter()
    for row in snapshot.live_rows():
        value = row.labels.get(topology_key)
        if value is not None:
            result[value] += sum(1 for uid, info in row.pods.items() if uid not in gone and counts(info))
    return result

"""InterPodAffinity: Pods that want to be near, or far from, other Pods.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#inter-pod-affinity-and-anti-affinity
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from haven.api.core import v1 as core
from haven.apimachinery.names import UID
from haven.apimachinery.selectors import LabelSelector, from_label_selector
from haven.scheduler.plugins.interface import Floats
from haven.scheduler.plugins.normalize import spread
from haven.scheduler.plugins.podgroups import count_by_topology, pods_with_rows
from haven.scheduler.podinfo import PodInfo
from haven.scheduler.snapshot import Mask, NodeRow, Snapshot

__all__ = ["InterPodAffinity"]

NamespaceLabels = Callable[[str], Mapping[str, str]]
HARD_AFFINITY_WEIGHT = 1  # What a Pod's required affinity adds to the score of nodes for the Pods it wants near.


@dataclass(frozen=True, slots=True)
class _Term:
    """An affinity term of one Pod, ready to ask of others."""

    topology_key: str
    selector: LabelSelector
    namespaces: frozenset[str]
    namespace_selector: LabelSelector | None

    @classmethod
    def of(cls, term: core.PodAffinityTerm, owner: PodInfo) -> _Term:
        selector = from_label_selector(term.label_selector)
        namespaces = frozenset(term.namespaces)
        if not namespaces and term.namespace_selector is None:
            namespaces = frozenset({owner.namespace})
        namespace_selector = None if term.namespace_selector is None else from_label_selector(term.namespace_selector)
        return cls(term.topology_key, selector, namespaces, namespace_selector)

    def matches(self, other: PodInfo, labels_of: NamespaceLabels) -> bool:
        in_namespace = other.namespace in self.namespaces or (
            self.namespace_selector is not None and self.namespace_selector.matches(labels_of(other.namespace))
        )
        return in_namespace and self.selector.matches(other.pod.metadata.labels)


class InterPodAffinity:
    name = "InterPodAffinity"
    weight = 2
    preemption_helps = True

    def __init__(self, namespace_labels: NamespaceLabels) -> None:
        self._labels_of = namespace_labels
        self._why: dict[int, str] = {}

    def mask(self, info: PodInfo, snapshot: Snapshot) -> Mask | None:
        self._why = {}
        if not snapshot.with_affinity and not _has_required(info):
            return None
        judge = self._judge(info, snapshot, ())
        if judge is None:
            return None
        mask = snapshot.alive.copy()
        for row in snapshot.live_rows():
            reason = judge(row)
            if reason:
                mask[row.index] = False
                self._why[row.index] = reason
        return mask

    def reasons(self, info: PodInfo, row: NodeRow, snapshot: Snapshot) -> list[str]:
        return [self._why[row.index]]

    def fits_without(self, info: PodInfo, row: NodeRow, snapshot: Snapshot, gone: Collection[UID]) -> bool:
        judge = self._judge(info, snapshot, gone)
        return judge is None or not judge(row)

    def _judge(self, info: PodInfo, snapshot: Snapshot, gone: Collection[UID]) -> Callable[[NodeRow], str] | None:
        """Return a function that says why a node will not do, "" if it will; None if nothing restricts the Pod."""
        near = [_Term.of(term, info) for term in _required(info, anti=False)]
        far = [_Term.of(term, info) for term in _required(info, anti=True)]
        # Topologies where a Pod lives that does not want this one near.
        repelled: set[tuple[str, str]] = set()
        for uid, (row, other) in snapshot.with_affinity.items():
            if uid in gone:
                continue
            for term in _required(other, anti=True):
                value = row.labels.get(term.topology_key)
                if value is not None and _Term.of(term, other).matches(info, self._labels_of):
                    repelled.add((term.topology_key, value))
        if not near and not far and not repelled:
            return None
        near_counts = [self._near_counts(near, term, snapshot, gone) for term in near]
        far_counts = [self._far_counts(term, snapshot, gone) for term in far]
        # The first Pod of a group that wants to be near itself may go anywhere that has the topology.
        first = not any(counts.total() for counts in near_counts) and all(
            term.matches(info, self._labels_of) for term in near
        )

        def judge(row: NodeRow) -> str:
            labels = row.labels
            for term, counts in zip(near, near_counts, strict=True):
                value = labels.get(term.topology_key)
                if value is None or (not counts[value] and not first):
                    return "node(s) didn't match pod affinity rules"
            for term, counts in zip(far, far_counts, strict=True):
                value = labels.get(term.topology_key)
                if value is not None and counts[value]:
                    return "node(s) didn't match pod anti-affinity rules"
            if any(labels.get(key) == value for key, value in repelled):
                return "node(s) didn't satisfy existing pods anti-affinity rules"
            return ""

        return judge

    def _near_counts(self, near: list[_Term], term: _Term, snapshot: Snapshot, gone: Collection[UID]) -> Counter[str]:
        # A Pod counts only if it matches every required term, as upstream has it.
        return count_by_topology(
            snapshot, term.topology_key, lambda other: all(t.matches(other, self._labels_of) for t in near), gone
        )

    def _far_counts(self, term: _Term, snapshot: Snapshot, gone: Collection[UID]) -> Counter[str]:
        return count_by_topology(snapshot, term.topology_key, lambda other: term.matches(other, self._labels_of), gone)

    def scores(self, info: PodInfo, snapshot: Snapshot, feasible: NDArray[np.intp]) -> Floats | None:
        weights: Counter[tuple[str, str]] = Counter()
        mine = [(_Term.of(t.pod_affinity_term, info), t.weight) for t in _preferred(info, anti=False)]
        mine += [(_Term.of(t.pod_affinity_term, info), -t.weight) for t in _preferred(info, anti=True)]
        if mine:
            for row, other in pods_with_rows(snapshot):
                for term, weight in mine:
                    value = row.labels.get(term.topology_key)
                    if value is not None and term.matches(other, self._labels_of):
                        weights[(term.topology_key, value)] += weight
        for row, other in snapshot.with_affinity.values():
            theirs = [(t, HARD_AFFINITY_WEIGHT) for t in _required(other, anti=False)]
            theirs += [(t.pod_affinity_term, t.weight) for t in _preferred(other, anti=False)]
            theirs += [(t.pod_affinity_term, -t.weight) for t in _preferred(other, anti=True)]
            for affinity_term, weight in theirs:
                value = row.labels.get(affinity_term.topology_key)
                if value is not None and _Term.of(affinity_term, other).matches(info, self._labels_of):
                    weights[(affinity_term.topology_key, value)] += weight
        if not weights:
            return None
        raw = np.zeros(len(feasible), np.float64)
        for position, index in enumerate(feasible):
            row_or_none = snapshot.rows[index]
            assert row_or_none is not None
            labels = row_or_none.labels
            raw[position] = sum(weight for (key, value), weight in weights.items() if labels.get(key) == value)
        return spread(raw)


def _has_required(info: PodInfo) -> bool:
    return bool(_required(info, anti=False) or _required(info, anti=True))


def _required(info: PodInfo, *, anti: bool) -> list[core.PodAffinityTerm]:
    affinity = info.pod.spec.affinity
    part = (affinity.pod_anti_affinity if anti else affinity.pod_affinity) if affinity else None
    return part.required_during_scheduling_ignored_during_execution if part else []


def _preferred(info: PodInfo, *, anti: bool) -> list[core.WeightedPodAffinityTerm]:
    affinity = info.pod.spec.affinity
    part = (affinity.pod_anti_affinity if anti else affinity.pod_affinity) if affinity else None
    return part.preferred_during_scheduling_ignored_during_execution if part else []

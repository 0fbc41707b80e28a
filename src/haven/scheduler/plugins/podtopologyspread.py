"""PodTopologySpread: keep the Pods of a group evenly over zones, hosts, or any other node label.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection

import numpy as np
from numpy.typing import NDArray

from haven.api.core import v1 as core
from haven.api.core.nodeselection import matches_required
from haven.api.core.taints import blocks_scheduling, untolerated
from haven.apimachinery import meta
from haven.apimachinery.names import UID
from haven.apimachinery.selectors import LabelSelector, from_label_selector
from haven.scheduler.plugins.interface import Floats
from haven.scheduler.podinfo import PodInfo
from haven.scheduler.snapshot import Mask, NodeRow, Snapshot

__all__ = ["PodTopologySpread"]

_NO_MATCH = "node(s) didn't match pod topology spread constraints"
_NO_LABEL = f"{_NO_MATCH} (missing required label)"


class PodTopologySpread:
    name = "PodTopologySpread"
    weight = 2
    preemption_helps = True

    def mask(self, info: PodInfo, snapshot: Snapshot) -> Mask | None:
        judge = _judge(info, snapshot, ())
        if judge is None:
            return None
        mask = snapshot.alive.copy()
        for row in snapshot.live_rows():
            if judge(row):
                mask[row.index] = False
        return mask

    def reasons(self, info: PodInfo, row: NodeRow, snapshot: Snapshot) -> list[str]:
        judge = _judge(info, snapshot, ())
        assert judge is not None
        return [judge(row)]

    def fits_without(self, info: PodInfo, row: NodeRow, snapshot: Snapshot, gone: Collection[UID]) -> bool:
        judge = _judge(info, snapshot, gone)
        return judge is None or not judge(row)

    def scores(self, info: PodInfo, snapshot: Snapshot, feasible: NDArray[np.intp]) -> Floats | None:
        constraints = _constraints(info, "ScheduleAnyway")
        if not constraints:
            return None
        raw = np.zeros(len(feasible), np.float64)
        ignored = np.zeros(len(feasible), np.bool_)
        for constraint in constraints:
            selector = _selector(constraint, info)
            counts = _counts(info, constraint, selector, snapshot, ())
            weight = math.log(len(counts) + 2)
            for position, index in enumerate(feasible):
                row = snapshot.rows[index]
                assert row is not None
                value = row.labels.get(constraint.topology_key)
                if value is None:
                    ignored[position] = True
                else:
                    raw[position] += counts[value] * weight + (constraint.max_skew - 1)
        if ignored.all():
            return None
        considered = raw[~ignored]
        low, high = float(considered.min()), float(considered.max())
        if high == 0:
            scores = np.full(len(feasible), 100.0)
        else:
            scores = np.floor(100 * (high + low - raw) / high)
        scores[ignored] = 0
        return scores


def _judge(info: PodInfo, snapshot: Snapshot, gone: Collection[UID]) -> Callable[[NodeRow], str] | None:
    constraints = _constraints(info, "DoNotSchedule")
    if not constraints:
        return None
    parts: list[tuple[core.TopologySpreadConstraint, Counter[str], int, int]] = []
    for constraint in constraints:
        selector = _selector(constraint, info)
        counts = _counts(info, constraint, selector, snapshot, gone)
        lowest = min(counts.values(), default=0)
        if len(counts) < (constraint.min_domains or 1):
            lowest = 0
        parts.append((constraint, counts, lowest, int(selector.matches(info.pod.metadata.labels))))

    def judge(row: NodeRow) -> str:
        for constraint, counts, lowest, itself in parts:
            value = row.labels.get(constraint.topology_key)
            if value is None:
                return _NO_LABEL
            if counts[value] + itself - lowest > constraint.max_skew:
                return _NO_MATCH
        return ""

    return judge


def _counts(
    info: PodInfo,
    constraint: core.TopologySpreadConstraint,
    selector: LabelSelector,
    snapshot: Snapshot,
    gone: Collection[UID],
) -> Counter[str]:
    """Return the matching Pods per topology; topologies without one count 0 and are there."""
    counts: Counter[str] = Counter()
    spec = info.pod.spec
    for row in snapshot.live_rows():
        value = row.labels.get(constraint.topology_key)
        if value is None or row.node is None:
            continue
        if constraint.node_affinity_policy != "Ignore" and not matches_required(spec, row.name, row.labels):
            continue
        if (
            constraint.node_taints_policy == "Honor"
            and untolerated(row.node.spec.taints, spec.tolerations, blocks_scheduling) is not None
        ):
            continue
        counts[value] += sum(
            1
            for uid, other in row.pods.items()
            if uid not in gone
            and other.namespace == info.namespace
            and not other.is_terminating
            and selector.matches(other.pod.metadata.labels)
        )
    return counts


def _selector(constraint: core.TopologySpreadConstraint, info: PodInfo) -> LabelSelector:
    labels = info.pod.metadata.labels
    selector = constraint.label_selector
    extra = {key: labels[key] for key in constraint.match_label_keys if key in labels}
    if selector is not None and extra:
        selector = meta.LabelSelector(
            match_labels={**selector.match_labels, **extra}, match_expressions=selector.match_expressions
        )
    return from_label_selector(selector)


def _constraints(info: PodInfo, when: str) -> list[core.TopologySpreadConstraint]:
    return [item for item in info.pod.spec.topology_spread_constraints if item.when_unsatisfiable == when]

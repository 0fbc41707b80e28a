"""One scheduling cycle: filter all nodes, score those that are left, choose the best.

The filters run in upstream's order and each node counts for the first filter that ruled it out, so that the message
`0/5 nodes are available: …` is the one upstream would write.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from haven.scheduler.course import Course
from haven.scheduler.plugins.imagelocality import ImageLocality
from haven.scheduler.plugins.interface import Filter, PreFilter, Scorer
from haven.scheduler.plugins.interpodaffinity import InterPodAffinity
from haven.scheduler.plugins.nodeaffinity import NodeAffinity, named_nodes
from haven.scheduler.plugins.nodename import NodeName
from haven.scheduler.plugins.nodeports import NodePorts
from haven.scheduler.plugins.noderesources import BalancedAllocation, NodeResourcesFit
from haven.scheduler.plugins.nodeunschedulable import NodeUnschedulable
from haven.scheduler.plugins.nodevolumelimits import NodeVolumeLimits
from haven.scheduler.plugins.podtopologyspread import PodTopologySpread
from haven.scheduler.plugins.tainttoleration import TaintToleration
from haven.scheduler.plugins.volumebinding import VolumeBinding
from haven.scheduler.plugins.volumerestrictions import VolumeRestrictions
from haven.scheduler.plugins.volumezone import VolumeZone
from haven.scheduler.podinfo import PodInfo
from haven.scheduler.snapshot import Mask, NodeRow, Snapshot
from haven.scheduler.volumes import Volumes

__all__ = ["Failure", "Placement", "Profile", "default_profile", "fit_message", "place"]


@dataclass(frozen=True)
class Profile:
    """The plugins in use, in order. `binding` also decides which volumes a placed Pod gets."""

    pre_filters: Sequence[PreFilter]
    filters: Sequence[Filter]
    scorers: Sequence[Scorer]
    binding: VolumeBinding


@dataclass(frozen=True, slots=True)
class Placement:
    """The Pod goes to this node."""

    node_name: str
    evaluated: int
    feasible: int


@dataclass(frozen=True, slots=True)
class Failure:
    """No node will do. `rejected_by` names the plugins; `candidates` are rows where evicting Pods may help."""

    message: str
    nodes: int
    reasons: Mapping[str, int]
    rejected_by: frozenset[str]
    candidates: tuple[NodeRow, ...]


def default_profile(
    snapshot: Snapshot, namespace_labels: Callable[[str], Mapping[str, str]], volumes: Volumes
) -> Profile:
    """Return upstream's default plugins with their default weights."""
    taints, affinity, fit = TaintToleration(snapshot), NodeAffinity(snapshot), NodeResourcesFit()
    topology, pods = PodTopologySpread(), InterPodAffinity(namespace_labels)
    restrictions, binding, zone = VolumeRestrictions(volumes), VolumeBinding(volumes), VolumeZone(volumes)
    return Profile(
        pre_filters=(restrictions, binding, zone),
        filters=(
            NodeUnschedulable(snapshot),
            NodeName(),
            taints,
            affinity,
            NodePorts(),
            fit,
            restrictions,
            NodeVolumeLimits(volumes),
            binding,
            zone,
            topology,
            pods,
        ),
        scorers=(taints, affinity, fit, topology, pods, BalancedAllocation(), ImageLocality()),
        binding=binding,
    )


def place(
    info: PodInfo, snapshot: Snapshot, profile: Profile, chance: random.Random, course: Course | None = None
) -> Placement | Failure:
    """Choose a node for a Pod; equally good ones are drawn by `chance`. What was done is written into `course`."""
    course = course or Course()
    course.filter_seconds = course.score_seconds = None
    if not snapshot.node_count:
        return Failure("no nodes available to schedule pods", 0, {}, frozenset(), ())
    for pre_filter in profile.pre_filters if info.claims else ():
        objection = pre_filter.objection(info)
        if objection:
            nodes = snapshot.node_count
            message = f"0/{nodes} nodes are available: {objection}."
            return Failure(message, nodes, {}, frozenset({pre_filter.name}), ())
    began = perf_counter()
    masks: list[tuple[Filter, Mask]] = []
    mask = snapshot.alive.copy()
    for plugin in profile.filters:
        ruled = plugin.mask(info, snapshot)
        if ruled is not None:
            masks.append((plugin, ruled))
            mask &= ruled
            course.filters[plugin.name] += 1
    feasible = np.flatnonzero(mask)
    filtered = perf_counter()
    course.filter_seconds = filtered - began
    if not len(feasible):
        return _explain(info, snapshot, masks)
    chosen = int(feasible[0])
    if len(feasible) > 1:
        total = np.zeros(len(feasible), np.float64)
        for scorer in profile.scorers:
            scores = scorer.scores(info, snapshot, feasible)
            if scores is not None:
                total += scorer.weight * scores
                course.scorers[scorer.name] += 1
        best = np.flatnonzero(total == total.max())
        chosen = int(feasible[best[chance.randrange(len(best))]])
        course.score_seconds = perf_counter() - filtered
    row = snapshot.rows[chosen]
    assert row is not None
    return Placement(row.name, evaluated=snapshot.node_count, feasible=len(feasible))


def _explain(info: PodInfo, snapshot: Snapshot, masks: list[tuple[Filter, Mask]]) -> Failure:
    nodes = snapshot.node_count
    counts: Counter[str] = Counter()
    rejected_by: set[str] = set()
    candidates: list[NodeRow] = []
    named = named_nodes(info.pod.spec)
    for row in snapshot.live_rows():
        if named is not None and row.name not in named:
            rejected_by.add("NodeAffinity")
            counts["node(s) didn't satisfy plugin(s) [NodeAffinity]"] += 1
            continue
        for plugin, mask in masks:
            if not mask[row.index]:
                rejected_by.add(plugin.name)
                counts.update(plugin.reasons(info, row, snapshot))
                hopeless = isinstance(plugin, NodeResourcesFit) and plugin.hopeless(info, row, snapshot)
                if plugin.preemption_helps and not hopeless:
                    candidates.append(row)
                break
    return Failure(fit_message(nodes, counts), nodes, counts, frozenset(rejected_by), tuple(candidates))


def fit_message(nodes: int, reasons: Mapping[str, int]) -> str:
    """Write upstream's summary: reasons sorted as text, each with its number of nodes."""
    parts = sorted(f"{count} {reason}" for reason, count in reasons.items())
    return f"0/{nodes} nodes are available: " + (", ".join(parts) + "." if parts else "")

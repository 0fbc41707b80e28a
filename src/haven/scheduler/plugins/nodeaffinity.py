"""NodeAffinity: nodeSelector and required node affinity rule nodes out, preferred terms add their weights."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from haven.api.core import v1 as core
from haven.api.core.nodeselection import matches_required, matches_term
from haven.apimachinery import serialization
from haven.apimachinery.names import UID
from haven.scheduler.plugins.interface import Floats
from haven.scheduler.plugins.nodecache import NodeCache
from haven.scheduler.plugins.normalize import share
from haven.scheduler.podinfo import PodInfo
from haven.scheduler.snapshot import Mask, NodeRow, Snapshot

__all__ = ["NodeAffinity", "named_nodes"]


class NodeAffinity:
    name = "NodeAffinity"
    weight = 2
    preemption_helps = False

    def __init__(self, snapshot: Snapshot) -> None:
        self._cache = NodeCache(snapshot)

    def mask(self, info: PodInfo, snapshot: Snapshot) -> Mask | None:
        spec = info.pod.spec
        affinity = _node_affinity(spec)
        required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
        if not spec.node_selector and required is None:
            return None
        named = named_nodes(spec)
        if named is not None:  # A DaemonSet's Pod: do not ask 5,000 nodes for their name.
            mask = np.zeros(snapshot.width, np.bool_)
            for name in named:
                row = snapshot.by_name.get(name)
                if row is not None and row.node is not None:
                    mask[row.index] = matches_required(spec, row.name, row.labels)
            return mask
        question = (tuple(sorted(spec.node_selector.items())), serialization.encode(required))
        fits = self._cache.answers(question, lambda row: int(matches_required(spec, row.name, row.labels)))
        result: Mask = fits == 1
        return result

    def reasons(self, info: PodInfo, row: NodeRow, snapshot: Snapshot) -> list[str]:
        return ["node(s) didn't match Pod's node affinity/selector"]

    def fits_without(self, info: PodInfo, row: NodeRow, snapshot: Snapshot, gone: Collection[UID]) -> bool:
        return matches_required(info.pod.spec, row.name, row.labels)

    def scores(self, info: PodInfo, snapshot: Snapshot, feasible: NDArray[np.intp]) -> Floats | None:
        affinity = _node_affinity(info.pod.spec)
        preferred = affinity.preferred_during_scheduling_ignored_during_execution if affinity else []
        if not preferred:
            return None
        question = serialization.encode(preferred)
        liked = self._cache.answers(
            question,
            lambda row: sum(
                term.weight for term in preferred if term.weight and matches_term(term.preference, row.name, row.labels)
            ),
        )[feasible]
        return share(liked)


def named_nodes(spec: core.PodSpec) -> set[str] | None:
    """Return the nodes that every term of the required affinity names by metadata.name; None if one does not."""
    affinity = _node_affinity(spec)
    required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
    if required is None or not required.node_selector_terms:
        return None
    names: set[str] = set()
    for term in required.node_selector_terms:
        named = [set(item.values) for item in term.match_fields if item.operator == "In"]
        if not named:
            return None
        names |= set.intersection(*named)
    return names


def _node_affinity(spec: core.PodSpec) -> core.NodeAffinity | None:
    return spec.affinity.node_affinity if spec.affinity else None

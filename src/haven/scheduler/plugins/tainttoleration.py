"""TaintToleration: NoSchedule and NoExecute taints rule a node out, PreferNoSchedule ones make it less liked."""

from __future__ import annotations

from collections.abc import Collection, Hashable

import numpy as np
from numpy.typing import NDArray

from haven.api.core import v1 as core
from haven.api.core.taints import PREFER_NO_SCHEDULE, blocks_scheduling, tolerates, untolerated
from haven.apimachinery.names import UID
from haven.scheduler.plugins.interface import Floats
from haven.scheduler.plugins.nodecache import NodeCache
from haven.scheduler.plugins.normalize import reversed_share
from haven.scheduler.podinfo import PodInfo
from haven.scheduler.snapshot import Mask, NodeRow, Snapshot

__all__ = ["TaintToleration"]


class TaintToleration:
    name = "TaintToleration"
    weight = 3
    preemption_helps = False

    def __init__(self, snapshot: Snapshot) -> None:
        self._cache = NodeCache(snapshot)

    def mask(self, info: PodInfo, snapshot: Snapshot) -> Mask | None:
        tolerations = info.pod.spec.tolerations
        blocked = self._cache.answers(
            ("blocks", *_signature(tolerations)),
            lambda row: int(untolerated(_taints(row), tolerations, blocks_scheduling) is not None),
        )
        mask: Mask = blocked == 0
        return mask

    def reasons(self, info: PodInfo, row: NodeRow, snapshot: Snapshot) -> list[str]:
        return ["node(s) had untolerated taint(s)"]

    def fits_without(self, info: PodInfo, row: NodeRow, snapshot: Snapshot, gone: Collection[UID]) -> bool:
        return untolerated(_taints(row), info.pod.spec.tolerations, blocks_scheduling) is None

    def scores(self, info: PodInfo, snapshot: Snapshot, feasible: NDArray[np.intp]) -> Floats | None:
        tolerations = [item for item in info.pod.spec.tolerations if item.effect in ("", PREFER_NO_SCHEDULE)]
        disliked = self._cache.answers(
            ("dislikes", *_signature(tolerations)),
            lambda row: sum(
                taint.effect == PREFER_NO_SCHEDULE and not any(tolerates(item, taint) for item in tolerations)
                for taint in _taints(row)
            ),
        )[feasible]
        return reversed_share(disliked)


def _taints(row: NodeRow) -> list[core.Taint]:
    return row.node.spec.taints if row.node else []


def _signature(tolerations: list[core.Toleration]) -> tuple[Hashable, ...]:
    return tuple((item.key, item.operator, item.value, item.effect) for item in tolerations)

"""NodeUnschedulable: a cordoned node takes no new Pods, except those that tolerate the taint it stands for."""

from __future__ import annotations

from collections.abc import Collection

from haven.api.core import v1 as core
from haven.api.core.taints import NO_SCHEDULE, tolerates
from haven.apimachinery.names import UID
from haven.scheduler.plugins.nodecache import NodeCache
from haven.scheduler.podinfo import PodInfo
from haven.scheduler.snapshot import Mask, NodeRow, Snapshot

__all__ = ["NodeUnschedulable"]

_TAINT = core.Taint(key="node.kubernetes.io/unschedulable", effect=NO_SCHEDULE)


class NodeUnschedulable:
    name = "NodeUnschedulable"
    preemption_helps = False

    def __init__(self, snapshot: Snapshot) -> None:
        self._cache = NodeCache(snapshot)

    def mask(self, info: PodInfo, snapshot: Snapshot) -> Mask | None:
        if any(tolerates(toleration, _TAINT) for toleration in info.pod.spec.tolerations):
            return None
        cordoned = self._cache.answers("cordoned", lambda row: int(bool(row.node and row.node.spec.unschedulable)))
        mask: Mask = cordoned == 0
        return mask

    def reasons(self, info: PodInfo, row: NodeRow, snapshot: Snapshot) -> list[str]:
        return ["node(s) were unschedulable"]

    def fits_without(self, info: PodInfo, row: NodeRow, snapshot: Snapshot, gone: Collection[UID]) -> bool:
        return bool(row.node) and not (row.node and row.node.spec.unschedulable)

"""NodeName: a Pod that names its node goes nowhere else."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from haven.apimachinery.names import UID
from haven.scheduler.podinfo import PodInfo
from haven.scheduler.snapshot import Mask, NodeRow, Snapshot

__all__ = ["NodeName"]


class NodeName:
    name = "NodeName"
    preemption_helps = False

    def mask(self, info: PodInfo, snapshot: Snapshot) -> Mask | None:
        wanted = info.pod.spec.node_name
        if not wanted:
            return None
        mask = np.zeros(snapshot.width, np.bool_)
        row = snapshot.by_name.get(wanted)
        if row is not None:
            mask[row.index] = True
        return mask

    def reasons(self, info: PodInfo, row: NodeRow, snapshot: Snapshot) -> list[str]:
        return ["node(s) didn't match the requested node name"]

    def fits_without(self, info: PodInfo, row: NodeRow, snapshot: Snapshot, gone: Collection[UID]) -> bool:
        return info.pod.spec.node_name in ("", row.name)

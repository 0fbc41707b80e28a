"""VolumeRestrictions: what can be used once only, is.

A claim with the access mode ReadWriteOncePod admits one Pod in the whole cluster; some disks that Pods name directly
admit one writer, or one Pod, per node.
Source: https://kubernetes.io/docs/concepts/storage/persistent-volumes/#access-modes
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from haven.api.core import v1 as core
from haven.apimachinery.names import UID
from haven.scheduler.podinfo import PodInfo
from haven.scheduler.snapshot import Mask, NodeRow, Snapshot
from haven.scheduler.volumes import Volumes

__all__ = ["VolumeRestrictions"]

DISK_TAKEN = "node(s) had no available disk"
CLAIM_TAKEN = (
    "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod"
)


class VolumeRestrictions:
    name = "VolumeRestrictions"
    preemption_helps = True

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes

    def objection(self, info: PodInfo) -> str:
        for use in info.claims:
            if not use.is_ephemeral and self._volumes.claim(info.namespace, use.name) is None:
                return f'persistentvolumeclaim "{use.name}" not found'
        return ""

    def mask(self, info: PodInfo, snapshot: Snapshot) -> Mask | None:
        if any(snapshot.claim_users.get(place) for place in self._exclusive(info)):
            return np.zeros(snapshot.width, np.bool_)
        disks = _disks(info.pod)
        if not disks:
            return None
        mask = snapshot.alive.copy()
        for row in snapshot.live_rows():
            mask[row.index] = not _conflict(disks, row.pods.values())
        return mask

    def reasons(self, info: PodInfo, row: NodeRow, snapshot: Snapshot) -> list[str]:
        return [DISK_TAKEN if _conflict(_disks(info.pod), row.pods.values()) else CLAIM_TAKEN]

    def fits_without(self, info: PodInfo, row: NodeRow, snapshot: Snapshot, gone: Collection[UID]) -> bool:
        for place in self._exclusive(info):
            freed = sum(place in row.pods[uid].claim_places for uid in gone if uid in row.pods)
            if snapshot.claim_users.get(place, 0) > freed:
                return False
        return not _conflict(_disks(info.pod), [other for uid, other in row.pods.items() if uid not in gone])

    def _exclusive(self, info: PodInfo) -> list[str]:
        """Return the places of the claims that only one Pod may use."""
        found = []
        for use in info.claims:
            claim = None if use.is_ephemeral else self._volumes.claim(info.namespace, use.name)
            if claim is not None and "ReadWriteOncePod" in claim.spec.access_modes:
                found.append(f"{info.namespace}/{use.name}")
        return found


def _disks(pod: core.Pod) -> list[core.Volume]:
    return [
        volume
        for volume in pod.spec.volumes
        if volume.gce_persistent_disk or volume.aws_elastic_block_store or volume.iscsi or volume.rbd
    ]


def _conflict(disks: Collection[core.Volume], pods: Collection[PodInfo]) -> bool:
    if not disks:
        return False
    return any(_excludes(disk, taken) for other in pods for taken in other.pod.spec.volumes for disk in disks)


def _excludes(wanted: core.Volume, taken: core.Volume) -> bool:
    """Tell whether two Pods cannot use two volumes on one node: the same disk, and not both only read it."""
    if wanted.gce_persistent_disk and taken.gce_persistent_disk:
        mine, theirs = wanted.gce_persistent_disk, taken.gce_persistent_disk
        return mine.pd_name == theirs.pd_name and not (mine.read_only and theirs.read_only)
    if wanted.aws_elastic_block_store and taken.aws_elastic_block_store:
        return wanted.aws_elastic_block_store.volume_id == taken.aws_elastic_block_store.volume_id
    if wanted.iscsi and taken.iscsi:
        return wanted.iscsi.iqn == taken.iscsi.iqn and not (wanted.iscsi.read_only and taken.iscsi.read_only)
    if wanted.rbd and taken.rbd:
        same = (wanted.rbd.pool, wanted.rbd.image) == (taken.rbd.pool, taken.rbd.image)
        shared = not set(wanted.rbd.monitors or ()).isdisjoint(taken.rbd.monitors or ())
        return same and shared and not (wanted.rbd.read_only and taken.rbd.read_only)
    return False

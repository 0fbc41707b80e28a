"""VolumeZone: a volume with zone or region labels is used in that zone or region only.

A node without any such label is taken to be in the only zone there is.
Source: https://kubernetes.io/docs/reference/labels-annotations-taints/#topologykubernetesiozone
"""

from __future__ import annotations

from collections.abc import Collection

from haven.api.core.volumebinding import class_of_claim
from haven.apimachinery.names import UID
from haven.scheduler.podinfo import PodInfo
from haven.scheduler.snapshot import Mask, NodeRow, Snapshot
from haven.scheduler.volumes import Claim, Volume, Volumes

__all__ = ["VolumeZone"]

CONFLICT = "node(s) had no available volume zone"
_BETA_ZONE, _BETA_REGION = "failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region"
_CURRENT = {
    _BETA_ZONE: "topology.kubernetes.io/zone",
    _BETA_REGION: "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region": "topology.kubernetes.io/region",
}
_SEPARATOR = "__"  # Between the zones of a volume that is in several.

_Topology = list[tuple[str, frozenset[str]]]


class VolumeZone:
    name = "VolumeZone"
    preemption_helps = False

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes

    def objection(self, info: PodInfo) -> str:
        found = self._topology(info)
        return found if isinstance(found, str) else ""

    def mask(self, info: PodInfo, snapshot: Snapshot) -> Mask | None:
        topology = self._topology(info)
        if not topology or isinstance(topology, str):
            return None
        mask = snapshot.alive.copy()
        for row in snapshot.live_rows():
            mask[row.index] = _is_within(topology, row)
        return mask

    def reasons(self, info: PodInfo, row: NodeRow, snapshot: Snapshot) -> list[str]:
        return [CONFLICT]

    def fits_without(self, info: PodInfo, row: NodeRow, snapshot: Snapshot, gone: Collection[UID]) -> bool:
        topology = self._topology(info)
        return not isinstance(topology, str) and _is_within(topology, row)

    def _topology(self, info: PodInfo) -> _Topology | str:
        """Return where a Pod's volumes are, or why that is not known."""
        found: _Topology = []
        for use in info.claims:
            if use.is_ephemeral:
                continue
            claim = self._volumes.claim(info.namespace, use.name)
            if claim is None:
                return f'persistentvolumeclaim "{use.name}" not found'
            if not claim.spec.volume_name:
                complaint = self._unbound_complaint(claim)
                if complaint:
                    return complaint
                continue
            volume = self._volumes.volume(claim.spec.volume_name)
            if volume is None:
                return f'persistentvolume "{claim.spec.volume_name}" not found'
            found += _labelled(volume)
        return found

    def _unbound_complaint(self, claim: Claim) -> str:
        name = class_of_claim(claim)
        if not name:
            return "PersistentVolumeClaim had no pv name and storageClass name"
        storage_class = self._volumes.listers.classes.get("", name)
        if storage_class is None:
            return f'storageclass.storage.k8s.io "{name}" not found'
        return "" if storage_class.volume_binding_mode == "WaitForFirstConsumer" else "PersistentVolume had no name"


def _labelled(volume: Volume) -> _Topology:
    found = []
    for key in _CURRENT:
        values = [each.strip() for each in volume.metadata.labels.get(key, "").split(_SEPARATOR)]
        if all(values):
            found.append((key, frozenset(values)))
    return found


def _is_within(topology: _Topology, row: NodeRow) -> bool:
    if not any(key in row.labels for key in _CURRENT):
        return True
    return all(row.labels.get(key, row.labels.get(_CURRENT[key])) in values for key, values in topology)

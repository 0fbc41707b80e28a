"""VolumeBinding: a Pod goes where its volumes are or can be.

Bound claims: the volume's node affinity must match. Claims that wait for their first consumer: a free volume that the
node reaches, else a provisioner that can make one there. Other unbound claims are waited for, wherever the Pod goes.
Source: https://kubernetes.io/docs/concepts/storage/storage-classes/#volume-binding-mode
and https://kubernetes.io/docs/concepts/storage/storage-capacity/
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from haven.api.core import v1 as core
from haven.api.core.volumebinding import SELECTED_NODE, FreeVolumes, class_of_claim, is_reachable
from haven.api.storage import v1 as storage
from haven.apimachinery.names import UID
from haven.apimachinery.quantity import Quantity
from haven.apimachinery.selectors import from_label_selector
from haven.client.owner import is_controlled_by
from haven.scheduler.podinfo import PodInfo
from haven.scheduler.snapshot import Mask, NodeRow, Snapshot
from haven.scheduler.volumes import Claim, PodClaims, PodVolumes, StaticBinding, Volumes

__all__ = ["VolumeBinding", "ephemeral_complaint"]

NO_AFFINITY = "node(s) didn't match PersistentVolume's node affinity"
NO_MATCH = "node(s) didn't find available persistent volumes to bind"
NO_SPACE = "node(s) did not have enough free storage"
NO_VOLUME = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
NO_PROVISIONER = "kubernetes.io/no-provisioner"

_Free = Mapping[str, FreeVolumes]


class VolumeBinding:
    name = "VolumeBinding"
    preemption_helps = False

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes

    def objection(self, info: PodInfo) -> str:
        for use in info.claims:
            claim = self._volumes.claim(info.namespace, use.name)
            if claim is None:
                if use.is_ephemeral:
                    return f'waiting for ephemeral volume controller to create the persistentvolumeclaim "{use.name}"'
                return f'persistentvolumeclaim "{use.name}" not found'
            if claim.status.phase == "Lost":
                volume = claim.spec.volume_name
                return f'persistentvolumeclaim "{use.name}" bound to non-existent persistentvolume "{volume}"'
            if claim.metadata.deletion_timestamp is not None:
                return f'persistentvolumeclaim "{use.name}" is being deleted'
            if use.is_ephemeral and (complaint := ephemeral_complaint(info, claim)):
                return complaint
        if info.claims and self._volumes.claims_of(info).immediate:
            return "pod has unbound immediate PersistentVolumeClaims"
        return ""

    def mask(self, info: PodInfo, snapshot: Snapshot) -> Mask | None:
        if not info.claims:
            return None
        claims = self._volumes.claims_of(info)
        if not claims.delayed and not any(map(self._is_bound_to_a_place, claims.bound)):
            return None
        mask, free = snapshot.alive.copy(), self._free_volumes(claims)
        for row in snapshot.live_rows():
            mask[row.index] = not self._find(claims, row, free)[1]
        return mask

    def reasons(self, info: PodInfo, row: NodeRow, snapshot: Snapshot) -> list[str]:
        claims = self._volumes.claims_of(info)
        return self._find(claims, row, self._free_volumes(claims))[1]

    def fits_without(self, info: PodInfo, row: NodeRow, snapshot: Snapshot, gone: Collection[UID]) -> bool:
        return not info.claims or not self.reasons(info, row, snapshot)

    def decide(self, info: PodInfo, row: NodeRow) -> PodVolumes:
        """Return what must be bound and provisioned for a Pod on a node that will do."""
        if not info.claims:
            return PodVolumes()
        claims = self._volumes.claims_of(info)
        return self._find(claims, row, self._free_volumes(claims))[0]

    def _free_volumes(self, claims: PodClaims) -> _Free:
        """Return, by claim, the volumes to choose from; for claims that none is being made for."""
        return {
            claim.metadata.name: FreeVolumes(claim, self._volumes.volumes_of_class(class_of_claim(claim)))
            for claim in claims.delayed
            if SELECTED_NODE not in claim.metadata.annotations
        }

    def _is_bound_to_a_place(self, claim: Claim) -> bool:
        volume = self._volumes.volume(claim.spec.volume_name)
        return volume is None or volume.spec.node_affinity is not None

    def _find(self, claims: PodClaims, row: NodeRow, free: _Free) -> tuple[PodVolumes, list[str]]:
        """Return a way to give a Pod its volumes on a node, and why there is none."""
        reasons: list[str] = []
        is_missing = False
        for claim in claims.bound:
            volume = self._volumes.volume(claim.spec.volume_name)
            if volume is None:
                is_missing = True
                break
            if not is_reachable(volume, row.labels):
                reasons.append(NO_AFFINITY)
                break
        found, complaint = self._find_delayed(claims.delayed, row, free)
        if complaint:
            reasons.append(complaint)
        if is_missing:
            reasons.append(NO_VOLUME)
        return found, reasons

    def _find_delayed(self, claims: Collection[Claim], row: NodeRow, free: _Free) -> tuple[PodVolumes, str]:
        to_match: list[Claim] = []
        to_provision: list[Claim] = []
        for claim in claims:
            chosen = claim.metadata.annotations.get(SELECTED_NODE)
            if chosen is None:
                to_match.append(claim)
            elif chosen == row.name:
                to_provision.append(claim)
            else:
                return PodVolumes(), NO_MATCH  # Being made for another node.
        bindings: list[StaticBinding] = []
        taken: set[str] = set()
        for claim in sorted(to_match, key=_size):  # Small ones first, so that large volumes are left for large claims.
            volume = free[claim.metadata.name].on_node(row.labels, taken=taken)
            if volume is None:
                to_provision.append(claim)
                continue
            taken.add(volume.metadata.name)
            bindings.append(StaticBinding(volume, claim))
        for claim in to_provision:
            complaint = self._cannot_provision(claim, row)
            if complaint:
                return PodVolumes(), complaint
        return PodVolumes(tuple(bindings), tuple(to_provision)), ""

    def _cannot_provision(self, claim: Claim, row: NodeRow) -> str:
        storage_class = self._volumes.listers.classes.get("", class_of_claim(claim))
        if storage_class is None or storage_class.provisioner in ("", NO_PROVISIONER):
            return NO_MATCH
        if not _is_allowed(storage_class.allowed_topologies, row.labels):
            return NO_MATCH
        return "" if self._has_capacity(claim, storage_class, row) else NO_SPACE

    def _has_capacity(self, claim: Claim, storage_class: storage.StorageClass, row: NodeRow) -> bool:
        """Tell whether a driver that publishes its capacity has enough of it within a node's reach."""
        wanted = claim.spec.resources.requests.get("storage")
        driver = self._volumes.listers.csi_drivers.get("", storage_class.provisioner)
        if wanted is None or driver is None or not driver.spec.storage_capacity:
            return True
        return any(
            each.storage_class_name == storage_class.metadata.name
            and _largest(each) >= wanted
            and each.node_topology is not None
            and from_label_selector(each.node_topology).matches(row.labels)
            for each in self._volumes.listers.capacities.list()
        )


def ephemeral_complaint(info: PodInfo, claim: Claim) -> str:
    """Return why a claim is not that of a Pod's ephemeral volume, "" if it is: somebody may have taken its name."""
    if is_controlled_by(claim, info.uid):
        return ""
    return (
        f"PVC {claim.metadata.namespace}/{claim.metadata.name} was not created for pod "
        f"{info.namespace}/{info.name} (pod is not owner)"
    )


def _is_allowed(terms: Collection[core.TopologySelectorTerm], labels: Mapping[str, str]) -> bool:
    """Tell whether a node meets one of the terms; no terms: every node does. A term without expressions: none."""
    if not terms:
        return True
    return any(
        term.match_label_expressions
        and all(labels.get(each.key) in (each.values or ()) for each in term.match_label_expressions)
        for term in terms
    )


def _largest(capacity: storage.CSIStorageCapacity) -> Quantity:
    return capacity.maximum_volume_size or capacity.capacity or Quantity.ZERO


def _size(claim: Claim) -> Quantity:
    return claim.spec.resources.requests.get("storage", Quantity.ZERO)

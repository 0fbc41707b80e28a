"""Bind claims to volumes, have volumes made for claims by external provisioners, reclaim volumes of deleted claims.

The volume is written first, then the claim: a claim that says it is bound can be trusted. Every step can be repeated
after a crash. Source: https://kubernetes.io/docs/concepts/storage/persistent-volumes/#lifecycle-of-a-volume-and-claim
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from haven.api.core import v1 as core
from haven.api.core.volumebinding import (
    BIND_COMPLETED,
    BOUND_BY_CONTROLLER,
    PROVISIONED_BY,
    SELECTED_NODE,
    best_match,
    bound_to,
    class_of_claim,
    default_class,
    has_class,
    is_bound_to,
    mismatch,
    modes_differ,
    unbound,
)
from haven.api.scheme import resource_of
from haven.api.storage import v1 as storage
from haven.apimachinery import apierrors, serialization
from haven.apimachinery.quantity import Quantity
from haven.controllers import pods
from haven.controllers.actions import Delete, Emit, Fetch, Requeue, Retry, Steps, Update, Wiring
from haven.controllers.counts import Counts
from haven.controllers.hostpathdriver import HostPathError
from haven.controllers.protection import CLAIMS, index_by_claim

__all__ = ["VolumeBinder"]

RESYNC_SECONDS = 15.0  # How often what cannot go on is tried again, and says so in an Event.
PROVISIONER, BETA_PROVISIONER = (
    "volume.kubernetes.io/storage-provisioner",
    "volume.beta.kubernetes.io/storage-provisioner",
)
MIGRATED_TO = "pv.kubernetes.io/migrated-to"
PRE_RESIZE = "volume.alpha.kubernetes.io/pre-resize-capacity"
IN_TREE_FINALIZER = "kubernetes.io/pv-controller"
WAITING = "waiting"

# Provisioners that once were part of Kubernetes, and the CSI drivers that do their work.
_DRIVER_OF = {
    "kubernetes.io/aws-ebs": "ebs.csi.aws.com",
    "kubernetes.io/azure-disk": "disk.csi.azure.com",
    "kubernetes.io/azure-file": "file.csi.azure.com",
    "kubernetes.io/cinder": "cinder.csi.openstack.org",
    "kubernetes.io/gce-pd": "pd.csi.storage.gke.io",
    "kubernetes.io/portworx-volume": "pxd.portworx.com",
    "kubernetes.io/vsphere-volume": "csi.vsphere.vmware.com",
}

_Claim: TypeAlias = core.PersistentVolumeClaim
_Volume: TypeAlias = core.PersistentVolume
_CLAIMS, _VOLUMES = resource_of(_Claim), resource_of(_Volume)


@dataclass(frozen=True, slots=True)
class _ClaimKey:
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class _VolumeKey:
    name: str


def _index_waiting(claim: _Claim) -> Iterable[str]:
    """Index claims that are not bound yet."""
    return () if BIND_COMPLETED in claim.metadata.annotations else (WAITING,)


class VolumeBinder:
    """Keys are claims and volumes. One worker: two claims must not be given the same volume."""

    workers = 1

    def __init__(self, wiring: Wiring, *, delete_directory: Callable[[str], None] | None = None) -> None:
        """`delete_directory` deletes the directory of a hostPath volume, or raises HostPathError."""
        self._wiring = wiring
        self._delete_directory = delete_directory
        self._claims = wiring.reader(_Claim)
        self._volumes = wiring.reader(_Volume)
        self._classes = wiring.reader(storage.StorageClass)
        self._pods = wiring.reader(core.Pod)
        self.counts = Counts()
        for name, is_bound in (("bound", True), ("unbound", False)):
            self.counts.gauges[f"pv_collector_{name}_pv_count"] = partial(self._volumes_by_class, is_bound)
            self.counts.gauges[f"pv_collector_{name}_pvc_count"] = partial(self._claims_by_class, is_bound)
        self._claims.add_index(WAITING, _index_waiting)
        self._pods.add_index(CLAIMS, index_by_claim)
        self._claims.add_handler(self._claim_changed)
        self._volumes.add_handler(self._volume_changed)
        self._classes.add_handler(self._class_changed)

    def _volumes_by_class(self, is_bound: bool) -> dict[tuple[str, ...], float]:
        found = Counter(
            one.spec.storage_class_name for one in self._volumes.list() if (one.status.phase == "Bound") is is_bound
        )
        return {(name,): number for name, number in found.items()}

    def _claims_by_class(self, is_bound: bool) -> dict[tuple[str, ...], float]:
        return dict(
            Counter(
                (one.metadata.namespace, class_of_claim(one), one.spec.volume_attributes_class_name or "")
                for one in self._claims.list()
                if (one.status.phase == "Bound") is is_bound
            )
        )

    def _claim_changed(self, old: _Claim | None, new: _Claim | None) -> None:
        if new is not None:
            self._wiring.enqueue(_ClaimKey(new.metadata.namespace, new.metadata.name))
        elif old is not None and old.spec.volume_name:
            self._wiring.enqueue(_VolumeKey(old.spec.volume_name))

    def _volume_changed(self, old: _Volume | None, new: _Volume | None) -> None:
        volume = old if new is None else new
        assert volume is not None
        if new is not None:
            self._wiring.enqueue(_VolumeKey(new.metadata.name))
        reference = volume.spec.claim_ref
        if reference is not None:
            self._wiring.enqueue(_ClaimKey(reference.namespace, reference.name))
        elif new is not None and (old is None or old.status.phase != new.status.phase or old.spec != new.spec):
            self._enqueue_waiting()

    def _class_changed(self, old: storage.StorageClass | None, new: storage.StorageClass | None) -> None:
        if new is not None:
            self._enqueue_waiting()

    def _enqueue_waiting(self) -> None:
        for claim in self._claims.indexed(WAITING, WAITING):
            self._wiring.enqueue(_ClaimKey(claim.metadata.namespace, claim.metadata.name))

    def sync(self, key: _ClaimKey | _VolumeKey) -> Steps[None]:
        if isinstance(key, _VolumeKey):
            volume = self._volumes.get("", key.name)
            if volume is not None:
                yield from self._sync_volume(volume)
            return
        claim = self._claims.get(key.namespace, key.name)
        if claim is None:
            return
        if BIND_COMPLETED in claim.metadata.annotations:
            yield from self._keep_bound(claim)
        else:
            yield from self._find_volume(claim)

    # Claims

    def _find_volume(self, claim: _Claim) -> Steps[None]:
        if claim.spec.volume_name:
            yield from self._take_requested(claim)
            return
        storage_class = self._classes.get("", class_of_claim(claim)) if class_of_claim(claim) else None
        is_delayed = storage_class is not None and storage_class.volume_binding_mode == "WaitForFirstConsumer"
        volume = best_match(claim, self._volumes.list(), is_delayed=is_delayed)
        if volume is not None:
            yield from self._bind(volume, claim)
            return
        if not has_class(claim) and (chosen := default_class(self._classes.list())) is not None:
            changed = serialization.copy(claim)
            changed.spec.storage_class_name = chosen.metadata.name
            try:
                yield Update(changed)  # Comes back as a change.
            except apierrors.ApiError:
                self.counts.add("retroactive_storageclass_errors_total")
                raise
            self.counts.add("retroactive_storageclass_total")
            return
        yield Requeue(RESYNC_SECONDS)
        if is_delayed and SELECTED_NODE not in claim.metadata.annotations:
            yield self._waiting_event(claim)
        elif class_of_claim(claim):
            yield from self._ask_provisioner(claim, storage_class)
            return
        else:
            message = "no persistent volumes available for this claim and no storage class is set"
            yield Emit(claim, "Normal", "FailedBinding", message)
        yield from self._set_claim_phase(claim, "Pending", None)

    def _waiting_event(self, claim: _Claim) -> Emit:
        place = f"{claim.metadata.namespace}/{claim.metadata.name}"
        names = [
            pod.metadata.name
            for pod in self._pods.indexed(CLAIMS, place)
            if not pod.spec.node_name and not pods.is_finished(pod)
        ]
        if not names:
            message = "waiting for first consumer to be created before binding"
            return Emit(claim, "Normal", "WaitForFirstConsumer", message)
        plural = "s" if len(names) > 1 else ""
        return Emit(
            claim, "Normal", "WaitForPodScheduled", f"waiting for pod{plural} {','.join(names)} to be scheduled"
        )

    def _ask_provisioner(self, claim: _Claim, storage_class: storage.StorageClass | None) -> Steps[None]:
        name = storage_class.provisioner if storage_class is not None else ""
        complaint = ""
        if storage_class is None:
            complaint = f'storageclass.storage.k8s.io "{class_of_claim(claim)}" not found'
        elif name.startswith("kubernetes.io/") and name not in _DRIVER_OF:
            complaint = f"no volume plugin matched name: {name}"
        if complaint:
            yield Emit(claim, "Warning", "ProvisioningFailed", complaint)
            return
        driver = _DRIVER_OF.get(name, name)
        annotations = {PROVISIONER: driver, BETA_PROVISIONER: driver}
        if any(claim.metadata.annotations.get(key) != value for key, value in annotations.items()):
            changed = serialization.copy(claim)
            changed.metadata.annotations |= annotations
            claim = yield Update(changed)
        message = (
            f"Waiting for a volume to be created either by the external provisioner '{driver}' or manually by the "
            "system administrator. If volume creation is delayed, please verify that the provisioner is running and "
            "correctly registered."
        )
        yield Emit(claim, "Normal", "ExternalProvisioning", message)

    def _take_requested(self, claim: _Claim) -> Steps[None]:
        """Bind a claim that asks for a volume by name."""
        name = claim.spec.volume_name
        volume = self._volumes.get("", name)
        if volume is None:
            yield from self._set_claim_phase(claim, "Pending", None)
            yield Requeue(RESYNC_SECONDS)
        elif volume.spec.claim_ref is None:
            reason = mismatch(volume, claim)
            if not reason:
                yield from self._bind(volume, claim)
                return
            yield Emit(claim, "Warning", "VolumeMismatch", f'Cannot bind to requested volume "{name}": {reason}')
            yield from self._set_claim_phase(claim, "Pending", None)
            yield Requeue(RESYNC_SECONDS)
        elif is_bound_to(volume, claim):
            yield from self._bind(volume, claim)
        else:
            message = f'volume "{name}" already bound to a different claim.'
            yield Emit(claim, "Warning", "FailedBinding", message)
            if BOUND_BY_CONTROLLER in claim.metadata.annotations:
                raise Retry(f"{name} is claimed by another than {claim.metadata.name}")
            yield from self._set_claim_phase(claim, "Pending", None)
            yield Requeue(RESYNC_SECONDS)

    def _keep_bound(self, claim: _Claim) -> Steps[None]:
        name = claim.spec.volume_name
        volume = self._volumes.get("", name) if name else None
        if not name:
            message = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!"
            yield from self._lose(claim, "ClaimLost", message)
        elif volume is None:
            message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
            yield from self._lose(claim, "ClaimLost", message)
        elif volume.spec.claim_ref is None or volume.spec.claim_ref.uid == claim.metadata.uid:
            yield from self._bind(volume, claim)
        else:
            message = "Two claims are bound to the same volume, this one is bound incorrectly"
            yield from self._lose(claim, "ClaimMisbound", message)

    def _lose(self, claim: _Claim, reason: str, message: str) -> Steps[None]:
        if claim.status.phase != "Lost":
            claim = yield from self._set_claim_phase(claim, "Lost", None)
            yield Emit(claim, "Warning", reason, message)

    def _bind(self, volume: _Volume, claim: _Claim) -> Steps[None]:
        """Make both sides say that they are bound to each other; in this order."""
        changed = bound_to(volume, claim)
        if changed is not None:
            volume = yield Update(changed)
        volume = yield from self._set_volume_phase(volume, "Bound")
        annotations = claim.metadata.annotations
        if claim.spec.volume_name != volume.metadata.name or BIND_COMPLETED not in annotations:
            bound = serialization.copy(claim)
            if claim.spec.volume_name != volume.metadata.name:
                bound.spec.volume_name = volume.metadata.name
                bound.metadata.annotations.setdefault(BOUND_BY_CONTROLLER, "yes")
            bound.metadata.annotations.setdefault(BIND_COMPLETED, "yes")
            claim = yield Update(bound)
        yield from self._set_claim_phase(claim, "Bound", volume)

    def _set_claim_phase(self, claim: _Claim, phase: str, volume: _Volume | None) -> Steps[_Claim]:
        changed = serialization.copy(claim)
        status = changed.status
        if volume is None:
            status.access_modes, status.capacity, status.current_volume_attributes_class_name = [], {}, None
        else:
            status.access_modes = list(volume.spec.access_modes)
            if status.phase != phase:
                self._take_capacity(status, volume)
            if status.phase == "Pending" and phase == "Bound":
                status.current_volume_attributes_class_name = volume.spec.volume_attributes_class_name
        status.phase = phase
        if changed.status == claim.status:
            return claim
        updated: _Claim = yield Update(changed, "status")
        return updated

    def _take_capacity(self, status: core.PersistentVolumeClaimStatus, volume: _Volume) -> None:
        if PRE_RESIZE in volume.metadata.annotations:
            status.capacity["storage"] = Quantity.parse(volume.metadata.annotations[PRE_RESIZE])
        elif status.capacity.get("storage") != volume.spec.capacity.get("storage"):
            status.capacity = dict(volume.spec.capacity)

    # Volumes

    def _sync_volume(self, volume: _Volume) -> Steps[None]:
        reference = volume.spec.claim_ref
        if reference is None or not reference.uid:
            yield from self._set_volume_phase(volume, "Available")
            return
        claim: _Claim | None = self._claims.get(reference.namespace, reference.name)
        if claim is None or claim.metadata.uid != reference.uid:
            if claim is not None or volume.status.phase not in ("Released", "Failed"):
                # The cache may be behind, and what follows may delete data: ask the server.
                claim = yield Fetch(_CLAIMS, reference.namespace, reference.name)
            if claim is not None and claim.metadata.uid != reference.uid:
                claim = None
        if claim is None:
            yield from self._release(volume)
        elif not claim.spec.volume_name:
            yield from self._await_claim(volume, claim)
        elif claim.spec.volume_name == volume.metadata.name:
            yield from self._set_volume_phase(volume, "Bound")
        elif PROVISIONED_BY in volume.metadata.annotations and _policy(volume) == "Delete":
            yield from self._release(volume)  # Made for this claim, which found another.
        else:
            freed = yield Update(unbound(volume))
            yield from self._set_volume_phase(freed, "Available")

    def _await_claim(self, volume: _Volume, claim: _Claim) -> Steps[None]:
        if modes_differ(volume, claim):
            start, end = "Cannot bind PersistentVolume", "due to incompatible volumeMode."
            message = f'{start} to requested PersistentVolumeClaim "{claim.metadata.name}" {end}'
            yield Emit(volume, "Warning", "VolumeMismatch", message)
            message = f'{start} "{volume.metadata.name}" to requested PersistentVolumeClaim {end}'
            yield Emit(claim, "Warning", "VolumeMismatch", message)
            return
        self._wiring.enqueue(_ClaimKey(claim.metadata.namespace, claim.metadata.name))

    def _release(self, volume: _Volume) -> Steps[None]:
        if volume.status.phase not in ("Released", "Failed"):
            volume = yield from self._set_volume_phase(volume, "Released")
        if MIGRATED_TO in volume.metadata.annotations:
            return
        match _policy(volume):
            case "Retain":
                return
            case "Delete":
                yield from self._delete(volume)
            case "Recycle":
                message = "No recycler plugin found for the volume!"
                yield from self._fail(volume, "VolumeFailedRecycle", message)
            case _:
                message = "Volume has unrecognized PersistentVolumeReclaimPolicy"
                yield from self._fail(volume, "VolumeUnknownReclaimPolicy", message)

    def _delete(self, volume: _Volume) -> Steps[None]:
        """Delete a volume and what is behind it, unless somebody else does."""
        maker = volume.metadata.annotations.get(PROVISIONED_BY, "")
        if volume.spec.csi is not None or (maker and not maker.startswith("kubernetes.io/")):
            return  # Its driver or external provisioner sees the phase Released.
        source = volume.spec.host_path
        if source is None or self._delete_directory is None:
            name = volume.metadata.name
            message = f'error getting deleter volume plugin for volume "{name}": no deletable volume plugin matched'
            yield from self._fail(volume, "VolumeFailedDelete", message)
            return
        latest: _Volume | None = yield Fetch(_VOLUMES, "", volume.metadata.name)
        if latest is None or latest.metadata.uid != volume.metadata.uid or not self._is_released(latest):
            return
        try:
            self._delete_directory(source.path)
        except HostPathError as error:
            yield from self._fail(latest, "VolumeFailedDelete", str(error))
            yield Requeue(RESYNC_SECONDS)
            return
        if IN_TREE_FINALIZER in latest.metadata.finalizers:
            changed = serialization.copy(latest)
            changed.metadata.finalizers.remove(IN_TREE_FINALIZER)
            yield Update(changed)
        yield Delete(_VOLUMES, "", latest.metadata.name, uid=latest.metadata.uid)

    def _is_released(self, volume: _Volume) -> bool:
        reference = volume.spec.claim_ref
        if reference is None or not reference.uid:
            return False
        claim = self._claims.get(reference.namespace, reference.name)
        if claim is None or claim.metadata.uid != reference.uid:
            return True
        return bool(claim.spec.volume_name) and claim.spec.volume_name != volume.metadata.name

    def _fail(self, volume: _Volume, reason: str, message: str) -> Steps[None]:
        if volume.status.phase != "Failed":
            volume = yield from self._set_volume_phase(volume, "Failed", message)
            yield Emit(volume, "Warning", reason, message)

    def _set_volume_phase(self, volume: _Volume, phase: str, message: str = "") -> Steps[_Volume]:
        if volume.status.phase == phase:
            return volume
        changed = serialization.copy(volume)
        changed.status.phase, changed.status.message = phase, message
        updated: _Volume = yield Update(changed, "status")
        return updated


def _policy(volume: _Volume) -> str:
    return volume.spec.persistent_volume_reclaim_policy

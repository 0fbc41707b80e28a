"""Say who enlarges the volume of a claim that asks for more: a driver of its own, never this program.

Source: https://kubernetes.io/docs/concepts/storage/persistent-volumes/#expanding-persistent-volumes-claims
"""

from __future__ import annotations

from haven.api.core import v1 as core
from haven.api.scheme import resource_of
from haven.apimachinery.names import NamespacedName
from haven.apimachinery.quantity import Quantity
from haven.client.interface import Patch, PatchType
from haven.controllers.actions import Change, Emit, Retry, Steps, Wiring, key_from

__all__ = ["VolumeExpandController"]

RESIZER = "volume.kubernetes.io/storage-resizer"
BEFORE_RESIZE = "volume.alpha.kubernetes.io/pre-resize-capacity"
REASON = "ExternalExpanding"
MIGRATED = {
    "aws_elastic_block_store": ("kubernetes.io/aws-ebs", "ebs.csi.aws.com"),
    "azure_disk": ("kubernetes.io/azure-disk", "disk.csi.azure.com"),
    "azure_file": ("kubernetes.io/azure-file", "file.csi.azure.com"),
    "cinder": ("kubernetes.io/cinder", "cinder.csi.openstack.org"),
    "gce_persistent_disk": ("kubernetes.io/gce-pd", "pd.csi.storage.gke.io"),
    "portworx_volume": ("kubernetes.io/portworx-volume", "pxd.portworx.com"),
    "vsphere_volume": ("kubernetes.io/vsphere-volume", "csi.vsphere.vmware.com"),
}
"""Kinds of volumes that CSI drivers serve now, by field: what they were called, and their driver."""


def _requested(claim: core.PersistentVolumeClaim) -> Quantity:
    return claim.spec.resources.requests.get("storage", Quantity.ZERO)


def _has(claim: core.PersistentVolumeClaim) -> Quantity:
    return claim.status.capacity.get("storage", Quantity.ZERO)


class VolumeExpandController:
    """Keys are claims."""

    workers = 1

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._claims = wiring.reader(core.PersistentVolumeClaim)
        self._volumes = wiring.reader(core.PersistentVolume)
        self._claims.add_handler(self._changed)

    def _changed(self, old: core.PersistentVolumeClaim | None, new: core.PersistentVolumeClaim | None) -> None:
        if new is None or new.status.phase != "Bound":
            return
        if old is None or _requested(new) > _requested(old) or _has(new) > _has(old):
            self._wiring.enqueue(key_from(new))

    def sync(self, key: NamespacedName) -> Steps[None]:
        claim = self._claims.get(*key)
        if claim is None:
            return
        volume = self._volumes.get("", claim.spec.volume_name)
        bound = volume.spec.claim_ref if volume is not None else None
        if volume is None or bound is None or bound.uid != claim.metadata.uid or bound.namespace != key.namespace:
            raise Retry(f"the claim {key.namespace}/{key.name} is not bound to its volume")
        if _requested(claim) <= _has(claim) and BEFORE_RESIZE not in volume.metadata.annotations:
            return
        for name, (plugin, driver) in MIGRATED.items():
            if getattr(volume.spec, name) is not None:
                text = f"CSI migration enabled for {plugin}; waiting for external resizer to expand the pvc"
                yield Emit(claim, "Normal", REASON, text)
                if claim.metadata.annotations.get(RESIZER) != driver:
                    patch = Patch(PatchType.MERGE, {"metadata": {"annotations": {RESIZER: driver}}})
                    yield Change(resource_of(core.PersistentVolumeClaim), key.namespace, key.name, patch, "status")
                return
        known = volume.spec.csi is not None or volume.spec.host_path is not None or volume.spec.flex_volume is not None
        yield Emit(
            claim, "Normal" if known else "Warning", REASON, "waiting for an external controller to expand this PVC"
        )

"""Rows of the group storage.k8s.io."""

from __future__ import annotations

from typing import Any

from haven.api.storage import v1 as storage_v1
from haven.apiserver.printers.format import NONE, UNSET, age

__all__ = ["ROWS"]

_DEFAULT_CLASS_ANNOTATIONS = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)


def _csi_driver(item: storage_v1.CSIDriver, now: float) -> list[Any]:
    spec = item.spec
    return [
        item.metadata.name,
        True if spec.attach_required is None else spec.attach_required,
        bool(spec.pod_info_on_mount),
        bool(spec.storage_capacity),
        ",".join(request.audience for request in spec.token_requests) if spec.token_requests else UNSET,
        bool(spec.requires_republish),
        ",".join(spec.volume_lifecycle_modes) or NONE,
        age(item.metadata.creation_timestamp, now),
    ]


def _csi_node(item: storage_v1.CSINode, now: float) -> list[Any]:
    return [item.metadata.name, len(item.spec.drivers or ()), age(item.metadata.creation_timestamp, now)]


def _storage_class(item: storage_v1.StorageClass, now: float) -> list[Any]:
    name = item.metadata.name
    if any(item.metadata.annotations.get(annotation) == "true" for annotation in _DEFAULT_CLASS_ANNOTATIONS):
        name += " (default)"
    return [
        name,
        item.provisioner,
        "Delete" if item.reclaim_policy is None else item.reclaim_policy,
        "Immediate" if item.volume_binding_mode is None else item.volume_binding_mode,
        bool(item.allow_volume_expansion),
        age(item.metadata.creation_timestamp, now),
    ]


def _volume_attachment(item: storage_v1.VolumeAttachment, now: float) -> list[Any]:
    return [
        item.metadata.name,
        item.spec.attacher,
        item.spec.source.persistent_volume_name or "",
        item.spec.node_name,
        item.status.attached,
        age(item.metadata.creation_timestamp, now),
    ]


def _volume_attributes_class(item: storage_v1.VolumeAttributesClass, now: float) -> list[Any]:
    return [item.metadata.name, item.driver_name, age(item.metadata.creation_timestamp, now)]


ROWS = {
    "CSIDriver": _csi_driver,
    "CSINode": _csi_node,
    "StorageClass": _storage_class,
    "VolumeAttachment": _volume_attachment,
    "VolumeAttributesClass": _volume_attributes_class,
}

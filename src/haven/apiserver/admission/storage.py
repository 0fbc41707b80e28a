"""Plugins of persistent storage: default class, protection of what is in use, growth.

Source: https://kubernetes.io/docs/concepts/storage/persistent-volumes/
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from haven.api import scheme
from haven.api.core import v1 as core
from haven.api.storage import v1 as storage
from haven.apimachinery.apierrors import GroupResource
from haven.apimachinery.quantity import Quantity
from haven.apiserver.admission.interface import CREATE, UPDATE, AdmissionRequest, Objects, forbidden

__all__ = ["DefaultStorageClass", "PersistentVolumeClaimResize", "StorageObjectInUseProtection", "newest_default"]

IS_DEFAULT = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")
CLASS = "volume.beta.kubernetes.io/storage-class"
"""The annotation by which old manifests name a class."""
_CLAIMS = GroupResource("", "persistentvolumeclaims")
_FINALIZERS = {
    GroupResource("", "persistentvolumes"): "kubernetes.io/pv-protection",
    _CLAIMS: "kubernetes.io/pvc-protection",
    GroupResource("storage.k8s.io", "volumeattributesclasses"): "kubernetes.io/vac-protection",
}


def newest_default(classes: Iterable[Any], annotations: Iterable[str]) -> Any | None:
    """Return the class that is marked as default: the newest, then the first by name; None if none is."""
    wanted = tuple(annotations)
    marked = [item for item in classes if any(item.metadata.annotations.get(key) == "true" for key in wanted)]
    if not marked:
        return None
    newest = max(item.metadata.creation_timestamp or "" for item in marked)
    same = (item for item in marked if (item.metadata.creation_timestamp or "") == newest)
    return min(same, key=lambda item: item.metadata.name)


class DefaultStorageClass:
    """Names the default class in claims that name none."""

    name = "DefaultStorageClass"
    resources = frozenset({_CLAIMS})

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._classes = scheme.resource_of(storage.StorageClass)

    def handles(self, operation: str) -> bool:
        return operation == CREATE

    async def admit(self, request: AdmissionRequest) -> None:
        claim: core.PersistentVolumeClaim = request.object
        if request.subresource or CLASS in claim.metadata.annotations or claim.spec.storage_class_name is not None:
            return
        default = newest_default(self._objects.list(self._classes), IS_DEFAULT)
        if default is not None:
            claim.spec.storage_class_name = default.metadata.name


class StorageObjectInUseProtection:
    """Puts finalizers on storage objects, which controllers take off when nobody uses them any more."""

    name = "StorageObjectInUseProtection"
    resources = frozenset(_FINALIZERS)

    def handles(self, operation: str) -> bool:
        return operation == CREATE

    async def admit(self, request: AdmissionRequest) -> None:
        if request.subresource:
            return
        finalizer = _FINALIZERS[request.resource.group_resource]
        metadata = request.object.metadata
        if finalizer not in metadata.finalizers:
            metadata.finalizers = [*metadata.finalizers, finalizer]


class PersistentVolumeClaimResize:
    """Lets claims grow only if they are bound and their class allows it."""

    name = "PersistentVolumeClaimResize"
    resources = frozenset({_CLAIMS})

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._classes = scheme.resource_of(storage.StorageClass)

    def handles(self, operation: str) -> bool:
        return operation == UPDATE

    async def validate(self, request: AdmissionRequest) -> None:
        if request.subresource:
            return
        new: core.PersistentVolumeClaim = request.object
        old: core.PersistentVolumeClaim = request.old
        if _size(new) <= _size(old):
            return
        if old.status.phase != "Bound":
            raise forbidden(request, "Only bound persistent volume claims can be expanded")
        name = _class_name(new)
        found = self._objects.get(self._classes, "", name) if name and name == _class_name(old) else None
        if found is None or not found.allow_volume_expansion:
            raise forbidden(
                request,
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must"
                " support resize",
            )


def _size(claim: core.PersistentVolumeClaim) -> Quantity:
    return claim.spec.resources.requests.get("storage", Quantity.ZERO)


def _class_name(claim: core.PersistentVolumeClaim) -> str:
    return claim.metadata.annotations.get(CLASS) or claim.spec.storage_class_name or ""

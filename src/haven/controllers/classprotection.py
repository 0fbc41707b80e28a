"""Hold back the deletion of volume attributes classes that claims or volumes still name.

Source: https://kubernetes.io/docs/concepts/storage/volume-attributes-classes/
"""

from __future__ import annotations

from collections.abc import Iterable

from haven.api.core import v1 as core
from haven.api.scheme import resource_of
from haven.api.storage import v1 as storage
from haven.apimachinery import apierrors, serialization
from haven.controllers.actions import ListNow, Steps, Update, Wiring

__all__ = ["AttributesClassProtectionController", "classes_of_claim", "classes_of_volume"]

FINALIZER = "kubernetes.io/vac-protection"
CLASSES = "attributes classes"


def classes_of_claim(claim: core.PersistentVolumeClaim) -> Iterable[str]:
    """Yield the classes that a claim asks for, has, or is being changed to."""
    status = claim.status
    target = status.modify_volume_status.target_volume_attributes_class_name if status.modify_volume_status else ""
    names = (claim.spec.volume_attributes_class_name, status.current_volume_attributes_class_name, target)
    return {name for name in names if name}


def classes_of_volume(volume: core.PersistentVolume) -> Iterable[str]:
    """Yield the class that a volume has."""
    return [volume.spec.volume_attributes_class_name] if volume.spec.volume_attributes_class_name else []


class AttributesClassProtectionController:
    """Keys are names of classes."""

    workers = 1

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._classes = wiring.reader(storage.VolumeAttributesClass)
        self._claims = wiring.reader(core.PersistentVolumeClaim)
        self._volumes = wiring.reader(core.PersistentVolume)
        self._claims.add_index(CLASSES, classes_of_claim)
        self._volumes.add_index(CLASSES, classes_of_volume)
        self._classes.add_handler(self._class_changed)
        self._claims.add_handler(self._claim_changed)
        self._volumes.add_handler(self._volume_changed)

    def _class_changed(
        self, old: storage.VolumeAttributesClass | None, new: storage.VolumeAttributesClass | None
    ) -> None:
        if new is not None and _wants_work(new):
            self._wiring.enqueue(new.metadata.name)

    def _claim_changed(self, old: core.PersistentVolumeClaim | None, new: core.PersistentVolumeClaim | None) -> None:
        if old is not None:
            self._given_up(classes_of_claim(old), classes_of_claim(new) if new is not None else ())

    def _volume_changed(self, old: core.PersistentVolume | None, new: core.PersistentVolume | None) -> None:
        if old is not None:
            self._given_up(classes_of_volume(old), classes_of_volume(new) if new is not None else ())

    def _given_up(self, before: Iterable[str], after: Iterable[str]) -> None:
        for name in set(before) - set(after):
            self._wiring.enqueue(name)

    def sync(self, key: str) -> Steps[None]:
        found = self._classes.get("", key)
        if found is None or not _wants_work(found):
            return
        changed = serialization.copy(found)
        if found.metadata.deletion_timestamp is None:
            changed.metadata.finalizers.append(FINALIZER)
        else:
            if self._claims.indexed(CLASSES, key) or self._volumes.indexed(CLASSES, key):
                return
            # A claim that the cache does not show yet may name the class: ask the server.
            claims = yield ListNow(resource_of(core.PersistentVolumeClaim), "")
            if any(key in classes_of_claim(claim) for claim in claims):
                return
            changed.metadata.finalizers = [each for each in changed.metadata.finalizers if each != FINALIZER]
        try:
            yield Update(changed)
        except apierrors.NotFound:
            return


def _wants_work(found: storage.VolumeAttributesClass) -> bool:
    """Tell whether a class is to be deleted and held, or is not held and not to be deleted."""
    return (found.metadata.deletion_timestamp is not None) == (FINALIZER in found.metadata.finalizers)

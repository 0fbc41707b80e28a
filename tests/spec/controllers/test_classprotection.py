"""A volume attributes class that somebody uses stays until nobody does."""

from __future__ import annotations

from tests.spec.controllers.world import START, World

from haven.api.core import v1 as core
from haven.api.storage import v1 as storage
from haven.apimachinery import meta, times
from haven.controllers.classprotection import AttributesClassProtectionController

HELD = "kubernetes.io/vac-protection"


def a_class(*finalizers: str, deleted: bool = False) -> storage.VolumeAttributesClass:
    stamp = times.format_time(START) if deleted else None
    return storage.VolumeAttributesClass(
        metadata=meta.ObjectMeta(name="fast", finalizers=list(finalizers), deletion_timestamp=stamp), driver_name="d"
    )


def a_claim() -> core.PersistentVolumeClaim:
    return core.PersistentVolumeClaim(
        metadata=meta.ObjectMeta(name="c", namespace="default"),
        spec=core.PersistentVolumeClaimSpec(volume_attributes_class_name="fast"),
    )


def names(world: World) -> list[str]:
    return [found.metadata.name for found in world.all(storage.VolumeAttributesClass)]


def test_a_class_without_the_finalizer_gets_it() -> None:
    world = World()
    world.put(a_class())
    world.start(AttributesClassProtectionController)
    world.settle()

    assert world.all(storage.VolumeAttributesClass)[0].metadata.finalizers == [HELD]


def test_a_class_that_nobody_names_goes_at_once() -> None:
    world = World()
    world.put(a_class(HELD, deleted=True))
    world.start(AttributesClassProtectionController)
    world.settle()

    assert names(world) == []


def test_a_class_stays_until_the_last_claim_that_names_it_is_gone() -> None:
    world = World()
    world.put(a_class(HELD, deleted=True), a_claim())
    world.start(AttributesClassProtectionController)
    world.settle()
    assert names(world) == ["fast"]

    world.remove(core.PersistentVolumeClaim, "default", "c")
    world.settle()

    assert names(world) == []


def test_a_volume_holds_its_class_too() -> None:
    volume = core.PersistentVolume(
        metadata=meta.ObjectMeta(name="v"), spec=core.PersistentVolumeSpec(volume_attributes_class_name="fast")
    )
    world = World()
    world.put(a_class(HELD, deleted=True), volume)
    world.start(AttributesClassProtectionController)
    world.settle()

    assert names(world) == ["fast"]

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import booleans, integers, lists, sampled_from, sets, tuples
from tests.spec.controllers.world import World

from haven.api.core import v1 as core
from haven.api.core.volumebinding import best_match
from haven.api.storage import v1 as storage
from haven.apimachinery import meta
from haven.apimachinery.quantity import Quantity
from haven.controllers.hostpathdriver import HostPathError
from haven.controllers.volumebinder import VolumeBinder

MODES = ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany")


def a_claim(name: str = "c", *, size: str = "1Gi", storage_class: str | None = "", **spec: Any) -> Any:
    resources = core.VolumeResourceRequirements(requests={"storage": Quantity.parse(size)})
    return core.PersistentVolumeClaim(
        metadata=meta.ObjectMeta(name=name, namespace="default"),
        spec=core.PersistentVolumeClaimSpec(
            access_modes=["ReadWriteOnce"], resources=resources, storage_class_name=storage_class, **spec
        ),
    )


def a_volume(name: str = "v", *, size: str = "1Gi", modes: tuple[str, ...] = MODES[:1], **spec: Any) -> Any:
    spec.setdefault("persistent_volume_reclaim_policy", "Retain")
    return core.PersistentVolume(
        metadata=meta.ObjectMeta(name=name),
        spec=core.PersistentVolumeSpec(
            capacity={"storage": Quantity.parse(size)},
            access_modes=list(modes),
            host_path=core.HostPathVolumeSource(path=f"/tmp/{name}"),
            **spec,
        ),
    )


def a_class(name: str, *, provisioner: str = "example.com/p", delayed: bool = False, default: bool = False) -> Any:
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    return storage.StorageClass(
        metadata=meta.ObjectMeta(name=name, annotations=annotations),
        provisioner=provisioner,
        volume_binding_mode="WaitForFirstConsumer" if delayed else "Immediate",
    )


def a_world(*objects: Any) -> World:
    world = World()
    world.put(*objects)
    world.start(VolumeBinder)
    return world


def claim(world: World, name: str = "c") -> core.PersistentVolumeClaim:
    return world.get(core.PersistentVolumeClaim, "default", name)  # type: ignore[no-any-return]


def volume(world: World, name: str = "v") -> core.PersistentVolume:
    return world.get(core.PersistentVolume, "", name)  # type: ignore[no-any-return]


def test_a_claim_and_a_volume_find_each_other_in_any_order() -> None:
    for first, second in ((a_claim(), a_volume()), (a_volume(), a_claim())):
        world = a_world(first)

        world.put(second)
        world.settle()

        bound, by = claim(world), volume(world)
        assert (bound.status.phase, by.status.phase) == ("Bound", "Bound")
        assert bound.spec.volume_name == "v"
        assert by.spec.claim_ref is not None
        assert by.spec.claim_ref.uid == bound.metadata.uid
        assert bound.status.access_modes == ["ReadWriteOnce"]
        assert str(bound.status.capacity["storage"]) == "1Gi"
        assert bound.metadata.annotations == {
            "pv.kubernetes.io/bind-completed": "yes",
            "pv.kubernetes.io/bound-by-controller": "yes",
        }
        assert by.metadata.annotations == {"pv.kubernetes.io/bound-by-controller": "yes"}


def test_a_claim_without_a_volume_waits_and_says_so() -> None:
    world = a_world(a_claim(), a_volume(size="500Mi"))

    assert (claim(world).status.phase, volume(world).status.phase) == ("Pending", "Available")
    assert world.events[0].message == "no persistent volumes available for this claim and no storage class is set"


def test_the_smallest_volume_that_suffices_is_taken() -> None:
    world = a_world(a_volume("big", size="9Gi"), a_volume("small", size="2Gi"), a_volume("tiny", size="1Mi"))

    world.put(a_claim())
    world.settle()

    assert claim(world).spec.volume_name == "small"


def test_two_claims_never_get_the_same_volume() -> None:
    world = a_world(a_claim("c1"), a_claim("c2"))

    world.put(a_volume())
    world.settle()

    assert sorted(each.status.phase for each in world.all(core.PersistentVolumeClaim)) == ["Bound", "Pending"]


def test_a_volume_meant_for_a_claim_goes_to_nobody_else() -> None:
    reference = core.ObjectReference(namespace="default", name="c")
    world = a_world(a_volume(claim_ref=reference), a_claim("other"))
    assert (claim(world, "other").status.phase, volume(world).status.phase) == ("Pending", "Available")

    world.put(a_claim())
    world.settle()

    assert claim(world).spec.volume_name == "v"
    assert "pv.kubernetes.io/bound-by-controller" not in volume(world).metadata.annotations


def test_a_claim_that_names_a_volume_gets_it_only_if_it_suits() -> None:
    world = a_world(a_volume("good"), a_volume("bad", storage_class_name="gold"))

    world.put(a_claim("c1", volume_name="good"), a_claim("c2", volume_name="bad"), a_claim("c3", volume_name="absent"))
    world.settle()

    assert claim(world, "c1").status.phase == "Bound"
    assert "pv.kubernetes.io/bound-by-controller" not in claim(world, "c1").metadata.annotations
    assert claim(world, "c2").status.phase == claim(world, "c3").status.phase == "Pending"
    assert world.events[0].message == 'Cannot bind to requested volume "bad": storageClassName does not match'


def test_a_claim_whose_volume_vanishes_is_lost() -> None:
    world = a_world(a_volume(), a_claim())

    world.remove(core.PersistentVolume, "", "v")
    world.settle()

    assert claim(world).status.phase == "Lost"
    assert world.events[-1].reason == "ClaimLost"


def test_a_retained_volume_is_released_and_not_bound_again() -> None:
    world = a_world(a_volume(), a_claim())

    world.remove(core.PersistentVolumeClaim, "default", "c")
    world.put(a_claim("c"))
    world.settle()

    assert (volume(world).status.phase, claim(world).status.phase) == ("Released", "Pending")


def test_a_volume_to_be_deleted_goes_with_its_directory() -> None:
    deleted: list[str] = []
    world = World()
    world.put(a_volume(persistent_volume_reclaim_policy="Delete"), a_claim())
    world.start(lambda wiring: VolumeBinder(wiring, delete_directory=deleted.append))

    world.remove(core.PersistentVolumeClaim, "default", "c")
    world.settle()

    assert deleted == ["/tmp/v"]
    assert world.all(core.PersistentVolume) == []


def test_a_volume_that_cannot_be_deleted_fails_and_is_tried_again() -> None:
    answers = [HostPathError("busy"), None]

    def delete(path: str) -> None:
        if (answer := answers.pop(0)) is not None:
            raise answer

    world = World()
    world.put(a_volume(persistent_volume_reclaim_policy="Delete"), a_claim())
    world.start(lambda wiring: VolumeBinder(wiring, delete_directory=delete))
    world.remove(core.PersistentVolumeClaim, "default", "c")
    world.settle()
    if answers:
        assert (volume(world).status.phase, volume(world).status.message) == ("Failed", "busy")

    world.wait(16)

    assert world.all(core.PersistentVolume) == []
    assert "VolumeFailedDelete" in world.reasons()


def test_volumes_of_csi_drivers_are_left_to_them() -> None:
    made = a_volume(persistent_volume_reclaim_policy="Delete")
    made.spec.host_path = None
    made.spec.csi = core.CSIPersistentVolumeSource(driver="example.com", volume_handle="1")
    world = a_world(made, a_claim())

    world.remove(core.PersistentVolumeClaim, "default", "c")
    world.settle()

    assert volume(world).status.phase == "Released"


def test_a_claim_of_a_delayed_class_waits_for_its_pod_then_asks_the_provisioner() -> None:
    world = a_world(a_class("slow", delayed=True), a_volume(storage_class_name="slow"), a_claim(storage_class="slow"))
    assert (claim(world).status.phase, set(world.reasons())) == ("Pending", {"WaitForFirstConsumer"})

    source = core.PersistentVolumeClaimVolumeSource(claim_name="c")
    pod = core.Pod(
        metadata=meta.ObjectMeta(name="p", namespace="default"),
        spec=core.PodSpec(volumes=[core.Volume(name="v", persistent_volume_claim=source)]),
    )
    world.put(pod)
    world.wait(16)
    assert world.events[-1].message == "waiting for pod p to be scheduled"
    world.change(
        core.PersistentVolumeClaim,
        "default",
        "c",
        lambda each: each.metadata.annotations.update({"volume.kubernetes.io/selected-node": "n"}),
    )
    world.settle()

    assert claim(world).metadata.annotations["volume.kubernetes.io/storage-provisioner"] == "example.com/p"
    assert world.events[-1].reason == "ExternalProvisioning"


def test_the_scheduler_binds_by_the_volume_and_the_claim_follows() -> None:
    world = a_world(a_class("slow", delayed=True), a_volume(storage_class_name="slow"), a_claim(storage_class="slow"))

    def take(each: core.PersistentVolume) -> None:
        uid = claim(world).metadata.uid
        each.spec.claim_ref = core.ObjectReference(namespace="default", name="c", uid=uid)
        each.metadata.annotations["pv.kubernetes.io/bound-by-controller"] = "yes"

    world.change(core.PersistentVolume, "", "v", take)
    world.settle()

    assert (claim(world).status.phase, claim(world).spec.volume_name) == ("Bound", "v")


def test_a_claim_without_a_class_gets_the_default_one_even_later() -> None:
    world = a_world(a_claim(storage_class=None))
    assert claim(world).status.phase == "Pending"

    world.put(a_class("old", default=True), a_class("plain"))
    world.wait(20)

    assert claim(world).spec.storage_class_name == "old"
    assert "ExternalProvisioning" in world.reasons()


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (None, 'storageclass.storage.k8s.io "gold" not found'),
        ("kubernetes.io/no-provisioner", "no volume plugin matched name: kubernetes.io/no-provisioner"),
    ],
)
def test_a_claim_that_nobody_can_serve_says_why(made: str | None, message: str) -> None:
    classes = [a_class("gold", provisioner=made)] if made else []

    world = a_world(*classes, a_claim(storage_class="gold"))

    assert [(each.type, each.reason, each.message) for each in world.events] == [
        ("Warning", "ProvisioningFailed", message)
    ]


def test_a_volume_bound_by_us_to_a_claim_that_found_another_is_freed() -> None:
    world = a_world(a_volume(), a_claim())
    spare = a_volume("spare")
    spare.metadata.annotations = {"pv.kubernetes.io/bound-by-controller": "yes"}
    spare.spec.claim_ref = core.ObjectReference(namespace="default", name="c", uid=claim(world).metadata.uid)

    world.put(spare)
    world.settle()

    freed = volume(world, "spare")
    assert (freed.spec.claim_ref, freed.status.phase) == (None, "Available")


_volumes = lists(tuples(integers(1, 9), sets(sampled_from(MODES), min_size=1), booleans()), max_size=6)


@given(_volumes, integers(1, 9), sets(sampled_from(MODES), min_size=1))
def test_what_is_chosen_is_free_large_enough_and_has_every_mode(
    offered: list[tuple[int, set[str], bool]], size: int, modes: set[str]
) -> None:
    volumes = []
    for number, (gigabytes, offers, is_free) in enumerate(offered):
        made = a_volume(f"v{number}", size=f"{gigabytes}Gi", modes=tuple(sorted(offers)))
        made.status.phase = "Available" if is_free else "Bound"
        volumes.append(made)
    wanted = a_claim(size=f"{size}Gi")
    wanted.spec.access_modes = sorted(modes)

    found = best_match(wanted, volumes, is_delayed=False)

    suitable = [
        (len(offers), gigabytes)
        for gigabytes, offers, is_free in offered
        if is_free and modes <= offers and gigabytes >= size
    ]
    assert (found is None) == (not suitable)
    if found is not None:
        chosen = (len(found.spec.access_modes), found.spec.capacity["storage"].value >> 30)
        assert chosen[0] == min(suitable)[0]
        assert found.status.phase == "Available"

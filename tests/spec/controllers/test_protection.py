from __future__ import annotations

from tests.spec.controllers.world import START, World

from haven.api.core import v1 as core
from haven.apimachinery import meta, times
from haven.controllers.protection import ClaimProtectionController, VolumeProtectionController

HELD = ["kubernetes.io/pvc-protection"]


def a_claim(name: str = "c", *, deleted: bool = False) -> core.PersistentVolumeClaim:
    stamp = times.format_time(START) if deleted else None
    metadata = meta.ObjectMeta(name=name, namespace="default", finalizers=list(HELD), deletion_timestamp=stamp)
    return core.PersistentVolumeClaim(metadata=metadata)


def a_pod(claim: str = "c", *, node: str = "n") -> core.Pod:
    source = core.PersistentVolumeClaimVolumeSource(claim_name=claim)
    volume = core.Volume(name="v", persistent_volume_claim=source)
    return core.Pod(
        metadata=meta.ObjectMeta(name="p", namespace="default"), spec=core.PodSpec(node_name=node, volumes=[volume])
    )


def delete_claim(world: World) -> None:
    stamp = times.format_time(START)
    world.change(
        core.PersistentVolumeClaim, "default", "c", lambda claim: setattr(claim.metadata, "deletion_timestamp", stamp)
    )
    world.settle()


def claims(world: World) -> list[str]:
    return [claim.metadata.name for claim in world.all(core.PersistentVolumeClaim)]


def test_a_claim_without_users_goes_at_once() -> None:
    world = World()
    world.put(a_claim())
    world.start(ClaimProtectionController)

    delete_claim(world)

    assert claims(world) == []


def test_a_claim_stays_until_the_last_pod_that_mounts_it_is_gone_even_one_that_ended() -> None:
    world = World()
    world.put(a_claim(), a_pod())
    world.start(ClaimProtectionController)

    delete_claim(world)
    world.change(core.Pod, "default", "p", lambda pod: setattr(pod.status, "phase", "Succeeded"))
    world.settle()
    assert claims(world) == ["c"]
    world.remove(core.Pod, "default", "p")
    world.settle()

    assert claims(world) == []


def test_a_pod_without_a_node_holds_nothing() -> None:
    world = World()
    world.put(a_claim(), a_pod(node=""))
    world.start(ClaimProtectionController)

    delete_claim(world)

    assert claims(world) == []


def test_a_pod_of_the_same_name_with_other_volumes_frees_the_claim_of_the_first() -> None:
    world = World()
    world.put(a_claim(), a_pod())
    world.start(ClaimProtectionController)
    delete_claim(world)

    successor = a_pod("another")
    successor.metadata.uid = "other"  # type: ignore[assignment]
    world.put(successor)
    world.settle()

    assert claims(world) == []


def test_the_claim_of_an_ephemeral_volume_is_held_by_its_own_pod_only() -> None:
    for owner, expected in (("uid-p", ["p-v"]), ("another", [])):
        pod = a_pod()
        pod.metadata.uid = "uid-p"  # type: ignore[assignment]
        pod.spec.volumes = [core.Volume(name="v", ephemeral=core.EphemeralVolumeSource())]
        claim = a_claim("p-v", deleted=True)
        claim.metadata.owner_references = [
            meta.OwnerReference(api_version="v1", kind="Pod", name="p", uid=owner, controller=True)  # type: ignore[arg-type]
        ]
        world = World()
        world.put(claim, pod)

        world.start(ClaimProtectionController)

        assert claims(world) == expected


def test_a_bound_volume_stays_until_it_is_released() -> None:
    volume = core.PersistentVolume(
        metadata=meta.ObjectMeta(name="v"), status=core.PersistentVolumeStatus(phase="Bound")
    )
    world = World()
    world.put(volume)
    world.start(VolumeProtectionController)
    assert world.get(core.PersistentVolume, "", "v").metadata.finalizers == ["kubernetes.io/pv-protection"]

    stamp = times.format_time(START)
    world.change(core.PersistentVolume, "", "v", lambda each: setattr(each.metadata, "deletion_timestamp", stamp))
    world.settle()
    assert len(world.all(core.PersistentVolume)) == 1
    world.change(core.PersistentVolume, "", "v", lambda each: setattr(each.status, "phase", "Released"))
    world.settle()

    assert world.all(core.PersistentVolume) == []

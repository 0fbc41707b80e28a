from __future__ import annotations

from tests.spec.controllers.world import World

from haven.api.core import v1 as core
from haven.apimachinery import meta
from haven.controllers.ephemeralvolume import EphemeralVolumeController


def a_pod() -> core.Pod:
    template = core.PersistentVolumeClaimTemplate(
        metadata=meta.ObjectMeta(labels={"a": "b"}),
        spec=core.PersistentVolumeClaimSpec(access_modes=["ReadWriteOnce"], storage_class_name="fast"),
    )
    source = core.EphemeralVolumeSource(volume_claim_template=template)
    return core.Pod(
        metadata=meta.ObjectMeta(name="p", namespace="default"),
        spec=core.PodSpec(volumes=[core.Volume(name="v", ephemeral=source)]),
    )


def test_a_pod_gets_a_claim_of_its_own_and_again_if_somebody_deletes_it() -> None:
    world = World()
    pod = world.put(a_pod())
    world.start(EphemeralVolumeController)

    for _ in range(2):
        claim = world.get(core.PersistentVolumeClaim, "default", "p-v")
        owner = claim.metadata.owner_references[0]
        assert (owner.uid, owner.controller, owner.block_owner_deletion) == (pod.metadata.uid, True, True)
        assert (claim.metadata.labels, claim.spec.storage_class_name) == ({"a": "b"}, "fast")
        world.remove(core.PersistentVolumeClaim, "default", "p-v")
        world.settle()


def test_a_claim_that_belongs_to_somebody_else_is_not_used() -> None:
    world = World()
    world.put(core.PersistentVolumeClaim(metadata=meta.ObjectMeta(name="p-v", namespace="default")), a_pod())

    world.start(EphemeralVolumeController)

    assert (world.events[0].type, world.events[0].reason) == ("Warning", "FailedBinding")
    assert world.events[0].message == (
        "ephemeral volume v: PVC default/p-v was not created for pod default/p (pod is not owner)"
    )

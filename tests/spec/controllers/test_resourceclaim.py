from __future__ import annotations

from tests.spec.controllers.workloads import Workloads

from haven.api.core import v1 as core
from haven.api.resource import v1 as resource
from haven.apimachinery import meta
from haven.controllers.resourceclaim import FINALIZER, ResourceClaimController, claim_base_name


def a_pod(name: str = "p", *, node: str = "", **claim: str) -> core.Pod:
    asked = core.PodResourceClaim(name="gpu", **(claim or {"resource_claim_template_name": "t"}))
    return core.Pod(
        metadata=meta.ObjectMeta(name=name, namespace="default"),
        spec=core.PodSpec(node_name=node, containers=[core.Container(name="c", image="i")], resource_claims=[asked]),
    )


def a_template() -> resource.ResourceClaimTemplate:
    template = resource.ResourceClaimTemplate(metadata=meta.ObjectMeta(name="t", namespace="default"))
    template.spec.metadata.labels = {"for": "test"}
    return template


def a_claim(*users: str, allocated: bool = True) -> resource.ResourceClaim:
    claim = resource.ResourceClaim(metadata=meta.ObjectMeta(name="shared", namespace="default", finalizers=[FINALIZER]))
    claim.status.allocation = resource.AllocationResult() if allocated else None
    claim.status.reserved_for = [
        resource.ResourceClaimConsumerReference(resource="pods", name=name, uid=f"uid-{name}") for name in users
    ]
    return claim


def a_world(*objects: object) -> Workloads:
    world = Workloads()
    for obj in objects:
        world.put(obj)
    world.start(ResourceClaimController)
    return world


def claims(world: Workloads) -> list[resource.ResourceClaim]:
    return list(world.all(resource.ResourceClaim))


def test_a_pod_gets_a_claim_from_its_template_and_its_status_names_it() -> None:
    world = a_world(a_template(), a_pod())

    (claim,) = claims(world)
    pod = world.get(core.Pod, "default", "p")

    assert claim.metadata.name.startswith("p-gpu-")
    assert claim.metadata.labels == {"for": "test"}
    assert claim.metadata.annotations == {"resource.kubernetes.io/pod-claim-name": "gpu"}
    assert claim.metadata.owner_references[0].uid == pod.metadata.uid
    assert [(one.name, one.resource_claim_name) for one in pod.status.resource_claim_statuses] == [
        ("gpu", claim.metadata.name)
    ]


def test_a_pod_whose_template_is_missing_says_so_and_goes_on_when_it_comes() -> None:
    world = a_world(a_pod())
    assert [event.reason for event in world.events][:1] == ["FailedResourceClaimCreation"]

    world.put(a_template())
    world.settle()

    assert len(claims(world)) == 1


def test_a_claim_that_was_deleted_is_made_again() -> None:
    world = a_world(a_template(), a_pod())
    (first,) = claims(world)

    world.remove(resource.ResourceClaim, "default", first.metadata.name)
    world.settle()

    (second,) = claims(world)
    assert second.metadata.uid != first.metadata.uid


def test_a_reservation_for_a_pod_that_is_gone_is_taken_back_with_the_allocation_and_the_finalizer() -> None:
    world = a_world(a_claim("gone"))

    (claim,) = claims(world)

    assert claim.status.reserved_for == []
    assert claim.status.allocation is None
    assert claim.metadata.finalizers == []


def test_a_claim_that_another_pod_still_uses_stays_allocated() -> None:
    world = a_world(a_pod("p", resource_claim_name="shared"))
    pod = world.get(core.Pod, "default", "p")
    claim = a_claim("gone", "p")
    claim.status.reserved_for[1].uid = pod.metadata.uid
    world.put(claim)
    world.settle()

    (claim,) = claims(world)

    assert [user.name for user in claim.status.reserved_for] == ["p"]
    assert claim.status.allocation is not None
    assert claim.metadata.finalizers == [FINALIZER]


def test_a_pod_bound_by_hand_reserves_its_allocated_claim() -> None:
    world = a_world(a_claim(), a_pod(node="n", resource_claim_name="shared"))

    (claim,) = claims(world)

    assert [user.name for user in claim.status.reserved_for] == ["p"]


def test_a_claim_made_for_a_pod_goes_when_the_pod_has_ended() -> None:
    world = a_world(a_template(), a_pod())

    def end(pod: core.Pod) -> None:
        pod.status.phase = "Succeeded"

    world.change(core.Pod, "default", "p", end)
    world.settle()

    assert claims(world) == []


def test_long_names_are_shortened_alike() -> None:
    assert claim_base_name("p", "c") == "p-c-"
    long = claim_base_name("p" * 60, "c" * 30)
    assert len(long) <= 57
    assert (long.count("p"), long.count("c")) == (37, 18)

"""Requests for the state of devices' pools."""

from __future__ import annotations

from tests.spec.controllers.world import World

from haven.api.resource import v1 as resource
from haven.api.resource import v1alpha3 as alpha
from haven.apimachinery import meta, times
from haven.controllers.resourcepoolstatusrequest import ResourcePoolStatusRequestController, pool_statuses

DRIVER = "gpu.example.com"


def a_slice(name: str, pool: str, *, generation: int = 1, slices: int = 1, devices: int = 2, node: str = "n1") -> (
    resource.ResourceSlice
):  # fmt: skip
    spec = resource.ResourceSliceSpec(
        driver=DRIVER,
        pool=resource.ResourcePool(name=pool, generation=generation, resource_slice_count=slices),
        node_name=node or None,
        devices=[resource.Device(name=f"dev-{number}") for number in range(devices)],
    )
    return resource.ResourceSlice(metadata=meta.ObjectMeta(name=name), spec=spec)


def a_request(name: str = "q", **spec: object) -> alpha.ResourcePoolStatusRequest:
    wanted = alpha.ResourcePoolStatusRequestSpec(driver=DRIVER, **spec)  # type: ignore[arg-type]
    return alpha.ResourcePoolStatusRequest(metadata=meta.ObjectMeta(name=name), spec=wanted)


def a_claim(*pools: str) -> resource.ResourceClaim:
    results = [
        resource.DeviceRequestAllocationResult(request="r", driver=DRIVER, pool=pool, device="dev-0") for pool in pools
    ]
    allocation = resource.AllocationResult(devices=resource.DeviceAllocationResult(results=results))
    claim = resource.ResourceClaim(metadata=meta.ObjectMeta(name="c", namespace="ns"))
    claim.status.allocation = allocation
    return claim


def test_a_request_is_answered_with_the_devices_of_each_pool() -> None:
    world = World()
    for each in (a_slice("a", "a"), a_slice("b1", "b", slices=2), a_slice("b2", "b", slices=2, node="n2", devices=3)):
        world.put(each)
    world.put(a_claim("b", "b"))
    world.put(a_request())

    world.start(ResourcePoolStatusRequestController)
    world.settle()

    (request,) = world.all(alpha.ResourcePoolStatusRequest)
    assert request.status is not None
    assert request.status.pool_count == 2
    assert request.status.pools == [
        alpha.PoolStatus(DRIVER, "a", 1, 1, 2, 0, 2, 0, "n1"),
        alpha.PoolStatus(DRIVER, "b", 1, 2, 5, 2, 3, 0, None),  # On several nodes: on none in particular.
    ]
    (condition,) = request.status.conditions
    assert (condition.type, condition.status, condition.reason) == ("Complete", "True", "CalculationComplete")
    assert condition.message == "Calculated status for 2 pools"


def test_only_the_newest_generation_of_a_pool_counts() -> None:
    old, new = a_slice("new", "a", generation=2, devices=7), a_slice("old", "a", devices=1)

    for order in ((old, new), (new, old)):
        (pool,) = pool_statuses(a_request(), order, [])

        assert (pool.generation, pool.total_devices, pool.resource_slice_count) == (2, 7, 1)


def test_an_answer_shows_no_more_pools_than_asked_for_but_counts_them() -> None:
    world = World()
    world.put(a_slice("a", "a"))
    world.put(a_slice("b", "b"))
    world.put(a_request(limit=1))

    world.start(ResourcePoolStatusRequestController)
    world.settle()

    (request,) = world.all(alpha.ResourcePoolStatusRequest)
    assert request.status is not None
    assert (request.status.pool_count, [pool.pool_name for pool in request.status.pools]) == (2, ["a"])


def test_a_pool_that_stays_incomplete_leaves_a_request_without_an_answer() -> None:
    (pool,) = pool_statuses(a_request(), [a_slice("a", "a", slices=3)], [])
    assert pool.validation_error == f"pool {DRIVER}/a is incomplete: observed 1/3 slices at generation 1"
    assert pool.total_devices is None
    world = World()
    world.put(a_slice("a", "a", slices=2))
    world.put(a_request())

    world.start(ResourcePoolStatusRequestController)
    world.wait(60)
    world.put(a_slice("a2", "a", slices=2))
    world.wait(60)

    (request,) = world.all(alpha.ResourcePoolStatusRequest)
    assert request.status is None


def test_requests_are_removed_an_hour_after_their_answer_or_a_day_without_one() -> None:
    world = World()
    now = world.now_seconds()

    def put(name: str, age: float, answered: bool) -> None:
        request = a_request(name, pool_name="waiting")
        request.metadata.creation_timestamp = times.format_time(now - age)
        if answered:
            condition = meta.Condition(
                type="Complete", status="True", last_transition_time=times.format_time(now - age)
            )
            request.status = alpha.ResourcePoolStatusRequestStatus(conditions=[condition])
        world.put(request)

    world.put(a_slice("w", "waiting", slices=2))
    put("answered-old", 3601, answered=True)
    put("answered-young", 1000, answered=True)
    put("waiting-old", 24 * 3600 + 1, answered=False)
    put("waiting-young", 3601, answered=False)

    world.start(ResourcePoolStatusRequestController)
    world.wait(1)

    assert [each.metadata.name for each in world.all(alpha.ResourcePoolStatusRequest)] == [
        "answered-young",
        "waiting-young",
    ]

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import integers
from tests.spec.controllers.world import World

from haven.api.core import v1 as core
from haven.apimachinery import meta
from haven.controllers.tainteviction import FOREVER, TaintEvictionController, patience_seconds

TAINT = core.Taint(key="down", effect="NoExecute")


def a_pod(name: str, *tolerations: core.Toleration) -> core.Pod:
    return core.Pod(
        metadata=meta.ObjectMeta(name=name, namespace="default"),
        spec=core.PodSpec(node_name="n", tolerations=list(tolerations)),
    )


def bearing(seconds: int | None) -> core.Toleration:
    return core.Toleration(key="down", operator="Exists", effect="NoExecute", toleration_seconds=seconds)


def a_world(*taints: core.Taint) -> World:
    world = World()
    world.put(core.Node(metadata=meta.ObjectMeta(name="n"), spec=core.NodeSpec(taints=list(taints))))
    world.start(TaintEvictionController)
    return world


def taint(world: World, *taints: core.Taint) -> None:
    world.change(core.Node, "", "n", lambda node: setattr(node.spec, "taints", list(taints)))
    world.settle()


def names(world: World) -> list[str]:
    return [pod.metadata.name for pod in world.all(core.Pod)]


def test_a_pod_that_does_not_bear_the_taint_goes_at_once_and_says_why() -> None:
    world = a_world()
    pod = a_pod("p")
    pod.metadata.finalizers = ["example.com/hold"]
    world.put(pod, a_pod("other", bearing(None)))

    taint(world, TAINT)

    held = world.get(core.Pod, "default", "p")
    assert held.metadata.deletion_timestamp is not None
    condition = held.status.conditions[0]
    assert (condition.type, condition.status, condition.reason) == (
        "DisruptionTarget",
        "True",
        "DeletionByTaintManager",
    )
    assert condition.message == "Taint manager: deleting due to NoExecute taint"
    assert [event.message for event in world.events] == ["Marking for deletion Pod default/p"]
    assert names(world) == ["p", "other"]


def test_a_pod_stays_as_long_as_it_bears_the_taint() -> None:
    world = a_world(TAINT)
    world.put(a_pod("p", bearing(60)))

    world.wait(59)
    assert names(world) == ["p"]
    world.wait(2)

    assert names(world) == []


def test_the_hour_does_not_move_when_another_taint_comes() -> None:
    world = a_world(TAINT)
    world.put(a_pod("p", core.Toleration(operator="Exists", toleration_seconds=60)))
    world.wait(30)

    taint(world, TAINT, core.Taint(key="more", effect="NoExecute"))
    world.wait(31)

    assert names(world) == []


def test_a_taint_that_goes_in_time_spares_the_pod() -> None:
    world = a_world(TAINT)
    world.put(a_pod("p", bearing(60)))
    world.wait(30)

    taint(world)
    world.wait(60)

    assert names(world) == ["p"]
    assert [event.message for event in world.events] == ["Cancelling deletion of Pod default/p"]


def test_a_taint_that_only_keeps_new_pods_away_drives_nobody_out() -> None:
    world = a_world(core.Taint(key="down", effect="NoSchedule"))

    world.put(a_pod("p"))
    world.settle()

    assert names(world) == ["p"]


@given(integers(-5, 100), integers(-5, 100))
def test_the_shortest_patience_counts(one: int, other: int) -> None:
    taints = [core.Taint(key="a", effect="NoExecute"), core.Taint(key="b", effect="NoExecute")]
    tolerations = [
        core.Toleration(key=key, operator="Exists", toleration_seconds=seconds)
        for key, seconds in (("a", one), ("b", other))
    ]

    assert patience_seconds(taints, tolerations) == max(0, min(one, other))
    assert patience_seconds(taints, [core.Toleration(operator="Exists"), *tolerations]) == FOREVER

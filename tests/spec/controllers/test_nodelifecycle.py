from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import booleans, dictionaries, lists, sampled_from
from tests.spec.controllers.world import START, World

from haven.api.coordination import v1 as coordination
from haven.api.core import v1 as core
from haven.apimachinery import meta, times
from haven.controllers.nodelifecycle import LEASES, NodeLifecycleController
from haven.controllers.zones import EvictionRates, Verdict, Zones, ZoneState, zone_state


def a_node(name: str = "n", *, ready: str = "True", zone: str = "", taints: tuple[str, ...] = ()) -> core.Node:
    stamp = times.format_time(START)
    conditions = [
        core.NodeCondition(type="Ready", status=ready, last_heartbeat_time=stamp, last_transition_time=stamp),
        core.NodeCondition(type="NetworkUnavailable", status="False"),
    ]
    return core.Node(
        metadata=meta.ObjectMeta(name=name, labels={"topology.kubernetes.io/zone": zone} if zone else {}),
        spec=core.NodeSpec(taints=[core.Taint(key=key, effect="NoSchedule") for key in taints]),
        status=core.NodeStatus(conditions=conditions if ready else []),
    )


def a_pod(node: str) -> core.Pod:
    return core.Pod(
        metadata=meta.ObjectMeta(name=f"on-{node}", namespace="default"),
        spec=core.PodSpec(node_name=node),
        status=core.PodStatus(phase="Running", conditions=[core.PodCondition(type="Ready", status="True")]),
    )


def set_condition(type: str, status: str) -> Callable[[Any], None]:
    def change(node: core.Node) -> None:
        node.status.conditions = [each for each in node.status.conditions if each.type != type]
        node.status.conditions.append(core.NodeCondition(type=type, status=status))

    return change


def taints(world: World, name: str = "n") -> set[tuple[str, str]]:
    node: core.Node = world.get(core.Node, "", name)
    return {(each.key.removeprefix("node.kubernetes.io/"), each.effect) for each in node.spec.taints}


def a_world(*objects: object) -> World:
    world = World()
    world.put(*objects)
    world.start(NodeLifecycleController)
    return world


def test_a_node_that_becomes_ready_loses_the_taint_that_admission_gave_it() -> None:
    world = a_world(a_node(ready="False", taints=("node.kubernetes.io/not-ready",)))
    assert taints(world) == {("not-ready", "NoSchedule")}

    world.change(core.Node, "", "n", set_condition("Ready", "True"))
    world.settle()

    assert taints(world) == set()


@pytest.mark.parametrize(
    ("condition", "taint"),
    [
        ("MemoryPressure", "memory-pressure"),
        ("DiskPressure", "disk-pressure"),
        ("PIDPressure", "pid-pressure"),
        ("NetworkUnavailable", "network-unavailable"),
    ],
)
def test_a_condition_keeps_new_pods_away(condition: str, taint: str) -> None:
    world = a_world(a_node())

    world.change(core.Node, "", "n", set_condition(condition, "True"))
    world.settle()

    assert taints(world) == {(taint, "NoSchedule")}


def test_a_cordoned_node_is_tainted_and_foreign_taints_stay() -> None:
    node = a_node(taints=("example.com/gpu",))
    node.spec.unschedulable = True

    world = a_world(node)

    assert taints(world) == {("example.com/gpu", "NoSchedule"), ("unschedulable", "NoSchedule")}


def test_a_silent_node_becomes_unknown_after_the_grace_period_and_its_pods_unready() -> None:
    world = a_world(a_node(), a_pod("n"))

    world.wait(50)
    assert taints(world) == set()
    world.wait(5)

    ready, network, *rest = sorted(world.get(core.Node, "", "n").status.conditions, key=lambda c: c.type != "Ready")
    assert (ready.status, ready.reason) == ("Unknown", "NodeStatusUnknown")
    assert ready.message == "Kubelet stopped posting node status."
    assert network.status == "False"
    assert {each.reason for each in rest} == {"NodeStatusNeverUpdated"}
    assert taints(world) == {("unreachable", "NoSchedule")}
    assert world.get(core.Pod, "default", "on-n").status.conditions[0].status == "False"
    assert world.reasons() == ["RegisteredNode", "NodeNotReady", "NodeNotReady"]


def test_a_renewed_lease_is_a_sign_of_life() -> None:
    spec = coordination.LeaseSpec(renew_time=times.format_micro_time(START))
    world = a_world(a_node(), coordination.Lease(metadata=meta.ObjectMeta(name="n", namespace=LEASES), spec=spec))

    for _ in range(6):
        world.wait(30)
        now = times.format_micro_time(world.now)
        world.change(coordination.Lease, LEASES, "n", lambda lease, now=now: setattr(lease.spec, "renew_time", now))

    assert world.get(core.Node, "", "n").status.conditions[0].status == "True"


def test_nothing_is_evicted_when_no_node_is_ready() -> None:
    world = a_world(a_node(), a_node("m"))

    world.wait(300)

    assert taints(world) == taints(world, "m") == {("unreachable", "NoSchedule")}


def test_one_unready_node_among_many_drives_its_pods_out() -> None:
    world = a_world(*(a_node(f"n{i}") for i in range(4)), a_node("sick", ready="False"))

    world.settle()

    assert taints(world, "sick") == {("not-ready", "NoSchedule"), ("not-ready", "NoExecute")}


def test_nodes_are_tainted_one_after_the_other_in_a_healthy_zone() -> None:
    world = a_world(*(a_node(f"n{i}") for i in range(6)), a_node("s1", ready="False"), a_node("s2", ready="False"))
    first = [name for name in ("s1", "s2") if ("not-ready", "NoExecute") in taints(world, name)]

    world.wait(10)

    assert len(first) == 1
    assert all(("not-ready", "NoExecute") in taints(world, name) for name in ("s1", "s2"))


def test_a_node_that_comes_back_is_no_longer_driving() -> None:
    world = a_world(a_node("well"), a_node("sick", ready="False"))
    assert ("not-ready", "NoExecute") in taints(world, "sick")

    world.change(core.Node, "", "sick", set_condition("Ready", "True"))
    world.wait(5)

    assert taints(world, "sick") == set()


def test_old_names_of_labels_follow_the_new_ones() -> None:
    node = a_node()
    node.metadata.labels = {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}

    world = a_world(node)

    labels = world.get(core.Node, "", "n").metadata.labels
    assert (labels["beta.kubernetes.io/os"], labels["beta.kubernetes.io/arch"]) == ("linux", "amd64")


def test_a_pod_that_gets_an_unready_node_is_marked_unready() -> None:
    world = a_world(a_node("well"), a_node("sick", ready="False"))

    world.put(a_pod("sick"))
    world.settle()

    assert world.get(core.Pod, "default", "on-sick").status.conditions[0].status == "False"


def test_a_small_zone_mostly_down_is_left_alone_and_a_large_one_is_emptied_slowly() -> None:
    small, large = [True] + [False] * 4, [True] * 20 + [False] * 40
    zones = Zones(EvictionRates())

    zones.judge({"small": small, "large": large})

    assert zones.state("small") is zones.state("large") is ZoneState.PARTIAL_DISRUPTION
    assert zones.limiter("small").wait_seconds(0) is None
    assert zones.limiter("large").take(0)
    assert zones.limiter("large").wait_seconds(0) == 100


@given(lists(booleans(), min_size=1))
def test_a_zone_is_fully_disrupted_exactly_when_no_node_is_ready(are_ready: list[bool]) -> None:
    assert (zone_state(are_ready, 0.55) is ZoneState.FULL_DISRUPTION) == (not any(are_ready))


@given(lists(dictionaries(sampled_from("ab"), lists(booleans(), min_size=1, max_size=4), min_size=1), min_size=1))
def test_the_cluster_is_down_and_back_in_turn(looks: list[dict[str, list[bool]]]) -> None:
    zones, is_down = Zones(EvictionRates()), False

    for look in looks:
        verdict = zones.judge(look)
        all_down = not any(any(ready) for ready in look.values())
        if verdict is Verdict.ALL_DOWN:
            assert all_down
            is_down = True
        if verdict is Verdict.BACK:
            assert is_down
            assert not all_down
            is_down = False

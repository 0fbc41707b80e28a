"""Endpoints shared out among zones by the CPU of their nodes."""

from __future__ import annotations

import pytest
from tests.spec.controllers.workloads import LABELS, Workloads, a_pod

from haven.api.core import v1 as core
from haven.api.discovery import v1 as discovery
from haven.apimachinery import meta
from haven.apimachinery.quantity import Quantity
from haven.controllers.endpointslice import EndpointSliceController
from haven.controllers.topologyhints import Unfit, is_overloaded, share_out, zone_shares


def a_node(name: str, zone: str = "", *, cpu: str = "4", ready: bool = True, **labels: str) -> core.Node:
    zoned = {"topology.kubernetes.io/zone": zone} if zone else {}
    node = core.Node(metadata=meta.ObjectMeta(name=name, labels={**zoned, **labels}))
    node.status.allocatable = {"cpu": Quantity.parse(cpu)}
    node.status.conditions = [core.NodeCondition(type="Ready", status="True" if ready else "False")]
    return node


def a_slice(*zones: str, hints: tuple[str, ...] = ()) -> discovery.EndpointSlice:
    endpoints = [
        discovery.Endpoint(
            addresses=[f"10.0.0.{number}"],
            conditions=discovery.EndpointConditions(ready=True),
            zone=zone or None,
            hints=discovery.EndpointHints(for_zones=[discovery.ForZone(name=hints[number])]) if hints else None,
        )
        for number, zone in enumerate(zones)
    ]
    return discovery.EndpointSlice(metadata=meta.ObjectMeta(name="s"), endpoints=endpoints)


def hinted(each: discovery.EndpointSlice) -> list[str | None]:
    return [one.hints.for_zones[0].name if one.hints is not None else None for one in each.endpoints or ()]


def test_zones_have_shares_by_the_cpu_of_their_ready_workers() -> None:
    nodes = [
        a_node("a1", "a", cpu="1"), a_node("a2", "a", cpu="2"), a_node("b", "b", cpu="1"), a_node("c", "c", ready=False)
    ]  # fmt: skip
    control_plane = a_node("d", "d")
    control_plane.metadata.labels["node-role.kubernetes.io/control-plane"] = ""

    assert zone_shares([*nodes, control_plane]) == {"a": 0.75, "b": 0.25}


@pytest.mark.parametrize(
    "nodes",
    [[a_node("a", "a")], [a_node("a", "a"), a_node("b")], [a_node("a", "a"), a_node("b", "b", cpu="0")], []],
    ids=["one zone", "no zone", "no CPU", "no nodes"],
)
def test_nodes_that_tell_too_little_give_no_shares(nodes: list[core.Node]) -> None:
    assert zone_shares(nodes) == {}


def test_endpoints_stay_in_their_zones_where_that_is_fair() -> None:
    each = a_slice("a", "a", "b", "b")

    assert share_out([each], [], {"a": 0.5, "b": 0.5}) == ([], {"a": 2, "b": 2})
    assert hinted(each) == ["a", "a", "b", "b"]


def test_a_zone_with_too_many_gives_some_away() -> None:
    each = a_slice("a", "a", "a", "b")

    stale, given = share_out([each], [], {"a": 0.5, "b": 0.5})

    assert (stale, given) == ([], {"a": 2, "b": 2})
    assert hinted(each) == ["b", "a", "a", "b"]


def test_an_unchanged_slice_is_written_only_if_its_hints_no_longer_do() -> None:
    good = a_slice("a", "b", hints=("a", "b"))
    foreign = a_slice("a", "b", hints=("a", "gone"))

    assert share_out([], [good], {"a": 0.5, "b": 0.5})[0] == []
    (written,) = share_out([], [foreign], {"a": 0.5, "b": 0.5})[0]

    assert hinted(written) == ["a", "b"]
    assert hinted(foreign) == ["a", "gone"]


@pytest.mark.parametrize(
    ("zones", "shares", "complaint"),
    [
        ("ab", {}, "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes"),
        ("a", {"a": 0.5, "b": 0.5}, "Insufficient number of endpoints (1 endpoints, 2 zones)"),
        (
            "aab", {"a": 0.5, "b": 0.5},
            "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold "
            "(3 endpoints, 2 zones)",
        ),
        (["a", "a", ""], {"a": 0.7, "b": 0.3}, "One or more endpoints do not have a zone specified"),
    ],
)  # fmt: skip
def test_where_it_cannot_be_fair_there_are_no_hints(zones: str, shares: dict[str, float], complaint: str) -> None:
    each = a_slice(*zones, hints=tuple("a" for _ in zones))

    with pytest.raises(Unfit) as caught:
        share_out([each], [], shares)

    assert str(caught.value) == complaint
    assert set(hinted(each)) == {None}


def test_a_zone_that_grew_is_overloaded() -> None:
    assert not is_overloaded({"a": 2, "b": 2}, {"a": 0.5, "b": 0.5})
    assert is_overloaded({"a": 2, "b": 2}, {"a": 0.9, "b": 0.1})
    assert is_overloaded({"a": 2, "b": 2}, {})


def test_a_service_that_asks_for_it_is_told_when_hints_come_and_go() -> None:
    service = core.Service(
        metadata=meta.ObjectMeta(
            name="web", namespace="default", annotations={"service.kubernetes.io/topology-mode": "Auto"}
        ),
        spec=core.ServiceSpec(selector=LABELS, cluster_ip="10.0.0.1", ip_families=["IPv4"]),
    )
    service.spec.ports = [core.ServicePort(name="http", port=80, target_port=80, protocol="TCP")]
    world = Workloads()
    world.put(a_node("one", "a"), a_node("two", "b"), service)
    for number, node in enumerate(("one", "two")):
        pod = a_pod(f"p{number}", ready=True)
        pod.spec.node_name = node
        pod.status.pod_ip = f"10.1.0.{number + 1}"
        pod.status.pod_ips = [core.PodIP(ip=pod.status.pod_ip)]
        world.put(pod)
    world.start(EndpointSliceController)
    (each,) = world.all(discovery.EndpointSlice)
    assert sorted(map(str, hinted(each))) == ["a", "b"]
    assert [event.message for event in world.events] == ["Topology Aware Hints has been enabled, addressType: IPv4"]

    world.remove(core.Node, "", "two")
    world.settle()

    (each,) = world.all(discovery.EndpointSlice)
    assert set(hinted(each)) == {None}
    assert world.events[-1].reason == "TopologyAwareHintsDisabled"

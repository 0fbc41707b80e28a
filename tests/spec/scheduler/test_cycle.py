"""A Pod goes to the best node that will do; if none will, the message says why for each."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists, sampled_from, tuples
from tests.spec.scheduler.objects import Storage, a_node, a_pod, a_snapshot, put

from haven.api.core import v1 as core
from haven.apimachinery import meta
from haven.apimachinery.quantity import Quantity
from haven.scheduler.cycle import Failure, Placement, default_profile, place
from haven.scheduler.podinfo import PodInfo
from haven.scheduler.snapshot import Snapshot


def try_place(snapshot: Snapshot, pod: core.Pod) -> Placement | Failure:
    profile = default_profile(snapshot, lambda namespace: {"kubernetes.io/metadata.name": namespace}, Storage().view)
    return place(PodInfo.of(pod), snapshot, profile, random.Random(1))


def node_of(snapshot: Snapshot, pod: core.Pod) -> str:
    result = try_place(snapshot, pod)
    assert isinstance(result, Placement), result
    return result.node_name


def why(snapshot: Snapshot, pod: core.Pod) -> str:
    result = try_place(snapshot, pod)
    assert isinstance(result, Failure), result
    return result.message


def test_a_pod_may_have_a_resource_that_no_node_has_any_more() -> None:
    snapshot = a_snapshot(a_node("a"))
    pod = a_pod()
    pod.spec.containers[0].resources.requests["example.com/dongle"] = Quantity.of(1)

    info = put(snapshot, pod, "a")
    snapshot.check()
    snapshot.remove_pod(info.uid)

    snapshot.check()
    assert why(snapshot, pod) == "0/1 nodes are available: 1 Insufficient example.com/dongle."


def test_the_emptier_node_is_chosen() -> None:
    snapshot = a_snapshot(a_node("full"), a_node("empty"))
    put(snapshot, a_pod(cpu="3", memory="6Gi"), "full")

    assert node_of(snapshot, a_pod(cpu="500m", memory="1Gi")) == "empty"


def test_each_node_counts_for_the_first_reason_that_rules_it_out() -> None:
    snapshot = a_snapshot(
        a_node("a", cpu="1"),
        a_node("b", taints=[core.Taint(key="k", effect="NoSchedule")]),
        a_node("c", unschedulable=True),
        a_node("d", cpu="1", memory="1Gi"),
    )

    assert why(snapshot, a_pod(cpu="2", memory="2Gi")) == (
        "0/4 nodes are available: 1 Insufficient memory, 1 node(s) had untolerated taint(s), "
        "1 node(s) were unschedulable, 2 Insufficient cpu."
    )


def test_without_nodes_the_message_says_so() -> None:
    assert why(Snapshot(), a_pod()) == "no nodes available to schedule pods"


def test_a_node_holds_no_more_pods_than_it_may() -> None:
    snapshot = a_snapshot(a_node("a", pods=1))
    put(snapshot, a_pod(), "a")

    assert why(snapshot, a_pod()) == "0/1 nodes are available: 1 Too many pods."


def test_a_toleration_lets_the_pod_onto_a_tainted_node() -> None:
    snapshot = a_snapshot(a_node("a", taints=[core.Taint(key="k", value="v", effect="NoExecute")]))

    assert node_of(snapshot, a_pod(tolerations=[core.Toleration(key="k", operator="Exists")])) == "a"


def test_a_preferred_taint_only_makes_the_node_less_liked() -> None:
    snapshot = a_snapshot(a_node("a", taints=[core.Taint(key="k", effect="PreferNoSchedule")]), a_node("b"))

    assert node_of(snapshot, a_pod()) == "b"


def test_a_node_selector_must_match() -> None:
    snapshot = a_snapshot(a_node("a"), a_node("b", labels={"disk": "ssd"}))

    assert node_of(snapshot, a_pod(node_selector={"disk": "ssd"})) == "b"
    assert why(snapshot, a_pod(node_selector={"disk": "hdd"})) == (
        "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."
    )


def test_a_pod_for_one_named_node_says_that_the_others_were_not_asked() -> None:
    term = core.NodeSelectorTerm(
        match_fields=[core.NodeSelectorRequirement(key="metadata.name", operator="In", values=["a"])]
    )
    affinity = core.Affinity(
        node_affinity=core.NodeAffinity(
            required_during_scheduling_ignored_during_execution=core.NodeSelector(node_selector_terms=[term])
        )
    )
    snapshot = a_snapshot(a_node("a", cpu="1"), a_node("b"))

    assert node_of(snapshot, a_pod(affinity=affinity)) == "a"
    assert why(snapshot, a_pod(cpu="2", affinity=affinity)) == (
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't satisfy plugin(s) [NodeAffinity]."
    )


def test_a_label_change_is_seen_by_the_next_cycle() -> None:
    snapshot = a_snapshot(a_node("a"), a_node("b"))
    profile = default_profile(snapshot, lambda _: {}, Storage().view)
    info = PodInfo.of(a_pod(node_selector={"disk": "ssd"}))
    assert isinstance(place(info, snapshot, profile, random.Random(1)), Failure)

    snapshot.set_node(a_node("b", labels={"disk": "ssd"}))
    result = place(info, snapshot, profile, random.Random(1))

    assert isinstance(result, Placement)
    assert result.node_name == "b"


@pytest.mark.parametrize(("first", "second", "fits"), [(80, 80, False), (80, 81, True)])
def test_a_host_port_is_taken_once_per_node(first: int, second: int, fits: bool) -> None:
    snapshot = a_snapshot(a_node("a"))
    put(snapshot, a_pod(host_port=first), "a")

    assert isinstance(try_place(snapshot, a_pod(host_port=second)), Placement) is fits


def anti_affinity(labels: dict[str, str], topology_key: str = "kubernetes.io/hostname") -> core.Affinity:
    term = core.PodAffinityTerm(label_selector=meta.LabelSelector(match_labels=labels), topology_key=topology_key)
    return core.Affinity(
        pod_anti_affinity=core.PodAntiAffinity(required_during_scheduling_ignored_during_execution=[term])
    )


def test_pods_that_repel_each_other_go_to_different_nodes() -> None:
    snapshot = a_snapshot(a_node("a"), a_node("b"))
    labels = {"app": "db"}
    put(snapshot, a_pod(labels=labels, affinity=anti_affinity(labels)), "a")

    assert node_of(snapshot, a_pod(labels=labels)) == "b"
    put(snapshot, a_pod(labels=labels), "b")
    assert why(snapshot, a_pod(labels=labels, affinity=anti_affinity(labels))) == (
        "0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules."
    )


def test_the_first_pod_that_wants_to_be_near_its_own_kind_may_go_anywhere() -> None:
    labels = {"app": "web"}
    term = core.PodAffinityTerm(label_selector=meta.LabelSelector(match_labels=labels), topology_key="zone")
    near = core.Affinity(pod_affinity=core.PodAffinity(required_during_scheduling_ignored_during_execution=[term]))
    snapshot = a_snapshot(a_node("a", labels={"zone": "1"}), a_node("b", labels={"zone": "2"}))

    first = node_of(snapshot, a_pod(labels=labels, affinity=near))
    put(snapshot, a_pod(labels=labels, affinity=near), first)

    assert all(node_of(snapshot, a_pod(labels=labels, affinity=near)) == first for _ in range(5))


def test_spread_constraints_keep_zones_even() -> None:
    labels = {"app": "web"}
    constraint = core.TopologySpreadConstraint(
        max_skew=1,
        topology_key="zone",
        when_unsatisfiable="DoNotSchedule",
        label_selector=meta.LabelSelector(match_labels=labels),
    )
    snapshot = a_snapshot(a_node("a", labels={"zone": "1"}), a_node("b", labels={"zone": "2"}), a_node("c"))
    for _ in range(6):
        pod = a_pod(labels=labels, topology_spread_constraints=[constraint])
        put(snapshot, pod, node_of(snapshot, pod))

    assert sorted(len(row.pods) for row in snapshot.live_rows()) == [0, 3, 3]


@given(
    capacities=lists(integers(1, 8), min_size=1, max_size=6),
    pods=lists(tuples(integers(0, 4), sampled_from(["0", "1Gi", "2Gi"])), max_size=20),
)
def test_no_node_is_ever_filled_beyond_its_capacity(capacities: list[int], pods: list[tuple[int, str]]) -> None:
    snapshot = a_snapshot(*(a_node(f"n{i}", cpu=str(cpu)) for i, cpu in enumerate(capacities)))
    for cpu, memory in pods:
        pod = a_pod(cpu=str(cpu), memory=memory)
        result = try_place(snapshot, pod)
        if isinstance(result, Placement):
            put(snapshot, pod, result.node_name)
    snapshot.check()

    assert (snapshot.requested[:, snapshot.alive] <= snapshot.allocatable[:, snapshot.alive])[[0, 1, 3]].all()

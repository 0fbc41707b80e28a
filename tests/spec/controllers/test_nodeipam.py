from __future__ import annotations

from ipaddress import ip_network

from hypothesis import given
from hypothesis.strategies import integers, lists
from tests.spec.controllers.world import World

from haven.api.core import v1 as core
from haven.apimachinery import meta
from haven.controllers.nodeipam import NodeIPAMController, free_network


def a_world(*networks: str) -> World:
    world = World()
    cluster = tuple(ip_network(each) for each in networks)
    world.start(lambda wiring: NodeIPAMController(wiring, cluster_networks=cluster))
    return world


def add_node(world: World, name: str, *cidrs: str) -> None:
    spec = core.NodeSpec(pod_cidr=cidrs[0] if cidrs else "", pod_cidrs=list(cidrs))
    world.put(core.Node(metadata=meta.ObjectMeta(name=name), spec=spec))
    world.settle()


def cidr(world: World, name: str) -> str:
    return world.get(core.Node, "", name).spec.pod_cidr  # type: ignore[no-any-return]


def test_every_node_gets_a_network_of_its_own_of_each_family() -> None:
    world = a_world("10.244.0.0/16", "fd00::/48")

    add_node(world, "a")
    add_node(world, "b")

    assert world.get(core.Node, "", "a").spec.pod_cidrs == ["10.244.0.0/24", "fd00::/64"]
    assert world.get(core.Node, "", "b").spec.pod_cidrs == ["10.244.1.0/24", "fd00:0:0:1::/64"]


def test_a_node_without_a_free_network_says_so_and_gets_the_next_that_comes_free() -> None:
    world = a_world("10.0.0.0/24")
    add_node(world, "a")
    add_node(world, "b")
    assert (cidr(world, "b"), world.reasons()) == ("", ["CIDRNotAvailable"])

    world.remove(core.Node, "", "a")
    world.settle()

    assert cidr(world, "b") == "10.0.0.0/24"


@given(lists(integers(0, 15), unique=True, max_size=15))
def test_a_free_network_never_overlaps_one_in_use(taken: list[int]) -> None:
    cluster = ip_network("10.0.0.0/20")
    used = [ip_network(f"10.0.{number}.0/24") for number in taken]

    free = free_network(cluster, used)

    assert free is not None
    assert free.subnet_of(cluster)
    assert not any(free.overlaps(each) for each in used)

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import integers, lists, sets
from tests.spec.controllers.workloads import LABELS, Workloads, a_pod

from haven.api.core import v1 as core
from haven.api.discovery import v1 as discovery
from haven.apimachinery import meta
from haven.apimachinery.names import UID
from haven.controllers.endpoints import EndpointsController, repack, truncate
from haven.controllers.endpointslice import EndpointSliceController
from haven.controllers.endpointslicemirroring import EndpointSliceMirroringController
from haven.controllers.slicepacking import endpoint_key, pack


def a_service(**spec: object) -> core.Service:
    fields: dict[str, object] = {
        "selector": LABELS,
        "cluster_ip": "10.0.0.1",
        "ip_families": ["IPv4"],
        "ports": [core.ServicePort(name="http", port=80, target_port=8080, protocol="TCP")],
        **spec,
    }
    return core.Service(
        metadata=meta.ObjectMeta(name="web", namespace="default", labels={"team": "shop"}),
        spec=core.ServiceSpec(**fields),  # type: ignore[arg-type]
    )


def a_backend(number: int, *, ready: bool = True) -> core.Pod:
    pod = a_pod(f"p{number}", ready=ready)
    pod.status.pod_ip = f"10.1.0.{number}"
    pod.status.pod_ips = [core.PodIP(ip=pod.status.pod_ip)]
    return pod


def a_world(*objects: object, controller: type = EndpointSliceController) -> Workloads:
    world = Workloads()
    world.put(core.Node(metadata=meta.ObjectMeta(name="n", labels={"topology.kubernetes.io/zone": "z1"})), *objects)
    world.start(controller)
    return world


def test_a_service_without_pods_has_an_empty_slice_of_its_own() -> None:
    (each,) = a_world(a_service()).all(discovery.EndpointSlice)

    assert (each.endpoints, each.ports, each.address_type) == (None, None, "IPv4")
    assert each.metadata.labels == {
        "team": "shop",
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    assert each.metadata.generate_name == "web-"


def test_the_empty_slice_is_filled_when_pods_come() -> None:
    world = a_world(a_service())
    (before,) = world.all(discovery.EndpointSlice)

    world.put(a_backend(1), a_backend(2, ready=False))
    world.settle()

    (after,) = world.all(discovery.EndpointSlice)
    assert after.metadata.name == before.metadata.name
    states = {each.addresses[0]: each.conditions.ready for each in after.endpoints or ()}
    assert states == {"10.1.0.1": True, "10.1.0.2": False}
    assert [each.port for each in after.ports or ()] == [8080]
    assert (after.endpoints or [])[0].zone == "z1"


def test_a_terminating_pod_serves_but_is_not_ready() -> None:
    pod = a_backend(1)
    pod.metadata.deletion_timestamp = "2026-01-01T00:00:00Z"
    pod.metadata.finalizers = ["keep"]

    (each,) = a_world(a_service(), pod).all(discovery.EndpointSlice)

    state = (each.endpoints or [])[0].conditions
    assert (state.ready, state.serving, state.terminating) == (False, True, True)


def test_traffic_that_prefers_its_zone_gets_hints() -> None:
    (each,) = a_world(a_service(traffic_distribution="PreferClose"), a_backend(1)).all(discovery.EndpointSlice)

    hints = (each.endpoints or [])[0].hints
    assert hints is not None
    assert [zone.name for zone in hints.for_zones] == ["z1"]


def test_pods_whose_named_port_differs_get_slices_of_their_own() -> None:
    first, second = a_backend(1), a_backend(2)
    for pod, number in ((first, 8080), (second, 9090)):
        pod.spec.containers = [
            core.Container(name="c", ports=[core.ContainerPort(name="http", container_port=number, protocol="TCP")])
        ]
    named = [core.ServicePort(port=80, target_port="http", protocol="TCP")]

    world = a_world(a_service(ports=named), first, second)

    found = world.all(discovery.EndpointSlice)
    assert sorted((each.ports or [])[0].port or 0 for each in found) == [8080, 9090]


def an_endpoint(number: int, *, ready: bool = True) -> discovery.Endpoint:
    return discovery.Endpoint(
        addresses=[f"10.0.{number // 256}.{number % 256}"],
        conditions=discovery.EndpointConditions(ready=ready),
        target_ref=core.ObjectReference(kind="Pod", name=f"p{number}", uid=UID(str(number))),
    )


def a_slice(name: str, *numbers: int) -> discovery.EndpointSlice:
    return discovery.EndpointSlice(
        metadata=meta.ObjectMeta(name=name), endpoints=[an_endpoint(number) for number in numbers]
    )


def test_one_new_endpoint_changes_one_slice_with_room() -> None:
    existing = [a_slice("full", 0, 1, 2), a_slice("roomy", 3)]

    plan = pack(existing, [an_endpoint(number) for number in range(5)], lambda: a_slice(""), {}, 3)

    assert ([each.metadata.name for each in plan.update], plan.create, plan.delete) == (["roomy"], [], [])


@given(
    have=lists(sets(integers(0, 40), max_size=5), max_size=4),
    want=sets(integers(0, 40)),
    most=integers(1, 5),
)
def test_slices_hold_exactly_what_is_wanted_and_then_nothing_changes(
    have: list[set[int]], want: set[int], most: int
) -> None:
    taken: set[int] = set()
    existing = []
    for position, numbers in enumerate(have):
        existing.append(a_slice(f"s{position}", *sorted(numbers - taken)))
        taken |= numbers
    wanted = [an_endpoint(number) for number in sorted(want)]

    plan = pack(existing, wanted, lambda: a_slice(""), {}, most)

    gone = {each.metadata.name for each in plan.delete}
    updated = {each.metadata.name: each for each in plan.update}
    after = [updated.get(each.metadata.name, each) for each in existing if each.metadata.name not in gone]
    for position, each in enumerate(plan.create):
        each.metadata.name = f"new{position}"
        assert 0 < len(each.endpoints or ()) <= most
    after += plan.create
    held = [endpoint_key(endpoint) for each in after for endpoint in each.endpoints or ()]
    assert sorted(held, key=str) == sorted(map(endpoint_key, wanted), key=str)
    again = pack(after, wanted, lambda: a_slice(""), {}, most)
    assert (again.create, again.update) == ([], [])


def test_endpoints_tell_ready_addresses_from_the_others() -> None:
    world = a_world(a_service(), a_backend(1), a_backend(2, ready=False), controller=EndpointsController)

    (subset,) = world.get(core.Endpoints, "default", "web").subsets
    assert [each.ip for each in subset.addresses] == ["10.1.0.1"]
    assert [each.ip for each in subset.not_ready_addresses] == ["10.1.0.2"]
    assert [(each.name, each.port) for each in subset.ports] == [("http", 8080)]


def test_endpoints_go_with_their_service() -> None:
    world = a_world(a_service(), controller=EndpointsController)
    assert world.get(core.Endpoints, "default", "web") is not None

    world.remove(core.Service, "default", "web")
    world.settle()

    assert world.get(core.Endpoints, "default", "web") is None


def test_a_thousand_addresses_are_kept_and_unready_ones_go_first() -> None:
    ready = [core.EndpointAddress(ip=f"10.0.{n // 256}.{n % 256}") for n in range(990)]
    unready = [core.EndpointAddress(ip=f"10.9.0.{n}") for n in range(50)]
    subset = core.EndpointSubset(addresses=ready, not_ready_addresses=unready)

    assert truncate([subset])

    assert (len(subset.addresses), len(subset.not_ready_addresses)) == (990, 10)


def test_addresses_with_the_same_ports_share_a_subset() -> None:
    def one(ip: str, port: int) -> core.EndpointSubset:
        return core.EndpointSubset(addresses=[core.EndpointAddress(ip=ip)], ports=[core.EndpointPort(port=port)])

    packed = repack([one("10.0.0.2", 80), one("10.0.0.1", 80), one("10.0.0.1", 443), one("10.0.0.2", 443)])

    assert [([a.ip for a in each.addresses], [p.port for p in each.ports]) for each in packed] == [
        (["10.0.0.1", "10.0.0.2"], [80, 443])
    ]


def test_hand_written_endpoints_are_mirrored_and_followed() -> None:
    service = a_service(selector={})
    endpoints = core.Endpoints(
        metadata=meta.ObjectMeta(name="web", namespace="default"),
        subsets=[
            core.EndpointSubset(addresses=[core.EndpointAddress(ip="192.0.2.1")], ports=[core.EndpointPort(port=80)])
        ],
    )
    world = a_world(service, endpoints, controller=EndpointSliceMirroringController)
    (each,) = world.all(discovery.EndpointSlice)
    assert (each.endpoints or [])[0].addresses == ["192.0.2.1"]

    def add(target: core.Endpoints) -> None:
        target.subsets[0].not_ready_addresses = [core.EndpointAddress(ip="192.0.2.2")]

    world.edit(core.Endpoints, "web", add)

    (again,) = world.all(discovery.EndpointSlice)
    assert again.metadata.name == each.metadata.name
    assert [endpoint.conditions.ready for endpoint in again.endpoints or ()] == [True, False]


def test_ports_that_only_some_addresses_have_go_apart() -> None:
    def one(ip: str, port: int, *, ready: bool = True) -> core.EndpointSubset:
        members = [core.EndpointAddress(ip=ip)]
        return core.EndpointSubset(
            addresses=members if ready else [],
            not_ready_addresses=[] if ready else members,
            ports=[core.EndpointPort(name=str(port), port=port, protocol="TCP")],
        )

    packed = repack([one("10.0.0.1", 80), one("10.0.0.10", 80), one("10.0.0.2", 80, ready=False), one("10.0.0.1", 443)])

    assert {
        (
            tuple(port.port for port in each.ports),
            tuple(address.ip for address in each.addresses),
            tuple(address.ip for address in each.not_ready_addresses),
        )
        for each in packed
    } == {((80,), ("10.0.0.1", "10.0.0.10"), ("10.0.0.2",)), ((443,), ("10.0.0.1",), ())}


def test_ports_are_in_the_order_that_go_programs_give_them() -> None:
    ports = [
        core.ServicePort(name="w", port=80, target_port=8080, protocol="TCP"),
        core.ServicePort(name="x", port=81, target_port=81, protocol="UDP", app_protocol="foo"),
    ]
    world = a_world(a_service(ports=ports), a_backend(1))

    (each,) = world.all(discovery.EndpointSlice)

    assert [port.name for port in each.ports or ()] == ["x", "w"]

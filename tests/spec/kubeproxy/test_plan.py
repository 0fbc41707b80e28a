"""Traffic goes to the endpoints that upstream's proxy would choose."""

from __future__ import annotations

from tests.spec.kubeproxy.services import a_service, a_slice, an_endpoint

from haven.api.discovery import v1 as discovery
from haven.kubeproxy.endpoints import Node
from haven.kubeproxy.plan import IPV4, PortKey, ServicePort, plan_service
from haven.kubeproxy.stale import stale_flows

KEY = PortKey("default", "web", "TCP", 80, IPV4)


def planned(*endpoints: discovery.Endpoint, zone: str = "", **spec: object) -> ServicePort:
    return plan_service(a_service(**spec), [a_slice(*endpoints)], Node("n1", zone))[KEY]


def addresses(port: ServicePort) -> list[str]:
    return [target.address for target in port.internal]


def test_ready_endpoints_are_used() -> None:
    port = planned(an_endpoint("10.0.0.1"), an_endpoint("10.0.0.2", ready=False), an_endpoint("10.0.0.3", ready=None))

    assert addresses(port) == ["10.0.0.1", "10.0.0.3"]


def test_if_none_is_ready_those_that_still_serve_are_used() -> None:
    leaving = an_endpoint("10.0.0.1", ready=False, serving=True, terminating=True)

    assert addresses(planned(leaving, an_endpoint("10.0.0.2", ready=False, serving=False))) == ["10.0.0.1"]
    assert addresses(planned(leaving, an_endpoint("10.0.0.2"))) == ["10.0.0.2"]


def test_a_local_policy_keeps_to_this_node() -> None:
    port = planned(an_endpoint("10.0.0.1"), an_endpoint("10.0.0.2", node="n2"), internal_traffic_policy="Local")

    assert addresses(port) == ["10.0.0.1"]


def test_zone_hints_count_only_if_every_endpoint_has_one() -> None:
    near, far = an_endpoint("10.0.0.1", zones=["a"]), an_endpoint("10.0.0.2", zones=["b"])

    assert addresses(planned(near, far, zone="a")) == ["10.0.0.1"]
    assert addresses(planned(near, an_endpoint("10.0.0.3"), zone="a")) == ["10.0.0.1", "10.0.0.3"]
    assert addresses(planned(near, far, zone="c")) == ["10.0.0.1", "10.0.0.2"]


def test_headless_and_external_services_are_not_proxied() -> None:
    assert plan_service(a_service(cluster_ip="None"), [], Node("n1")) == {}


def test_an_address_that_the_node_answers_itself_is_left_alone() -> None:
    assert plan_service(a_service(), [], Node("n1"), frozenset({"10.96.0.50"})) == {}


def test_udp_flows_to_a_lost_endpoint_are_forgotten() -> None:
    service = a_service(protocol="UDP", node_port=30001)
    both = [a_slice(an_endpoint("10.0.0.1"), an_endpoint("10.0.0.2"), protocol="UDP")]
    one = [a_slice(an_endpoint("10.0.0.2"), protocol="UDP")]

    flows = stale_flows(plan_service(service, both, Node("n1")), plan_service(service, one, Node("n1")))

    assert flows == [
        ("-p", "udp", "--dport", "30001", "--reply-src", "10.0.0.1"),
        ("-p", "udp", "--orig-dst", "10.96.0.50", "--dport", "80", "--reply-src", "10.0.0.1"),
    ]

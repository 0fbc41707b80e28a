"""When a network of Services' addresses may go."""

from __future__ import annotations

from ipaddress import ip_address

from haven.api.networking import v1 as networking
from haven.apimachinery import meta
from haven.controllers.servicecidr import may_go


def a_cidr(name: str, *networks: str, leaving: bool = False) -> networking.ServiceCIDR:
    metadata = meta.ObjectMeta(name=name, deletion_timestamp="2026-01-01T00:00:00Z" if leaving else None)
    return networking.ServiceCIDR(metadata=metadata, spec=networking.ServiceCIDRSpec(cidrs=list(networks)))


def test_a_network_with_addresses_that_no_other_holds_stays() -> None:
    network, outside = a_cidr("a", "10.0.0.0/24"), a_cidr("b", "10.1.0.0/24")

    assert not may_go(network, [network, outside], [ip_address("10.0.0.5")])
    assert may_go(network, [network, outside], [ip_address("10.1.0.5")])


def test_a_network_within_another_goes_though_it_is_in_use() -> None:
    inner, outer = a_cidr("inner", "10.0.0.0/28"), a_cidr("outer", "10.0.0.0/24")

    assert may_go(inner, [inner, outer], [ip_address("10.0.0.5")])
    assert not may_go(outer, [inner, outer], [ip_address("10.0.0.200")])
    assert may_go(outer, [inner, outer], [ip_address("10.0.0.5")])


def test_a_network_that_is_on_its_way_out_still_holds_addresses() -> None:
    leaving, last = a_cidr("leaving", "10.0.0.0/24", leaving=True), a_cidr("last", "10.0.0.0/24", leaving=True)

    assert may_go(leaving, [leaving, last], [ip_address("10.0.0.5")])
    assert not may_go(last, [last], [ip_address("10.0.0.5")])


def test_all_networks_of_two_families_have_to_be_held() -> None:
    both, four = a_cidr("both", "10.0.0.0/24", "fd00::/112"), a_cidr("four", "10.0.0.0/16")

    assert may_go(both, [both, four], [ip_address("10.0.0.5")])
    assert not may_go(both, [both, four], [ip_address("fd00::5")])

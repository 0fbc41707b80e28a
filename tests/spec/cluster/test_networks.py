"""A new cluster takes networks that nothing on its machine uses."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haven.cluster.networks import NoFreeNetwork, Taken, choose, conflicts, dns_address_of


def used(*networks: str) -> list[Taken]:
    return [Taken(ip_network(network), "eth0") for network in networks]


def test_the_usual_network_is_taken_where_it_is_free() -> None:
    assert choose("pods", "10.244.0.0/24", used("192.168.1.0/24", "fd00::/64")) == "10.244.0.0/24"


def test_the_next_free_one_is_taken_where_it_is_not() -> None:
    assert choose("pods", "10.244.0.0/24", used("10.244.0.0/16")) == "10.245.0.0/24"
    assert choose("services", "10.96.0.0/16", used("10.96.0.10/32", "10.97.3.4/32")) == "10.98.0.0/16"


def test_a_machine_in_a_wide_network_gets_one_outside_of_it() -> None:
    assert choose("services", "10.96.0.0/16", used("10.0.0.0/8")) == "172.24.0.0/16"


def test_where_nothing_is_free_the_option_is_named() -> None:
    with pytest.raises(NoFreeNetwork, match="--pod-cidr"):
        choose("pods", "10.244.0.0/24", used("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15"))


def test_the_dns_has_the_tenth_address() -> None:
    assert dns_address_of("10.98.0.0/16") == "10.98.0.10"


@given(st.lists(st.sampled_from(["10.0.0.0/9", "10.244.0.0/16", "10.96.0.10/32", "172.16.0.0/12", "192.168.0.0/16"])))
def test_what_is_chosen_is_free(networks: list[str]) -> None:
    others = used(*networks)
    for kind, first in (("pods", "10.244.0.0/24"), ("services", "10.96.0.0/16")):
        assert conflicts(choose(kind, first, others), others, around=True) == []

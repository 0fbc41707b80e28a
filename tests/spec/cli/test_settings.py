"""Where a cluster's parts find each other follows from what the user chose."""

from __future__ import annotations

from haven.cli.settings import ClusterSettings


def test_pods_reach_an_api_server_on_loopback_at_the_first_address_of_their_network() -> None:
    assert ClusterSettings(node_name="n", pod_cidr="10.9.8.0/24").pod_side_address == "10.9.8.1"


def test_an_api_server_for_other_machines_needs_no_second_address() -> None:
    assert ClusterSettings(node_name="n", listen="192.0.2.7").pod_side_address == ""

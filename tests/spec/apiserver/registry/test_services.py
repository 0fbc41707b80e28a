"""Services get addresses and ports that nobody else has, and give them back."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_network
from typing import Any

SERVICES = "/api/v1/namespaces/default/services"
ADDRESSES = "/apis/networking.k8s.io/v1/ipaddresses"
MERGE = "application/merge-patch+json"


def a_service(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}], **spec}}


async def test_a_service_gets_an_address_of_the_network_and_a_reservation(api: Any) -> None:
    _, made = await api.send("POST", SERVICES, a_service("s"))

    address = made["spec"]["clusterIP"]
    assert ip_address(address) in ip_network("10.96.0.0/16")
    _, reserved = await api.send("GET", f"{ADDRESSES}/{address}")
    assert reserved["spec"]["parentRef"] == {"resource": "services", "namespace": "default", "name": "s"}


async def test_services_made_at_once_never_share_a_port_or_an_address(api: Any) -> None:
    made = await asyncio.gather(*[api.send("POST", SERVICES, a_service(f"s{n}", type="NodePort")) for n in range(40)])

    assert {status for status, _ in made} == {201}
    assert len({one["spec"]["clusterIP"] for _, one in made}) == 40
    ports = {one["spec"]["ports"][0]["nodePort"] for _, one in made}
    assert len(ports) == 40
    assert all(30000 <= port < 32768 for port in ports)


async def test_a_port_that_is_taken_or_out_of_range_is_refused(api: Any) -> None:
    wanted = {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30123}]}
    await api.send("POST", SERVICES, a_service("one", **wanted))

    taken, refusal = await api.send("POST", SERVICES, a_service("two", **wanted))
    outside, _ = await api.send(
        "POST", SERVICES, a_service("two", type="NodePort", ports=[{"port": 80, "nodePort": 80}])
    )

    assert (taken, outside) == (422, 422)
    assert "provided port is already allocated" in refusal["message"]


async def test_what_a_service_held_is_free_when_it_goes_or_changes_its_type(api: Any) -> None:
    _, made = await api.send("POST", SERVICES, a_service("s", type="NodePort"))
    port, address = made["spec"]["ports"][0]["nodePort"], made["spec"]["clusterIP"]

    await api.send("PATCH", f"{SERVICES}/s", {"spec": {"type": "ClusterIP"}}, content_type=MERGE)
    again, _ = await api.send("POST", SERVICES, a_service("t", type="NodePort", ports=[{"port": 80, "nodePort": port}]))
    await api.send("DELETE", f"{SERVICES}/s")
    reused, _ = await api.send("POST", SERVICES, a_service("u", clusterIP=address))

    assert (again, reused) == (201, 201)


async def test_the_same_manifest_sent_again_keeps_the_address(api: Any) -> None:
    _, made = await api.send("POST", SERVICES, a_service("s", type="NodePort"))

    status, same = await api.send("PUT", f"{SERVICES}/s", a_service("s", type="NodePort"))

    assert status == 200
    assert same["spec"]["clusterIP"] == made["spec"]["clusterIP"]
    assert same["spec"]["ports"] == made["spec"]["ports"]


async def test_a_refused_service_leaves_no_reservation(api: Any) -> None:
    await api.send("POST", SERVICES, a_service("Bad_Name", type="NodePort"))

    _, reserved = await api.send("GET", ADDRESSES)

    assert reserved["items"] == []

"""Names resolve as the Kubernetes DNS specification says, read by a foreign library (dnspython)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis.strategies import binary

from haven.api.core import v1 as core
from haven.api.discovery import v1 as discovery
from haven.apimachinery import meta
from haven.dns import wire
from haven.dns.forward import Forwarder
from haven.dns.resolvconf import find_resolvers
from haven.dns.server import Resolver, Server
from haven.dns.zone import Zone


def a_service(name: str, cluster_ip: str = "", **spec: object) -> core.Service:
    ports = [core.ServicePort(name="http", port=80, protocol="TCP")]
    return core.Service(
        metadata=meta.ObjectMeta(name=name, namespace="default"),
        spec=core.ServiceSpec(cluster_ip=cluster_ip, ports=ports, **spec),  # type: ignore[arg-type]
    )


SERVICES = {
    "web": a_service("web", "10.96.0.7", cluster_ips=["10.96.0.7", "fd00::7"]),
    "db": a_service("db", "None"),
    "empty": a_service("empty", "None"),
    "outside": a_service("outside", type="ExternalName", external_name="example.com"),
    "inside": a_service("inside", type="ExternalName", external_name="web.default.svc.cluster.local"),
}
SLICE = discovery.EndpointSlice(
    address_type="IPv4",
    endpoints=[
        discovery.Endpoint(addresses=["10.244.0.2"], hostname="db-0"),
        discovery.Endpoint(addresses=["10.244.0.3"]),
        discovery.Endpoint(addresses=["10.244.0.4"], conditions=discovery.EndpointConditions(ready=False)),
    ],
    ports=[discovery.EndpointPort(name="http", port=8080, protocol="TCP")],
)


def a_resolver(forwarder: Forwarder | None = None) -> Resolver:
    zone = Zone(
        domain="cluster.local",
        services=lambda namespace, name: SERVICES.get(name) if namespace == "default" else None,
        slices=lambda namespace, name: [SLICE] if name == "db" else [],
        has_namespace=lambda name: name == "default",
        reverse={"10.96.0.7": "web.default.svc", "10.244.0.2": "db-0.db.default.svc"}.get,
        serial=lambda: 1,
    )
    return Resolver(zone, forwarder or Forwarder([], random.Random(1)))


async def ask(name: str, type: str, resolver: Resolver | None = None) -> dns.message.Message:
    data = dns.message.make_query(name, type).to_wire()
    resolver = resolver or a_resolver()
    query = wire.parse_query(data)
    reply = resolver.answer_now(query)
    if reply is None:
        reply = await resolver.answer_later(query, data, tcp=False)
    return dns.message.from_wire(reply)


def texts(message: dns.message.Message) -> list[str]:
    return sorted(item.to_text() for rrset in message.answer for item in rrset)


@pytest.mark.parametrize(
    ("name", "type", "expected"),
    [
        ("web.default.svc.cluster.local", "A", ["10.96.0.7"]),
        ("WEB.Default.svc.CLUSTER.local", "A", ["10.96.0.7"]),
        ("web.default.svc.cluster.local", "AAAA", ["fd00::7"]),
        ("db.default.svc.cluster.local", "A", ["10.244.0.2", "10.244.0.3"]),
        ("db-0.db.default.svc.cluster.local", "A", ["10.244.0.2"]),
        ("10-244-0-3.db.default.svc.cluster.local", "A", ["10.244.0.3"]),
        ("_http._tcp.web.default.svc.cluster.local", "SRV", ["0 100 80 web.default.svc.cluster.local."]),
        (
            "_http._tcp.db.default.svc.cluster.local",
            "SRV",
            ["0 50 8080 10-244-0-3.db.default.svc.cluster.local.", "0 50 8080 db-0.db.default.svc.cluster.local."],
        ),
        ("outside.default.svc.cluster.local", "CNAME", ["example.com."]),
        ("7.0.96.10.in-addr.arpa", "PTR", ["web.default.svc.cluster.local."]),
        ("2.0.244.10.in-addr.arpa", "PTR", ["db-0.db.default.svc.cluster.local."]),
        ("10-244-0-9.default.pod.cluster.local", "A", ["10.244.0.9"]),
        ("dns-version.cluster.local", "TXT", ['"1.1.0"']),
    ],
)
async def test_a_name_has_the_records_of_the_specification(name: str, type: str, expected: list[str]) -> None:
    message = await ask(name, type)

    assert texts(message) == expected
    assert message.rcode() == dns.rcode.NOERROR
    assert message.flags & dns.flags.AA


@pytest.mark.parametrize(
    ("name", "type", "rcode"),
    [
        ("none.default.svc.cluster.local", "A", dns.rcode.NXDOMAIN),
        ("web.nowhere.svc.cluster.local", "A", dns.rcode.NXDOMAIN),
        ("web.default.svc.cluster.local", "MX", dns.rcode.NOERROR),
        ("empty.default.svc.cluster.local", "A", dns.rcode.NXDOMAIN),
        ("_ftp._tcp.web.default.svc.cluster.local", "SRV", dns.rcode.NXDOMAIN),
        ("default.svc.cluster.local", "A", dns.rcode.NOERROR),
        ("10-244-0-9.nowhere.pod.cluster.local", "A", dns.rcode.NXDOMAIN),
        ("x.y.z.cluster.local", "A", dns.rcode.NXDOMAIN),
    ],
)
async def test_what_is_not_there_is_denied_with_the_zones_soa(name: str, type: str, rcode: dns.rcode.Rcode) -> None:
    message = await ask(name, type)

    assert (message.rcode(), texts(message)) == (rcode, [])
    assert [rrset.rdtype for rrset in message.authority] == [wire.SOA]


async def test_a_name_that_only_ends_alike_is_not_the_clusters() -> None:
    message = await ask("web.notcluster.local", "A")

    assert message.rcode() == dns.rcode.SERVFAIL  # Nobody to forward to.


async def test_an_alias_inside_the_cluster_is_followed() -> None:
    message = await ask("inside.default.svc.cluster.local", "A")

    assert texts(message) == ["10.96.0.7", "web.default.svc.cluster.local."]


async def test_every_address_comes_first_in_turn() -> None:
    resolver = a_resolver()

    firsts = {(await ask("db.default.svc.cluster.local", "A", resolver)).answer[0][0].to_text() for _ in range(4)}

    assert firsts == {"10.244.0.2", "10.244.0.3"}


@asynccontextmanager
async def serving(resolver: Resolver) -> AsyncIterator[int]:
    server, ready = Server(resolver, "127.0.0.1", 0), asyncio.Event()
    task = asyncio.create_task(server.run(ready=ready))
    await ready.wait()
    try:
        yield server.port
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_outside_names_are_forwarded_over_udp_and_tcp() -> None:
    import dns.asyncquery

    async with serving(a_resolver()) as upstream:
        forwarder = Forwarder(["127.0.0.1"], random.Random(2), port=upstream)
        other = a_resolver(forwarder)
        other._zone.domain, other._zone._zone = "other.test", wire.name_bytes("other.test")
        async with serving(other) as port:
            query = dns.message.make_query("web.default.svc.cluster.local", "A")
            for ask_over in (dns.asyncquery.udp, dns.asyncquery.tcp):
                reply = await ask_over(query, "127.0.0.1", port=port, timeout=60)
                assert texts(reply) == ["10.96.0.7"]


async def test_a_forwarding_loop_is_found_and_ends_forwarding() -> None:
    forwarder = Forwarder(["127.0.0.1"], random.Random(3), port=0)
    async with serving(a_resolver(forwarder)) as port:
        forwarder._port = port

        await forwarder.find_loop()

    assert forwarder.looped


@given(data=binary(max_size=80))
def test_garbage_is_refused_and_never_crashes(data: bytes) -> None:
    try:
        query = wire.parse_query(data)
    except wire.Malformed:
        return
    reply = a_resolver().answer_now(query)
    assert reply is None or reply[:2] == data[:2]


def test_a_stub_resolver_is_passed_over_for_the_real_ones(tmp_path: object) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    (folder / "stub").write_text("nameserver 127.0.0.53\n")
    (folder / "real").write_text("nameserver 10.96.0.10\nnameserver 192.0.2.1 # the router\n")

    assert find_resolvers({"10.96.0.10"}, [folder / "stub", folder / "real"]) == (("192.0.2.1",), "")
    resolvers, why = find_resolvers(set(), [folder / "stub"])
    assert resolvers == ()
    assert "127.0.0.53" in why

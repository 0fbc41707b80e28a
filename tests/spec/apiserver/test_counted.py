"""What a server does is counted where it happens, under upstream's names."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
from contextlib import nullcontext
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from prometheus_client.parser import text_string_to_metric_families

from haven.api.core import v1 as core
from haven.api.scheme import resource_of
from haven.apimachinery.apierrors import NotFound, Unauthorized
from haven.apiserver.authentication.bearer import BearerTokens, TokenUnion
from haven.apiserver.authentication.statictokens import StaticTokens
from haven.apiserver.authentication.x509 import ClientCertificates
from haven.apiserver.encryption.ciphers import AesGcm
from haven.apiserver.encryption.meter import EncryptionMeter
from haven.apiserver.encryption.transformers import Chain, DecryptionFailed, Prefixed
from haven.apiserver.http.handshakes import SECONDS_MAX, Handshakes
from haven.apiserver.metrics import make_registry
from haven.apiserver.outgoing import LEGACY_NAME, OutgoingMeter
from haven.apiserver.registry.allocationmeter import addresses_of
from haven.apiserver.registry.issuedcertificates import is_honored
from haven.apiserver.request import Request, UserInfo
from haven.clock import FakeClock
from haven.metrics.exposition import expose
from haven.metrics.families import Registry

PODS = "/api/v1/namespaces/{}/pods"
SECURITY = "pod-security.kubernetes.io/"


class Shown:
    """What a scraper sees of a registry, but for buckets."""

    def __init__(self, registry: Registry) -> None:
        text = expose(registry.families(), "")[1].decode()
        self.samples = [
            sample
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if "le" not in sample.labels
        ]

    def of(self, name: str, **labels: str) -> float:
        """Return the sum of all samples with these labels."""
        return sum(
            sample.value for sample in self.samples if sample.name == name and labels.items() <= sample.labels.items()
        )


def a_pod(name: str, **spec: Any) -> dict[str, Any]:
    containers = [{"name": "c", "image": "i"}]
    return {"metadata": {"name": name}, "spec": {"containers": containers, **spec}}


async def a_namespace(api: Any, name: str, **labels: str) -> None:
    marked = {SECURITY + mode.replace("_", "-"): value for mode, value in labels.items()}
    await api.send("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": marked}})
    await api.send("POST", f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "default"}})


async def test_pods_are_counted_by_their_standard_also_when_they_are_made_as_others_were(api: Any) -> None:
    await a_namespace(api, "plain")
    await a_namespace(api, "based", enforce="baseline", audit="restricted")
    for namespace in ("plain", "based"):
        for number in range(9):
            status, answer = await api.send(
                "POST", PODS.format(namespace), a_pod(f"p{number}"), content_type="application/json"
            )
            assert status == 201, answer
    found, name = Shown(api.server.metrics), "pod_security_evaluations_total"
    pod = {"resource": "pod", "request_operation": "create"}
    assert found.of(name, decision="allow", mode="enforce", policy_level="privileged", **pod) == 9
    assert found.of(name, decision="allow", mode="enforce", policy_level="baseline", **pod) == 9
    assert found.of(name, decision="deny", mode="audit", policy_level="restricted", **pod) == 9


async def test_refusals_warnings_and_versions_to_come_are_told_apart(api: Any) -> None:
    await a_namespace(
        api, "strict", enforce="baseline", enforce_version="v1.30", warn="restricted", warn_version="v1.99"
    )
    status, _ = await api.send("POST", PODS.format("strict"), a_pod("bad", hostNetwork=True))
    assert status == 403
    await api.send("POST", PODS.format("strict"), a_pod("good"))
    found, name = Shown(api.server.metrics), "pod_security_evaluations_total"
    assert found.of(name, decision="deny", mode="enforce", policy_version="v1.30") == 1
    assert found.of(name, decision="allow", mode="enforce", policy_version="v1.30") == 1
    assert found.of(name, decision="deny", mode="warn", policy_version="future") == 1
    assert found.of("pod_security_exemptions_total") == 0


async def test_addresses_and_ports_of_services_are_counted_by_who_chose_them(api: Any) -> None:
    path = "/api/v1/namespaces/default/services"
    port = {"port": 80}
    for name, spec in (
        ("any", {"ports": [port], "type": "NodePort"}),
        ("own", {"ports": [{**port, "nodePort": 30123}], "type": "NodePort", "clusterIP": "10.96.7.7"}),
        ("late", {"ports": [port], "clusterIP": "10.96.7.7"}),
        ("later", {"ports": [{**port, "nodePort": 30123}], "type": "NodePort"}),
    ):
        await api.send("POST", path, {"metadata": {"name": name}, "spec": spec})
    await api.send("POST", path + "?dryRun=All", {"metadata": {"name": "try"}, "spec": {"ports": [port]}})
    found = Shown(api.server.metrics)
    addresses, ports = "kube_apiserver_clusterip_allocator_", "kube_apiserver_nodeport_allocator_"
    assert found.of(addresses + "allocation_total", scope="dynamic") == 2
    assert found.of(addresses + "allocation_total", scope="static") == 1
    assert found.of(addresses + "allocation_errors_total", scope="static") == 1
    assert found.of(addresses + "allocated_ips") == 2
    assert found.of(ports + "allocation_total", scope="dynamic") == 1
    assert found.of(ports + "allocation_total", scope="static") == 1
    assert found.of(ports + "allocation_errors_total", scope="static") == 1


def test_networks_have_an_address_for_all_but_themselves_and_the_broadcast() -> None:
    assert addresses_of(ipaddress.IPv4Network("10.96.0.0/16")) == 65534
    assert addresses_of(ipaddress.IPv6Network("fd00::/112")) == 65535


async def test_the_server_counts_its_own_requests_as_those_of_a_client(api: Any) -> None:
    client = api.server.local_client()
    name, before = "rest_client_requests_total", Shown(api.server.metrics)
    await client.list(resource_of(core.Pod))
    with pytest.raises(NotFound):
        await client.get(resource_of(core.Pod), "default", "nobody")
    found = Shown(api.server.metrics)
    for code in ("200", "404"):
        # The server's own work may have asked as well.
        assert found.of(name, method="GET", code=code) >= before.of(name, method="GET", code=code) + 1
    assert found.of("rest_client_request_duration_seconds_count", verb="GET") == found.of(name, method="GET")


async def test_a_list_is_of_the_newest_state_unless_a_version_is_asked_for(api: Any) -> None:
    name, place = "apiserver_watch_cache_consistent_read_total", {"resource": "secrets", "success": "true"}
    await api.send("GET", "/api/v1/secrets")
    await api.send("GET", "/api/v1/secrets?resourceVersion=0")
    found = Shown(api.server.metrics)
    assert found.of(name, **place) == 1
    assert found.of("apiserver_watch_cache_read_wait_seconds_count", resource="secrets") == 2
    assert found.of("apiserver_storage_list_total", resource="secrets") == 1  # The watch cache's own, at the start.


async def test_a_watch_that_begins_with_all_objects_is_counted_when_it_has_sent_them(api: Any) -> None:
    await api.config_map("a")
    path = "/api/v1/namespaces/default/configmaps?watch=1&sendInitialEvents=true&allowWatchBookmarks=true"
    path += "&resourceVersionMatch=NotOlderThan&timeoutSeconds=30"
    stream = api.server.local_transport().stream(path)
    lines = 0
    async for line in stream:
        lines += 1
        if b"initial-events-end" in line:
            break
    await api.config_map("b")
    assert lines >= 2
    async for _ in stream:
        break  # The next event: so the first ones are out.
    await stream.aclose()
    found = Shown(api.server.metrics)
    assert found.of("apiserver_init_events_total", resource="configmaps") == lines - 1
    assert found.of("apiserver_watch_list_duration_seconds_count", resource="configmaps", scope="namespace") == 1


def a_certificate(ends: datetime.datetime, lasts: datetime.timedelta) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(ends - lasts)
        .not_valid_after(ends)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(("wanted", "honored"), [(3600, True), (3600 * 24, False), (3900, True), (7200, False)])
def test_a_duration_is_honored_if_it_is_about_what_was_asked_for(wanted: int, honored: bool) -> None:
    ends = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
    assert is_honored(a_certificate(ends, datetime.timedelta(hours=1)), wanted) is honored


async def test_what_is_left_of_client_certificates_falls_into_its_bucket_as_time_goes_by() -> None:
    clock = FakeClock()
    ends = datetime.datetime.fromtimestamp(clock.now_seconds(), datetime.UTC) + datetime.timedelta(hours=3)
    pem = a_certificate(ends.replace(microsecond=0), datetime.timedelta(days=1))
    authority = x509.load_pem_x509_certificate(pem)
    known = ClientCertificates([authority], clock)
    request = Request("GET", "/", {}, {})
    request.client_certificate = authority.public_bytes(serialization.Encoding.DER)

    async def use() -> list[float]:
        with pytest.raises(Unauthorized) if clock.now_seconds() > ends.timestamp() else nullcontext():
            await known.authenticate(request)
        counts, bounds = known.remaining.counts, (*known.remaining.bounds, 0.5)
        return [bound for bound, number in zip(bounds, counts, strict=True) for _ in range(number)]

    assert await use() == [21600.0]
    await clock.advance(2 * 3600.0)
    assert await use() == [3600.0, 21600.0]
    await clock.advance(2 * 3600.0)
    assert await use() == [0.0, 3600.0, 21600.0]


async def test_tokens_that_are_remembered_are_hits_and_others_are_judged() -> None:
    clock = FakeClock()
    union = TokenUnion([StaticTokens({"good": UserInfo("a")}, ("api",))])
    bearer = BearerTokens(union, ("api",), clock)

    async def ask(token: str) -> None:
        await bearer.authenticate(Request("GET", "/", {}, {"authorization": f"Bearer {token}"}))

    for _ in range(3):
        await ask("good")
    with pytest.raises(Unauthorized):
        await ask("bad")
    found = union.statistics
    assert (found.hits, sum(found.misses.counts), found.fetched, found.failed, found.in_flight) == (2, 2, 2, 0, 0)


def test_connections_that_vanish_before_they_are_private_have_failed() -> None:
    class Connection(asyncio.Protocol):
        pass

    account = Handshakes()
    kept = [Connection() for _ in range(4)]
    for connection in kept:
        account.begun(connection, now=100.0)
    account.done(kept[0])
    assert account.failed(now=101.0) == 0
    del connection
    kept.pop()
    assert account.failed(now=101.0) == 1
    assert account.failed(now=101.0 + SECONDS_MAX) == 3


def test_values_are_counted_by_resource_and_prefix_also_of_the_keys_inside() -> None:
    registry = make_registry()
    meter = EncryptionMeter(registry, "me")
    inner = Chain([Prefixed(b"key1:", AesGcm(b"k" * 16))])
    chain = Chain([Prefixed(b"k8s:enc:aesgcm:v1:", inner)]).counted(
        lambda kind, prefix, seconds, status: meter.transformed("secrets", kind, prefix, seconds, status)
    )
    stored = chain.seal(b"/a", b"value")
    assert chain.open(b"/a", stored).value == b"value"
    with pytest.raises(DecryptionFailed):
        chain.open(b"/b", stored)
    with pytest.raises(DecryptionFailed):
        chain.open(b"/a", b"something else")
    found, name = Shown(registry), "apiserver_storage_transformation_operations_total"
    for prefix in ("k8s:enc:aesgcm:v1:", "key1:"):
        here = {"resource": "secrets", "transformer_prefix": prefix}
        assert found.of(name, transformation_type="to_storage", status="OK", **here) == 1
        assert found.of(name, transformation_type="from_storage", status="OK", **here) == 1
        assert found.of(name, transformation_type="from_storage", status="unknown-non-grpc", **here) == 1
    assert found.of(name, transformation_type="from_storage", transformer_prefix="unknown") == 1


def test_calls_to_others_are_counted_by_host_code_and_try() -> None:
    registry = make_registry()
    meter = OutgoingMeter(registry, lambda: "127.0.0.1:6443")
    url = "https://hook.example.com:8443/x?timeout=3s"
    meter.answered(url, "POST", 503, sent=100, received=5, again=False)
    meter.answered(url, "POST", 200, sent=100, received=7, again=True)
    meter.answered(url, "POST", None, sent=100, received=None, again=False)
    meter.refused_certificate("apiserver_webhooks", None, LEGACY_NAME)
    found, host = Shown(registry), "hook.example.com:8443"
    assert found.of("rest_client_requests_total", host=host, code="<error>", method="POST") == 1
    assert found.of("rest_client_request_retries_total") == found.of("rest_client_requests_total", code="200") == 1
    assert found.of("rest_client_request_size_bytes_count", host=host) == 3
    assert found.of("rest_client_response_size_bytes_sum", host=host, verb="POST") == 12
    assert found.of("apiserver_webhooks_x509_missing_san_total") == 1
    assert found.of("apiserver_kube_aggregator_x509_missing_san_total") == 0


def test_no_metric_is_listed_twice_and_each_says_what_it_is() -> None:
    families = make_registry().all()
    assert len({family.name for family in families}) == len(families)
    assert all(family.help.endswith(".") for family in families)
    assert all(list(family.labels) == sorted(family.labels) for family in families)
    assert all(list(family.bounds) == sorted(family.bounds) for family in families)

"""Calling webhooks: where a call goes, what it says, and in which words it fails."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web

from haven.api.admissionregistration import v1 as admissionregistration
from haven.api.core import v1 as core
from haven.api.discovery import v1 as discovery
from haven.apimachinery import apierrors, serialization
from haven.apiserver.webhooks.caller import CallFailed, WebhookCaller
from haven.apiserver.webhooks.services import ClusterAddresses, EndpointAddresses, Unroutable
from haven.apiserver.webhooks.target import ServiceTarget, Target
from haven.client.connection import Connection
from haven.cluster.certificates import new_authority

from .conftest import Hook


class Stored:
    """Stored Services and EndpointSlices."""

    def __init__(self, *objects: Any) -> None:
        self._objects = objects

    def get(self, resource: Any, namespace: str, name: str) -> Any:
        for one in self.list(resource, namespace):
            if one.metadata.name == name:
                return one
        return None

    def list(self, resource: Any, namespace: str = "") -> Sequence[Any]:
        return [one for one in self._objects if one.kind == resource.kind]


def a_service(**spec: Any) -> core.Service:
    spec = {"clusterIP": "127.0.0.1", "type": "ClusterIP", "ports": [{"port": 443, "name": "web"}], **spec}
    tree = {"metadata": {"name": "web", "namespace": "shop"}, "spec": spec}
    return serialization.convert(tree, core.Service)


def a_slice(*addresses: str, port: int = 8443, family: str = "IPv4", ready: bool = True) -> discovery.EndpointSlice:
    tree = {
        "metadata": {"name": f"web-{family}", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": family,
        "ports": [{"name": "web", "port": port}],
        "endpoints": [{"addresses": [one], "conditions": {"ready": ready}} for one in addresses],
    }
    return serialization.convert(tree, discovery.EndpointSlice)


@pytest.fixture
async def caller(hook: Hook) -> AsyncIterator[WebhookCaller]:
    service = a_service(type="ExternalName", externalName="127.0.0.1")
    caller = WebhookCaller(ClusterAddresses(Stored(service)))  # type: ignore[arg-type]
    yield caller
    await caller.close()


async def test_a_url_is_called_with_the_timeout_as_a_parameter(hook: Hook, caller: WebhookCaller) -> None:
    body = await caller.post(Target(hook.url(), ca=hook.ca), b'{"a":1}', timeout_seconds=9.2)

    assert json.loads(body) == {"ok": True}
    request, sent = hook.requests[0]
    assert (request.method, request.path_qs, sent) == ("POST", "/hook?timeout=10s", b'{"a":1}')
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["User-Agent"] == "kube-apiserver-admission"


async def test_a_service_is_called_by_its_name_whatever_its_address(hook: Hook, caller: WebhookCaller) -> None:
    config = serialization.convert(
        {"service": {"namespace": "shop", "name": "web", "path": "/check", "port": hook.port}},
        admissionregistration.WebhookClientConfig,
    )
    config.ca_bundle = hook.ca

    await caller.post(Target.of(config), b"{}", timeout_seconds=60)

    request, _ = hook.requests[0]
    assert request.headers["Host"] == f"web.shop.svc:{hook.port}"
    assert request.path_qs == "/check?timeout=60s"


async def test_a_connection_is_used_again(hook: Hook, caller: WebhookCaller) -> None:
    for _ in range(3):
        await caller.post(Target(hook.url(), ca=hook.ca), b"{}", timeout_seconds=60)

    assert len(hook.connections) == 1


async def test_a_kept_connection_that_the_callee_closed_is_replaced(hook: Hook, caller: WebhookCaller) -> None:
    await caller.post(Target(hook.url(), ca=hook.ca), b"{}", timeout_seconds=60)
    for transport in hook.connections:
        transport.abort()

    await caller.post(Target(hook.url(), ca=hook.ca), b"{}", timeout_seconds=60)

    assert len(hook.requests) == 2


async def test_credentials_are_sent(hook: Hook, caller: WebhookCaller) -> None:
    connection = Connection(hook.url(), ca=hook.ca, token="secret")

    await caller.post(Target.of_connection(connection), b"{}", timeout_seconds=60)

    assert hook.requests[0][0].headers["Authorization"] == "Bearer secret"


async def _failure(caller: WebhookCaller, target: Target, timeout_seconds: float = 5) -> str:
    with pytest.raises(CallFailed) as caught:
        await caller.post(target, b"{}", timeout_seconds=timeout_seconds)
    return str(caught.value)


async def test_a_certificate_of_a_stranger_is_refused(hook: Hook, caller: WebhookCaller) -> None:
    stranger = new_authority("stranger", now=time.time(), life=timedelta(days=1)).certificate

    text = await _failure(caller, Target(hook.url(), ca=stranger))

    assert text == (
        f'Post "{hook.url()}?timeout=5s": tls: failed to verify certificate: '
        "x509: certificate signed by unknown authority"
    )


async def test_a_certificate_for_another_name_is_refused(hook: Hook, caller: WebhookCaller) -> None:
    text = await _failure(caller, Target(hook.url().replace("localhost", "127.0.0.1"), ca=hook.ca))

    assert text.endswith("x509: cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs")


@pytest.mark.parametrize("authority_name", ["hook"])
async def test_a_certificate_whose_issuer_has_the_same_name_is_trusted(hook: Hook, caller: WebhookCaller) -> None:
    for _ in range(2):
        await caller.post(Target(hook.url(), ca=hook.ca), b"{}", timeout_seconds=60)

    assert len(hook.requests) == 2


@pytest.mark.parametrize("authority_name", ["hook"])
async def test_a_strangers_certificate_of_the_same_name_is_not_trusted(hook: Hook, caller: WebhookCaller) -> None:
    stranger = new_authority("hook", now=time.time(), life=timedelta(days=1)).certificate

    text = await _failure(caller, Target(hook.url(), ca=stranger))

    assert text.endswith("x509: certificate signed by unknown authority")


async def test_an_answer_without_a_body_is_none(hook: Hook, caller: WebhookCaller) -> None:
    async def empty(_: web.Request) -> web.StreamResponse:
        return web.Response(content_type="application/json")

    hook.answer = empty

    text = await _failure(caller, Target(hook.url(), ca=hook.ca))

    assert text == "0-length response with status code: 200 and content type: application/json"
    assert await caller.post(Target(hook.url(), ca=hook.ca), b"{}", is_answered=False) == b""


async def test_a_bundle_without_certificates_is_refused(hook: Hook, caller: WebhookCaller) -> None:
    text = await _failure(caller, Target(hook.url(), ca=b"nothing"))

    assert text.endswith("unable to load root certificates: unable to parse bytes as PEM block")


async def test_a_callee_that_does_not_listen_refuses_the_connection(caller: WebhookCaller) -> None:
    text = await _failure(caller, Target("https://127.0.0.1:1/x"))

    assert text == 'Post "https://127.0.0.1:1/x?timeout=5s": dial tcp 127.0.0.1:1: connect: connection refused'


async def test_a_slow_callee_exceeds_the_deadline(hook: Hook, caller: WebhookCaller) -> None:
    async def slow(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    hook.answer = slow
    text = await _failure(caller, Target(hook.url(), ca=hook.ca), timeout_seconds=0.1)

    assert text == f'Post "{hook.url()}?timeout=1s": context deadline exceeded'


@pytest.mark.parametrize(
    ("code", "body", "text"),
    [
        (404, b"nope", "the server could not find the requested resource"),
        (500, b"oops\n", 'an error on the server ("oops") has prevented the request from succeeding'),
        (503, b"", "the server is currently unable to handle the request"),
        (302, b"", "the server responded with the status code 302 but did not return more information"),
        (
            403,
            b'{"kind":"Status","apiVersion":"v1","message":"go away","reason":"Forbidden","code":403}',
            "go away",
        ),
    ],
)
async def test_a_failed_answer_is_told(hook: Hook, caller: WebhookCaller, code: int, body: bytes, text: str) -> None:
    async def fail(_: web.Request) -> web.StreamResponse:
        return web.Response(status=code, body=body, content_type="text/plain")

    hook.answer = fail

    with pytest.raises(CallFailed) as caught:
        await caller.post(Target(hook.url(), ca=hook.ca), b"{}", timeout_seconds=60)

    assert str(caught.value) == text
    assert isinstance(caught.value.status, apierrors.ApiError)
    assert caught.value.status.code == code


async def test_an_answer_that_says_when_to_come_back_is_asked_for_again(hook: Hook, caller: WebhookCaller) -> None:
    async def busy(_: web.Request) -> web.StreamResponse:
        if len(hook.requests) < 3:
            return web.Response(status=429, headers={"Retry-After": "0"})
        return web.json_response({})

    hook.answer = busy
    await caller.post(Target(hook.url(), ca=hook.ca), b"{}", timeout_seconds=60)

    assert len(hook.requests) == 3


async def test_a_service_that_is_missing_is_told(hook: Hook, caller: WebhookCaller) -> None:
    target = Target("https://nobody.shop.svc:443/", service=ServiceTarget("shop", "nobody", 443))

    text = await _failure(caller, target)

    assert text == 'Post "https://nobody.shop.svc:443/?timeout=5s": service "nobody" not found'


def test_cluster_addresses_are_cluster_ips() -> None:
    addresses = ClusterAddresses(Stored(a_service(clusterIP="10.96.1.2")))  # type: ignore[arg-type]

    assert addresses.resolve(ServiceTarget("shop", "web", 443)) == ("10.96.1.2", 443)
    with pytest.raises(apierrors.ServiceUnavailable, match='no service port 80 found for service "web"'):
        addresses.resolve(ServiceTarget("shop", "web", 80))


def test_a_headless_service_has_no_cluster_address() -> None:
    with pytest.raises(Unroutable, match="cannot route to service with ClusterIP"):
        ClusterAddresses(Stored(a_service(clusterIP="None"))).resolve(  # type: ignore[arg-type]
            ServiceTarget("shop", "web", 443)
        )


def test_endpoint_addresses_are_ready_endpoints_of_the_first_family() -> None:
    stored = Stored(
        a_service(ipFamilies=["IPv6", "IPv4"]), a_slice("10.0.0.1"), a_slice("fd00::1", "fd00::2", family="IPv6")
    )
    addresses = EndpointAddresses(stored, random.Random(1))  # type: ignore[arg-type]

    found = {addresses.resolve(ServiceTarget("shop", "web", 443)) for _ in range(20)}

    assert found == {("fd00::1", 8443), ("fd00::2", 8443)}


def test_endpoints_that_are_not_ready_do_not_count() -> None:
    addresses = EndpointAddresses(Stored(a_service(), a_slice("10.0.0.1", ready=False)), random.Random(1))  # type: ignore[arg-type]

    with pytest.raises(apierrors.ServiceUnavailable, match='no endpoints available for service "web"'):
        addresses.resolve(ServiceTarget("shop", "web", 443))


@pytest.mark.parametrize(("status", "method", "sent"), [(302, "GET", b""), (307, "POST", b"{}")])
async def test_a_callee_that_refers_to_another_place_is_followed(
    hook: Hook, caller: WebhookCaller, status: int, method: str, sent: bytes
) -> None:
    async def refer(request: web.Request) -> web.StreamResponse:
        if request.path == "/hook":
            return web.Response(status=status, headers={"Location": "/there?a=1"})
        return web.json_response({"found": True})

    hook.answer = refer

    assert json.loads(await caller.post(Target(hook.url(), ca=hook.ca), b"{}")) == {"found": True}
    request, body = hook.requests[-1]
    assert (request.method, request.path_qs, body) == (method, "/there?a=1", sent)
    assert request.headers["Referer"] == hook.url()


async def test_a_callee_that_refers_on_and_on_is_left(hook: Hook, caller: WebhookCaller) -> None:
    async def refer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": "/again"})

    hook.answer = refer

    with pytest.raises(CallFailed, match='Post "/again": stopped after 10 redirects'):
        await caller.post(Target(hook.url(), ca=hook.ca), b"{}")
    assert len(hook.requests) == 10

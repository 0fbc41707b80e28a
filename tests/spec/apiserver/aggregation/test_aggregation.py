"""Extension servers behind APIServices, asked over TLS by a server in memory."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import random
import re
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from multidict import CIMultiDict

from haven.apiserver import assembly
from haven.apiserver.authentication.tokenkeys import SigningKeys
from haven.apiserver.request import UserInfo
from haven.apiserver.settings import Settings
from haven.cluster.certificates import Pair, Subject, client_pair, new_authority, serving_pair
from haven.store.memory import MemoryStore

GROUP = "wardle.example.com"
PATH = f"/apis/{GROUP}/v1alpha1"
SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


@dataclass
class Extension:
    """An extension API server. `requests` are those of clients; `is_well` decides whether it answers for its group."""

    port: int
    ca: bytes
    requests: list[web.Request] = field(default_factory=list)
    probes: list[web.Request] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    is_well: bool = True
    released: asyncio.Event = field(default_factory=asyncio.Event)
    """What requests that are not answered wait for."""

    async def serve(self, request: web.Request) -> web.StreamResponse:
        certificate = request.transport.get_extra_info("peercert") if request.transport else None
        self.names.append(str(certificate))
        if request.path == "/apis" and "as=APIGroupDiscoveryList" in request.headers["Accept"]:
            body = {
                "kind": "APIGroupDiscoveryList",
                "apiVersion": "apidiscovery.k8s.io/v2",
                "metadata": {},
                "items": [{"metadata": {"name": GROUP}, "versions": [VERSION]}],
            }
            headers = {"Content-Type": AGGREGATED, "ETag": '"1"'}
            return web.Response(body=json.dumps(body).encode(), headers=headers)
        if request.path == PATH:
            self.probes.append(request)
            return web.json_response({"kind": "APIResourceList", "resources": []}, status=200 if self.is_well else 500)
        if request.path == "/openapi/v2":
            schema = {"$ref": "#/definitions/Flunder"}
            operation = {"operationId": "listFlunders", "responses": {"200": {"schema": schema}}}
            paths = {f"{PATH}/flunders": {"get": operation}, "/version/": {"get": operation}}
            return web.json_response({"paths": paths, "definitions": {"Flunder": {"type": "object"}}})
        if request.path == "/openapi/v3":
            name = PATH.strip("/")
            return web.json_response({"paths": {name: {"serverRelativeURL": f"/openapi/v3/{name}?hash=AB"}}})
        self.requests.append(request)
        if request.path.endswith("/stream"):
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            async for message in socket:
                await socket.send_str(f"echo {message.data}")
            return socket
        if request.path.endswith("/moved"):
            raise web.HTTPFound("https://elsewhere.example.com")
        if request.path.endswith("/packed"):
            told = request.headers["Accept-Encoding"]
            cookies = CIMultiDict([("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Warning", '299 - "old"')])
            packed = {"Content-Encoding": "gzip", "Content-Type": "text/plain"}
            return web.Response(
                body=gzip.compress(told.encode()), headers=CIMultiDict([*packed.items(), *cookies.items()])
            )
        if request.path.endswith("/never"):
            await self.released.wait()
        if request.path.endswith("/page"):
            return web.Response(text='<a href="/there">', content_type="text/html")
        body = (await request.read()).decode()
        if len(body) > 1000:
            return web.json_response({"length": len(body)})
        return web.json_response({"path": request.path_qs, "method": request.method, "body": body}, status=201)


FLUNDERS = {
    "resource": "flunders",
    "responseKind": {"group": "", "version": "", "kind": "Flunder"},
    "scope": "Namespaced",
    "singularResource": "flunder",
    "verbs": ["get"],
}
VERSION = {"version": "v1alpha1", "resources": [FLUNDERS]}


def file_of(folder: Path, pair: Pair, name: str) -> tuple[Path, Path]:
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    certificate.write_bytes(pair.certificate)
    key.write_bytes(pair.key)
    return certificate, key


@dataclass
class World:
    """A server that listens, with an administrator's client, and an extension server."""

    server: assembly.ApiServer
    client: aiohttp.ClientSession
    extension: Extension
    authority: Pair
    tls: ssl.SSLContext
    folder: Path

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        async with self.client.request(method, path, json=body, headers=headers) as answer:
            data = await answer.read()
            return answer.status, json.loads(data) if data[:1] == b"{" else data.decode()

    async def serve_expired(self) -> None:
        """Show a certificate of long ago from the next connection on."""
        life = timedelta(hours=1)
        pair = serving_pair(self.authority, "w", ("wardle.default.svc",), now=1_000_000_000.0, life=life)
        self.tls.load_cert_chain(*file_of(self.folder, pair, "expired"))

    async def register(self, **spec: Any) -> None:
        service = {"namespace": "default", "name": "wardle", "port": self.extension.port}
        spec = {
            "group": GROUP,
            "version": "v1alpha1",
            "service": service,
            "caBundle": base64.b64encode(self.extension.ca).decode(),
            "groupPriorityMinimum": 2000,
            "versionPriority": 200,
            **spec,
        }
        body = {"metadata": {"name": f"v1alpha1.{GROUP}"}, "spec": spec}
        status, answer = await self.send("POST", SERVICES, body)
        assert status == 201, answer

    async def wait_condition(self, reason: str) -> dict[str, Any]:
        async with asyncio.timeout(60):
            while True:
                _, service = await self.send("GET", f"{SERVICES}/v1alpha1.{GROUP}")
                conditions: list[dict[str, Any]] = service.get("status", {}).get("conditions", [])
                if conditions and conditions[0]["reason"] == reason:
                    return conditions[0]
                await asyncio.sleep(0.01)

    async def wait_answer(self, path: str, wanted: Any, **headers: str) -> Any:
        async with asyncio.timeout(60):
            while True:
                _, answer = await self.send("GET", path, **headers)
                if wanted(answer):
                    return answer
                await asyncio.sleep(0.01)


@pytest.fixture
async def world(signing_keys: SigningKeys, tmp_path: Path) -> AsyncIterator[World]:
    now, life = time.time(), timedelta(hours=1)
    authority = new_authority("extensions", now=now, life=life)
    proxies = new_authority("front-proxy-ca", now=now, life=life)
    serving = file_of(tmp_path, serving_pair(authority, "w", ("wardle.default.svc",), now=now, life=life), "serving")
    proxy = file_of(tmp_path, client_pair(proxies, Subject("front-proxy-client"), now=now, life=life), "proxy")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*serving)
    tls.load_verify_locations(cadata=proxies.certificate.decode())
    tls.verify_mode = ssl.CERT_REQUIRED
    extension = Extension(0, authority.certificate)
    application = web.Application(client_max_size=1 << 30)
    application.router.add_route("*", "/{path:.*}", extension.serve)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    extension.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    store = MemoryStore()
    jane = UserInfo("jane", uid="7", groups=("system:masters", "g2"), extra={"a/b": ("1", "2")})
    trust = assembly.Trust(signing_keys, static_tokens={"t": jane}, proxy_client=proxy)
    settings = Settings(port=0, serve_kubernetes_service=False)
    server = await assembly.start(settings, store, trust, chance=random.Random(7))
    async with aiohttp.ClientSession(
        f"http://127.0.0.1:{server.port}", headers={"Authorization": "Bearer t"}
    ) as client:
        world = World(server, client, extension, authority, tls, tmp_path)
        body = {"metadata": {"name": "wardle"}, "spec": {"type": "ExternalName", "externalName": "127.0.0.1"}}
        await world.send("POST", "/api/v1/namespaces/default/services", body)
        yield world
    await server.stop()
    await store.close()
    await runner.cleanup()


async def test_requests_are_passed_on_with_the_users_identity(world: World) -> None:
    await world.register()
    assert (await world.wait_condition("Passed"))["message"] == "all checks passed"

    headers = {"X-Remote-User": "root", "X-Remote-Extra-Evil": "1", "X-Custom": "kept"}
    path = f"{PATH}/namespaces/default/flunders/a%2Fb?a=%2F&x=1&x=+"
    status, answer = await world.send("POST", path, {"spec": 1}, **headers)

    assert status == 201
    # Escaped anew from what it means, as upstream does.
    assert answer == {"path": path.replace("a%2Fb", "a/b"), "method": "POST", "body": '{"spec": 1}'}
    seen = world.extension.requests[-1].headers
    assert seen.getall("X-Remote-User") == ["jane"]
    assert seen["X-Remote-Uid"] == "7"
    assert seen.getall("X-Remote-Group") == ["system:masters", "g2", "system:authenticated"]
    assert seen.getall("X-Remote-Extra-A%2fb") == ["1", "2"]
    assert seen["Host"] == seen["X-Forwarded-Host"] == f"127.0.0.1:{world.extension.port}"
    assert seen["Audit-Id"]
    assert "Authorization" not in seen
    assert "X-Remote-Extra-Evil" not in seen
    assert seen["X-Custom"] == "kept"
    assert seen["X-Forwarded-For"] == "127.0.0.1"
    assert "front-proxy-client" in world.extension.names[-1]


async def test_who_looks_whether_a_server_is_well_takes_any_answer(world: World) -> None:
    await world.register()
    await world.wait_condition("Passed")

    assert "Accept" not in world.extension.probes[0].headers
    assert world.extension.probes[0].headers.getall("X-Remote-Group") == ["system:masters"]


async def test_what_is_not_allowed_is_not_passed_on(world: World) -> None:
    await world.register()
    await world.wait_condition("Passed")

    status, _ = await world.send("GET", f"{PATH}/flunders", **{"Impersonate-User": "nobody"})

    assert status == 403
    assert not world.extension.requests


async def test_an_upgraded_connection_is_passed_on(world: World) -> None:
    await world.register()
    await world.wait_condition("Passed")

    async with world.client.ws_connect(f"{PATH}/namespaces/default/flunders/f/stream") as socket:
        await socket.send_str("hello")
        assert (await socket.receive(timeout=60)).data == "echo hello"

    assert world.extension.requests[-1].headers.getall("X-Remote-User") == ["jane"]


async def test_redirects_are_not_passed_on(world: World) -> None:
    await world.register()
    await world.wait_condition("Passed")

    status, answer = await world.send("GET", f"{PATH}/moved")

    assert status == 502
    assert answer == "the backend attempted to redirect this request, which is not permitted"


async def test_answers_come_as_the_client_asked_for_them(world: World) -> None:
    await world.register()
    await world.wait_condition("Passed")

    async with world.client.get(f"{PATH}/packed", headers={"Accept-Encoding": ""}) as answer:
        assert (await answer.text(), answer.headers.get("Content-Encoding")) == ("gzip", None)
        assert answer.headers.getall("Set-Cookie") == ["a=1", "b=2"]
        assert answer.headers.getall("Warning") == ['299 - "old"']
    async with world.client.get(f"{PATH}/packed", headers={"Accept-Encoding": "br, gzip"}) as answer:
        assert (await answer.text(), answer.headers.get("Content-Encoding")) == ("br, gzip", "gzip")
    _, page = await world.send("GET", f"{PATH}/page")
    assert page == f'<a href="https://127.0.0.1:{world.extension.port}/there">'


async def test_a_server_that_does_not_answer_in_the_time_asked_for_is_given_up(world: World) -> None:
    await world.register()
    await world.wait_condition("Passed")

    try:
        status, answer = await world.send("GET", f"{PATH}/never?timeout=10ms")
        invalid, _ = await world.send("GET", f"{PATH}/never?timeout=soon")
    finally:
        world.extension.released.set()

    assert (status, answer["reason"]) == (504, "Timeout")
    assert invalid == 400


async def test_bodies_are_passed_on_however_large(world: World) -> None:
    await world.register()
    await world.wait_condition("Passed")

    async with world.client.post(f"{PATH}/flunders", data=b"x" * (4 << 20)) as answer:
        assert await answer.json() == {"length": 4 << 20}


async def test_discovery_lists_what_the_extension_serves(world: World) -> None:
    await world.register()
    await world.wait_condition("Passed")

    _, groups = await world.send("GET", "/apis")
    group = next(one for one in groups["groups"] if one["name"] == GROUP)
    assert group["preferredVersion"] == {"groupVersion": f"{GROUP}/v1alpha1", "version": "v1alpha1"}
    _, alone = await world.send("GET", f"/apis/{GROUP}")
    assert alone["versions"] == group["versions"]

    def listed(document: Any) -> Any:
        found = next((one for one in document["items"] if one["metadata"]["name"] == GROUP), None)
        return found is not None and found["versions"][0]["freshness"] == "Current"

    document = await world.wait_answer("/apis", listed, Accept=AGGREGATED)
    found = next(one for one in document["items"] if one["metadata"]["name"] == GROUP)
    assert [one["resource"] for one in found["versions"][0]["resources"]] == ["flunders"]


async def test_what_a_server_that_went_away_served_is_stale_and_unknown(world: World) -> None:
    await world.register()
    await world.wait_condition("Passed")

    def version(document: Any) -> Any:
        found = next((one for one in document["items"] if one["metadata"]["name"] == GROUP), None)
        return found["versions"][0] if found else {}

    await world.wait_answer("/apis", lambda one: version(one).get("resources"), Accept=AGGREGATED)
    world.extension.is_well = False
    spec = {"spec": {"versionPriority": 201}}
    path, kind = f"{SERVICES}/v1alpha1.{GROUP}", "application/merge-patch+json"
    async with world.client.patch(path, data=json.dumps(spec), headers={"Content-Type": kind}) as answer:
        assert answer.status == 200

    document = await world.wait_answer("/apis", lambda one: version(one).get("freshness") == "Stale", Accept=AGGREGATED)
    assert "resources" not in version(document)


async def test_a_server_that_does_not_switch_protocols_is_told_of(world: World) -> None:
    await world.register()
    await world.wait_condition("Passed")

    headers = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}
    status, answer = await world.send("GET", f"{PATH}/flunders", **headers)

    assert (status, answer) == (503, "invalid upgrade response: status code 201\n")


async def test_openapi_contains_what_the_extension_says(world: World) -> None:
    await world.register()
    await world.wait_condition("Passed")

    document = await world.wait_answer("/openapi/v2", lambda one: f"{PATH}/flunders" in one["paths"])
    assert document["definitions"]["Flunder"] == {"type": "object"}
    assert document["paths"][f"{PATH}/flunders"]["get"]["operationId"] == "listFlunders"
    async with world.client.get(
        "/openapi/v2", headers={"Accept": "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"}
    ) as answer:
        assert b"listFlunders" in await answer.read()
    _, root = await world.send("GET", "/openapi/v3")
    assert root["paths"][PATH.strip("/")] == {"serverRelativeURL": f"/openapi/v3{PATH}?hash=AB"}
    status, part = await world.send("GET", f"/openapi/v3{PATH}?hash=AB")
    assert (status, part["path"]) == (201, f"/openapi/v3{PATH}?hash=AB")


async def test_a_service_that_is_missing_makes_the_api_unavailable(world: World) -> None:
    service = {"namespace": "default", "name": "nobody", "port": 443}
    await world.register(service=service)

    condition = await world.wait_condition("ServiceNotFound")

    assert condition["message"] == 'service/nobody in "default" is not present'
    status, answer = await world.send("GET", PATH)
    assert (status, answer) == (503, "service unavailable\n")
    _, groups = await world.send("GET", "/apis")
    assert GROUP in [one["name"] for one in groups["groups"]]


async def test_a_server_that_fails_its_check_is_unavailable_until_it_recovers(world: World) -> None:
    world.extension.is_well = False
    await world.register()

    condition = await world.wait_condition("FailedDiscoveryCheck")

    url = f"https://127.0.0.1:{world.extension.port}{PATH}"
    assert condition["message"] == f"failing or missing response from {url}: bad status from {url}: 500"
    world.extension.is_well = True
    await world.wait_condition("Passed")


async def test_a_certificate_that_is_not_trusted_fails_the_check(world: World) -> None:
    stranger = new_authority("x", now=time.time(), life=timedelta(hours=1)).certificate
    await world.register(caBundle=base64.b64encode(stranger).decode())

    condition = await world.wait_condition("FailedDiscoveryCheck")

    assert condition["message"].endswith("x509: certificate signed by unknown authority")


async def test_a_certificate_that_is_out_of_its_time_is_told_with_its_time(world: World) -> None:
    await world.serve_expired()
    await world.register()

    condition = await world.wait_condition("FailedDiscoveryCheck")

    expired = r"certificate has expired or is not yet valid: current time \S+Z is after 2001-09-09T02:46:40Z$"
    assert re.search(expired, condition["message"])


async def test_an_api_service_that_goes_takes_its_group_along(world: World) -> None:
    await world.register()
    await world.wait_condition("Passed")

    await world.send("DELETE", f"{SERVICES}/v1alpha1.{GROUP}")

    status, answer = await world.send("GET", PATH)
    assert (status, answer) == (404, "404 page not found\n")
    _, groups = await world.send("GET", "/apis")
    assert GROUP not in [one["name"] for one in groups["groups"]]


async def test_custom_resources_get_an_api_service(world: World) -> None:
    schema = {"openAPIV3Schema": {"type": "object"}}
    spec = {
        "group": "stable.example.com",
        "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
    }
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    await world.send("POST", definitions, {"metadata": {"name": "things.stable.example.com"}, "spec": spec})

    service = await world.wait_answer(f"{SERVICES}/v1.stable.example.com", lambda one: one["kind"] == "APIService")

    assert service["metadata"]["labels"] == {"kube-aggregator.kubernetes.io/automanaged": "true"}
    assert service["status"]["conditions"][0]["reason"] == "Local"
    await world.send("DELETE", f"{definitions}/things.stable.example.com")
    await world.wait_answer(f"{SERVICES}/v1.stable.example.com", lambda one: one["kind"] == "Status")

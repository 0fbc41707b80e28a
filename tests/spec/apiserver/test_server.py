"""The HTTP shell: keep-alive, compression, limits, and streams that end with their client."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from multidict import CIMultiDict

from haven.apimachinery.codecs import protobuf
from haven.apiserver import assembly
from haven.apiserver.authentication.tokenkeys import SigningKeys
from haven.apiserver.http.answers import answer_head
from haven.apiserver.request import Request, Response, UserInfo
from haven.apiserver.settings import Settings
from haven.store.memory import MemoryStore

MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
async def served(signing_keys: SigningKeys) -> AsyncIterator[tuple[assembly.ApiServer, aiohttp.ClientSession]]:
    store = MemoryStore()
    trust = assembly.Trust(signing_keys, static_tokens={"t": UserInfo("admin", groups=("system:masters",))})
    settings = Settings(port=0, serve_kubernetes_service=False, body_bytes_max=100_000, gzip_bytes_min=1000)
    server = await assembly.start(settings, store, trust)
    headers = {"Authorization": "Bearer t", "User-Agent": "spec"}
    async with aiohttp.ClientSession(
        f"http://127.0.0.1:{server.port}", headers=headers, auto_decompress=False
    ) as client:
        yield server, client
    await server.stop()
    await store.close()


async def wait_until(holds: Any) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110  # What it waits for has no event.
            await asyncio.sleep(0.01)


async def test_a_watch_ends_when_its_client_goes(served: Any) -> None:
    server, client = served
    cache = server.resources.find("", "v1", "configmaps").storage.cache

    answer = await client.get(f"{MAPS}?watch=1")
    await wait_until(lambda: cache.statistics().watchers == 1)
    answer.close()

    await wait_until(lambda: cache.statistics().watchers == 0)


async def test_a_watch_ends_properly_when_the_server_stops(served: Any) -> None:
    server, client = served
    answer = await client.get(f"{MAPS}?watch=1")

    await server.stop()

    assert await answer.content.read() == b""


async def test_a_large_answer_is_compressed_for_who_asks(served: Any) -> None:
    _, client = served
    await client.post(MAPS, json={"metadata": {"name": "a"}, "data": {"k": "v" * 5000}})

    packed = await client.get(f"{MAPS}/a", headers={"Accept-Encoding": "gzip"})
    plain = await client.get(f"{MAPS}/a", headers={"Accept-Encoding": "identity"})

    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(await packed.read()) == await plain.read()


async def test_a_body_above_the_limit_is_refused(served: Any) -> None:
    _, client = served

    answer = await client.post(MAPS, data=b"x" * 200_000)

    assert answer.status == 413
    assert json.loads(await answer.read())["reason"] == "RequestEntityTooLarge"


async def test_no_credentials_are_nobody_and_wrong_ones_are_refused(served: Any) -> None:
    _, client = served

    nobody = await client.get(MAPS, headers={"Authorization": ""})
    wrong = await client.get(MAPS, headers={"Authorization": "Bearer wrong"})

    assert (nobody.status, wrong.status) == (403, 401)


async def test_health_is_told_check_by_check(served: Any) -> None:
    _, client = served

    answer = await client.get("/readyz?verbose&exclude=log", headers={"Accept-Encoding": "identity"})

    text = (await answer.read()).decode()
    assert answer.status == 200
    assert "[+]log excluded: ok\n" in text
    assert "[+]poststarthook/start-apiextensions-controllers ok\n" in text
    assert "[+]autoregister-completion ok\n" in text
    assert text.endswith("readyz check passed\n")


def test_a_header_that_would_end_its_line_is_never_written() -> None:
    request = Request("GET", "/", {}, {})
    with pytest.raises(ValueError, match="line breaks"):
        answer_head(request, Response(200, {"Content-Type": "text/plain\r\nSet-Cookie: a=b"}), b"")
    request.audit_id = "id\nSet-Cookie: a=b"
    with pytest.raises(ValueError, match="line breaks"):
        answer_head(request, Response(200), b"")


@pytest.mark.parametrize(
    ("version", "asks", "answers", "closes"),
    [
        ("1.1", "", "", False),
        ("1.1", "Connection: close\r\n", "connection: close", True),
        ("1.0", "", "connection: close", True),
        ("1.0", "Connection: keep-alive\r\n", "connection: keep-alive", False),
    ],
)
async def test_a_connection_is_kept_as_its_client_asks(
    served: Any, version: str, asks: str, answers: str, closes: bool
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", served[0].port)
    writer.write(f"GET /version HTTP/{version}\r\nHost: x\r\n{asks}\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.partition("content-length: ")[2].split()[0])
    assert len(await reader.readexactly(length)) == length
    assert ("connection:" in head) == bool(answers)
    assert answers in head
    if closes:
        assert await asyncio.wait_for(reader.read(), 60) == b""
    else:
        writer.write(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_a_request_line_may_be_long(served: Any) -> None:
    _, client = served

    answer = await client.get(f"{MAPS}?labelSelector=" + "".join(f"k{n}!%3Dv," for n in range(30_000)) + "z")

    assert answer.status == 200


async def test_a_user_may_be_in_hundreds_of_groups(served: Any) -> None:
    _, client = served
    groups = [("Impersonate-Group", f"group-{n}") for n in range(500)]
    headers = CIMultiDict([("Impersonate-User", "jane"), ("Accept-Encoding", "identity"), *groups])

    answer = await client.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json={}, headers=headers)

    assert len((await answer.json())["status"]["userInfo"]["groups"]) == 501  # And system:authenticated.


async def test_a_large_body_counts_for_no_head(served: Any) -> None:
    _, client = served

    for _ in range(2):  # The second on the same connection.
        answer = await client.post(MAPS, data=b"x" * 3_000_000)
        assert answer.status == 413


async def test_a_client_says_how_long_it_waits(served: Any) -> None:
    server, client = served

    async def never(_request: Any) -> Any:
        await asyncio.Future()

    server.chain.paths["/never"] = never
    late = await client.get("/never?timeout=1ms")
    whenever = [await client.get(f"{MAPS}?timeout={text}") for text in ("0s", "-1s", "3m", "")]
    wrong = await client.get(f"{MAPS}?timeout=3x", headers={"Authorization": "", "Accept-Encoding": "identity"})

    assert late.status == 504
    assert (await late.json())["message"] == "Timeout: request did not complete within the allotted timeout"
    assert [answer.status for answer in whenever] == [200] * 4
    assert wrong.status == 400  # Before it is asked who the client is.
    assert (await wrong.json())["message"] == (
        'invalid timeout specified in the request URL - time: unknown unit "x" in duration "3x"'
    )


async def test_clients_of_deprecated_kinds_are_warned(served: Any) -> None:
    _, client = served

    old = await client.get("/api/v1/endpoints")
    new = await client.get("/apis/discovery.k8s.io/v1/endpointslices")

    text = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"
    assert old.headers["Warning"] == f'299 - "{text}"'
    assert "Warning" not in new.headers


async def test_a_watch_tells_every_change_in_order_however_they_come(served: Any) -> None:
    _, client = served
    answer = await client.get(f"{MAPS}?watch=1&resourceVersion=0")
    wanted = [f"m{number}" for number in range(60)]

    async def create(name: str) -> None:
        assert (await client.post(MAPS, json={"metadata": {"name": name}})).status == 201

    for name in wanted[:20]:
        await create(name)
    await asyncio.gather(*map(create, wanted[20:]))

    events = []
    async with asyncio.timeout(60):
        while len(events) < len(wanted):
            event = json.loads(await answer.content.readline())
            if event["object"]["metadata"]["name"] in wanted:
                events.append(event)
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(set(versions))
    assert sorted(event["object"]["metadata"]["name"] for event in events) == sorted(wanted)
    assert {event["type"] for event in events} == {"ADDED"}
    answer.close()


async def test_an_upload_through_a_proxy_may_be_larger_than_an_object(served: Any) -> None:
    server, client = served

    async def count(request: web.BaseRequest) -> web.Response:
        total = 0
        async for piece in request.content.iter_any():
            total += len(piece)
        return web.json_response({"path": request.path, "bytes": total, "length": request.headers["Content-Length"]})

    backend = await asyncio.get_running_loop().create_server(web.Server(count), "127.0.0.1", 0)
    port = backend.sockets[0].getsockname()[1]
    node = {"metadata": {"name": "n1"}, "status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}}
    assert (await client.post("/api/v1/nodes", json=node)).status == 201

    answer = await client.post(f"/api/v1/nodes/n1:{port}/proxy/upload", data=b"x" * 1_000_000)

    assert answer.status == 200
    assert await answer.json() == {"path": "/upload", "bytes": 1_000_000, "length": "1000000"}
    assert server.settings.body_bytes_max < 1_000_000
    backend.close()


@pytest.mark.parametrize("media_type", ["application/json", "application/vnd.kubernetes.protobuf"])
async def test_a_watch_may_come_over_a_websocket_an_event_in_each_message(served: Any, media_type: str) -> None:
    server, client = served
    cache = server.resources.find("", "v1", "configmaps").storage.cache
    for name in ("a", "b"):
        assert (await client.post(MAPS, json={"metadata": {"name": name}})).status == 201

    async with client.ws_connect(f"{MAPS}?watch=1&resourceVersion=0", headers={"Accept": media_type}) as socket:
        events = [await socket.receive(timeout=60) for _ in range(2)]
        await client.post(MAPS, json={"metadata": {"name": "later"}})
        events.append(await socket.receive(timeout=60))

    if media_type == "application/json":
        assert [json.loads(event.data)["object"]["metadata"]["name"] for event in events] == ["a", "b", "later"]
    else:
        decoded = [protobuf.unframe(b"k8s\0" + event.data.partition(b"k8s\0")[2]) for event in events]
        assert len(decoded) == 3
        assert {event.type for event in events} == {aiohttp.WSMsgType.BINARY}
    await wait_until(lambda: cache.statistics().watchers == 0)


async def test_a_watch_over_a_websocket_ends_when_its_client_goes_without_a_word(served: Any) -> None:
    server, client = served
    cache = server.resources.find("", "v1", "configmaps").storage.cache
    socket = await client.ws_connect(f"{MAPS}?watch=1")
    await wait_until(lambda: cache.statistics().watchers == 1)

    socket._response.connection.transport.abort()

    await wait_until(lambda: cache.statistics().watchers == 0)


async def test_a_watch_over_a_websocket_is_refused_like_any_other(served: Any) -> None:
    _, client = served

    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await client.ws_connect(f"{MAPS}?watch=1&labelSelector=)(")

    assert caught.value.status == 400


async def test_who_names_gzip_with_a_quality_gets_plain_bytes(served: Any) -> None:
    _, client = served
    body = {"metadata": {"name": "large"}, "data": {"k": "x" * 5000}}
    await client.post(MAPS, json=body)

    plain = await client.get(f"{MAPS}/large", headers={"Accept-Encoding": "gzip;q=0"})
    packed = await client.get(f"{MAPS}/large", headers={"Accept-Encoding": "deflate, gzip"})

    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"

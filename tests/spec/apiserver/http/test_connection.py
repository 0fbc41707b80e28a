"""Connections to a server that does not know Kubernetes: what clients see, byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from haven.apiserver.http.server import HttpServer
from haven.apiserver.request import LiveStream, Request, Response, chunked

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
SECONDS_MAX = 120.0


class Peer:
    """A client that sends bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def head(self) -> str:
        return (await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), SECONDS_MAX)).decode()

    async def answer(self) -> tuple[int, bytes]:
        head = await self.head()
        length = int(head.lower().partition("content-length: ")[2].split()[0])
        return int(head.split()[1]), await asyncio.wait_for(self._reader.readexactly(length), SECONDS_MAX)

    async def rest_until(self, end: bytes) -> bytes:
        return await asyncio.wait_for(self._reader.readuntil(end), SECONDS_MAX)

    async def rest(self) -> bytes:
        return await asyncio.wait_for(self._reader.read(), SECONDS_MAX)

    def leave(self) -> None:
        self._writer.transport.abort()


Answer = Callable[[Request], Awaitable[Response]]
Connect = Callable[[], Awaitable[Peer]]
Serve = Callable[[Answer], Awaitable[tuple[HttpServer, Connect]]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    servers: list[HttpServer] = []
    peers: list[Peer] = []

    async def start(handle: Answer) -> tuple[HttpServer, Connect]:
        server = HttpServer(
            handle,
            body_bytes_max=1000,
            gzip_bytes_min=10_000,
            tls=None,
            is_streamed=lambda target: target.startswith("/passed"),
        )
        servers.append(server)
        port = await server.listen("127.0.0.1", 0)

        async def connect() -> Peer:
            peers.append(Peer(*await asyncio.open_connection("127.0.0.1", port)))
            return peers[-1]

        return server, connect

    yield start
    for peer in peers:
        peer.leave()
    for server in servers:
        await server.close(1.0)


async def echo(request: Request) -> Response:
    return Response(200, {"Content-Type": "text/plain"}, f"{request.method} {request.path} ".encode() + request.body)


async def test_requests_sent_at_once_are_answered_in_order(serve: Serve) -> None:
    async def slow_first(request: Request) -> Response:
        if request.path == "/0":
            await asyncio.sleep(0)
        return await echo(request)

    _, connect = await serve(slow_first)
    peer = await connect()

    peer.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(40)))

    for number in range(40):
        assert await peer.answer() == (200, f"GET /{number} ".encode())


async def test_a_head_is_answered_without_a_body_but_with_its_length(serve: Serve) -> None:
    _, connect = await serve(echo)
    peer = await connect()

    peer.send(b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n" + GET)

    assert "Content-Length: 8\r\n" in await peer.head()
    assert (await peer.answer())[1] == b"GET /a "


async def test_bytes_that_are_no_request_are_answered_and_end_the_connection(serve: Serve) -> None:
    _, connect = await serve(echo)
    peer = await connect()

    peer.send(b"nonsense\r\n\r\n")

    assert (await peer.rest()).startswith(b"HTTP/1.1 400 Bad Request\r\n")


async def test_a_body_above_the_limit_is_refused_and_ends_the_connection(serve: Serve) -> None:
    _, connect = await serve(echo)
    peer = await connect()

    peer.send(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000)

    head = await peer.head()
    assert head.startswith("HTTP/1.1 413 ")
    assert "Connection: close\r\n" in head
    await peer.rest()


async def test_a_stream_comes_in_chunks_and_leaves_the_connection_usable(serve: Serve) -> None:
    async def stream(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"one"
            yield b""
            yield b"two"

        return Response(200, {}, stream=chunks()) if request.path == "/stream" else await echo(request)

    _, connect = await serve(stream)
    peer = await connect()

    peer.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n" + GET)

    head = await peer.head()
    assert "Transfer-Encoding: chunked\r\n" in head
    assert "Content-Length" not in head
    assert await peer.rest_until(b"0\r\n\r\n") == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
    assert (await peer.answer())[1] == b"GET /a "


async def test_a_stream_to_an_old_client_ends_with_the_connection(serve: Serve) -> None:
    async def stream(_: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"one"

        return Response(200, {}, stream=chunks())

    _, connect = await serve(stream)
    peer = await connect()

    peer.send(b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")

    assert "chunked" not in await peer.head()
    assert await peer.rest() == b"one"


async def test_a_stream_that_breaks_does_not_look_complete(serve: Serve) -> None:
    async def stream(_: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"one"
            raise ConnectionResetError("the backend broke off")

        return Response(200, {}, stream=chunks())

    _, connect = await serve(stream)
    peer = await connect()
    peer.send(GET)

    async def read_all() -> None:
        await peer.head()
        await peer.rest_until(b"0\r\n\r\n")

    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await read_all()


async def test_a_read_ends_with_its_client_and_a_write_does_not(serve: Serve) -> None:
    begun, ended = asyncio.Queue[str](), asyncio.Queue[str]()
    go_on = asyncio.Event()

    async def handle(request: Request) -> Response:
        begun.put_nowait(request.method)
        try:
            await go_on.wait()
            ended.put_nowait(f"{request.method} done")
        except asyncio.CancelledError:
            ended.put_nowait(f"{request.method} cancelled")
            raise
        return Response(200)

    server, connect = await serve(handle)
    for method in ("GET", "DELETE"):
        peer = await connect()
        peer.send(GET.replace(b"GET", method.encode()))
        assert await asyncio.wait_for(begun.get(), SECONDS_MAX) == method
        peer.leave()
    assert await asyncio.wait_for(ended.get(), SECONDS_MAX) == "GET cancelled"
    async with asyncio.timeout(SECONDS_MAX):
        while server.connections:  # noqa: ASYNC110  # The server does not tell.
            await asyncio.sleep(0.01)
    go_on.set()

    assert await asyncio.wait_for(ended.get(), SECONDS_MAX) == "DELETE done"


async def test_a_stream_whose_client_left_before_it_began_is_closed(serve: Serve) -> None:
    closed, go_on, begun = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handle(_: Request) -> Response:
        class Stream(AsyncIterator[bytes]):
            async def __anext__(self) -> bytes:
                await asyncio.Event().wait()
                raise StopAsyncIteration

            async def aclose(self) -> None:
                closed.set()

        begun.set()
        await go_on.wait()
        return Response(200, {}, stream=Stream())

    server, connect = await serve(handle)
    peer = await connect()
    peer.send(GET.replace(b"GET", b"POST"))
    await asyncio.wait_for(begun.wait(), SECONDS_MAX)
    peer.leave()
    async with asyncio.timeout(SECONDS_MAX):
        while server.connections:  # noqa: ASYNC110  # The server does not tell.
            await asyncio.sleep(0.01)

    go_on.set()

    await asyncio.wait_for(closed.wait(), SECONDS_MAX)


async def test_a_server_that_closes_lets_what_is_under_way_end(serve: Serve) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def handle(request: Request) -> Response:
        begun.set()
        await go_on.wait()
        return await echo(request)

    server, connect = await serve(handle)
    idle, busy = await connect(), await connect()
    busy.send(GET)
    await asyncio.wait_for(begun.wait(), SECONDS_MAX)

    closing = asyncio.create_task(server.close(SECONDS_MAX))
    assert await idle.rest() == b""
    go_on.set()
    await closing

    assert "Connection: close\r\n" in (head := await busy.head())
    assert head.startswith("HTTP/1.1 200 ")
    assert await busy.rest() == b"GET /a "


async def test_silent_clients_are_sent_away(serve: Serve) -> None:
    server, connect = await serve(echo)
    idle, partial, waiting = await connect(), await connect(), await connect()
    partial.send(GET[:10])
    waiting.send(GET)
    await waiting.answer()
    async with asyncio.timeout(SECONDS_MAX):
        while sum(one.is_partial for one in server.connections) < 1 or len(server.connections) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    def sweep(seconds: float) -> None:
        for connection in tuple(server.connections):
            connection.close_when_silent(seconds)

    sweep(1000.0)
    sweep(1000.0 + server.limits.head_seconds + 1)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await partial.head()
    assert len(server.connections) == 2

    sweep(1000.0 + server.limits.idle_seconds + 1)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await idle.head()


async def test_who_sends_one_request_after_another_is_never_silent(serve: Serve) -> None:
    server, connect = await serve(echo)
    peer = await connect()
    for number in range(4):
        peer.send(GET[:10])
        async with asyncio.timeout(SECONDS_MAX):
            while not any(one.is_partial for one in server.connections):  # noqa: ASYNC110  # Nothing tells of it.
                await asyncio.sleep(0.01)
        for connection in server.connections:
            connection.close_when_silent(1000.0 + number * (server.limits.head_seconds + 1))
        peer.send(GET[10:])
        assert (await peer.answer())[0] == 200
    for number in range(1, 5):
        peer.send(GET)
        assert (await peer.answer())[0] == 200
        for connection in server.connections:
            connection.close_when_silent(2000.0 + number * (server.limits.idle_seconds + 1))
    peer.send(GET)
    assert (await peer.answer())[0] == 200


class Live(LiveStream):
    """A stream that never yields by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = asyncio.Event()

    async def __anext__(self) -> bytes:
        self.waits.set()
        await asyncio.Event().wait()
        raise StopAsyncIteration


async def live_stream(serve: Serve) -> tuple[Live, HttpServer, Peer]:
    """Return a stream that waits, who serves it, and a client that has read its head."""
    live = Live()

    async def stream(_: Request) -> Response:
        return Response(200, {}, stream=live)

    server, connect = await serve(stream)
    peer = await connect()
    peer.send(GET)
    await peer.head()
    await asyncio.wait_for(live.waits.wait(), SECONDS_MAX)
    return live, server, peer


async def test_what_comes_while_a_stream_waits_is_sent_at_once(serve: Serve) -> None:
    live, _, peer = await live_stream(serve)

    assert live.push is not None
    assert live.push(chunked(b"one"))
    assert await peer.rest_until(b"one\r\n") == b"3\r\none\r\n"


async def test_a_client_that_lags_is_not_pushed_to(serve: Serve) -> None:
    live, server, peer = await live_stream(serve)
    assert live.push is not None

    [connection] = server.connections
    connection.pause_writing()
    assert not live.push(chunked(b"one"))
    connection.resume_writing()
    assert live.push(chunked(b"two"))

    assert await peer.rest_until(b"\r\ntwo\r\n") == b"3\r\ntwo\r\n"


def upload(size: int) -> bytes:
    return b"POST /passed HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size


async def test_a_body_that_is_passed_on_may_be_of_any_size_and_is_never_held_whole(serve: Serve) -> None:
    most = 0

    async def count(request: Request) -> Response:
        nonlocal most
        if request.body_stream is None:
            return await echo(request)
        total = 0
        async for piece in request.body_stream:
            most = max(most, len(piece))
            total += len(piece)
        return Response(200, {}, b"%d" % total)

    _, connect = await serve(count)
    peer = await connect()

    peer.send(upload(5_000_000) + b"x" * 5_000_000)
    assert await peer.answer() == (200, b"5000000")
    peer.send(b"POST /passed HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + GET)

    assert await peer.answer() == (200, b"3")
    assert (await peer.answer())[1] == b"GET /a "
    assert most < 1_000_000


async def test_a_body_that_nobody_wants_ends_the_connection_behind_the_answer(serve: Serve) -> None:
    _, connect = await serve(echo)
    peer = await connect()

    peer.send(upload(5_000_000) + b"x" * 100_000)

    assert "Connection: close\r\n" in await peer.head()
    assert await peer.rest() == b"POST /passed "


async def test_a_reader_learns_that_a_body_broke_off(serve: Serve) -> None:
    seen: asyncio.Queue[str] = asyncio.Queue()

    async def read(request: Request) -> Response:
        assert request.body_stream is not None
        try:
            async for piece in request.body_stream:
                seen.put_nowait(piece.decode())
        except ConnectionResetError:
            seen.put_nowait("broken off")
        return Response(200)

    _, connect = await serve(read)
    peer = await connect()
    peer.send(upload(10) + b"half")
    assert await asyncio.wait_for(seen.get(), SECONDS_MAX) == "half"

    peer.leave()

    assert await asyncio.wait_for(seen.get(), SECONDS_MAX) == "broken off"

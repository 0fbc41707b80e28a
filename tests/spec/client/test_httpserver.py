"""The limit of a request's head, whatever pieces it comes in."""

from __future__ import annotations

import asyncio

from aiohttp import web

from haven.client.httpserver import HEAD_BYTES_MAX, HttpServer


class Wire(asyncio.Transport):
    """What a connection writes to."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def answer(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text=f"{request.path} {len(await request.read())}")


async def test_a_head_of_more_than_a_mebibyte_is_refused_and_the_connection_closed() -> None:
    server, wire = HttpServer(answer), Wire()
    connection = server()
    connection.connection_made(wire)

    connection.data_received(b"GET / HTTP/1.1\r\nHost: h\r\n")
    for _ in range(HEAD_BYTES_MAX // 60_000 + 2):
        assert not wire.closed
        connection.data_received(b"X-More: " + b"x" * 60_000 + b"\r\n")

    assert wire.written.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert wire.closed
    connection.connection_lost(None)


async def test_heads_and_bodies_of_one_connection_are_counted_apart() -> None:
    server, wire = HttpServer(answer), Wire()
    connection = server()
    connection.connection_made(wire)

    for turn in range(1, 4):
        connection.data_received(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 900000\r\n")
        connection.data_received(b"X-More: " + b"x" * 700_000 + b"\r\n\r\n")
        connection.data_received(b"x" * 900_000)
        async with asyncio.timeout(60):
            while wire.written.count(b"/a 900000") < turn:  # noqa: ASYNC110  # aiohttp answers in a task of its own.
                await asyncio.sleep(0)

    assert not wire.closed
    connection.connection_lost(None)

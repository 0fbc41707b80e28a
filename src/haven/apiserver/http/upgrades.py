"""Requests to go on in another protocol: aiohttp reads these, because its WebSockets want a request of its own.

Whoever asked to upgrade and is answered otherwise gets a connection that closes behind the answer.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from aiohttp import web
from multidict import CIMultiDict

from haven.apiserver.clientcertificates import presented
from haven.apiserver.http.answers import answer_head, audit_id_of, has_body
from haven.apiserver.http.connection import Handle
from haven.apiserver.http.messages import Headers, Malformed, split_target
from haven.apiserver.http.takeover import Connection
from haven.apiserver.request import Request, Response
from haven.client import httpserver

__all__ = ["Upgrades"]


class Upgrades:
    """Answers requests to upgrade; a handler that takes the connection over finds it in `Request.connection`."""

    def __init__(self, handle: Handle, *, wants_certificates: bool) -> None:
        self._handle = handle
        self._wants_certificates = wants_certificates
        self._server = httpserver.HttpServer(self._serve)

    def take(self, transport: asyncio.Transport, data: bytes) -> None:
        """Go on with a connection; `data` is the request and what has come behind it."""
        protocol = self._server()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(data)

    async def close(self, grace_seconds: float) -> None:
        """Close the connections."""
        await self._server.shutdown(grace_seconds)

    async def _serve(self, raw: web.BaseRequest) -> web.StreamResponse:
        transport = raw.transport
        if transport is None:
            raise asyncio.CancelledError  # The client is gone already.
        headers = Headers(list(raw.headers.items()))
        try:
            path, query = split_target(raw.raw_path)
        except Malformed as error:
            return web.Response(status=error.status, text=f"{error.status} {error}")
        request = Request(
            method=raw.method,
            path=path,
            query=query,
            headers=headers.by_name,
            repeated_headers=headers.repeated,
            remote=raw.remote or "",
            connection=Connection(transport, headers.raw, raw),
            uri=raw.raw_path,
        )
        if self._wants_certificates:
            tls = transport.get_extra_info("ssl_object")
            request.client_certificate = presented(tls) if tls is not None else None
        response = await self._handle(request)
        try:
            if response.hijack is not None:
                return await self._hand_over(request, response)
            if response.stream is not None and request.info.verb == "watch" and _asks_for_websocket(request):
                return await _send_events(raw, response)
            return await self._answer(raw, request, response)
        finally:
            response.over()

    @staticmethod
    async def _hand_over(request: Request, response: Response) -> web.StreamResponse:
        assert response.hijack is not None
        await response.hijack()
        prepared = cast("Connection", request.connection).response
        if prepared is not None:
            return prepared
        raise asyncio.CancelledError  # How aiohttp is told that the connection is over and nothing is to be written.

    @staticmethod
    async def _answer(raw: web.BaseRequest, request: Request, response: Response) -> web.StreamResponse:
        if response.stream is None:
            transport = cast("Connection", request.connection).transport
            body = response.body if has_body(request.method, response.status) else b""
            framing = b"Content-Length: %d\r\nConnection: close\r\n" % len(response.body)
            if not transport.is_closing():
                transport.write(answer_head(request, response, framing) + body)
                transport.close()
            raise asyncio.CancelledError  # Nothing is left to be written.
        headers: CIMultiDict[str] = CIMultiDict(
            {"Audit-Id": audit_id_of(request), "Cache-Control": "no-cache, private", **response.headers}
        )
        if request.flow[0]:
            headers["X-Kubernetes-Pf-Flowschema-Uid"], headers["X-Kubernetes-Pf-Prioritylevel-Uid"] = request.flow
        if response.warnings:
            del headers["Warning"]
            headers.extend(("Warning", text) for text in response.warnings)
        headers.extend(one for one in response.further if one[0] != "Warning")
        stream: Any = response.stream
        streamed = web.StreamResponse(status=response.status, headers=headers)
        streamed.force_close()
        await streamed.prepare(raw)
        try:
            async for chunk in stream:
                await streamed.write(chunk)
            await streamed.write_eof()
        finally:
            await stream.aclose()
        return streamed


def _asks_for_websocket(request: Request) -> bool:
    return request.headers.get("upgrade", "").lower() == "websocket"


async def _send_events(raw: web.BaseRequest, response: Response) -> web.StreamResponse:
    """Send a watch over a WebSocket until it ends or the client leaves."""
    stream: Any = response.stream
    socket = web.WebSocketResponse()
    work: list[asyncio.Task[None]] = []
    try:
        await socket.prepare(raw)
        is_text = "protobuf" not in response.headers.get("Content-Type", "")
        work += [asyncio.create_task(_pump(stream, socket, is_text)), asyncio.create_task(_read_nothing(socket))]
        done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            one.result()
    except ConnectionError:
        pass  # The client has left without a word.
    finally:
        for one in work:
            one.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        await stream.aclose()
    await socket.close()
    return socket


async def _pump(stream: Any, socket: web.WebSocketResponse, is_text: bool) -> None:
    """Send each event in a message of its own: text, or binary in protobuf."""
    async for chunk in stream:
        if is_text:
            for event in chunk.splitlines(keepends=True):
                await socket.send_str(event.decode())
        else:
            for event in _frames(chunk):
                await socket.send_bytes(event)


async def _read_nothing(socket: web.WebSocketResponse) -> None:
    """Return when the client has left; what it says until then is not for us."""
    async for _ in socket:
        pass


def _frames(chunk: bytes) -> list[bytes]:
    """Return the frames of a stream in protobuf, without the length in front of each."""
    result: list[bytes] = []
    start = 0
    while start < len(chunk):
        end = start + 4 + int.from_bytes(chunk[start : start + 4], "big")
        result.append(chunk[start + 4 : end])
        start = end
    return result

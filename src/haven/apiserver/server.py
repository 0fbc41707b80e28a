"""The HTTP shell: sockets and TLS on one side, `Request` and `Response` on the other; it knows nothing of resources.

HTTP/1.1 with keep-alive on aiohttp's low-level server. Watches are chunked streams. Upgrades hand the connection over:
a handler that answers with a `hijack` finds the raw request in `Request.connection`.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast
from urllib.parse import parse_qs, unquote

from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from haven import telemetry
from haven.apimachinery import apierrors, serialization
from haven.apiserver.answers import RenderedAnswer
from haven.apiserver.request import Request, Response
from haven.client import httpserver

__all__ = ["Connection", "HttpServer"]

_log = telemetry.logger("apiserver")

Handle = Callable[[Request], Awaitable[Response]]
_NO_QUERY: Mapping[str, Sequence[str]] = {}
_NO_REPEATS: Mapping[str, Sequence[str]] = {}
_GZIP_LEVEL = 1
_IP_FREEBIND = 15  # Python has no name for it: bind to an address that no interface has yet.
_SPECIAL = frozenset({"audit-id", "connection", "content-length", "date", "set-cookie", "transfer-encoding"})
"""Headers that need more than to be written."""
_EMPTY = frozenset({204, 304})
_BODYLESS = frozenset({"GET", "HEAD", "OPTIONS"})


class Connection:
    """A client's connection, for a handler that takes it over.

    `raw` is aiohttp's request (prepare a WebSocketResponse on it, or write 101 yourself on its transport and change the
    transport's protocol). Set `response` to what was prepared, so that aiohttp finishes it.
    """

    __slots__ = ("raw", "response")

    def __init__(self, raw: web.BaseRequest) -> None:
        self.raw = raw
        self.response: web.StreamResponse | None = None


class _RawRequest(web.BaseRequest):
    """aiohttp's request, which also tells whoever streams an answer that the client is gone.

    aiohttp calls `_cancel` of the request that is being answered when its connection is lost.
    """

    when_lost: Callable[[], object] | None = None

    def _cancel(self, exc: BaseException) -> None:
        super()._cancel(exc)
        if self.when_lost is not None:
            self.when_lost()


class HttpServer:
    """Listens, reads requests, writes answers."""

    def __init__(
        self,
        handle: Handle,
        *,
        body_bytes_max: int,
        gzip_bytes_min: int,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._handle = handle
        self._body_bytes_max = body_bytes_max
        self._gzip_bytes_min = gzip_bytes_min
        self._tls = tls
        self._wants_certificates = tls is not None and tls.verify_mode != ssl.CERT_NONE
        self._server = httpserver.HttpServer(self._serve, request_factory=self._make_request, keepalive_timeout=180.0)
        self._listeners: list[asyncio.Server] = []
        self._closing = False
        self._streams: set[asyncio.Task[Any]] = set()

    def _make_request(
        self, message: Any, payload: Any, protocol: Any, writer: Any, task: asyncio.Task[None]
    ) -> web.BaseRequest:
        return _RawRequest(
            message,
            payload,
            protocol,
            writer,
            task,
            asyncio.get_running_loop(),
            client_max_size=self._body_bytes_max,
        )

    async def listen(self, host: str, port: int, *, share_port: bool = False) -> int:
        """Accept connections; return the port (chosen by the system if 0 was asked for)."""
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(
            self._server, host, port, ssl=self._tls, backlog=1024, reuse_port=share_port or None
        )
        self._listeners.append(listener)
        return int(listener.sockets[0].getsockname()[1])

    async def listen_ahead(self, address: str, port: int, *, share_port: bool = False) -> None:
        """Accept connections at an address that this machine may not have yet (a bridge made with the first Pod)."""
        listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
            if share_port:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind((address, port))
            server = await asyncio.get_running_loop().create_server(
                self._server, sock=listener, ssl=self._tls, backlog=1024
            )
        except OSError:
            listener.close()
            raise
        self._listeners.append(server)

    async def close(self, grace_seconds: float) -> None:
        """Stop accepting, end streams, let requests under way finish, close connections."""
        for listener in self._listeners:
            listener.close()
        self._closing = True
        for stream in tuple(self._streams):
            stream.cancel()
        await self._server.shutdown(grace_seconds)

    async def _serve(self, raw: web.BaseRequest) -> web.StreamResponse:
        path, _, query = raw.raw_path.partition("?")
        if "%" in path:
            path = unquote(path)
        headers: CIMultiDictProxy[str] = raw.headers
        lower = {name.lower(): value for name, value in headers.items()}
        method = raw.method
        request = Request(
            method=method,
            path=path,
            query=parse_qs(query, keep_blank_values=True) if query else _NO_QUERY,
            headers=lower,
            repeated_headers=_repeated(headers) if len(lower) != len(headers) else _NO_REPEATS,
            remote=raw.remote or "",
            connection=Connection(raw),
            uri=raw.raw_path,
        )
        if self._wants_certificates:
            request.client_certificate = _certificate(raw)
        if method not in _BODYLESS and raw.body_exists and "upgrade" not in lower:
            try:
                request.body = await raw.read()
            except web.HTTPRequestEntityTooLarge:
                return self._plain(request, _too_large(self._body_bytes_max), lower)
        response = await self._handle(request)
        if response.hijack is not None:
            try:
                return await self._hand_over(request, response)
            finally:
                response.over()
        if response.stream is not None:
            try:
                return await self._send_stream(raw, request, response, lower)
            finally:
                response.over()
        packed = "Content-Encoding" in response.headers
        if len(response.body) > self._gzip_bytes_min and not packed and "gzip" in lower.get("accept-encoding", ""):
            response.body = await asyncio.to_thread(_gzip, response.body)
            response.headers = {**response.headers, "Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        return self._plain(request, response, lower)

    @staticmethod
    def _common(request: Request, response: Response, lower: Mapping[str, str]) -> Mapping[str, str]:
        common = {
            "Audit-Id": request.audit_id or lower.get("audit-id") or _audit_id(),
            "Cache-Control": "no-cache, private",
        }
        if request.flow[0]:
            common["X-Kubernetes-Pf-Flowschema-Uid"], common["X-Kubernetes-Pf-Prioritylevel-Uid"] = request.flow
        common.update(response.headers)
        if len(response.warnings) > 1:
            several = CIMultiDict(common)
            del several["Warning"]
            several.extend(("Warning", text) for text in response.warnings)
            return several
        return common

    def _plain(self, request: Request, response: Response, lower: Mapping[str, str]) -> web.StreamResponse:
        headers = response.headers
        body = response.body if request.method != "HEAD" else b""
        if (
            response.status not in _EMPTY
            and len(response.warnings) < 2
            and _SPECIAL.isdisjoint(map(str.lower, headers))
        ):
            audit_id = request.audit_id or lower.get("audit-id") or _audit_id()
            # It is all that aiohttp's server wants of an answer.
            return cast("web.StreamResponse", RenderedAnswer(response.status, headers, request.flow, audit_id, body))
        return web.Response(
            status=response.status,
            headers=self._common(request, response, lower),
            body=body,
        )

    async def _send_stream(
        self, raw: web.BaseRequest, request: Request, response: Response, lower: Mapping[str, str]
    ) -> web.StreamResponse:
        assert response.stream is not None
        answer = web.StreamResponse(status=response.status, headers=self._common(request, response, lower))
        answer.enable_chunked_encoding()
        await answer.prepare(raw)
        task = asyncio.current_task()
        assert task is not None
        assert isinstance(raw, _RawRequest)
        raw.when_lost = task.cancel
        self._streams.add(task)
        try:
            async for chunk in response.stream:
                if chunk:
                    await answer.write(chunk)
            await answer.write_eof()
        except (ConnectionError, asyncio.CancelledError):
            if not self._closing:
                raise
            await answer.write_eof()
        finally:
            raw.when_lost = None
            self._streams.discard(task)
            close = getattr(response.stream, "aclose", None)
            if close is not None:
                await close()
        return answer

    @staticmethod
    async def _hand_over(request: Request, response: Response) -> web.StreamResponse:
        assert response.hijack is not None
        await response.hijack()
        connection: Connection = request.connection
        if connection.response is not None:
            return connection.response
        raise asyncio.CancelledError  # How aiohttp is told that the connection is over and nothing is to be written.


def _audit_id() -> str:
    """Return an identifier in a UUID's form; it only has to differ from others, so it need not be secret."""
    text = f"{random.getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"


def _repeated(headers: CIMultiDictProxy[str]) -> dict[str, list[str]]:
    result: dict[str, list[str]] = {}
    for name in set(map(str.lower, headers)):
        values = headers.getall(name)
        if len(values) > 1:
            result[name] = values
    return result


def _certificate(raw: web.BaseRequest) -> bytes | None:
    transport = raw.transport
    connection = transport.get_extra_info("ssl_object") if transport is not None else None
    if connection is None:
        return None
    result: bytes | None = connection.getpeercert(True)
    return result


def _too_large(limit: int) -> Response:
    error = apierrors.RequestEntityTooLarge(f"Request entity too large: limit is {limit}")
    return Response(413, {"Content-Type": "application/json"}, serialization.encode(error.status()))


def _gzip(data: bytes) -> bytes:
    compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 31)
    return compressor.compress(data) + compressor.flush()

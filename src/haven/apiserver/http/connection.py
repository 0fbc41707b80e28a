"""One client's connection: its requests are answered one after another, in the order in which they came.

An asyncio protocol with one task. Answers of moderate size go out with their head in one write.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol

from haven import telemetry
from haven.apimachinery import apierrors, serialization
from haven.apiserver.clientcertificates import presented
from haven.apiserver.http.answers import answer_head, has_body, plain_error
from haven.apiserver.http.handshakes import Handshakes
from haven.apiserver.http.messages import Malformed, Message, Messages, head_bytes, split_target
from haven.apiserver.http.takeover import Connection
from haven.apiserver.request import LiveStream, Request, Response, chunked

__all__ = ["Handle", "HttpConnection", "Limits", "Server"]

Handle = Callable[[Request], Awaitable[Response]]
_log = telemetry.logger("apiserver")
_JOINED_BYTES_MAX = 64 << 10
"""A larger body is written beside its head, because joining would copy it."""
_WAITING_MAX = 16
"""How many requests may wait behind the one that is being answered before no more is read."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_GZIP_LEVEL = 1
_LINGER_SECONDS = 2.0


class Limits(NamedTuple):
    """What a server allows. A client may be silent between requests, while sending a head, and while sending a body."""

    body_bytes_max: int
    gzip_bytes_min: int
    idle_seconds: float = 180.0
    head_seconds: float = 32.0
    body_seconds: float = 60.0


class Server(Protocol):
    """What a connection knows of its server."""

    handle: Handle
    limits: Limits
    wants_certificates: bool
    closing: bool
    connections: set[HttpConnection]
    handshakes: Handshakes
    is_streamed: Callable[[str], bool]
    """Whether the body of a request to a target is passed on as it comes."""

    def hand_over(self, transport: asyncio.Transport, data: bytes) -> None:
        """Let aiohttp go on with a connection; it begins with a request to upgrade."""
        ...


class HttpConnection(asyncio.Protocol):
    """Reads requests, lets the server's handler answer them, writes the answers.

    Invariants: `task` ends by itself once the connection is lost; `_waiter` is set only while the task waits for a
    request; `_stream` is set while an answer without end is sent.
    """

    __slots__ = (
        "__weakref__", "_certificate", "_is_paused", "_is_reading", "_lingering", "_messages", "_problem", "_remote",
        "_seen", "_server", "_since", "_stream",
        "_waiter", "_writable", "is_lost", "task", "transport",
    )  # fmt: skip

    def __init__(self, server: Server) -> None:
        self._server = server
        self._messages = Messages(server.limits.body_bytes_max, self._continue, server.is_streamed, self._go_on_reading)
        self.task: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._problem: Malformed | None = None
        self._stream = self._is_reading = self._is_paused = self._lingering = False
        self._seen: tuple[int, bool, bool] | None = None
        self._since = 0.0
        self._remote = ""
        self._certificate: bytes | None = None
        self.is_lost = False
        self.transport: Any = None

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there; TLS is agreed."""
        self.transport = transport
        server = self._server
        server.handshakes.done(self)
        peer = transport.get_extra_info("peername")
        self._remote = str(peer[0]) if isinstance(peer, tuple) else ""
        if server.wants_certificates:
            tls = transport.get_extra_info("ssl_object")
            self._certificate = presented(tls) if tls is not None else None
        server.connections.add(self)
        loop = asyncio.get_running_loop()
        self.task = loop.create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        """The client sent something."""
        messages = self._messages
        try:
            messages.feed(data)
        except Malformed as error:
            self._problem = error
            messages.is_over = True
        if self._waiter is not None:
            if (messages.ready or self._problem is not None) and not self._waiter.done():
                self._waiter.set_result(None)
        body = messages.body_stream
        if (len(messages.ready) > _WAITING_MAX or (body is not None and body.is_full)) and not self._is_paused:
            self._is_paused = True
            self.transport.pause_reading()

    def eof_received(self) -> None:
        """The client sends no more: it will not read either."""

    def connection_lost(self, _error: Exception | None) -> None:
        """The client is gone. A write goes on to its end; what only reads or streams is given up."""
        self.is_lost = True
        self._server.connections.discard(self)
        self.resume_writing()
        if self._messages.body_stream is not None:
            self._messages.body_stream.break_off()
        if self.task is not None and (self._waiter is not None or self._stream or self._is_reading or self._lingering):
            self.task.cancel()

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        if self._writable is None:
            self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """There is room again."""
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # What the server calls.

    @property
    def is_partial(self) -> bool:
        """Whether a request has begun to come and has not ended."""
        return self._messages.is_partial

    def close_when_silent(self, now: float) -> None:
        """Close the connection if its client has sent nothing, or not all, for too long. To be called now and then."""
        if self._waiter is None:
            return
        limits, messages = self._server.limits, self._messages
        seconds = limits.idle_seconds
        if messages.is_partial:
            seconds = limits.head_seconds if messages.is_in_head else limits.body_seconds
        state = (messages.count, messages.is_partial, messages.is_in_head)
        if state != self._seen:
            self._seen, self._since = state, now
        elif now - self._since > seconds:
            self.transport.abort()

    def stop(self) -> None:
        """Close if nothing is under way; end a stream; an answer under way says that it is the last one."""
        if self._waiter is not None:
            self.transport.close()
        elif self._stream and self.task is not None:
            self.task.cancel()

    def abort(self) -> None:
        """Give up what is under way."""
        if self.task is not None:
            self.task.cancel()
        self.transport.abort()

    # The task.

    def _continue(self) -> None:
        self.transport.write(_CONTINUE)

    def _go_on_reading(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self.transport.resume_reading()

    async def _serve(self) -> None:
        messages = self._messages
        loop = asyncio.get_running_loop()
        try:
            while not self.is_lost:
                if messages.ready:
                    message = messages.ready.popleft()
                elif self._problem is not None:
                    await self._refuse(self._problem)
                    return
                else:
                    if self._server.closing:
                        self.transport.close()
                        return
                    self._waiter = loop.create_future()
                    self._go_on_reading()
                    try:
                        await self._waiter
                    finally:
                        self._waiter = None
                    continue
                if message.upgrade:
                    self._server.connections.discard(self)
                    self._server.hand_over(self.transport, head_bytes(message) + messages.rest)
                    return
                if not await self._answer(message):
                    return
        except asyncio.CancelledError:
            if not self.is_lost:
                raise
        except Malformed as error:
            await self._refuse(error)
        except Exception as error:
            _log.error("A connection failed.", remote=self._remote, exc_info=error)
            self.transport.abort()
        finally:
            if self.is_lost:
                self._server.connections.discard(self)

    async def _refuse(self, problem: Malformed) -> None:
        self.transport.write(plain_error(problem.status, str(problem)))
        await self._linger()

    async def _linger(self) -> None:
        """Close, but leave a client that still sends the time to read the answer (RFC 9112, 9.6)."""
        if not self.is_lost:
            self._lingering = True
            await asyncio.sleep(_LINGER_SECONDS if self._messages.is_partial or self._problem is not None else 0)
            self.transport.close()

    async def _answer(self, message: Message) -> bool:
        """Answer a request; return whether another one may come."""
        server = self._server
        headers = message.headers
        path, query = split_target(message.target)
        connection = Connection(self.transport, headers.raw)
        request = Request(
            method=message.method,
            path=path,
            query=query,
            headers=headers.by_name,
            body=message.body,
            repeated_headers=headers.repeated,
            remote=self._remote,
            client_certificate=self._certificate,
            connection=connection,
            uri=message.target,
            body_stream=message.body_stream,
        )
        if message.too_large:
            response = _too_large(server.limits.body_bytes_max)
        else:
            self._is_reading = message.method in _READS
            response = await server.handle(request)
        keep = message.keep_alive and not server.closing
        if message.body_stream is not None and not message.body_stream.is_whole:
            keep = False
        if response.hijack is not None:
            try:
                await response.hijack()
            finally:
                response.over()
            server.connections.discard(self)
            return False
        if response.stream is not None:
            self._is_reading = False
            try:
                keep = await self._send_stream(message, request, response, keep)
            finally:
                response.over()
        else:
            await self._send(message, request, response, keep)
            self._is_reading = False
        if message.body_stream is not None:
            message.body_stream.discard()
        if not keep:
            if message.too_large or self._messages.is_partial:
                await self._linger()
            self.transport.close()
        return keep

    async def _send(self, message: Message, request: Request, response: Response, keep: bool) -> None:
        body = response.body
        if (
            len(body) > self._server.limits.gzip_bytes_min
            and _takes_gzip(request.headers.get("accept-encoding", ""))
            and "Content-Encoding" not in response.headers
        ):
            body = await asyncio.to_thread(_gzip, body)
            response.headers = {**response.headers, "Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        if has_body(message.method, response.status):
            framing = b"Content-Length: %d\r\n" % len(body)
        else:
            length = response.headers.get("Content-Length")
            framing = b""
            if message.method == "HEAD" and response.status not in (204, 304):
                framing = b"Content-Length: %b\r\n" % (length.encode() if length else b"%d" % len(body))
            body = b""
        head = answer_head(request, response, framing + _persistence(message, keep))
        if self.is_lost:
            return
        if len(body) <= _JOINED_BYTES_MAX:
            self.transport.write(head + body)
        else:
            self.transport.writelines((head, body))
            if self._writable is not None:
                await self._writable

    async def _send_stream(self, message: Message, request: Request, response: Response, keep: bool) -> bool:
        """Send chunks as they come; return whether the connection can be used again."""
        stream = response.stream
        assert stream is not None
        length = response.headers.get("Content-Length")  # What is passed on often has one.
        in_chunks = length is None and not message.is_http_1_0
        keep = keep and not message.is_http_1_0
        framing = b"Transfer-Encoding: chunked\r\n" if in_chunks else b""
        if length is not None:
            framing = b"Content-Length: %b\r\n" % length.encode()
        if not has_body(message.method, response.status):
            in_chunks = False
            framing = framing if message.method == "HEAD" else b""
        transport = self.transport
        self._stream = True
        try:
            transport.write(answer_head(request, response, framing + _persistence(message, keep)))
            if in_chunks and isinstance(stream, LiveStream):
                stream.push = self._push
            if has_body(message.method, response.status):
                while not self.is_lost and (chunk := await anext(stream, None)) is not None:
                    if chunk and not self.is_lost:
                        transport.write(chunked(chunk) if in_chunks else chunk)
                        if self._writable is not None:
                            await self._writable
        except asyncio.CancelledError:
            if self.is_lost or not self._server.closing:
                raise
            keep = False
        except ConnectionError:
            transport.abort()  # So that the client learns that this was not all.
            return False
        finally:
            self._stream = False
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()
        if in_chunks:
            transport.write(_LAST_CHUNK)
        return keep

    def _push(self, chunk: bytes) -> bool:
        """Send a chunk of a stream beside the task, which waits for the next one; False if the client lags."""
        if self._writable is not None or self.is_lost:
            return False
        self.transport.write(chunk)
        return True


def _persistence(message: Message, keep: bool) -> bytes:
    if not keep:
        return b"Connection: close\r\n"
    return b"Connection: keep-alive\r\n" if message.is_http_1_0 else b""


def _too_large(limit: int) -> Response:
    error = apierrors.RequestEntityTooLarge(f"Request entity too large: limit is {limit}")
    return Response(413, {"Content-Type": "application/json"}, serialization.encode(error.status()) + b"\n")


def _takes_gzip(accept_encoding: str) -> bool:
    """Tell whether a client names gzip; with a quality it does not, as upstream reads it."""
    return any(part.strip() == "gzip" for part in accept_encoding.split(","))


def _gzip(data: bytes) -> bytes:
    compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 31)
    return compressor.compress(data) + compressor.flush()

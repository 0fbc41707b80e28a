"""Connections that leave HTTP behind: dial, ask for an upgrade (SPDY, WebSocket), and move bytes both ways."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from haven.apimachinery import apierrors

__all__ = ["Backend", "Refused", "Upgraded", "splice", "upgrade"]

DIAL_SECONDS = 10.0
HEAD_BYTES_MAX = 64 * 1024
_WATER_MARK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Backend:
    """Where to connect. `tls` None is plain HTTP; `headers` are added to every request (a token, say)."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    headers: Mapping[str, str] | None = None
    server_name: str = ""
    """The name that the peer's certificate must carry, where it is not the host."""

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Upgraded:
    """The peer switched protocols. `head` is its answer as bytes; `early` what it sent right behind."""

    transport: asyncio.Transport
    head: bytes
    headers: Mapping[str, str]
    early: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """The peer answered with an ordinary response instead of switching protocols."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Head(asyncio.Protocol):
    """Collects an answer's head; afterwards, until somebody takes over, everything that follows."""

    def __init__(self) -> None:
        self.head: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.rest = bytearray()
        self._buffer = bytearray()

    def data_received(self, data: bytes) -> None:
        if self.head.done():
            self.rest += data
            return
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end >= 0:
            self.rest += self._buffer[end + 4 :]
            self.head.set_result(bytes(self._buffer[: end + 4]))
        elif len(self._buffer) > HEAD_BYTES_MAX:
            self.head.set_exception(ConnectionError("the answer's head does not end"))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.head.done():
            self.head.set_exception(exc or ConnectionError("the connection was closed without an answer"))
        if not self.closed.done():
            self.closed.set_result(None)


async def dial(backend: Backend, protocol: asyncio.Protocol) -> asyncio.Transport:
    """Return a connection; raise ApiError (500) in upstream's words if there is none."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            transport, _ = await loop.create_connection(
                lambda: protocol,
                backend.host,
                backend.port,
                ssl=backend.tls,
                server_hostname=_name(backend),
            )
    except TimeoutError:
        raise apierrors.ApiError(f"error dialing backend: dial tcp {backend.authority}: i/o timeout") from None
    except OSError as error:
        raise apierrors.ApiError(
            f"error dialing backend: dial tcp {backend.authority}: connect: {(error.strerror or str(error)).lower()}"
        ) from error
    return transport


def _name(backend: Backend) -> str | None:
    if backend.tls is None:
        return None
    return backend.server_name or (None if backend.tls.check_hostname else "")


async def upgrade(
    backend: Backend,
    method: str,
    target: str,
    headers: Mapping[str, str],
    *,
    repeated: Iterable[tuple[str, str]] = (),
) -> Upgraded | Refused:
    """Send a request that asks for another protocol and return the answer; `repeated` are more headers."""
    protocol = _Head()
    transport = await dial(backend, protocol)
    lines = {"Host": backend.authority, **headers, **(backend.headers or {})}
    if "Content-Length" not in lines and method in ("POST", "PUT", "PATCH"):
        lines["Content-Length"] = "0"
    text = f"{method} {target} HTTP/1.1\r\n" + "".join(
        f"{name}: {value}\r\n" for name, value in (*lines.items(), *repeated)
    )
    transport.write(f"{text}\r\n".encode("latin-1"))
    try:
        async with asyncio.timeout(DIAL_SECONDS * 3):
            head = await protocol.head
    except (OSError, TimeoutError) as error:
        transport.close()
        raise apierrors.InternalError(f"unable to upgrade connection: {error or 'timeout'}") from error
    status, received = _parse_head(head)
    if status == 101:
        transport.pause_reading()  # Until the other side is ready to take it.
        return Upgraded(transport, head, received, bytes(protocol.rest))
    body = await _rest_of_body(protocol, received)
    transport.close()
    return Refused(status, received, body)


async def _rest_of_body(protocol: _Head, headers: Mapping[str, str]) -> bytes:
    length = int(headers.get("content-length", "-1"))
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            while length < 0 or len(protocol.rest) < length:
                if protocol.closed.done():
                    break
                before = len(protocol.rest)
                await asyncio.sleep(0.005)
                if (
                    length < 0
                    and headers.get("transfer-encoding") == "chunked"
                    and before
                    and protocol.rest.endswith(b"0\r\n\r\n")
                ):
                    return _unchunked(bytes(protocol.rest))
    except TimeoutError:
        return bytes(protocol.rest)
    return bytes(protocol.rest)


def _unchunked(data: bytes) -> bytes:
    parts: list[bytes] = []
    position = 0
    while True:
        end = data.index(b"\r\n", position)
        size = int(data[position:end].split(b";")[0], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(data[end + 2 : end + 2 + size])
        position = end + 2 + size + 2


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    try:
        return int(first.split(" ")[1]), headers
    except (IndexError, ValueError):
        raise apierrors.InternalError(f"unable to upgrade connection: no HTTP answer: {first[:80]}") from None


class _Pipe(asyncio.Protocol):
    """One end of a splice: what arrives here goes to the other end, no faster than that end takes it."""

    def __init__(self, other: asyncio.Transport, closed: asyncio.Event) -> None:
        self._other = other
        self._closed = closed

    def data_received(self, data: bytes) -> None:
        if not self._other.is_closing():
            self._other.write(data)

    def eof_received(self) -> bool:
        if self._other.can_write_eof() and not self._other.is_closing():
            self._other.write_eof()
            return True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set()
        self._other.close()

    def pause_writing(self) -> None:
        if not self._other.is_closing():
            self._other.pause_reading()

    def resume_writing(self) -> None:
        if not self._other.is_closing():
            self._other.resume_reading()


async def splice(client: asyncio.Transport, backend: asyncio.Transport, early: bytes = b"") -> None:
    """Move bytes between two connections until one of them closes; both are closed then."""
    client_closed, backend_closed = asyncio.Event(), asyncio.Event()
    client.set_write_buffer_limits(high=_WATER_MARK_BYTES)
    backend.set_write_buffer_limits(high=_WATER_MARK_BYTES)
    client.set_protocol(_Pipe(backend, client_closed))
    backend.set_protocol(_Pipe(client, backend_closed))
    if early:
        client.write(early)
    backend.resume_reading()
    client.resume_reading()
    try:
        waits = [asyncio.create_task(client_closed.wait()), asyncio.create_task(backend_closed.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
    finally:
        client.close()
        backend.close()

"""The HTTPS transport: requests to any conforming API server through one pool of kept-alive connections.

Certificates and tokens in files are read again when they change, so that short-lived credentials need no restart.
A peer that vanished without a word is noticed by TCP keepalive within about 30 s, because a quiet watch is no proof
of life. Errors of the network become Unreachable.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import yarl

from haven.apimachinery import apierrors
from haven.client.connection import ConfigError, Connection, PemSource
from haven.client.interface import Answer, Unreachable
from haven.client.ratelimit import TokenBucket
from haven.clock import Clock, SystemClock

__all__ = ["HttpLimits", "HttpTransport"]

CREDENTIALS_SECONDS = 60.0  # How long files are trusted to be unchanged.
KEEPALIVE_IDLE_SECONDS = 15
KEEPALIVE_INTERVAL_SECONDS = 5
KEEPALIVE_PROBES = 3
CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What the transport takes upon itself."""

    connections_max: int = 100  # Watches hold one each.
    connect_seconds: float = 10.0
    request_seconds: float = 60.0  # As long as the server gives itself; a watch has no such end.
    idle_seconds: float = 90.0
    per_second: float = 0.0  # 0: no limit. The server has its own (priority and fairness).
    burst: int = 100


class HttpTransport:
    """A Transport over HTTPS. Use it in one event loop; `close` it."""

    def __init__(
        self,
        connection: Connection,
        *,
        limits: HttpLimits | None = None,
        user_agent: str = "haven",
        clock: Clock | None = None,
    ) -> None:
        self._connection = connection
        self._limits = limits or HttpLimits()
        self._clock = clock or SystemClock()
        self._base = connection.server.rstrip("/")
        self._headers = {"User-Agent": user_agent, "Accept": "application/json"}
        if connection.impersonate_user:
            self._headers["Impersonate-User"] = connection.impersonate_user
        self._session: aiohttp.ClientSession | None = None
        self._context: ssl.SSLContext | None = None
        self._context_stamp: tuple[float, ...] = ()
        self._token = connection.token
        self._checked_seconds = float("-inf")
        self._bucket = (
            TokenBucket(
                per_second=self._limits.per_second,
                burst=self._limits.burst,
                now_seconds=self._clock.monotonic_seconds(),
            )
            if self._limits.per_second > 0
            else None
        )

    async def request(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        timeout = aiohttp.ClientTimeout(total=self._limits.request_seconds, sock_connect=self._limits.connect_seconds)
        async with self._send(method, path, body, headers, timeout) as response:
            try:
                return Answer(response.status, response.headers, await response.read())
            except _NETWORK_ERRORS as error:
                raise _unreachable(self._base, error) from error

    async def stream(self, path: str, *, headers: Mapping[str, str] | None = None) -> AsyncIterator[bytes]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._limits.connect_seconds)
        async with self._send("GET", path, b"", headers, timeout) as response:
            try:
                if response.status != 200:
                    raise apierrors.from_status(response.status, await response.read())
                async for line in _lines(response.content):
                    yield line
            except _NETWORK_ERRORS as error:
                raise _unreachable(self._base, error) from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _send(
        self,
        method: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str] | None,
        timeout: aiohttp.ClientTimeout,
    ) -> _Sending:
        return _Sending(self, method, path, body, headers, timeout)

    async def _open(
        self,
        method: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str] | None,
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        if self._bucket is not None and (wait := self._bucket.reserve(self._clock.monotonic_seconds())) > 0:
            await self._clock.sleep(wait)
        self._check_credentials()
        if self._session is None:
            self._session = self._new_session()
        sent: list[tuple[str, str]] = list(headers.items()) if headers else []
        sent += [("Impersonate-Group", group) for group in self._connection.impersonate_groups]
        if self._token:
            sent.append(("Authorization", f"Bearer {self._token}"))
        try:
            return await self._session.request(
                method,
                yarl.URL(self._base + path, encoded=True),
                data=body or None,
                headers=sent,
                timeout=timeout,
                allow_redirects=False,
                ssl=self._context if self._context is not None else True,
                server_hostname=self._connection.server_name or None,
            )
        except _NETWORK_ERRORS as error:
            raise _unreachable(self._base, error) from error

    def _new_session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=self._limits.connections_max,
            keepalive_timeout=self._limits.idle_seconds,
            socket_factory=_socket,
            ttl_dns_cache=10,
        )
        return aiohttp.ClientSession(
            connector=connector,
            headers=self._headers,
            auto_decompress=True,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Content-Type",),
            read_bufsize=CHUNK_BYTES,
        )

    def _check_credentials(self) -> None:
        """Read files that changed; new connections use them, what is open goes on."""
        now = self._clock.monotonic_seconds()
        if now - self._checked_seconds < CREDENTIALS_SECONDS:
            return
        connection = self._connection
        if connection.token_file is not None:
            try:
                self._token = connection.token_file.read_text().strip()
            except OSError as error:
                raise ConfigError(f"the token {connection.token_file} cannot be read: {error.strerror}") from error
        if connection.server.startswith("https:"):
            stamp = tuple(_changed(source) for source in (connection.ca, connection.certificate, connection.key))
            if self._context is None or stamp != self._context_stamp:
                self._context, self._context_stamp = _tls_context(connection), stamp
        self._checked_seconds = now


class _Sending:
    """A response that is released when the block ends: read to its end it goes back to the pool, else it is closed."""

    def __init__(
        self,
        transport: HttpTransport,
        method: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str] | None,
        timeout: aiohttp.ClientTimeout,
    ) -> None:
        self._arguments = (method, path, body, headers, timeout)
        self._transport = transport
        self._response: aiohttp.ClientResponse | None = None

    async def __aenter__(self) -> aiohttp.ClientResponse:
        self._response = await self._transport._open(*self._arguments)
        return self._response

    async def __aexit__(self, *_: object) -> None:
        assert self._response is not None
        if not self._response.content.at_eof():
            self._response.close()  # A watch that we leave: the rest must not be waited for.
        else:
            self._response.release()


_NETWORK_ERRORS = (aiohttp.ClientError, OSError, asyncio.TimeoutError)


def _unreachable(server: str, error: BaseException) -> Unreachable:
    reason = str(error) or type(error).__name__
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        return Unreachable(f"{server} shows a certificate that is not trusted: {reason}")
    return Unreachable(f"{server} gave no answer: {reason}")


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield lines of any length; aiohttp's own reading by lines ends at 128 kB, which objects exceed."""
    parts: list[bytes] = []
    async for chunk in content.iter_any():
        lines = chunk.split(b"\n")
        if len(lines) == 1:
            parts.append(chunk)
            continue
        yield b"".join((*parts, lines[0]))
        for line in lines[1:-1]:
            yield line
        parts = [lines[-1]] if lines[-1] else []
    if parts:
        yield b"".join(parts)


def _socket(address: tuple[object, ...]) -> socket.socket:
    """Make a socket that notices a dead peer: keepalive for the quiet ones, a limit for unanswered data."""
    family, kind, protocol = address[0], address[1], address[2]
    assert isinstance(family, int)
    assert isinstance(kind, int)
    assert isinstance(protocol, int)
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        milliseconds = 1000 * (KEEPALIVE_IDLE_SECONDS + KEEPALIVE_INTERVAL_SECONDS * KEEPALIVE_PROBES)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    return made


def _tls_context(connection: Connection) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context()
        if connection.ca is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(cadata=_pem_bytes(connection.ca).decode("ascii"))
        if connection.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if connection.certificate is not None and connection.key is not None:
            with _as_file(connection.certificate) as certificate, _as_file(connection.key) as key:
                context.load_cert_chain(certificate, key)
    except OSError as error:
        raise ConfigError(f"the certificates for {connection.server} cannot be used: {error}") from error
    return context


def _pem_bytes(source: PemSource) -> bytes:
    return source.read_bytes() if isinstance(source, Path) else source


@contextmanager
def _as_file(source: PemSource) -> Iterator[str]:
    """OpenSSL loads a client's key from files only; a key that is not in one stays in memory."""
    if isinstance(source, Path):
        yield str(source)
        return
    descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, source)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _changed(source: PemSource | None) -> float:
    if not isinstance(source, Path):
        return 0.0
    try:
        return source.stat().st_mtime_ns
    except OSError as error:
        raise ConfigError(f"{source} cannot be read: {error.strerror}") from error

"""Passes requests on to extension servers, and asks them questions of its own.

The client's identity travels in X-Remote-… headers, which the extension server believes because of this server's
client certificate. Connections are kept; a client that upgrades gets a connection of its own.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote as quote_path
from urllib.parse import urlencode

from haven import telemetry
from haven.apimachinery import apierrors
from haven.apimachinery.goformat import quote
from haven.apiserver.aggregation.remote import AGGREGATOR, Remote, identity_headers, is_identity_header
from haven.apiserver.http.takeover import Connection
from haven.apiserver.request import Request, Response
from haven.apiserver.webhooks.failures import describe, names_mismatch
from haven.apiserver.webhooks.selfissued import issued_by, looks_self_signed, peer_certificate
from haven.apiserver.webhooks.services import ServiceAddresses, Unroutable
from haven.apiserver.webhooks.target import tls_context
from haven.client.upgrade import Backend, Refused, splice, upgrade
from haven.deferred import deferred

if TYPE_CHECKING:
    import aiohttp
    import multidict
    import yarl
else:
    aiohttp = deferred("aiohttp")
    multidict = deferred("multidict")
    yarl = deferred("yarl")

__all__ = ["Answered", "ExtensionServers", "Unreachable"]

CONTEXTS_MAX = 200
IDLE_SECONDS = 90.0
DISCOVERY_SECONDS = 5.0
"""How long a client's request for a group's discovery document may take: clients ask for many of them at once."""
ANSWER_BYTES_MAX = 128 * 1024 * 1024
_TEXT = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
_REDIRECTED = b"the backend attempted to redirect this request, which is not permitted"
# They concern one connection only, not the whole way (RFC 9110, 7.6.1).
_HOP_BY_HOP = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
        "upgrade", "content-length", "host",
    }
)  # fmt: skip
_log = telemetry.logger("apiserver")


class Unreachable(Exception):
    """An extension server did not answer; the message is upstream's."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What an extension server answered to a question of ours. `url` is where it was asked."""

    status: int
    headers: Any
    body: bytes
    url: str


class ExtensionServers:
    """The way to extension servers. `certificate` and key are files, which may be renewed while we run."""

    def __init__(self, services: ServiceAddresses, certificate: tuple[Path, Path] | None) -> None:
        self._services = services
        self._certificate = certificate
        self._stamp: tuple[float, ...] = ()
        self._contexts: OrderedDict[Any, ssl.SSLContext] = OrderedDict()
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections that are kept."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    # ---- clients' requests

    async def forward(self, request: Request, remote: Remote) -> Response:
        """Answer a client's request with what the extension server answers."""
        if not remote.available:
            return _refused(503, "service unavailable")
        try:
            host, port = self._services.resolve(remote.service)
        except (apierrors.ApiError, Unroutable) as error:
            _log.warning("An extension server has no address.", api_service=remote.name, because=str(error))
            return _refused(503, "service unavailable")
        try:
            tls = self._context(remote)
        except ValueError as error:
            return _refused(500, str(error))
        identity = identity_headers(request.user)
        path = _path_and_query(request)
        if "upgrade" in request.headers.get("connection", "").lower() and request.connection is not None:
            return await self._upgrade(request, Backend(host, port, tls, server_name=remote.service.server_name), path)
        headers = multidict.CIMultiDict[str](
            (name, value) for name, value in _all_headers(request) if not _is_dropped(name.lower())
        )
        for name, value in identity:
            headers.add(name, value)
        if request.remote:
            before = request.headers.get("x-forwarded-for")
            headers["X-Forwarded-For"] = f"{before}, {request.remote}" if before else request.remote
        headers["X-Forwarded-Uri"] = path.partition("?")[0]
        headers["X-Forwarded-Host"] = _authority(host, port)
        headers["X-Forwarded-Proto"] = "https"
        headers.setdefault("User-Agent", "")
        is_discovery = not request.info.is_resource and request.path.strip("/").count("/") == 2
        url = f"https://{_authority(host, port)}{path}"
        try:
            async with asyncio.timeout(DISCOVERY_SECONDS if is_discovery else None):
                answer = await self._client().request(
                    request.method,
                    yarl.URL(url, encoded=True),
                    headers=headers,
                    data=request.body or None,
                    ssl=tls,
                    server_hostname=remote.service.server_name,
                    allow_redirects=False,
                    auto_decompress=False,
                )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            because = describe(error, host, port, server_name=remote.service.server_name)
            return _refused(503, f"error trying to reach service: {because}")
        if 300 <= answer.status <= 399 and answer.headers.get("Location"):
            answer.close()
            return Response(502, {"Content-Type": "text/plain; charset=utf-8"}, _REDIRECTED)
        passed = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
        warnings = answer.headers.getall("Warning", [])
        if len(warnings) > 1:
            passed["Warning"] = ", ".join(warnings)
        return Response(answer.status, passed, stream=_body(answer))

    @staticmethod
    async def _upgrade(request: Request, backend: Backend, path: str) -> Response:
        headers = [
            (name, value)
            for name, value in _all_headers(request)
            if name.lower() not in ("host", "content-length") and not is_identity_header(name.lower())
        ]
        lines = [*headers, *identity_headers(request.user)]
        try:
            answer = await upgrade(backend, request.method, path, {}, repeated=lines)
        except apierrors.ApiError as error:
            return _refused(503, f"error trying to reach service: {error.message}")
        if isinstance(answer, Refused):
            plain = {name: value for name, value in answer.headers.items() if name not in _HOP_BY_HOP}
            return Response(answer.status, plain, answer.body)
        client = cast("Connection", request.connection).transport
        if client.is_closing():
            answer.transport.close()
            return _refused(503, "the client is gone")
        agreed = answer

        async def hijack() -> None:
            client.write(agreed.head)
            await splice(client, agreed.transport, agreed.early)

        return Response(101, hijack=hijack)

    # ---- our own questions

    async def ask(
        self, remote: Remote, path: str, *, accept: str = "application/json", etag: str = "", timeout_seconds: float
    ) -> Answered:
        """Return what a server answers to a GET by the aggregator itself; raise Unreachable."""
        try:
            host, port = self._services.resolve(remote.service)
            tls = self._context(remote)
        except (apierrors.ApiError, Unroutable, ValueError) as error:
            raise Unreachable(str(error)) from error
        url = f"https://{_authority(host, port)}{path}"
        identity = identity_headers(AGGREGATOR)
        headers = multidict.CIMultiDict[str]([("Accept", accept), ("User-Agent", "kube-apiserver"), *identity])
        if etag:
            headers["If-None-Match"] = etag
        try:
            async with asyncio.timeout(timeout_seconds):
                try:
                    return await self._get(remote, url, headers, tls)
                except aiohttp.ClientConnectorCertificateError as error:
                    trusted = await self._trust(remote, host, port) if looks_self_signed(error) else None
                    if trusted is None:
                        raise
                    return await self._get(remote, url, headers, trusted)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            because = describe(error, host, port, server_name=remote.service.server_name)
            if isinstance(error, aiohttp.ClientConnectorCertificateError):
                names = await names_mismatch(error, host, port, remote.service.server_name)
                because = f"tls: failed to verify certificate: {names}" if names else because
            raise Unreachable(f"failing or missing response from {url}: Get {quote(url)}: {because}") from error

    async def _get(
        self, remote: Remote, url: str, headers: multidict.CIMultiDict[str], tls: ssl.SSLContext
    ) -> Answered:
        async with self._client().get(
            yarl.URL(url, encoded=True),
            headers=headers,
            ssl=tls,
            server_hostname=remote.service.server_name,
            allow_redirects=False,
        ) as answer:
            return Answered(answer.status, answer.headers, await _all(answer), url)

    async def _trust(self, remote: Remote, host: str, port: int) -> ssl.SSLContext | None:
        """Trust a server's certificate by itself if the APIService's authority signed it."""
        certificate = await peer_certificate(host, port, remote.service.server_name)
        pem = issued_by(certificate, remote.ca) if certificate is not None else None
        if pem is None:
            return None
        context = self._contexts[_key(remote)] = self._new_context(remote.ca + b"\n" + pem, insecure=False)
        return context

    # ---- connections

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            )
        return self._session

    def _context(self, remote: Remote) -> ssl.SSLContext:
        if self._certificate is not None:
            stamp = tuple(path.stat().st_mtime for path in self._certificate)
            if stamp != self._stamp:
                self._contexts.clear()
                self._stamp = stamp
        key = _key(remote)
        context = self._contexts.get(key)
        if context is None:
            context = self._new_context(remote.ca, insecure=remote.insecure)
            self._contexts[key] = context
            if len(self._contexts) > CONTEXTS_MAX:
                self._contexts.popitem(last=False)
        return context

    def _new_context(self, ca: bytes, *, insecure: bool) -> ssl.SSLContext:
        certificate, private = b"", b""
        if self._certificate is not None:
            certificate, private = (path.read_bytes() for path in self._certificate)
        return tls_context(ca=ca, insecure=insecure, certificate=certificate, key=private)


def _key(remote: Remote) -> tuple[bytes, bool, str]:
    """The name is part of the key, so that a kept connection is never taken for another server's."""
    return (remote.ca, remote.insecure, remote.service.server_name)


def _refused(code: int, text: str) -> Response:
    return Response(code, dict(_TEXT), f"{text}\n".encode())


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_dropped(name: str) -> bool:
    return name in _HOP_BY_HOP or name.startswith("x-forwarded-") or is_identity_header(name)


def _all_headers(request: Request) -> list[tuple[str, str]]:
    """Return every header, those that came more than once as often as they came."""
    connection = cast("Connection | None", request.connection)
    if connection is None:
        return list(request.headers.items())
    return list(connection.headers)


def _path_and_query(request: Request) -> str:
    """Return the path as the client sent it, and the query in Go's form: sorted by name."""
    connection = cast("Connection | None", request.connection)
    if connection is not None:
        path = request.uri.partition("?")[0]
    else:
        path = quote_path(request.path, safe="/:@!$&'()*+,;=~")
    pairs = [(name, value) for name in sorted(request.query) for value in request.query[name]]
    return path + (f"?{urlencode(pairs)}" if pairs else "")


async def _body(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, asyncio.IncompleteReadError) as error:
        raise ConnectionResetError("the extension server broke off") from error
    finally:
        answer.release()


async def _all(answer: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for chunk in answer.content.iter_any():
        data += chunk
        if len(data) > ANSWER_BYTES_MAX:
            raise aiohttp.ClientError(f"the answer is larger than {ANSWER_BYTES_MAX} bytes")
    return bytes(data)

"""Passes requests on to extension servers, and asks them questions of its own.

The client's identity travels in X-Remote-… headers, which the extension server believes because of this server's
client certificate. Connections are kept; a client that upgrades gets a connection of its own.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote_to_bytes, urlencode

from haven import telemetry
from haven.apimachinery import apierrors
from haven.apimachinery.goformat import quote
from haven.apiserver.aggregation.remote import AGGREGATOR, Remote, identity_headers
from haven.apiserver.deadlines import asked_seconds
from haven.apiserver.http.answers import audit_id_of
from haven.apiserver.http.messages import parse_query
from haven.apiserver.http.takeover import Connection
from haven.apiserver.outgoing import OutgoingMeter
from haven.apiserver.passing import (
    all_headers,
    asks_to_unpack,
    cleaned,
    escaped,
    forwarded_for,
    is_identity_header,
    kept,
    passed_answer,
)
from haven.apiserver.proxied import response_of
from haven.apiserver.request import Request, Response
from haven.apiserver.webhooks.failures import describe, refused_certificate
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

__all__ = ["REQUEST_SECONDS", "Answered", "ExtensionServers", "Unreachable"]

CONTEXTS_MAX = 200
IDLE_SECONDS = 90.0
DISCOVERY_SECONDS = 5.0
"""How long a client's request for a group's discovery document may take: clients ask for many of them at once."""
REQUEST_SECONDS = 60.0
"""How long a client's request may take until its answer begins, unless it is a watch."""
ANSWER_BYTES_MAX = 128 * 1024 * 1024
_TEXT = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
_REDIRECTED = b"the backend attempted to redirect this request, which is not permitted"
_LATE = (
    b'{"metadata":{},"status":"Failure","message":"Timeout: request did not complete within the allotted timeout",'
    b'"reason":"Timeout","details":{},"code":504}\n'
)
_BAD_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
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

    def __init__(
        self,
        services: ServiceAddresses,
        certificate: tuple[Path, Path] | None,
        *,
        request_seconds: float = REQUEST_SECONDS,
    ) -> None:
        self._request_seconds = request_seconds
        self._services = services
        self._certificate = certificate
        self._stamp: tuple[float, ...] = ()
        self._contexts: OrderedDict[Any, ssl.SSLContext] = OrderedDict()
        self._session: aiohttp.ClientSession | None = None
        self.meter: OutgoingMeter | None = None

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
        path, query = _path_and_query(request)
        target = f"{path}?{query}" if query else path
        if "upgrade" in request.headers.get("connection", "").lower() and request.connection is not None:
            return await self._upgrade(
                request, Backend(host, port, tls, server_name=remote.service.server_name), target
            )
        authority = _authority(host, port)
        given = [one for one in all_headers(request) if not is_identity_header(one[0].lower())]
        headers = multidict.CIMultiDict[str]([("Host", authority), *kept(given), *identity])
        if request.remote:
            headers["X-Forwarded-For"] = forwarded_for(given, request.remote)
        headers["X-Forwarded-Uri"] = cleaned(path)
        headers["X-Forwarded-Host"] = authority
        headers["X-Forwarded-Proto"] = "https"
        headers["Audit-Id"] = request.audit_id = audit_id_of(request)
        unpacks = asks_to_unpack(request)
        if unpacks:
            headers["Accept-Encoding"] = "gzip"
        if request.body_stream is not None and "content-length" in request.headers:
            headers["Content-Length"] = request.headers["content-length"]
        is_discovery = not request.info.is_resource and request.path.strip("/").count("/") == 2
        url = f"https://{authority}{target}"
        seconds: float | None = DISCOVERY_SECONDS
        if not is_discovery:
            is_long = request.info.verb in ("watch", "proxy")
            asked = None if is_long else asked_seconds(request.query)
            seconds = None if is_long else min(asked or self._request_seconds, self._request_seconds)
        try:
            async with asyncio.timeout(seconds) as limit:
                answer = await self._client().request(
                    request.method,
                    yarl.URL(url, encoded=True),
                    headers=headers,
                    data=request.body_stream or request.body or None,
                    ssl=tls,
                    server_hostname=remote.service.server_name,
                    allow_redirects=False,
                    auto_decompress=False,
                )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if limit.expired() and not is_discovery:
                return Response(504, {"Content-Type": "text/plain; charset=utf-8"}, _LATE)
            because = describe(error, host, port, server_name=remote.service.server_name)
            return _refused(503, f"error trying to reach service: {because}")
        if 300 <= answer.status <= 399 and answer.headers.get("Location"):
            answer.close()
            return Response(502, {"Content-Type": "text/plain; charset=utf-8"}, _REDIRECTED)
        try:
            return await response_of(answer, unpacks=unpacks, hosts=(authority,), origin=f"https://{authority}")
        except (apierrors.ServiceUnavailable, ConnectionResetError) as error:
            return _refused(503, str(error))

    @staticmethod
    async def _upgrade(request: Request, backend: Backend, target: str) -> Response:
        given = [one for one in all_headers(request) if not is_identity_header(one[0].lower())]
        ours = ("host", "content-length", "x-forwarded-for", "audit-id")
        lines = [one for one in given if one[0].lower() not in ours]
        lines += [("X-Forwarded-For", forwarded_for(given, request.remote)), ("Audit-Id", audit_id_of(request))]
        lines += identity_headers(request.user)
        try:
            answer = await upgrade(backend, request.method, target, {}, repeated=lines)
        except apierrors.ApiError as error:
            return _refused(503, f"error trying to reach service: {error.message}")
        if isinstance(answer, Refused):
            if answer.status < 400:
                return _refused(503, f"invalid upgrade response: status code {answer.status}")
            passed = passed_answer(answer.headers.items(), is_rewritten=True)
            return Response(answer.status, passed.headers, answer.body, further=passed.further)
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
        """Return what a server answers to the aggregator itself; raise Unreachable. No `accept` takes anything."""
        try:
            host, port = self._services.resolve(remote.service)
            tls = self._context(remote)
        except (apierrors.ApiError, Unroutable, ValueError) as error:
            raise Unreachable(str(error)) from error
        url = f"https://{_authority(host, port)}{path}"
        identity = identity_headers(AGGREGATOR)
        headers = multidict.CIMultiDict[str]([("User-Agent", "kube-apiserver"), *identity])
        if accept:
            headers["Accept"] = accept
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
                refused = await refused_certificate(error, host, port, remote.service.server_name)
                if self.meter is not None:
                    self.meter.refused_certificate("apiserver_kube_aggregator", error.certificate_error, refused)
                because = f"tls: failed to verify certificate: {refused}" if refused else because
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
        is_known = context is not None
        if context is None:
            context = self._new_context(remote.ca, insecure=remote.insecure)
            self._contexts[key] = context
            if len(self._contexts) > CONTEXTS_MAX:
                self._contexts.popitem(last=False)
        if self.meter is not None:
            self.meter.connecting("hit" if is_known else "miss", "extensions", len(self._contexts))
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


def _path_and_query(request: Request) -> tuple[str, str]:
    """Return the path and query as Go writes them: escaped anew, sorted by name, without pairs that nobody can read."""
    if request.connection is None:
        return escaped(request.path), _query(request.query)
    path, _, query = request.uri.partition("?")
    readable = "&".join(pair for pair in query.split("&") if not _BAD_ESCAPE.search(pair))
    return escaped(unquote_to_bytes(path)), _query(parse_query(readable))


def _query(query: Mapping[str, Sequence[str]]) -> str:
    return urlencode([(name, value) for name in sorted(query) for value in query[name]])


async def _all(answer: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for chunk in answer.content.iter_any():
        data += chunk
        if len(data) > ANSWER_BYTES_MAX:
            raise aiohttp.ClientError(f"the answer is larger than {ANSWER_BYTES_MAX} bytes")
    return bytes(data)

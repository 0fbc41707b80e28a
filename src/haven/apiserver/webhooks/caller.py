"""Posts a document to a webhook and returns its answer: the one way in which this server calls programs of its users.

Connections are kept and shared by callers with the same trust. Services are dialled directly, never through a proxy of
the environment; their Host header and TLS name are <name>.<namespace>.svc, whatever address answers for them.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections import OrderedDict
from collections.abc import Callable, Mapping
from time import perf_counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urljoin, urlsplit

from haven.apimachinery import apierrors
from haven.apimachinery.goformat import quote
from haven.apiserver.outgoing import OutgoingMeter
from haven.apiserver.tracing import Spans, no_span
from haven.apiserver.webhooks.failures import answer_error, describe, refused_certificate
from haven.apiserver.webhooks.selfissued import issued_by, looks_self_signed, peer_certificate
from haven.apiserver.webhooks.services import ServiceAddresses, Unroutable
from haven.apiserver.webhooks.target import DEFAULT_PORT, Target, tls_context
from haven.deferred import deferred

if TYPE_CHECKING:
    import aiohttp
    import yarl
else:
    aiohttp = deferred("aiohttp")
    yarl = deferred("yarl")

__all__ = ["CallFailed", "WebhookCaller", "calling_webhook"]

USER_AGENT = "kube-apiserver-admission"
ANSWER_BYTES_MAX = 64 * 1024 * 1024
CONTEXTS_MAX = 500
IDLE_SECONDS = 90.0
DIAL_SECONDS = 30.0
RETRIES_MAX = 10
REQUESTS_MAX = 10
"""How many places are asked, each referred to by the one before."""
_REDIRECTIONS, _REPEATED = (301, 302, 303, 307, 308), (307, 308)
"""How often an answer with Retry-After is asked for again, in the caller's time."""
_Key = tuple[bytes, bool, bytes, bytes, str]


class CallFailed(Exception):
    """The callee could not be asked, or did not answer with a success.

    The message is what upstream shows; `status` is the refusal that it answered with, if it answered at all.
    """

    def __init__(self, message: str, status: apierrors.ApiError | None = None) -> None:
        super().__init__(message)
        self.status = status


def calling_webhook(name: str, because: str) -> str:
    """Return upstream's words for a webhook that cannot be asked."""
    return f"failed calling webhook {quote(name)}: {because}"


class WebhookCaller:
    """Calls webhooks. Use it in one event loop; `close` it."""

    def __init__(self, services: ServiceAddresses) -> None:
        self.services = services
        self.span: Spans = no_span
        self.more_headers: Callable[[], Mapping[str, str]] | None = None
        """Headers for each call: what it is part of, when requests are traced."""
        self.meter: OutgoingMeter | None = None
        self._contexts: OrderedDict[_Key, ssl.SSLContext] = OrderedDict()
        self._direct: aiohttp.ClientSession | None = None
        self._proxied: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections that are kept."""
        for session in (self._direct, self._proxied):
            if session is not None:
                await session.close()
        self._direct = self._proxied = None

    async def post(
        self,
        target: Target,
        body: bytes,
        *,
        timeout_seconds: float | None = None,
        content_type: str = "application/json",
        is_answered: bool = True,
    ) -> bytes:
        """Return the body of a successful answer; raise CallFailed.

        A timeout is also told to the callee, as ?timeout=10s, rounded up to whole seconds. An answer without a body
        is a failure, unless none is expected (`is_answered`).
        """
        url = target.url
        if not urlsplit(url).path:
            url = urlsplit(url)._replace(path="/").geturl()
        if timeout_seconds is not None:
            url += f"{'&' if '?' in url else '?'}timeout={max(1, math.ceil(timeout_seconds))}s"
        began = perf_counter()
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._post(target, url, body, content_type, is_answered=is_answered)
        except TimeoutError:
            raise CallFailed(f"Post {quote(url)}: context deadline exceeded") from None
        finally:
            if self.meter is not None:
                self.meter.took(url, "POST", perf_counter() - began)

    async def _post(self, target: Target, url: str, body: bytes, content_type: str, *, is_answered: bool) -> bytes:
        retries = 0
        while True:
            code, headers, data = await self._counted(target, url, body, content_type, again=retries > 0)
            kind = headers.get("Content-Type", "") or "application/json"
            if 200 <= code <= 206:
                if is_answered and not data:
                    raise CallFailed(f"0-length response with status code: {code} and content type: {kind}")
                return data
            wait = headers.get("Retry-After", "")
            if (code == 429 or code >= 500) and wait.isdecimal() and retries < RETRIES_MAX:
                retries += 1
                await asyncio.sleep(int(wait))
                continue
            error = answer_error(code, data, kind)
            raise CallFailed(error.message, error)

    async def _counted(
        self, target: Target, url: str, body: bytes, content_type: str, *, again: bool
    ) -> tuple[int, Any, bytes]:
        """Ask, and count what comes of it."""
        code = received = None
        try:
            code, headers, data = await self._followed(target, url, body, content_type)
            received = len(data)
            return code, headers, data
        finally:
            if self.meter is not None:
                self.meter.answered(url, "POST", code, sent=len(body), received=received, again=again)

    async def _followed(self, target: Target, url: str, body: bytes, content_type: str) -> tuple[int, Any, bytes]:
        """Return the answer of the place that a callee finally refers to, as Go's client does."""
        method, place, payload, referer = "POST", url, body, ""
        for _ in range(REQUESTS_MAX):
            code, headers, data = await self._exchange(target, place, payload, content_type, method, referer)
            location = headers.get("Location", "")
            if code not in _REDIRECTIONS or not location:
                return code, headers, data
            if code not in _REPEATED:
                method, payload = "GET", b""
            referer, place = place, urljoin(place, location)
            if referer.startswith("https:") and place.startswith("http:"):
                referer = ""
        raise CallFailed(f"Post {quote(location)}: stopped after {REQUESTS_MAX} redirects")

    async def _exchange(
        self, target: Target, url: str, body: bytes, content_type: str, method: str, referer: str
    ) -> tuple[int, Any, bytes]:
        parts = urlsplit(url)
        try:
            host, port, dialled = self._place(target, parts)
            context = None if parts.scheme == "http" else self._context(target)
        except (apierrors.ApiError, Unroutable, ValueError) as error:
            raise CallFailed(f"Post {quote(url)}: {error}") from error
        headers = [
            ("Host", parts.netloc),
            ("User-Agent", USER_AGENT),
            *([("Content-Type", content_type)] if method == "POST" else []),
            *([("Referer", referer)] if referer else []),
            ("Accept", "application/json, */*"),
            ("Accept-Encoding", "gzip"),
            *target.headers,
        ]
        if self.more_headers is not None:
            headers += self.more_headers().items()
        if target.token_file is not None:
            headers.append(("Authorization", f"Bearer {target.token_file.read_text().strip()}"))
        session = self._session(target)
        for attempt in (1, 2):
            seen = SimpleNamespace(reused=False)
            try:
                async with session.request(
                    method,
                    dialled,
                    data=body or None,
                    headers=headers,
                    ssl=context if context is not None else True,
                    server_hostname=target.tls_name or None,
                    allow_redirects=False,
                    trace_request_ctx=seen,
                ) as answer:
                    return answer.status, answer.headers, await _read(answer)
            except aiohttp.ClientConnectorCertificateError as error:
                if attempt == 1 and looks_self_signed(error) and await self._trust(target, host, port):
                    context = self._context(target)
                    continue
                because = await refused_certificate(error, host, port, target.tls_name)
                if self.meter is not None:
                    self.meter.refused_certificate("apiserver_webhooks", error.certificate_error, because)
                if because is None:
                    raise self._failed(url, error, host, port, target) from error
                raise CallFailed(f"Post {quote(url)}: tls: failed to verify certificate: {because}") from error
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionResetError) as error:
                # The callee gave up a kept connection just when we used it: it has not seen this request.
                if attempt == 1 and seen.reused and not isinstance(error, aiohttp.ClientConnectorError):
                    continue
                raise self._failed(url, error, host, port, target) from error
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise self._failed(url, error, host, port, target) from error
        raise AssertionError("unreachable")

    async def _trust(self, target: Target, host: str, port: int) -> bool:
        """Trust a server's certificate by itself if the target's authority signed it; tell whether that is so."""
        certificate = await peer_certificate(host, port, target.tls_name)
        pem = issued_by(certificate, target.ca) if certificate is not None else None
        if pem is None:
            return False
        self._contexts[_key(target)] = tls_context(
            ca=target.ca + b"\n" + pem, insecure=False, certificate=target.certificate, key=target.key
        )
        return True

    @staticmethod
    def _failed(url: str, error: BaseException, host: str, port: int, target: Target) -> CallFailed:
        return CallFailed(f"Post {quote(url)}: {describe(error, host, port, server_name=target.tls_name)}")

    def _place(self, target: Target, url: SplitResult) -> tuple[str, int, yarl.URL]:
        """Return the host and port to connect to, and the URL that makes the client do so."""
        if target.service is None or url.netloc != urlsplit(target.url).netloc:
            port = url.port or (80 if url.scheme == "http" else DEFAULT_PORT)
            return url.hostname or "", port, yarl.URL(url.geturl(), encoded=True)
        host, port = self.services.resolve(target.service)
        shown = f"[{host}]" if ":" in host else host
        return host, port, yarl.URL(url._replace(netloc=f"{shown}:{port}").geturl(), encoded=True)

    def _context(self, target: Target) -> ssl.SSLContext | None:
        key = _key(target)
        context = self._contexts.get(key)
        is_known = context is not None
        if context is None:
            context = tls_context(
                ca=target.ca, insecure=target.insecure, certificate=target.certificate, key=target.key
            )
            self._contexts[key] = context
            if len(self._contexts) > CONTEXTS_MAX:
                self._contexts.popitem(last=False)
        else:
            self._contexts.move_to_end(key)
        if self.meter is not None:
            self.meter.connecting("hit" if is_known else "miss", "webhooks", len(self._contexts))
        return context

    def _session(self, target: Target) -> aiohttp.ClientSession:
        if target.service is not None:
            if self._direct is None:
                self._direct = _new_session(trust_env=False)
            return self._direct
        if self._proxied is None:
            self._proxied = _new_session(trust_env=True)
        return self._proxied


def _key(target: Target) -> _Key:
    """The name is part of the key, so that a kept connection is never taken for another server's."""
    return (target.ca, target.insecure, target.certificate, target.key, target.tls_name)


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    try:
        async for chunk in answer.content.iter_any():
            data += chunk
            if len(data) > ANSWER_BYTES_MAX:
                raise aiohttp.ClientError(f"the answer is larger than {ANSWER_BYTES_MAX} bytes")
    except aiohttp.ClientPayloadError:
        words = "unexpected error when reading response body. Please retry. Original error: unexpected EOF"
        raise CallFailed(words) from None
    return bytes(data)


def _new_session(*, trust_env: bool) -> aiohttp.ClientSession:
    trace = aiohttp.TraceConfig()

    async def reused(_session: Any, context: Any, _parameters: Any) -> None:
        context.trace_request_ctx.reused = True

    trace.on_connection_reuseconn.append(reused)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=DIAL_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=trust_env,
        trace_configs=[trace],
    )

"""A reverse proxy for pods/proxy, services/proxy and nodes/proxy: one request passed on, upgrades included.

Redirects and the links of HTML pages lead through the proxy again, as far as they mean the same server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast
from urllib.parse import unquote_to_bytes

from haven.apimachinery import apierrors
from haven.apiserver.http.takeover import Connection
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
from haven.apiserver.webhooks.failures import describe
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

__all__ = ["HttpProxy", "pass_upgrade"]


class HttpProxy:
    """Passes requests on; connections to backends are kept."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def pass_on(self, request: Request, backend: Backend, path: str, *, prefix: str = "") -> Response:
        """Return the backend's answer. `prefix` is the path of the proxy itself, for redirects."""
        if "upgrade" in request.headers.get("connection", "").lower():
            return await pass_upgrade(request, backend, path)
        scheme = "https" if backend.tls is not None else "http"
        query = _raw_query(request)
        path = cleaned(escaped(unquote_to_bytes(path)))
        given = [one for one in all_headers(request) if not is_identity_header(one[0].lower())]
        headers = multidict.CIMultiDict[str](kept(given))
        headers["Host"] = request.headers.get("host", backend.authority)
        if request.remote:
            headers["X-Forwarded-For"] = forwarded_for(given, request.remote)
        headers["X-Forwarded-Uri"] = cleaned(prefix + path)
        unpacks = asks_to_unpack(request)
        if unpacks:
            headers["Accept-Encoding"] = "gzip"
        if request.body_stream is not None and "content-length" in request.headers:
            headers["Content-Length"] = request.headers["content-length"]
        headers.update(backend.headers or {})
        url = f"{scheme}://{backend.authority}{path}" + (f"?{query}" if query else "")
        try:
            answer = await self._client().request(
                request.method,
                _exact_url(url),
                headers=headers,
                data=request.body_stream or request.body or None,
                ssl=backend.tls or False,
                allow_redirects=False,
                auto_decompress=False,
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise apierrors.ServiceUnavailable(
                f"error trying to reach service: {describe(error, backend.host, backend.port)}"
            ) from error
        hosts = (backend.authority, request.headers.get("host", ""))
        return await response_of(answer, unpacks=unpacks, hosts=hosts, prefix=prefix)

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
            connector = aiohttp.TCPConnector(limit=0, limit_per_host=0, force_close=False)
            self._session = aiohttp.ClientSession(
                timeout=timeout,
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            )
        return self._session


async def pass_upgrade(request: Request, backend: Backend, path: str) -> Response:
    """Pass on a request for another protocol; if the backend agrees, connect both sides."""
    query = _raw_query(request)
    given = [one for one in all_headers(request) if not is_identity_header(one[0].lower())]
    lines = [one for one in given if one[0].lower() not in ("host", "content-length", "x-forwarded-for")]
    if request.remote:
        lines.append(("X-Forwarded-For", forwarded_for(given, request.remote)))
    answer = await upgrade(
        backend,
        request.method,
        path + (f"?{query}" if query else ""),
        {"Host": request.headers.get("host", backend.authority)},
        repeated=lines,
    )
    if isinstance(answer, Refused) and answer.status < 400:
        raise apierrors.ApiError(f"invalid upgrade response: status code {answer.status}")
    if isinstance(answer, Refused):
        refusal = passed_answer(answer.headers.items(), is_rewritten=True)
        return Response(answer.status, refusal.headers, answer.body, further=refusal.further)
    connection = cast("Connection", request.connection)
    client = connection.transport
    if client.is_closing():
        answer.transport.close()
        raise apierrors.ServiceUnavailable("the client is gone")
    agreed = answer

    async def hijack() -> None:
        client.write(agreed.head)
        await splice(client, agreed.transport, agreed.early)

    return Response(101, hijack=hijack)


def _raw_query(request: Request) -> str:
    connection = cast("Connection | None", request.connection)
    return request.uri.partition("?")[2] if connection is not None else ""


def _exact_url(url: str) -> yarl.URL:
    """Return the URL as it is: what the client escaped stays escaped."""
    return yarl.URL(url, encoded=True)

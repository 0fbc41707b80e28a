"""A reverse proxy for pods/proxy, services/proxy and nodes/proxy: one request passed on, upgrades included.

Redirects and the links of HTML pages lead through the proxy again, as far as they mean the same server.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Collection, Mapping
from typing import TYPE_CHECKING, cast

from haven.apimachinery import apierrors
from haven.apiserver.http.takeover import Connection
from haven.apiserver.request import Request, Response
from haven.apiserver.streaming.htmllinks import rewrite_page, rewrite_url
from haven.client.upgrade import Backend, Refused, splice, upgrade
from haven.deferred import deferred

if TYPE_CHECKING:
    import aiohttp
    import yarl
else:
    aiohttp = deferred("aiohttp")
    yarl = deferred("yarl")

__all__ = ["HttpProxy", "pass_upgrade"]

# They concern one connection only, not the whole way (RFC 9110, 7.6.1).
_HOP_BY_HOP = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
        "upgrade", "content-length", "host",
    }
)  # fmt: skip
_NEVER_PASSED = frozenset({"authorization"})


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
        passed = _passed(request.headers)
        if request.body_stream is not None and "content-length" in request.headers:
            passed["Content-Length"] = request.headers["content-length"]
        url = f"{scheme}://{backend.authority}{path}" + (f"?{query}" if query else "")
        try:
            answer = await self._client().request(
                request.method,
                _exact_url(url),
                headers={**passed, **(backend.headers or {})},
                data=request.body_stream or request.body or None,
                ssl=backend.tls or False,
                allow_redirects=False,
                auto_decompress=False,
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise apierrors.ServiceUnavailable(
                f"error trying to reach service: dial tcp {backend.authority}: {_reason(error)}"
            ) from error
        headers = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
        hosts = (backend.authority, request.headers.get("host", ""))
        if headers.get("Location") and prefix:
            headers["Location"] = rewrite_url(headers["Location"], prefix, hosts)
        elif prefix and _is_page(answer.headers) and request.method != "HEAD":
            return Response(answer.status, headers, await _page(answer, prefix, hosts))
        return Response(answer.status, headers, stream=_body(answer))

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
            connector = aiohttp.TCPConnector(limit=0, limit_per_host=0, force_close=False)
            self._session = aiohttp.ClientSession(
                timeout=timeout, connector=connector, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session


async def pass_upgrade(
    request: Request, backend: Backend, path: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Pass on a request for another protocol; if the backend agrees, connect both sides."""
    query = _raw_query(request)
    passed = {
        name: value
        for name, value in request.headers.items()
        if name not in _NEVER_PASSED and name not in ("host", "content-length")
    }
    answer = await upgrade(
        backend, request.method, path + (f"?{query}" if query else ""), {**passed, **(headers or {})}
    )
    if isinstance(answer, Refused):
        plain = {name: value for name, value in answer.headers.items() if name not in _HOP_BY_HOP}
        return Response(answer.status, plain, answer.body)
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


def _passed(headers: Mapping[str, str]) -> dict[str, str]:
    return {n: v for n, v in headers.items() if n not in _HOP_BY_HOP and n not in _NEVER_PASSED}


def _raw_query(request: Request) -> str:
    connection = cast("Connection | None", request.connection)
    return request.uri.partition("?")[2] if connection is not None else ""


def _exact_url(url: str) -> yarl.URL:
    """Return the URL as it is: what the client escaped stays escaped."""
    return yarl.URL(url, encoded=True)


async def _body(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, asyncio.IncompleteReadError) as error:
        raise ConnectionResetError("the backend broke off") from error
    finally:
        answer.release()


def _is_page(headers: Mapping[str, str]) -> bool:
    kind = headers.get("Content-Type", "").partition(";")[0].strip()
    return kind == "text/html" and headers.get("Content-Encoding", "") in ("", "gzip")


async def _page(answer: aiohttp.ClientResponse, prefix: str, hosts: Collection[str]) -> bytes:
    try:
        data = await answer.read()
    except aiohttp.ClientError as error:
        raise apierrors.ServiceUnavailable(f"error trying to reach service: {error}") from error
    packed = answer.headers.get("Content-Encoding") == "gzip"
    if packed:
        data = await asyncio.to_thread(gzip.decompress, data)
    # Bytes that are no UTF-8 come out as they went in.
    page = rewrite_page(data.decode("utf-8", "surrogateescape"), prefix, hosts).encode("utf-8", "surrogateescape")
    return await asyncio.to_thread(gzip.compress, page) if packed else page


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "i/o timeout"
    cause = error.__cause__ or error
    strerror = getattr(error, "strerror", None) or getattr(cause, "strerror", None)
    return f"connect: {strerror.lower()}" if strerror else str(error)

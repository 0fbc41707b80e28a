"""What is said to browsers in the headers of every answer: whose scripts may read it, and to insist on TLS.

Source: https://fetch.spec.whatwg.org/#http-cors-protocol and RFC 6797
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence

from haven.apiserver.request import Request, Response

__all__ = ["allowing_origins", "insisting_on_tls"]

Handle = Callable[[Request], Awaitable[Response]]
_METHODS = "POST, GET, OPTIONS, PUT, DELETE, PATCH"
_HEADERS = (
    "Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token, Authorization, X-Requested-With, If-Modified-Since"
)


def allowing_origins(handle: Handle, patterns: Sequence[str]) -> Handle:
    """Return the same handler, whose answers scripts of these origins may read; their questions need no permission."""
    allowed = [re.compile(pattern) for pattern in patterns]

    async def answer(request: Request) -> Response:
        origin = request.headers.get("origin", "")
        if not origin or not any(pattern.search(origin) for pattern in allowed):
            return await handle(request)
        headers = {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Allow-Headers": _HEADERS,
            "Access-Control-Expose-Headers": "Date",
            "Access-Control-Allow-Credentials": "true",
        }
        if request.method == "OPTIONS":
            return Response(204, headers)
        response = await handle(request)
        response.headers = {**response.headers, **headers}
        return response

    return answer


def insisting_on_tls(handle: Handle, directives: Sequence[str]) -> Handle:
    """Return the same handler, whose answers tell browsers to come over TLS from now on."""
    value = "; ".join(directives)

    async def answer(request: Request) -> Response:
        response = await handle(request)
        response.headers = {**response.headers, "Strict-Transport-Security": value}
        return response

    return answer

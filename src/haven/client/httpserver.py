"""aiohttp's low-level server with the limit that Go's servers have for a request's head.

A head (request line and header fields together) may have a mebibyte, however it is made up: `kubectl exec` puts each
word of a command into the address, impersonation and front proxies send a field for each group. More is answered with
431 and the connection is closed, before anybody is known to be asking.

Source: https://pkg.go.dev/net/http#Server (MaxHeaderBytes, DefaultMaxHeaderBytes)
"""

from __future__ import annotations

from typing import Any

from aiohttp import StreamReader, web
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler

__all__ = ["HttpServer"]

HEAD_BYTES_MAX = 1 << 20
_REFUSAL = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n"
    b"Connection: close\r\n"
    b"\r\n"
    b"431 Request Header Fields Too Large"
)
# Go bounds nothing but the sum, and so does `_Connection`: aiohttp's own limits are to stay out of its way.
_ANY = 4 * HEAD_BYTES_MAX
_LIMITS: dict[str, Any] = {"max_line_size": _ANY, "max_field_size": _ANY, "max_headers": _ANY}


class _Connection(RequestHandler):
    """One connection; counts what has come of a head while no request is complete."""

    __slots__ = ("_body", "_head_bytes")

    def __init__(self, manager: HttpServer, **settings: Any) -> None:
        super().__init__(manager, **settings)
        self._head_bytes = 0
        self._body: StreamReader = EMPTY_PAYLOAD

    def data_received(self, data: bytes) -> None:
        if self._current_request is not None or self._messages or not self._body.is_eof():
            super().data_received(data)  # Of a body, of what an upgrade speaks, or of a request ahead of its turn.
        elif self._head_bytes <= HEAD_BYTES_MAX:
            super().data_received(data)
            self._head_bytes = 0 if self._messages else self._head_bytes + len(data)
        elif self.transport is not None:
            self.transport.write(_REFUSAL)
            self.force_close()
        if self._messages:
            self._body = self._messages[-1][1]


class HttpServer(web.Server):
    """Accepts connections, as `asyncio.create_server` wants it."""

    def __init__(self, handler: Any, **settings: Any) -> None:
        super().__init__(handler, **_LIMITS, **settings)

    def __call__(self) -> _Connection:
        return _Connection(self, loop=self._loop, **self._kwargs)

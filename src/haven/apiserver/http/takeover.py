"""A client's connection, for a handler that takes it over (exec, attach, port-forward, proxies)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["Connection"]


class Connection:
    """Where a request came from.

    A handler that answers with a `hijack` writes 101 on `transport` itself and changes the transport's protocol, or
    prepares a WebSocketResponse on `raw`, aiohttp's request, which is there for whoever asked to upgrade, and puts it
    in `response`. `headers` are the request's as they were sent.
    """

    __slots__ = ("_raw", "headers", "response", "transport")

    def __init__(
        self, transport: asyncio.Transport, headers: list[tuple[str, str]], raw: web.BaseRequest | None = None
    ) -> None:
        self.transport = transport
        self.headers = headers
        self._raw = raw
        self.response: web.StreamResponse | None = None

    @property
    def raw(self) -> web.BaseRequest:
        """aiohttp's request."""
        return cast("web.BaseRequest", self._raw)

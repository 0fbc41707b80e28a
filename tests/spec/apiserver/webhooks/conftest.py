"""A webhook: a TLS server on loopback whose answers a test chooses."""

from __future__ import annotations

import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web

from haven.cluster.certificates import Pair, new_authority, serving_pair

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Hook:
    """A running webhook. `requests` are those that came, with their bodies; `answer` may be replaced."""

    port: int
    ca: bytes
    answer: Answer
    requests: list[tuple[web.Request, bytes]] = field(default_factory=list)
    connections: set[Any] = field(default_factory=set)

    def url(self, path: str = "/hook") -> str:
        return f"https://localhost:{self.port}{path}"


async def _ok(_: web.Request) -> web.StreamResponse:
    return web.json_response({"ok": True})


def server_context(pair: Pair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(pair.certificate + pair.key)
        file.flush()
        context.load_cert_chain(file.name)
    return context


@pytest.fixture
def authority_name() -> str:
    return "hooks"


@pytest.fixture
async def hook(authority_name: str) -> AsyncIterator[Hook]:
    authority = new_authority(authority_name, now=time.time(), life=timedelta(days=1))
    pair = serving_pair(authority, "hook", ("localhost", "web.shop.svc"), now=time.time(), life=timedelta(hours=1))

    async def serve(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        running.requests.append((request, body))
        running.connections.add(request.transport)
        return await running.answer(request)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", serve)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context(pair))
    await site.start()
    port: int = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    running = Hook(port, authority.certificate, _ok)
    yield running
    await runner.cleanup()

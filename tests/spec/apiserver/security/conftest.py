"""A server with chosen security settings, asked as clients ask: with credentials, through the whole chain."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from haven.apiserver import assembly
from haven.apiserver.assembly import ApiServer
from haven.apiserver.authentication.tokenkeys import SigningKeys
from haven.apiserver.request import Request, Response, UserInfo
from haven.apiserver.settings import SecuritySettings, Settings
from haven.clock import Clock
from haven.store.memory import MemoryStore

USERS = {
    "root": UserInfo("root", groups=("system:masters",)),
    "jane": UserInfo("jane", groups=("devs",)),
}


class Client:
    """Sends requests to a server without sockets; tokens are the users' names."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server

    async def ask(self, method: str, path: str, body: Any = None, *, token: str = "root", **headers: str) -> Response:
        return await self.ask_as([], method, path, body, token=token, **headers)

    async def ask_as(
        self,
        whom: Sequence[tuple[str, str]],
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str = "root",
        **headers: str,
    ) -> Response:
        """Send a request with headers, some of which come more than once: whom it acts as."""
        place, _, query = path.partition("?")
        sent = {"content-type": "application/json", "user-agent": "spec/1"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        repeated: dict[str, list[str]] = {}
        for name, value in whom:
            repeated.setdefault(name.replace("_", "-"), []).append(value)
        sent |= {name: values[0] for name, values in repeated.items()}
        if token:
            sent["authorization"] = f"Bearer {token}"
        asked = {key: [value] for key, _, value in (part.partition("=") for part in query.split("&") if part)}
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        request = Request(
            method, place, asked, sent, body=data, remote="192.0.2.7", uri=path, repeated_headers=repeated
        )
        return await self.server.chain.handle(request)

    async def json(self, method: str, path: str, body: Any = None, **rest: Any) -> tuple[int, Any]:
        response = await self.ask(method, path, body, **rest)
        return response.status, json.loads(response.body)


Serve = Callable[..., Awaitable[Client]]


@pytest.fixture
async def serve(signing_keys: SigningKeys) -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def start(
            store: MemoryStore | None = None,
            *,
            clock: Clock | None = None,
            feature_gates: tuple[str, ...] = (),
            **security: Any,
        ) -> Client:
            settings = Settings(
                serve_kubernetes_service=False, feature_gates=feature_gates, security=SecuritySettings(**security)
            )
            trust = assembly.Trust(signing_keys, static_tokens=USERS)
            server = await assembly.start(
                settings, store or MemoryStore(), trust, chance=random.Random(7), listen=False, clock=clock
            )
            stack.push_async_callback(server.stop)
            return Client(server)

        yield start

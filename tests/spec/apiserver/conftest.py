"""A server over a store in memory, spoken to without sockets."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization as keys
from cryptography.hazmat.primitives.asymmetric import rsa

from haven.apiserver import assembly
from haven.apiserver.assembly import ApiServer
from haven.apiserver.authentication.tokenkeys import SigningKeys
from haven.apiserver.request import UserInfo
from haven.apiserver.settings import Settings
from haven.client.interface import Answer
from haven.store.memory import MemoryStore


@dataclass
class Api:
    """A server and its store."""

    server: ApiServer
    store: MemoryStore

    async def send(
        self, method: str, path: str, body: Any = None, *, user: str = "", content_type: str = "", **headers: str
    ) -> tuple[int, Any]:
        """Return (status, answer)."""
        answer = await self.raw(method, path, body, user=user, content_type=content_type, **headers)
        return answer.status, json.loads(answer.body) if answer.body[:1] in (b"{", b"[") else answer.body

    async def raw(
        self, method: str, path: str, body: Any = None, *, user: str = "", content_type: str = "", **headers: str
    ) -> Answer:
        """Return the answer as it came."""
        groups = ("system:authenticated",) if user else ("system:masters",)
        transport = self.server.local_transport(UserInfo(user or "admin", groups=groups))
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
        sent = {"user-agent": "spec/1", "accept": "application/json", **headers}
        if content_type:
            sent["content-type"] = content_type
        return await transport.request(method, path, body=data, headers=sent)

    async def config_map(self, name: str, namespace: str = "default", **metadata: Any) -> dict[str, Any]:
        """Create a ConfigMap."""
        body = {"metadata": {"name": name, **metadata}, "data": {"k": "v"}}
        status, answer = await self.send("POST", f"/api/v1/namespaces/{namespace}/configmaps", body)
        assert status == 201, answer
        result: dict[str, Any] = answer
        return result


@pytest.fixture(scope="session")
def signing_keys() -> SigningKeys:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return SigningKeys(key.private_bytes(keys.Encoding.PEM, keys.PrivateFormat.PKCS8, keys.NoEncryption()))


@pytest.fixture
async def api(signing_keys: SigningKeys) -> AsyncIterator[Api]:
    store = MemoryStore()
    settings = Settings(serve_kubernetes_service=False, watch_history_events_max=8)
    server = await assembly.start(settings, store, assembly.Trust(signing_keys), chance=random.Random(7), listen=False)
    yield Api(server, store)
    await server.stop()
    await store.close()

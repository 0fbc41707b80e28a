"""What clients see of priority and fairness: two headers, and a refusal in plain text that says when to come back."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from haven.apiserver import assembly
from haven.apiserver.assembly import ApiServer
from haven.apiserver.authentication.tokenkeys import SigningKeys
from haven.apiserver.request import Request, Response, UserInfo
from haven.apiserver.settings import Settings
from haven.store.memory import MemoryStore

USERS = {"root": UserInfo("root", groups=("system:masters",)), "jane": UserInfo("jane")}
FLOWS = "/apis/flowcontrol.apiserver.k8s.io/v1"


async def started(keys: SigningKeys, **settings: Any) -> ApiServer:
    trust = assembly.Trust(keys, static_tokens=USERS)
    own = Settings(serve_kubernetes_service=False, **settings)
    return await assembly.start(own, MemoryStore(), trust, chance=random.Random(7), listen=False)


async def ask(
    server: ApiServer, path: str, user: str, method: str = "GET", body: bytes = b""
) -> tuple[Request, Response]:
    headers = {"authorization": f"Bearer {user}", "content-type": "application/json"}
    request = Request(method, path, {}, headers, body=body)
    return request, await server.chain.handle(request)


@pytest.fixture
async def server(signing_keys: SigningKeys) -> AsyncIterator[ApiServer]:
    running = await started(signing_keys)
    yield running
    await running.stop()


async def test_every_answer_names_its_schema_and_level(server: ApiServer) -> None:
    request, _ = await ask(server, "/api/v1/pods", "jane")
    exempt, _ = await ask(server, "/api/v1/pods", "root")

    flows = server.flows
    assert request.flow[1] == flows.levels["global-default"].uid
    assert exempt.flow[1] == flows.levels["exempt"].uid
    assert request.flow[0] != exempt.flow[0]


async def test_a_level_whose_seats_are_taken_refuses_in_plain_text(server: ApiServer) -> None:
    level = server.flows.levels["global-default"]
    level.limit, level.queuing = 1, None
    level.seats_in_use = 1

    request, response = await ask(server, "/api/v1/pods", "jane")

    assert response.status == 429
    assert response.headers["Retry-After"] == "1"
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert response.body == b"Too many requests, please try again later.\n"
    assert request.flow[1] == level.uid
    _, masters = await ask(server, "/api/v1/pods", "root")
    assert masters.status == 200
    _, metrics = await ask(server, "/metrics", "root")
    assert b'reason="concurrency-limit"} 1' in metrics.body


async def test_without_fairness_two_limits_hold_for_all(signing_keys: SigningKeys) -> None:
    server = await started(signing_keys, priority_and_fairness=False, requests_in_flight_max=0)

    request, response = await ask(server, "/api/v1/pods", "root")
    _, write = await ask(server, "/api/v1/namespaces", "root", "POST", b'{"metadata":{"name":"x"}}')
    await server.stop()

    assert response.status == 429
    assert request.flow == ("", "")
    assert write.status == 201


async def test_the_seats_are_upstreams(server: ApiServer) -> None:
    """The nominal limits that upstream's defaults make of 600 seats."""
    seats = {name: level.nominal for name, level in server.flows.levels.items()}

    assert seats == {
        "catch-all": 13,
        "exempt": 0,
        "global-default": 49,
        "leader-election": 25,
        "node-high": 98,
        "system": 74,
        "workload-high": 98,
        "workload-low": 245,
    }

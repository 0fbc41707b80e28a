"""What an HTTP answer means for a probe."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from tests.spec.kubelet.pods import a_container

from haven.api.core.v1 import HTTPGetAction, Probe
from haven.clock import SystemClock
from haven.cri.interface import ExecResult
from haven.kubelet.handlers import HandlerRunner, OutcomeKind


async def answer(request: web.Request) -> web.Response:
    match request.path:
        case "/away":
            raise web.HTTPFound("http://0.0.0.0/", text="go away")
        case "/near":
            raise web.HTTPFound("/ok")
        case "/unchanged":
            return web.Response(status=304)
        case "/broken":
            return web.Response(status=500, text="secret")
    return web.Response(text="fine")


@pytest.fixture
async def port() -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    async with TestServer(app) as server:
        assert server.port is not None
        yield server.port


async def no_exec(container_id: str, command: object, timeout_seconds: float) -> ExecResult:
    raise AssertionError("nothing is executed here")


@pytest.mark.parametrize(
    ("path", "kind", "text"),
    [
        ("/ok", OutcomeKind.SUCCESS, "fine"),
        ("/near", OutcomeKind.SUCCESS, "fine"),
        ("/away", OutcomeKind.WARNING, "Probe terminated redirects, Response body: go away"),
        ("/unchanged", OutcomeKind.WARNING, "Probe terminated redirects, Response body: "),
        ("/broken", OutcomeKind.FAILURE, "HTTP probe failed with statuscode: 500"),
    ],
)
async def test_a_probe_follows_redirects_on_its_host_and_warns_of_others(
    port: int, path: str, kind: OutcomeKind, text: str
) -> None:
    runner = HandlerRunner(no_exec, SystemClock())
    probe = Probe(http_get=HTTPGetAction(path=path, port=port, host="127.0.0.1", scheme="HTTP"))
    try:
        outcome = await runner.probe(probe, a_container(), "id", "127.0.0.1", 5)
    finally:
        await runner.close()

    assert (outcome.kind, outcome.text) == (kind, text)

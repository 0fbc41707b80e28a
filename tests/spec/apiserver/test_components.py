"""kubectl get componentstatuses asks the parts of the control plane."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path

import pytest
from aiohttp import web
from tests.spec.apiserver.conftest import Api

from haven.apiserver.components import Condition, listening
from haven.apiserver.devpki import serving_files
from haven.store.interface import StoreError


async def conditions(api: Api) -> dict[str, dict[str, str]]:
    """Return what is said about each part, and check that asking for one says the same."""
    _, listed = await api.send("GET", "/api/v1/componentstatuses")
    result = {one["metadata"]["name"]: one["conditions"][0] for one in listed["items"]}
    for name, condition in result.items():
        assert (await api.send("GET", f"/api/v1/componentstatuses/{name}"))[1]["conditions"] == [condition]
    return result


async def test_a_store_that_fails_is_told_with_its_error(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(key: bytes) -> None:
        raise StoreError("the disk is gone")

    assert (await conditions(api))["etcd-0"] == {"type": "Healthy", "status": "True", "message": "ok"}
    monkeypatch.setattr(api.store, "get", fail)

    assert (await conditions(api))["etcd-0"] == {"type": "Healthy", "status": "False", "error": "the disk is gone"}


async def test_a_part_of_this_process_is_healthy_while_it_runs(api: Api) -> None:
    problem, begun = "", asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.Event().wait()

    run = api.server.components.host("scheduler", work, lambda: problem)
    before = (await conditions(api))["scheduler"]
    task = asyncio.ensure_future(run())
    await begun.wait()
    running = (await conditions(api))["scheduler"]
    problem = "failed election to renew leadership on lease kube-scheduler"
    stuck = (await conditions(api))["scheduler"]
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    problem = ""
    after = (await conditions(api))["scheduler"]

    assert (before["status"], before["message"]) == ("False", "has not started yet")
    assert (running["status"], running["message"]) == ("True", "ok")
    assert (stuck["status"], stuck["message"]) == (
        "False",
        "failed election to renew leadership on lease kube-scheduler",
    )
    assert (after["status"], after["message"]) == ("False", "ended: CancelledError")


async def test_a_part_that_nobody_hosts_is_looked_for_at_its_port() -> None:
    with socket.socket() as taken:  # Bound and not listening: nobody else can answer there.
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]

        found = await listening(port)()

    url = f"https://127.0.0.1:{port}/healthz"
    text = f'Get "{url}": dial tcp 127.0.0.1:{port}: connect: connection refused'
    assert found == Condition("False", text)


@pytest.mark.parametrize(
    ("status", "expected"),
    [(200, Condition("True", "ok")), (500, Condition("False", "HTTP probe failed with statuscode: 500"))],
)
async def test_another_process_is_healthy_if_it_says_so(tmp_path: Path, status: int, expected: Condition) -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        agents.append(request.headers["User-Agent"])
        return web.Response(status=status, text="ok")

    agents: list[str] = []
    certificate, key, _ = serving_files(tmp_path, ["127.0.0.1"])
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    server = await asyncio.get_running_loop().create_server(web.Server(answer), "127.0.0.1", 0, ssl=tls)
    try:
        found = await listening(server.sockets[0].getsockname()[1])()
    finally:
        server.close()

    assert found == expected
    assert agents == ["kube-probe/1.36"]

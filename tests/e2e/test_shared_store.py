"""Several servers on one etcd and one port: whoever answers, the answer is never older than what was acknowledged."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.etcdserver import Etcd
from tests.ports import free_port

from haven.api.apiextensions import v1 as apiextensions_v1
from haven.api.apps import v1 as apps_v1
from haven.api.core import v1 as core_v1
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, meta, serialization
from haven.client.connection import from_kubeconfig
from haven.client.http import HttpTransport
from haven.client.typed import RestClient

CONFIG_MAPS = resource_of(core_v1.ConfigMap)
DEFINITIONS = resource_of(apiextensions_v1.CustomResourceDefinition)
REPLICA_SETS = resource_of(apps_v1.ReplicaSet)
WAIT_SECONDS_MAX = 180.0  # A busy machine is no failure.
CLIENTS = 8  # Each has connections of its own, which the kernel spreads over the servers.


class Servers:
    """Two control planes over one etcd, as `haven up --server-workers 2` runs them."""

    def __init__(self, folder: Path, etcd: Etcd) -> None:
        self._data = folder / "data"
        self._data.mkdir()
        settings = {"api_port": free_port(), "etcd_servers": etcd.address, "server_workers": 2}
        (self._data / "settings.json").write_text(json.dumps(settings))
        self.kubeconfig = self._data / "pki" / "admin.conf"
        self.transports: list[HttpTransport] = []
        self.processes = [self.start() for _ in range(2)]

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "haven.cli.main", "server", "--log-level", "error"],
            env=os.environ | {"HAVEN_DATA_DIR": str(self._data)},
        )

    async def clients(self) -> list[RestClient]:
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            while not self.kubeconfig.exists():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            transports = [HttpTransport(from_kubeconfig(self.kubeconfig)) for _ in range(CLIENTS)]
            self.transports += transports
            clients = [RestClient(transport) for transport in transports]
            for client in clients:
                await when_it_answers(client)
        return clients

    async def end(self) -> None:
        for transport in self.transports:
            await transport.close()
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            await asyncio.to_thread(process.wait, WAIT_SECONDS_MAX)


async def when_it_answers(client: RestClient) -> None:
    while True:
        try:
            await client.get(resource_of(core_v1.Namespace), "", "default")
            return
        except (apierrors.ApiError, OSError):
            await asyncio.sleep(0.1)


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[Servers]:
    etcd = Etcd(tmp_path)
    etcd.start()
    running = Servers(tmp_path, etcd)
    yield running
    await running.end()
    await etcd.stop()


def a_config_map(name: str, **data: str) -> core_v1.ConfigMap:
    return core_v1.ConfigMap(metadata=meta.ObjectMeta(namespace="default", name=name), data=data)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_no_server_answers_with_less_than_another_acknowledged(servers: Servers) -> None:
    clients = await servers.clients()
    written = await clients[0].create(CONFIG_MAPS, a_config_map("a", n="0"))

    for number in range(1, 25):
        written.data["n"] = str(number)
        written = await clients[number % CLIENTS].update(CONFIG_MAPS, written)
        read = await asyncio.gather(*(client.get(CONFIG_MAPS, "default", "a") for client in clients))
        assert {one.data["n"] for one in read} == {str(number)}


async def test_updates_through_all_servers_at_once_lose_nothing(servers: Servers) -> None:
    clients = await servers.clients()
    await clients[0].create(CONFIG_MAPS, a_config_map("counter", n="0"))

    async def count(client: RestClient) -> None:
        for _ in range(10):
            while True:
                found = await client.get(CONFIG_MAPS, "default", "counter")
                found.data["n"] = str(int(found.data["n"]) + 1)
                try:
                    await client.update(CONFIG_MAPS, found)
                    break
                except apierrors.Conflict:
                    continue

    await asyncio.gather(*(count(client) for client in clients))

    assert (await clients[0].get(CONFIG_MAPS, "default", "counter")).data["n"] == str(10 * CLIENTS)


async def test_a_server_that_dies_takes_no_write_along_and_another_leads(servers: Servers) -> None:
    clients = await servers.clients()
    acknowledged: list[str] = []

    async def write(number: int, client: RestClient) -> None:
        for turn in range(40):
            name = f"c-{number}-{turn}"
            try:
                await client.create(CONFIG_MAPS, a_config_map(name))
                acknowledged.append(name)
            except (apierrors.ApiError, OSError):
                await asyncio.sleep(0.01)  # Its server is dead; the next connection goes to the other one.

    writing = [asyncio.create_task(write(number, client)) for number, client in enumerate(clients)]
    await until(lambda: len(acknowledged) > 50)
    servers.processes[0].kill()
    await asyncio.gather(*writing)

    survivor = (await servers.clients())[0]
    listed = await survivor.list(CONFIG_MAPS, namespace="default")
    assert set(acknowledged) <= {one.metadata.name for one in listed.items}
    template = core_v1.PodTemplateSpec(
        metadata=meta.ObjectMeta(labels={"a": "b"}),
        spec=core_v1.PodSpec(containers=[core_v1.Container(name="c", image="i")]),
    )
    spec = apps_v1.ReplicaSetSpec(replicas=2, selector=meta.LabelSelector(match_labels={"a": "b"}), template=template)
    await survivor.create(
        REPLICA_SETS, apps_v1.ReplicaSet(metadata=meta.ObjectMeta(namespace="default", name="r"), spec=spec)
    )
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while (await survivor.get(REPLICA_SETS, "default", "r")).status.replicas != 2:  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def test_a_definition_taken_up_by_one_server_is_served_by_all(servers: Servers) -> None:
    clients = await servers.clients()
    definition = {
        "metadata": {"name": "boats.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "boats", "kind": "Boat"},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
            ],
        },
    }
    crd = serialization.convert(definition, apiextensions_v1.CustomResourceDefinition)
    await clients[0].create(DEFINITIONS, crd)

    async with asyncio.timeout(WAIT_SECONDS_MAX):
        for transport in servers.transports:
            while (await _get(transport, "/apis/example.com/v1/namespaces/default/boats")) != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def _get(transport: HttpTransport, path: str) -> int:
    try:
        await transport.request("GET", path)
    except apierrors.ApiError as error:
        return error.code
    return 200

"""The HTTPS client against Haven's own API server in another process, which dies and comes back in between."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.ports import free_port

from haven.api.coordination import v1 as coordination_v1
from haven.api.core import v1 as core_v1
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, meta, serialization
from haven.apimachinery.names import NamespacedName
from haven.client.connection import Connection, parse_kubeconfig
from haven.client.events import EventRecorder
from haven.client.http import HttpTransport
from haven.client.interface import Patch, PatchType
from haven.client.leaderelection import ElectionSettings, LeaderElector
from haven.client.metadata import metadata_only
from haven.client.sharedinformers import SharedInformers
from haven.client.typed import RestClient

CONFIG_MAPS = resource_of(core_v1.ConfigMap)
EVENTS = resource_of(core_v1.Event)
LEASES = resource_of(coordination_v1.Lease)


class Server:
    """An API server process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()  # It is the same after the server's death.
        (folder / "tokens.csv").write_text('secret,admin,1,"system:masters"\n')

    def start(self) -> Connection:
        command = [sys.executable, "-m", "haven.apiserver", "--data", str(self._folder / "data")]
        command += ["--token-file", str(self._folder / "tokens.csv"), "--port", str(self._port)]
        self._process = subprocess.Popen([*command, "--log-level", "error"], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        lines: list[str] = []
        while not lines or not lines[-1].startswith("current-context"):
            line = self._process.stdout.readline()
            assert line, "the API server did not start"
            lines.append(line)
        return parse_kubeconfig("".join(lines), folder=self._folder)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def serving(folder: Path) -> Iterator[tuple[Server, Connection]]:
    server = Server(folder)
    try:
        yield server, server.start()
    finally:
        server.kill()


def a_config_map(name: str, **data: str) -> core_v1.ConfigMap:
    return core_v1.ConfigMap(metadata=meta.ObjectMeta(name=name, namespace="default"), data=data)


async def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  Another process decides; there is no event to wait for.
        await asyncio.sleep(0.02)


@pytest.mark.e2e
async def test_objects_informers_events_and_leases_work_over_https_and_survive_the_server(tmp_path: Path) -> None:
    with serving(tmp_path) as (server, connection):
        transport = HttpTransport(connection)
        client = RestClient(transport)
        informers = SharedInformers(client)
        informer = informers.informer(CONFIG_MAPS, namespace="default")
        names = informers.informer(metadata_only(CONFIG_MAPS), namespace="default")
        recorder = EventRecorder(client, "test", host="here")
        patient = ElectionSettings(lease_duration_seconds=600.0, renew_deadline_seconds=500.0)  # The server goes away.
        elector = LeaderElector(client, namespace="default", name="it", identity="me", settings=patient)
        leading = asyncio.Event()

        async def lead() -> None:
            leading.set()
            await asyncio.Event().wait()

        works = [asyncio.ensure_future(work) for work in (informers.run(), recorder.run(), elector.run(lead))]
        async with asyncio.timeout(300):
            await informers.wait_synced()
            created = await client.create(CONFIG_MAPS, a_config_map("a", key="1"))
            key = NamespacedName("default", "a")
            await informer.wait_seen(key, created.metadata.resource_version)
            assert informer.get_key(key) == created
            await names.wait_seen(key, created.metadata.resource_version)
            assert (slim := names.get_key(key)) is not None
            assert slim.metadata.uid == created.metadata.uid

            with pytest.raises(apierrors.AlreadyExists):
                await client.create(CONFIG_MAPS, a_config_map("a"))
            changed = serialization.copy(created)
            changed.data["key"] = "2"
            updated = await client.update(CONFIG_MAPS, changed)
            with pytest.raises(apierrors.Conflict):
                await client.update(CONFIG_MAPS, changed)
            patched = await client.patch(CONFIG_MAPS, "default", "a", Patch(PatchType.MERGE, {"data": {"other": "3"}}))
            assert patched.data == {"key": "2", "other": "3"}
            assert updated.metadata.uid == created.metadata.uid

            recorder.event(created, "Normal", "Seen", "It was seen")
            recorder.event(created, "Normal", "Seen", "It was seen")
            await wait_until(lambda: recorder.statistics().written == 2)
            (event,) = (await client.list(EVENTS, "default", field_selector="involvedObject.name=a")).items
            assert (event.count, event.reason, event.source.component) == (2, "Seen", "test")
            await leading.wait()
            assert (await client.get(LEASES, "default", "it")).spec.holder_identity == "me"

            server.kill()
            with pytest.raises(apierrors.ServiceUnavailable):
                await client.get(CONFIG_MAPS, "default", "a")
            server.start()
            after = await client.create(CONFIG_MAPS, a_config_map("b"))
            await informer.wait_seen(NamespacedName("default", "b"), after.metadata.resource_version)
            assert sorted(each.metadata.name for each in informer.list()) == ["a", "b"]

            await client.delete(CONFIG_MAPS, "default", "a", uid=created.metadata.uid)
            await wait_until(lambda: informer.get("default", "a") is None)
        for work in works:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work
        assert (await client.get(LEASES, "default", "it")).spec.holder_identity == ""
        await transport.close()


@pytest.mark.e2e
async def test_long_lists_are_paged_at_one_revision(tmp_path: Path) -> None:
    with serving(tmp_path) as (_, connection):
        transport = HttpTransport(connection)
        client = RestClient(transport)
        for start in range(0, 120, 20):
            await asyncio.gather(
                *(client.create(CONFIG_MAPS, a_config_map(f"c{number:03}")) for number in range(start, start + 20))
            )

        names: list[str] = []
        continue_, versions = "", set()
        while True:
            page = await client.list(CONFIG_MAPS, "default", limit=50, continue_=continue_)
            names += [each.metadata.name for each in page.items]
            versions.add(page.resource_version)
            await client.create(CONFIG_MAPS, a_config_map(f"late{len(names)}"))
            continue_ = page.continue_
            if not continue_:
                break
        await transport.close()

    assert [name for name in names if name.startswith("c")] == [f"c{number:03}" for number in range(120)]
    assert not [name for name in names if name.startswith("late")]
    assert len(versions) == 1

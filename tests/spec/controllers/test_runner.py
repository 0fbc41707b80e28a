"""The runner with real informers and a real queue, over a client that answers late."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

from haven.api.core import v1 as core
from haven.apimachinery import apierrors, meta, serialization
from haven.apimachinery.names import UID, NamespacedName
from haven.client.interface import EventType, ListResult, WatchEvent
from haven.client.sharedinformers import SharedInformers
from haven.clock import SystemClock
from haven.controllers.actions import Create, Emit, Retry, Steps, Together, Wiring, key_from
from haven.controllers.runner import ControllerRunner


class LateClient:
    """A server of ConfigMaps whose watch tells of each write only when `release` is called."""

    def __init__(self) -> None:
        self.objects: dict[NamespacedName, core.ConfigMap] = {}
        self.created: list[str] = []
        self.failures: list[Exception] = []
        self.has_created = asyncio.Event()
        self._version = 1
        self._told: asyncio.Queue[WatchEvent[Any]] = asyncio.Queue()
        self._held: list[WatchEvent[Any]] = []

    async def list(self, resource: object, namespace: str = "", **_: object) -> ListResult[Any]:
        return ListResult(list(self.objects.values()), str(self._version))

    async def watch(self, resource: object, namespace: str = "", **_: object) -> AsyncIterator[WatchEvent[Any]]:
        while True:
            yield await self._told.get()

    async def create(self, resource: object, obj: Any, **_: object) -> Any:
        if self.failures:
            raise self.failures.pop(0)
        self._version += 1
        stored = serialization.copy(obj)
        stored.metadata.resource_version = str(self._version)
        stored.metadata.uid = UID(str(self._version))
        self.objects[key_from(stored)] = stored
        self.created.append(stored.metadata.name)
        self.has_created.set()
        self._held.append(WatchEvent(EventType.ADDED, stored))
        return stored

    def release(self) -> None:
        for event in self._held:
            self._told.put_nowait(event)
        self._held.clear()


class Recorder:
    def __init__(self) -> None:
        self.reasons: list[str] = []

    def event(self, about: object, type: str, reason: str, message: str) -> None:
        self.reasons.append(reason)


class Counting:
    """Makes maps until there are `wanted`, one a pass."""

    workers = 2

    def __init__(self, wiring: Wiring, wanted: int) -> None:
        self._wanted = wanted
        self._maps = wiring.reader(core.ConfigMap)
        self.passes = 0
        self._wiring = wiring
        self._maps.add_handler(lambda old, new: wiring.enqueue("all"))
        wiring.enqueue("all")

    def sync(self, key: str) -> Steps[None]:
        self.passes += 1
        count = len(self._maps.list())
        if count < self._wanted:
            yield Create(core.ConfigMap(metadata=meta.ObjectMeta(name=f"m{count}", namespace="default")))
            self._wiring.enqueue("all")


async def run(make: Any, client: LateClient, recorder: Recorder | None = None) -> tuple[ControllerRunner, Any]:
    informers = SharedInformers(client)  # type: ignore[arg-type]
    made: list[Any] = []

    def remember(wiring: Wiring) -> Any:
        made.append(make(wiring))
        return made[0]

    runner = ControllerRunner(
        "test",
        remember,
        client,  # type: ignore[arg-type]
        informers,
        recorder or Recorder(),
        clock=SystemClock(),
        chance=random.Random(1),
    )
    runner.tasks = [asyncio.create_task(informers.run()), asyncio.create_task(runner.run())]  # type: ignore[attr-defined]
    return runner, made[0]


async def stop(runner: ControllerRunner) -> None:
    for task in runner.tasks:  # type: ignore[attr-defined]
        task.cancel()
    await asyncio.gather(*runner.tasks, return_exceptions=True)  # type: ignore[attr-defined]


async def turns(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_pass_sees_what_the_pass_before_it_wrote() -> None:
    client = LateClient()
    runner, controller = await run(lambda wiring: Counting(wiring, 3), client)
    await turns()

    assert client.created == ["m0"]  # The cache does not show it yet: no further pass over this key.
    assert controller.passes == 1
    for _ in range(3):
        client.release()
        await turns()

    assert client.created == ["m0", "m1", "m2"]
    await stop(runner)


async def test_a_refused_write_is_tried_again_later() -> None:
    client = LateClient()
    client.failures = [apierrors.ServiceUnavailable("not now")]
    runner, _ = await run(lambda wiring: Counting(wiring, 1), client)

    async with asyncio.timeout(60):
        await client.has_created.wait()

    assert runner.statistics().failures == 1
    client.release()
    await stop(runner)


class Together3:
    workers = 1

    def __init__(self, wiring: Wiring) -> None:
        self.results: list[Any] = []
        wiring.enqueue("all")

    def sync(self, key: str) -> Steps[None]:
        maps = [core.ConfigMap(metadata=meta.ObjectMeta(name=f"m{n}", namespace="default")) for n in range(7)]
        self.results = yield Together([Create(each) for each in maps])
        yield Emit(maps[0], "Normal", "Done", "")


async def test_after_a_batch_with_an_error_the_rest_is_left_undone() -> None:
    client, recorder = LateClient(), Recorder()
    client.failures = []
    runner, controller = await run(Together3, client, recorder)
    await turns()
    assert len(controller.results) == 7

    client.failures = [apierrors.Forbidden("full")]
    runner.enqueue("all")
    await turns()

    assert [type(each) for each in controller.results] == [apierrors.Forbidden]
    assert recorder.reasons == ["Done", "Done"]
    await stop(runner)


class Broken:
    workers = 1

    def __init__(self, wiring: Wiring) -> None:
        self.passes = 0
        self.is_through = asyncio.Event()
        wiring.enqueue("all")

    def sync(self, key: str) -> Steps[None]:
        self.passes += 1
        if self.passes == 1:
            raise RuntimeError("a bug")
        if self.passes == 2:
            raise Retry("not yet")
        self.is_through.set()
        return
        yield


async def test_a_bug_in_one_pass_ends_neither_the_worker_nor_the_key() -> None:
    runner, controller = await run(Broken, LateClient())

    async with asyncio.timeout(60):
        await controller.is_through.wait()

    assert runner.statistics().failures == 2
    await stop(runner)

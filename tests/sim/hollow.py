"""Controllers at work in a whole cluster in this process: haven.testing's, spoken to in typed objects."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from haven.api.core import v1 as core
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, meta, serialization
from haven.client.interface import Client
from haven.controllers.manager import ControllerManager
from haven.hollow.behaviour import ANNOTATIONS
from haven.testing import Options, World

T = TypeVar("T")

SEED = 7
WAIT_SECONDS_MAX = 300.0  # A busy machine is no failure.


def a_template(labels: dict[str, str], image: str = "one", **behaviour: str) -> core.PodTemplateSpec:
    """Return a template of Pods that behave as said: `exit_code="1"` with `run_seconds="0"`, `ready="false"`."""
    annotations = {f"{ANNOTATIONS}{name.replace('_', '-')}": text for name, text in behaviour.items()}
    return core.PodTemplateSpec(
        metadata=meta.ObjectMeta(labels=labels, annotations=annotations),
        spec=core.PodSpec(
            containers=[
                core.Container(
                    name="main",
                    image=image,
                    image_pull_policy="IfNotPresent",
                    termination_message_path="/dev/termination-log",
                    termination_message_policy="File",
                )
            ],
            restart_policy="Always",
            dns_policy="ClusterFirst",
            termination_grace_period_seconds=30,
            scheduler_name="default-scheduler",
            security_context=core.PodSecurityContext(),
        ),
    )


@dataclass
class Cluster:
    """What a test speaks to."""

    client: Client
    manager: ControllerManager

    async def create(self, obj: T) -> T:
        return await self.client.create(resource_of(type(obj)), obj)

    async def get(self, kind: type[T], name: str, namespace: str = "default") -> T:
        return await self.client.get(resource_of(kind), namespace, name)

    async def list(self, kind: type[T], namespace: str = "default") -> list[T]:
        return list((await self.client.list(resource_of(kind), namespace)).items)

    async def names(self, kind: type[Any], namespace: str = "default") -> list[str]:
        return sorted(obj.metadata.name for obj in await self.list(kind, namespace))

    async def change(self, kind: type[T], name: str, change: Callable[[Any], None]) -> T:
        while True:
            obj = serialization.copy(await self.get(kind, name))
            change(obj)
            with contextlib.suppress(apierrors.Conflict):
                return await self.client.update(resource_of(kind), obj)

    async def delete(self, kind: type[Any], name: str, policy: str = "", namespace: str = "default") -> None:
        await self.client.delete(resource_of(kind), namespace, name, propagation_policy=policy)

    async def wait(self, holds: Callable[[], Awaitable[Any]]) -> Any:
        """Return once something is true; a condition on objects that do not exist is not."""
        end = time.monotonic() + WAIT_SECONDS_MAX
        while True:
            with contextlib.suppress(apierrors.NotFound):
                if result := await holds():
                    return result
            assert time.monotonic() < end, await self._told()
            await asyncio.sleep(0.01)

    async def _told(self) -> str:
        """Return what there is and what happened last."""
        told = ["it never became true; there are"]
        for kind in (core.Namespace, core.Pod):
            told += [f"{kind.__name__} {obj.metadata.name}: {obj.status}" for obj in await self.list(kind, "")]
        events = await self.list(core.Event, "")
        told += [f"{each.involved_object.name}: {each.reason}: {each.message}" for each in events[-50:]]
        return "\n".join(told)

    async def events(self, reason: str) -> list[core.Event]:
        return [event for event in await self.list(core.Event) if event.reason == reason]


@contextlib.asynccontextmanager
async def running_cluster() -> AsyncIterator[Cluster]:
    """Run a cluster for the length of a block, in the test's own event loop, without a listener."""
    world = World(Options(listen=False, seed=SEED))
    await world.start()
    try:
        assert world.controllers is not None
        yield Cluster(world.server.local_client(), world.controllers)
        world.check()
    finally:
        await world.stop()

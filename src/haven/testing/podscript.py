"""Orders to simulated Pods, on the cluster's event loop: each waits until the Pod runs and the API shows the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haven.hollow.podstate import State
from haven.hollow.runner import NotSimulated, Sim

if TYPE_CHECKING:
    from haven.testing.world import World

__all__ = ["OOM_KILLED", "PodScript"]

OOM_KILLED = 137


class PodScript:
    """Tells Pods what to do, on the cluster's event loop."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def running(self, namespace: str, name: str, container: str = "") -> Sim:
        """Return a Pod once its container (or all main ones) has started; raise NotSimulated if it ended before."""
        fleet = self._world.fleet
        while True:
            revision = self._world.store.revision
            try:
                sim = fleet.sim(namespace, name)
            except NotSimulated:
                sim = None
            if sim is not None:
                items = [sim.state.container(container)] if container else sim.state.main
                if all(item.state is State.RUNNING for item in items):
                    return sim
                if sim.state.is_over:
                    raise NotSimulated(f"Pod {namespace}/{name} is over already: {sim.state.phase}")
            await self._world.wait_change(revision)

    async def end(self, namespace: str, name: str, container: str, code: int, reason: str, message: str) -> None:
        sim = await self.running(namespace, name, container)
        now = self._world.clock.now_seconds()
        sim.state.order_end(now, code, container=container, reason=reason, message=message)
        await self._world.fleet.settle(sim)

    async def ready(self, namespace: str, name: str, container: str, ready: bool | None) -> None:
        sim = await self.running(namespace, name, container)
        sim.state.tell_ready(ready, container)
        await self._world.fleet.settle(sim)

    async def log(self, namespace: str, name: str, container: str, text: str, stream: str) -> None:
        sim = await self.running(namespace, name, container)
        target = container or sim.state.main[0].spec.name
        self._world.fleet.log_of(sim, target).write(text, self._world.clock.now_seconds(), stream)

    async def evict(self, namespace: str, name: str, reason: str, message: str) -> None:
        sim = await self.running(namespace, name)
        sim.state.fail(reason, message, self._world.clock.now_seconds())
        await self._world.fleet.settle(sim)

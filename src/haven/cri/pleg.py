"""Pod lifecycle events: notices that the runtime's state of a pod changed, by events or by polling.

Level, not edge: whatever wakes it, it lists everything and compares with the last list. Events only make it look
sooner. `poke` does the same after an action of our own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from haven.clock import Clock
from haven.cri import errors
from haven.cri.interface import ContainerInfo, Runtime, SandboxInfo
from haven.telemetry import logger

__all__ = ["Pleg", "PodContents", "RelistStatistics"]

_log = logger("pleg")

POLL_SECONDS = 1.0
EVENTED_POLL_SECONDS = 10.0  # Events may get lost while the stream reconnects; upstream relists every 5 minutes.
POKE_SECONDS = 0.1  # How soon after our own action (a container that fails at once is seen without a poll's delay).


@dataclass(frozen=True, slots=True)
class PodContents:
    """What the runtime holds for one pod: sandboxes and containers, newest first."""

    uid: str
    name: str
    namespace: str
    sandboxes: tuple[SandboxInfo, ...] = ()
    containers: tuple[ContainerInfo, ...] = ()

    @property
    def fingerprint(self) -> tuple[tuple[str, object], ...]:
        """What must differ for a change to count."""
        sandboxes = tuple((sandbox.id, sandbox.state) for sandbox in self.sandboxes)
        return (*sandboxes, *((container.id, container.state) for container in self.containers))


@dataclass(frozen=True, slots=True)
class RelistStatistics:
    """How the loop is doing. `last_seconds` is monotonic time; health checks compare it with now."""

    relists: int
    failures: int
    last_seconds: float
    pods: int
    evented: bool


class Pleg:
    """Calls `on_change(uid)` for each pod whose sandboxes or containers changed state.

    One owner of the snapshot: `pods`. The first list reports every pod that it finds.
    """

    def __init__(self, runtime: Runtime, clock: Clock, on_change: Callable[[str], None]) -> None:
        self._runtime = runtime
        self._clock = clock
        self._on_change = on_change
        self._pods: dict[str, PodContents] = {}
        self._wake = asyncio.Event()
        self._relists = self._failures = 0
        self._last_seconds = clock.monotonic_seconds()
        self._evented = False
        self._poked = False

    @property
    def pods(self) -> dict[str, PodContents]:
        """What the last list saw, by pod UID."""
        return self._pods

    def statistics(self) -> RelistStatistics:
        return RelistStatistics(self._relists, self._failures, self._last_seconds, len(self._pods), self._evented)

    def poke(self) -> None:
        """Ask for a look soon."""
        self._poked = True
        self._wake.set()

    async def run(self, *, container_events: bool) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            if container_events:
                tasks.create_task(self._follow_events())
            while True:
                await self.relist()
                await self._wait_next()

    async def _wait_next(self) -> None:
        pause = EVENTED_POLL_SECONDS if self._evented else POLL_SECONDS
        sleeping = asyncio.ensure_future(self._clock.sleep(pause))
        waking = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait({sleeping, waking}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            waking.cancel()
        if self._poked:
            self._poked = False
            await self._clock.sleep(POKE_SECONDS)
        self._wake.clear()

    async def relist(self) -> None:
        """List everything, remember it, report the pods that differ."""
        try:
            sandboxes, containers = await asyncio.gather(
                self._runtime.list_sandboxes(), self._runtime.list_containers()
            )
        except errors.RuntimeFailure as error:
            self._failures += 1
            _log.warning("cannot list the runtime's pods", reason=str(error))
            return
        previous, self._pods = self._pods, group_by_pod(sandboxes, containers)
        self._relists += 1
        self._last_seconds = self._clock.monotonic_seconds()
        for uid in [*self._pods, *(uid for uid in previous if uid not in self._pods)]:
            before, after = previous.get(uid), self._pods.get(uid)
            if (before.fingerprint if before else None) != (after.fingerprint if after else None):
                self._on_change(uid)

    async def _follow_events(self) -> None:
        while True:
            try:
                self._evented = True
                async for _ in self._runtime.events():
                    self._wake.set()
            except errors.Unimplemented:
                self._evented = False
                return
            except errors.RuntimeFailure as error:
                self._evented = False
                self._wake.set()
                _log.warning("lost the runtime's event stream", reason=str(error))
                await self._clock.sleep(POLL_SECONDS)


def group_by_pod(sandboxes: Sequence[SandboxInfo], containers: Sequence[ContainerInfo]) -> dict[str, PodContents]:
    """Sort a runtime's contents by pod. Containers belong to the pod of their `io.kubernetes.pod.uid` label."""
    found: dict[str, tuple[list[SandboxInfo], list[ContainerInfo]]] = {}
    names: dict[str, tuple[str, str]] = {}
    for sandbox in sorted(sandboxes, key=lambda item: (-item.created_at, item.id)):
        found.setdefault(sandbox.uid, ([], []))[0].append(sandbox)
        names[sandbox.uid] = (sandbox.name, sandbox.namespace)
    for container in sorted(containers, key=lambda item: (-item.created_at, item.id)):
        uid = container.labels.get("io.kubernetes.pod.uid", "")
        if not uid:
            continue  # Made by someone else (ctr, a build); not ours to manage.
        found.setdefault(uid, ([], []))[1].append(container)
        names.setdefault(
            uid,
            (
                container.labels.get("io.kubernetes.pod.name", ""),
                container.labels.get("io.kubernetes.pod.namespace", ""),
            ),
        )
    return {
        uid: PodContents(uid, *names[uid], tuple(pod_sandboxes), tuple(pod_containers))
        for uid, (pod_sandboxes, pod_containers) in found.items()
    }

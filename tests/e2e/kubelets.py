"""A kubelet on a real containerd, driven through an API server in memory; and pods to try on it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.fakeapi import FakeApi
from tests.e2e.node import BUSYBOX, Node

from haven.api.core.v1 import Container, Event, Pod, PodSpec
from haven.apimachinery import meta
from haven.clock import SystemClock
from haven.kubelet.eviction import EvictionSettings
from haven.kubelet.imagemounts import ImageMounts
from haven.kubelet.runner import Kubelet
from haven.kubelet.settings import Settings

__all__ = ["Bench", "a_container", "a_pod", "kubelet_on"]

NODE = "node-1"
WAIT_SECONDS_MAX = 180.0  # A busy machine is no failure.


def a_container(name: str = "main", *command: str, **more: Any) -> Container:
    """Return a busybox container; without a command it sleeps."""
    return Container(
        name=name,
        image=BUSYBOX,
        image_pull_policy="IfNotPresent",
        command=list(command) or ["sleep", "3600"],
        termination_message_path="/dev/termination-log",
        termination_message_policy=more.pop("termination_message_policy", "File"),
        **more,
    )


def a_pod(name: str, *containers: Container, **spec: Any) -> Pod:
    """Return a pod bound to the node, with the defaults that an API server sets."""
    spec.setdefault("restart_policy", "Always")
    spec.setdefault("termination_grace_period_seconds", 3)
    return Pod(
        metadata=meta.ObjectMeta(
            name=name, namespace="default", labels=spec.pop("labels", {}), annotations=spec.pop("annotations", {})
        ),
        spec=PodSpec(
            containers=list(containers) or [a_container()],
            node_name=NODE,
            dns_policy=spec.pop("dns_policy", "ClusterFirst"),
            enable_service_links=True,
            **spec,
        ),
    )


def sh(script: str) -> Sequence[str]:
    """Return a command that runs a script."""
    return ("sh", "-c", script)


async def wait_until(
    is_so: Callable[[], object], seen: Callable[[], object] = lambda: "", *, seconds: float = WAIT_SECONDS_MAX
) -> None:
    """Return once something holds; fail after so many seconds, with what was seen."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not is_so():
        assert asyncio.get_running_loop().time() < deadline, seen()
        await asyncio.sleep(0.02)


@dataclass
class Bench:
    """A running kubelet and its API."""

    kubelet: Kubelet
    api: FakeApi
    node: Node
    task: asyncio.Task[None] | None = None
    settings: Settings | None = None
    seen: list[str] = field(default_factory=list)

    def pod(self, name: str) -> Pod | None:
        found: Pod | None = self.api.object(Pod, name)
        return found

    async def wait(self, name: str, is_so: Callable[[Pod], object]) -> Pod:
        """Return the pod once something holds for it; a status that is not there yet fulfils nothing."""
        found: list[Pod] = []

        def holds() -> bool:
            pod = self.pod(name)
            if pod is None or not (pod.status.container_statuses or pod.status.phase == "Failed") or not is_so(pod):
                return False
            found.append(pod)
            return True

        await wait_until(holds, lambda: self._told(name))
        return found[0]

    async def wait_running(self, name: str) -> Pod:
        return await self.wait(name, is_ready)

    async def wait_phase(self, name: str, phase: str) -> Pod:
        return await self.wait(name, lambda pod: pod.status.phase == phase)

    async def wait_gone(self, name: str) -> None:
        await wait_until(lambda: self.pod(name) is None, lambda: self._told(name))

    async def wait_event(self, name: str, start: str) -> None:
        """Return once an event of the pod begins so: `reason: message`."""
        await wait_until(lambda: any(text.startswith(start) for text in self.events(name)), lambda: self._told(name))

    def _told(self, name: str) -> str:
        pod = self.pod(name)
        return f"{name} is not as expected: {pod.status if pod else None}; {self.events(name)}"

    def events(self, name: str) -> list[str]:
        """Return `reason: message` of a pod's events."""
        return [
            f"{event.reason}: {event.message}" for event in self.api.all(Event) if event.involved_object.name == name
        ]

    async def exec(self, name: str, *command: str, container: str = "main") -> str:
        """Return what a command in a container prints."""
        found = self.kubelet.find_container("default", name, container)
        result = await self.node.runtime.exec_sync(found.status.id, list(command), 60)
        assert result.exit_code == 0, (result.stdout + result.stderr).decode()
        return result.stdout.decode()

    def log(self, name: str, container: str = "main", *, previous: bool = False) -> str:
        path = self.kubelet.log_path("default", name, container, previous=previous)
        return "\n".join(line.split(" ", 3)[3] for line in path.read_text().splitlines())

    async def stop_kubelet(self) -> None:
        """End the kubelet as a restart would: pods go on."""
        assert self.task is not None
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task

    async def start_kubelet(self) -> None:
        assert self.settings is not None
        self.kubelet = Kubelet(
            self.settings,
            self.api,
            self.node.runtime,
            SystemClock(),
            image_mounts=ImageMounts(self.node.containerd),
        )
        self.task = asyncio.get_running_loop().create_task(self.kubelet.run())
        ready = asyncio.ensure_future(self.kubelet.wait_ready())
        await asyncio.wait({self.task, ready}, return_when=asyncio.FIRST_COMPLETED)
        if self.task.done():
            await self.task


def is_ready(pod: Pod) -> bool:
    return any(item.type == "Ready" and item.status == "True" for item in pod.status.conditions)


def settings_for(node: Node, directory: Path, **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "node_name": NODE,
        "root_directory": directory / "kubelet",
        "pod_logs_directory": directory / "logs",
        "container_logs_directory": directory / "links",
        "cgroup_root": f"{node.cgroup_parent}/kubepods",
        "cluster_dns": ("10.96.0.10",),
        "pod_cidr": node.pod_cidr,
        "housekeeping_seconds": 0.5,
        "eviction": EvictionSettings(hard=()),  # The disk of the machine that tests run on may be nearly full.
    }
    return Settings(**{**values, **changes})


@contextlib.asynccontextmanager
async def kubelet_on(node: Node, directory: Path, **changes: Any) -> AsyncIterator[Bench]:
    """Run a kubelet on a node; when the block ends, its pods are ended too."""
    api = FakeApi(SystemClock())
    settings = settings_for(node, directory, **changes)
    bench = Bench(Kubelet(settings, api, node.runtime, SystemClock()), api, node, settings=settings)
    await bench.start_kubelet()
    try:
        yield bench
    finally:
        for pod in api.all(Pod):
            api.delete_pod(pod.metadata.name, grace_seconds=0)
        await wait_until(lambda: not bench.kubelet.statistics().pods, bench.kubelet.statistics)
        await bench.stop_kubelet()

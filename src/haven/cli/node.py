"""This machine's containerd and what it runs, as the commands around the agent need them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from haven.cli.settings import ClusterSettings
from haven.clock import SystemClock
from haven.cri import errors
from haven.cri.interface import Runtime, SandboxInfo, SandboxState
from haven.kubelet.containerd import Containerd, ContainerdSettings, MissingRuntime
from haven.kubelet.delegation import Delegation

__all__ = ["containerd_of", "containerd_settings", "delegation_of", "remove_pods", "stop_node"]

STOP_SECONDS_MAX = 60.0
SANDBOX_STOPS_MAX = 8  # Each is a few processes of work; all at once take longer, and then time out, on a slow machine.


def containerd_settings(settings: ClusterSettings) -> ContainerdSettings:
    """Return where this cluster's containerd keeps things."""
    places = settings.places
    return ContainerdSettings(
        root=places.containerd,
        state=places.containerd_state,
        cni_conf=places.cni_conf,
        cni_bin=places.cni_bin,
        shared_directory=places.data,
        oci_runtime=settings.runtime,
    )


def containerd_of(settings: ClusterSettings) -> Containerd:
    """Return this cluster's containerd, running or not."""
    return Containerd(containerd_settings(settings), SystemClock())


def delegation_of(settings: ClusterSettings) -> Delegation:
    """Return the part of systemd's cgroup tree that this cluster's Pods get, needed or not."""
    return Delegation(settings.places.scope)


def stop_node(settings: ClusterSettings) -> None:
    """Stop every Pod and containerd; what they wrote stays."""
    try:
        asyncio.run(_stop(settings, remove=False))
    finally:
        delegation_of(settings).end()


def remove_pods(settings: ClusterSettings) -> None:
    """Stop and remove every Pod, their networks with them, and containerd with its state."""
    asyncio.run(_stop(settings, remove=True))


async def _stop(settings: ClusterSettings, *, remove: bool) -> None:
    """End all Pods, then containerd, which is stopped although some of them resist; raise what was in the way."""
    containerd = containerd_of(settings)
    if not Path(settings.places.containerd).exists():
        return
    if not containerd.pid and remove:
        try:
            await containerd.start()  # Only it can take down what it built.
        except MissingRuntime:
            await containerd.destroy()
            raise
    failures: list[BaseException] = []
    if containerd.pid:
        runtime = containerd.runtime()
        some = asyncio.Semaphore(SANDBOX_STOPS_MAX)
        try:
            sandboxes = await runtime.list_sandboxes()
            stops = (_stop_sandbox(runtime, item, remove, some) for item in sandboxes)
            failures = [item for item in await asyncio.gather(*stops, return_exceptions=True) if item is not None]
        finally:
            await runtime.close()
    if remove:
        await containerd.destroy()
    else:
        await containerd.stop()
    if failures:
        raise failures[0]


async def _stop_sandbox(runtime: Runtime, sandbox: SandboxInfo, remove: bool, some: asyncio.Semaphore) -> None:
    async with some:
        try:
            async with asyncio.timeout(STOP_SECONDS_MAX):
                if sandbox.state is SandboxState.READY or remove:
                    await runtime.stop_sandbox(sandbox.id)
                if remove:
                    await runtime.remove_sandbox(sandbox.id)
        except errors.NotFound:
            return
        except TimeoutError:
            raise TimeoutError(f"{sandbox.namespace}/{sandbox.name} did not end in {STOP_SECONDS_MAX:.0f} s") from None

"""This machine's containerd and what it runs, as the commands around the agent need them."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from haven.cli.settings import ClusterSettings
from haven.clock import SystemClock
from haven.cri import errors
from haven.cri.interface import Runtime, SandboxState
from haven.kubelet.containerd import Containerd, ContainerdSettings
from haven.kubelet.delegation import Delegation

__all__ = ["containerd_of", "containerd_settings", "delegation_of", "remove_pods", "stop_node"]

STOP_SECONDS_MAX = 30.0


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
    asyncio.run(_stop(settings, remove=False))
    delegation_of(settings).end()


def remove_pods(settings: ClusterSettings) -> None:
    """Stop and remove every Pod, their networks with them, and containerd with its state."""
    asyncio.run(_stop(settings, remove=True))


async def _stop(settings: ClusterSettings, *, remove: bool) -> None:
    containerd = containerd_of(settings)
    if not Path(settings.places.containerd).exists():
        return
    if not containerd.pid and remove:
        await containerd.start()  # Only it can take down what it built.
    if containerd.pid:
        runtime = containerd.runtime()
        try:
            sandboxes = await runtime.list_sandboxes()
            await asyncio.gather(*(_stop_sandbox(runtime, item.id, item.state, remove) for item in sandboxes))
        finally:
            await runtime.close()
    if remove:
        await containerd.destroy()
    else:
        await containerd.stop()


async def _stop_sandbox(runtime: Runtime, sandbox_id: str, state: SandboxState, remove: bool) -> None:
    with contextlib.suppress(errors.NotFound):
        async with asyncio.timeout(STOP_SECONDS_MAX):
            if state is SandboxState.READY or remove:
                await runtime.stop_sandbox(sandbox_id)
            if remove:
                await runtime.remove_sandbox(sandbox_id)

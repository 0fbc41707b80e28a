"""Ends containers gracefully: grace periods, preStop hooks, and the order in which sidecars follow the others.

Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

from haven.api.core.podresources import is_sidecar
from haven.api.core.v1 import Container, Pod
from haven.clock import Clock
from haven.cri.interface import ContainerState, Runtime
from haven.kubelet.events import EventRecorder, container_reference
from haven.kubelet.handlers import HandlerRunner, OutcomeKind
from haven.kubelet.observation import ANNOTATION_TERMINATION_GRACE, ObservedContainer, ObservedPod
from haven.kubelet.podspec import find_container
from haven.kubelet.podstate import KillReason

__all__ = ["TerminationOrder", "Terminator", "grace_seconds"]

_GRACE_SECONDS_MIN = 2


def grace_seconds(pod: Pod, container: Container | None, reason: KillReason = KillReason.OTHER) -> int:
    """Return how long a container may take to end by itself."""
    if pod.metadata.deletion_grace_period_seconds is not None:
        return pod.metadata.deletion_grace_period_seconds
    if pod.spec.termination_grace_period_seconds is None:
        return _GRACE_SECONDS_MIN
    probe = None
    if container is not None and reason is KillReason.STARTUP_PROBE:
        probe = container.startup_probe
    elif container is not None and reason is KillReason.LIVENESS_PROBE:
        probe = container.liveness_probe
    if probe is not None and probe.termination_grace_period_seconds is not None:
        return probe.termination_grace_period_seconds
    return pod.spec.termination_grace_period_seconds


class TerminationOrder:
    """Sidecars end after all regular containers and, in reverse, after the sidecars that started later."""

    def __init__(self, pod: Pod, running: Sequence[str]) -> None:
        self._ended = {name: asyncio.Event() for name in running}
        self._before: dict[str, list[str]] = {}
        later = [container.name for container in pod.spec.containers if container.name in self._ended]
        for container in reversed(pod.spec.init_containers):
            if is_sidecar(container) and container.name in self._ended:
                self._before[container.name] = list(later)
                later.append(container.name)

    async def wait_turn(self, name: str, seconds: float) -> None:
        """Return when everything that goes first has ended, or after so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                for other in self._before.get(name, ()):
                    await self._ended[other].wait()
        except TimeoutError:
            return

    def has_ended(self, name: str) -> None:
        if name in self._ended:
            self._ended[name].set()


class Terminator:
    """Kills containers of pods."""

    def __init__(self, runtime: Runtime, clock: Clock, recorder: EventRecorder, handlers: HandlerRunner) -> None:
        self._runtime = runtime
        self._clock = clock
        self._recorder = recorder
        self._handlers = handlers

    async def kill_all(self, pod: Pod, observed: ObservedPod, *, grace_override: int | None = None) -> None:
        """End every running container of a pod, all at once but for sidecars; raise RuntimeFailure if one resists."""
        running = [item for item in observed.containers if item.state is not ContainerState.EXITED]
        order = TerminationOrder(pod, [item.name for item in running])
        ip = observed.ips[0] if observed.ips else ""
        await _all(
            self.kill(
                pod, item, f"Stopping container {item.name}", grace_override=grace_override, order=order, pod_ip=ip
            )
            for item in running
        )

    async def kill(
        self,
        pod: Pod,
        found: ObservedContainer,
        message: str,
        reason: KillReason = KillReason.OTHER,
        *,
        grace_override: int | None = None,
        order: TerminationOrder | None = None,
        pod_ip: str = "",
    ) -> None:
        """End one container: hook, turn, stop signal, and SIGKILL when its time is over."""
        container = find_container(pod, found.name)
        grace = float(grace_seconds(pod, container, reason) if grace_override is None else grace_override)
        if found.state is ContainerState.RUNNING:
            self._recorder.normal(container_reference(pod, found.name), "Killing", message)
        started = self._clock.monotonic_seconds()
        has_hook = (
            container is not None and container.lifecycle is not None and container.lifecycle.pre_stop is not None
        )
        if container is not None and has_hook and grace > 0 and found.state is ContainerState.RUNNING:
            await self._run_pre_stop(pod, container, found, grace, pod_ip)
        if order is not None and grace > 0:
            left = grace - (self._clock.monotonic_seconds() - started)
            await order.wait_turn(found.name, max(left, 0.0))
        left = grace - (self._clock.monotonic_seconds() - started)
        # Even an impatient deletion leaves a moment.
        await self._runtime.stop_container(found.status.id, max(int(left), _GRACE_SECONDS_MIN))
        if order is not None:
            order.has_ended(found.name)

    async def _run_pre_stop(
        self, pod: Pod, container: Container, found: ObservedContainer, grace: float, pod_ip: str
    ) -> None:
        assert container.lifecycle is not None
        assert container.lifecycle.pre_stop is not None
        handler = container.lifecycle.pre_stop
        hook = asyncio.ensure_future(self._handlers.hook(handler, pod, container, found.status.id, pod_ip))
        timer = asyncio.ensure_future(self._clock.sleep(grace))
        try:
            await asyncio.wait({hook, timer}, return_when=asyncio.FIRST_COMPLETED)
            if hook.done() and hook.result().kind is not OutcomeKind.SUCCESS:
                self._recorder.warning(
                    container_reference(pod, container.name), "FailedPreStopHook", "PreStopHook failed"
                )
        finally:
            hook.cancel()
            timer.cancel()

    async def kill_unknown(self, observed: ObservedPod, *, grace_override: int | None = None) -> None:
        """End containers of a pod whose spec is gone; what they carry says how much time they have."""
        stops: list[Coroutine[Any, Any, None]] = []
        for item in observed.containers:
            if item.state is not ContainerState.EXITED:
                carried = int(item.status.annotations.get(ANNOTATION_TERMINATION_GRACE, _GRACE_SECONDS_MIN))
                grace = carried if grace_override is None else grace_override
                stops.append(self._runtime.stop_container(item.status.id, grace))
        await _all(stops)


async def _all(steps: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do everything at once and to the end; then raise the first failure, if there was one."""
    results = await asyncio.gather(*steps, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result

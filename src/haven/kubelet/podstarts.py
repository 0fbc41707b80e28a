"""Starts the containers of one pod, and holds back those that keep crashing.

Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy
"""

from __future__ import annotations

from collections.abc import Mapping

from haven.api.core.v1 import Container, Pod
from haven.cri import interface as cri
from haven.kubelet.containerstart import Sandbox, StartError
from haven.kubelet.containerstatus import StartFailure
from haven.kubelet.events import container_reference
from haven.kubelet.observation import ObservedPod
from haven.kubelet.podconfig import PodInputs
from haven.kubelet.podservices import PodServices
from haven.kubelet.podspec import all_containers, container_hash, format_pod
from haven.kubelet.volumes.manager import MountedVolume
from haven.telemetry import logger

__all__ = ["RETRY_SECONDS", "RETRY_SECONDS_MAX", "PodStarts", "go_duration"]

_log = logger("pod")
RETRY_SECONDS, RETRY_SECONDS_MAX = 0.5, 20.0


class PodStarts:
    """The starts of one pod's containers. `failures` says, by container, why the last start did not come about."""

    def __init__(self, services: PodServices) -> None:
        self._services = services
        self._retry_seconds = 0.0
        self.failures: dict[str, StartFailure] = {}

    async def start(
        self,
        pod: Pod,
        observed: ObservedPod,
        volumes: Mapping[str, MountedVolume],
        container: Container,
        inputs: PodInputs,
        sandbox: Sandbox,
        *,
        target: str = "",
    ) -> str:
        """Start a container; return its id, "" if it does not start now."""
        services = self._services
        held = self._held_back(pod, observed, container)
        if held is not None:
            self.failures[container.name] = held
            return ""
        try:
            async with services.sandbox_slots:
                container_id = await services.starter.start(
                    pod, container, inputs, sandbox, dict(volumes), observed, target=target
                )
        except StartError as error:
            self.failures[container.name] = StartFailure(error.reason, error.message)
            _log.info("container does not start", pod=format_pod(pod), container=container.name, reason=error.reason)
            return ""
        self.failures.pop(container.name, None)
        self._retry_seconds = 0.0
        return container_id

    def next_seconds(self, pod: Pod, observed: ObservedPod) -> float:
        """Return after how long a held-back start may go on."""
        services = self._services
        now = services.clock.now_seconds()
        seconds = services.settings.sync_seconds
        for container in all_containers(pod):
            if container.name not in self.failures:
                continue
            pull = services.images.seconds_until_retry(pod.metadata.uid, container.image)
            if pull > 0:
                seconds = min(seconds, pull)
            found = observed.find(container.name)
            if found is not None and found.state is cri.ContainerState.EXITED:
                ended = found.status.finished_at / 1e9
                crash = services.crash_backoff.remaining(_crash_key(pod, container), ended, now)
                seconds = min(seconds, crash) if crash > 0 else min(seconds, RETRY_SECONDS)
            elif pull <= 0:
                self._retry_seconds = min(max(self._retry_seconds * 2, 1.0), RETRY_SECONDS_MAX)
                seconds = min(seconds, self._retry_seconds)
        return seconds

    def _held_back(self, pod: Pod, observed: ObservedPod, container: Container) -> StartFailure | None:
        """Return the back-off that a crashed container is in; count the restart if it is in none."""
        services = self._services
        ended = next(
            (
                item
                for item in observed.containers
                if item.name == container.name and item.state is cri.ContainerState.EXITED
            ),
            None,
        )
        if ended is None:
            return None
        key, finished = _crash_key(pod, container), ended.status.finished_at / 1e9
        if services.crash_backoff.remaining(key, finished, services.clock.now_seconds()) > 0:
            name = format_pod(pod)
            services.recorder.warning(
                container_reference(pod, container.name),
                "BackOff",
                f"Back-off restarting failed container {container.name} in pod {name}",
            )
            delay = go_duration(services.crash_backoff.seconds(key))
            text = f"back-off {delay} restarting failed container={container.name} pod={name}"
            return StartFailure("CrashLoopBackOff", text)
        services.crash_backoff.next(key, finished)
        return None


def _crash_key(pod: Pod, container: Container) -> str:
    return f"{pod.metadata.uid}_{container.name}_{container_hash(container)}"


def go_duration(seconds: float) -> str:
    """Return whole seconds as Go prints them: 40s, 1m20s, 5m0s."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"

"""When the node runs short of memory, disk or process ids: which conditions to report and which pod to evict.

Pure: readings in, decision out. Pods are ranked by whether they use more than they requested, then priority, then by
how much more.
Source: https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from haven.api.core.podresources import pod_requests
from haven.api.core.v1 import Pod
from haven.apimachinery.quantity import Format, Quantity
from haven.kubelet.podspec import is_critical, is_static

__all__ = [
    "Eviction",
    "EvictionSettings",
    "EvictionState",
    "PodUse",
    "Reading",
    "Threshold",
    "decide",
    "local_eviction",
]

_CONDITIONS = {
    "memory.available": "MemoryPressure",
    "nodefs.available": "DiskPressure",
    "nodefs.inodesFree": "DiskPressure",
    "imagefs.available": "DiskPressure",
    "pid.available": "PIDPressure",
}
_RESOURCES = {
    "memory.available": "memory",
    "nodefs.available": "ephemeral-storage",
    "nodefs.inodesFree": "inodes",
    "imagefs.available": "ephemeral-storage",
    "pid.available": "pids",
}


@dataclass(frozen=True, slots=True)
class Threshold:
    """A signal must not fall below a value, or below a part of the capacity."""

    signal: str
    value: int = 0
    fraction: float = 0.0

    def limit(self, capacity: int) -> int:
        return self.value or int(capacity * self.fraction)


@dataclass(frozen=True, slots=True)
class EvictionSettings:
    """Hard thresholds, upstream's defaults."""

    hard: tuple[Threshold, ...] = (
        Threshold("memory.available", value=100 * 1024 * 1024),
        Threshold("nodefs.available", fraction=0.10),
        Threshold("nodefs.inodesFree", fraction=0.05),
        Threshold("imagefs.available", fraction=0.15),
    )
    period_seconds: float = 10.0
    pressure_transition_seconds: float = 300.0
    """A condition stays for so long after its cause is gone, so that it does not flap."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What is left of something, and how much there is."""

    available: int
    capacity: int


@dataclass(frozen=True, slots=True)
class PodUse:
    """What a pod uses now."""

    pod: Pod
    memory_bytes: int = 0
    disk_bytes: int = 0
    processes: int = 0
    containers: Mapping[str, int] = field(default_factory=dict)
    """Memory by container."""


@dataclass(frozen=True, slots=True)
class Eviction:
    """A pod to kill, and why."""

    pod: Pod
    reason: str
    message: str
    signal: str = ""


@dataclass(slots=True)
class EvictionState:
    """When each condition was last true (monotonic seconds). One owner: the eviction loop."""

    last_seen: dict[str, float] = field(default_factory=dict)
    conditions: frozenset[str] = frozenset()


def decide(
    settings: EvictionSettings,
    readings: Mapping[str, Reading],
    pods: Sequence[PodUse],
    state: EvictionState,
    now: float,
) -> Eviction | None:
    """Update the state's conditions; return at most one pod to evict (look again after it is gone)."""
    crossed = [
        threshold
        for threshold in settings.hard
        if threshold.signal in readings
        and readings[threshold.signal].available < threshold.limit(readings[threshold.signal].capacity)
    ]
    for threshold in crossed:
        state.last_seen[_CONDITIONS[threshold.signal]] = now
    state.conditions = frozenset(
        condition for condition, seen in state.last_seen.items() if now - seen < settings.pressure_transition_seconds
    )
    # Memory first: it kills the node fastest.
    for threshold in sorted(crossed, key=lambda item: item.signal != "memory.available"):
        victim = _victim(threshold.signal, pods)
        if victim is not None:
            limit = threshold.limit(readings[threshold.signal].capacity)
            return _eviction(victim, threshold.signal, limit, readings[threshold.signal].available)
    return None


def _usage(signal: str, use: PodUse) -> tuple[int, int]:
    """Return what the pod uses and what it requested of the resource behind a signal."""
    requests = pod_requests(use.pod)
    if signal == "memory.available":
        return use.memory_bytes, requests.get("memory", Quantity.ZERO).value
    if signal == "pid.available":
        return use.processes, 0
    return use.disk_bytes, requests.get("ephemeral-storage", Quantity.ZERO).value


def _victim(signal: str, pods: Sequence[PodUse]) -> PodUse | None:
    candidates = [use for use in pods if not (is_static(use.pod) or is_critical(use.pod))]
    if not candidates:
        return None

    def rank(use: PodUse) -> tuple[bool, int, int, str]:
        used, requested = _usage(signal, use)
        return (used <= requested, use.pod.spec.priority or 0, requested - used, use.pod.metadata.uid)

    return min(candidates, key=rank)


def _eviction(use: PodUse, signal: str, limit: int, available: int) -> Eviction:
    resource = _RESOURCES[signal]
    amount = Quantity.of(limit, Format.BINARY_SI), Quantity.of(available, Format.BINARY_SI)
    message = f"The node was low on resource: {resource}. Threshold quantity: {amount[0]}, available: {amount[1]}. "
    for container in use.pod.spec.containers:
        used = use.containers.get(container.name, 0)
        request = container.resources.requests.get(resource, Quantity.ZERO)
        if resource == "memory" and used > request.value:
            message += (
                f"Container {container.name} was using {Quantity.of(used, Format.BINARY_SI)}, request is {request}, "
                f"has larger consumption of {resource}. "
            )
    return Eviction(use.pod, "Evicted", message, signal)


def local_eviction(pod: Pod, volumes: Mapping[str, int], containers: Mapping[str, int]) -> Eviction | None:
    """Return an eviction if the pod itself uses more local disk than it may: an emptyDir's sizeLimit, a container's or
    the pod's ephemeral-storage limit."""
    for volume in pod.spec.volumes:
        source = volume.empty_dir
        if source is None or source.size_limit is None or source.medium == "Memory":
            continue
        if volumes.get(volume.name, 0) > source.size_limit.value > 0:
            message = f'Usage of EmptyDir volume "{volume.name}" exceeds the limit "{source.size_limit}". '
            return Eviction(pod, "Evicted", message)
    for container in pod.spec.containers:
        limit = container.resources.limits.get("ephemeral-storage")
        if limit is not None and containers.get(container.name, 0) > limit.value:
            message = f'Container {container.name} exceeded its local ephemeral storage limit "{limit}". '
            return Eviction(pod, "Evicted", message)
    limits = [container.resources.limits.get("ephemeral-storage") for container in pod.spec.containers]
    if limits and all(limits):
        total = sum(limit.value for limit in limits if limit is not None)
        used = sum(volumes.values()) + sum(containers.values())
        if used > total:
            quantity = Quantity.of(total, Format.BINARY_SI)
            message = f"Pod ephemeral local storage usage exceeds the total limit of containers {quantity}. "
            return Eviction(pod, "Evicted", message)
    return None

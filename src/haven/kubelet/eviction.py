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
from haven.kubelet.podspec import is_critical

__all__ = [
    "ContainerUse",
    "Crossed",
    "Eviction",
    "EvictionSettings",
    "EvictionState",
    "PodUse",
    "Reading",
    "Threshold",
    "choose",
    "local_eviction",
    "observe",
]

_DISK = ("nodefs.available", "nodefs.inodesFree", "imagefs.available", "imagefs.inodesFree")
_CONDITIONS = {
    "memory.available": "MemoryPressure",
    "pid.available": "PIDPressure",
    **dict.fromkeys(_DISK, "DiskPressure"),
}
_RESOURCES = {
    "memory.available": "memory",
    "nodefs.available": "ephemeral-storage",
    "nodefs.inodesFree": "inodes",
    "imagefs.available": "ephemeral-storage",
    "imagefs.inodesFree": "inodes",
    "pid.available": "pids",
}


@dataclass(frozen=True, slots=True)
class Threshold:
    """A signal must not fall below a value, or below a part of the capacity, for longer than a grace period.

    A threshold without a grace period is a hard one: pods are killed at once. `reclaim` is how much more than the
    threshold must be free again before pods are left alone.
    """

    signal: str
    value: int = 0
    fraction: float = 0.0
    grace_seconds: float = 0.0
    reclaim: int = 0

    def limit(self, capacity: int) -> int:
        return self.value or int(capacity * self.fraction)


@dataclass(frozen=True, slots=True)
class EvictionSettings:
    """Hard thresholds, upstream's defaults; soft ones on request."""

    hard: tuple[Threshold, ...] = (
        Threshold("memory.available", value=100 * 1024 * 1024),
        Threshold("nodefs.available", fraction=0.10),
        Threshold("nodefs.inodesFree", fraction=0.05),
        Threshold("imagefs.available", fraction=0.15),
        Threshold("imagefs.inodesFree", fraction=0.05),
    )
    soft: tuple[Threshold, ...] = ()
    pod_grace_seconds_max: int = 0
    """What a pod gets at most to end when a soft threshold evicts it."""
    period_seconds: float = 10.0
    pressure_transition_seconds: float = 300.0
    """A condition stays for so long after its cause is gone, so that it does not flap."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What is left of something, and how much there is."""

    available: int
    capacity: int


@dataclass(frozen=True, slots=True)
class ContainerUse:
    """What a container uses now: memory, and its writable layer with its logs."""

    memory_bytes: int = 0
    disk_bytes: int = 0


@dataclass(frozen=True, slots=True)
class PodUse:
    """What a pod uses now; disk includes its volumes on the node's disk."""

    pod: Pod
    memory_bytes: int = 0
    disk_bytes: int = 0
    inodes: int = 0
    processes: int = 0
    containers: Mapping[str, ContainerUse] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Eviction:
    """A pod to kill, and why. `grace_seconds` None leaves it the pod's own time."""

    pod: Pod
    reason: str
    message: str
    signal: str = ""
    grace_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Crossed:
    """A threshold that has been crossed for long enough to act on it."""

    threshold: Threshold
    limit: int
    available: int

    @property
    def is_disk(self) -> bool:
        return self.threshold.signal in _DISK

    @property
    def resource(self) -> str:
        """What there is too little of."""
        return _RESOURCES[self.threshold.signal]


@dataclass(slots=True)
class EvictionState:
    """What was seen before, in monotonic seconds. One owner: the eviction loop."""

    last_seen: dict[str, float] = field(default_factory=dict)
    """When each condition was last true."""
    first_crossed: dict[Threshold, float] = field(default_factory=dict)
    conditions: frozenset[str] = frozenset()


def observe(
    settings: EvictionSettings, readings: Mapping[str, Reading], state: EvictionState, now: float
) -> list[Crossed]:
    """Update the state's conditions; return what must be acted on, most urgent first."""
    due: list[Crossed] = []
    crossed: dict[Threshold, float] = {}
    for threshold in (*settings.hard, *settings.soft):
        reading = readings.get(threshold.signal)
        if reading is None:
            continue
        limit = threshold.limit(reading.capacity)
        wanted = limit + threshold.reclaim if threshold in state.first_crossed else limit
        if reading.available >= wanted:
            continue
        since = crossed[threshold] = state.first_crossed.get(threshold, now)
        state.last_seen[_CONDITIONS[threshold.signal]] = now
        if now - since >= threshold.grace_seconds:
            due.append(Crossed(threshold, limit, reading.available))
    state.first_crossed = crossed
    state.conditions = frozenset(
        condition for condition, seen in state.last_seen.items() if now - seen < settings.pressure_transition_seconds
    )
    # Memory first: it kills the node fastest. Hard thresholds come before soft ones as they stand in the settings.
    return sorted(due, key=lambda item: item.threshold.signal != "memory.available")


def choose(settings: EvictionSettings, crossed: Crossed, pods: Sequence[PodUse]) -> Eviction | None:
    """Return the pod to evict, at most one (look again after it is gone); None if none may be."""
    signal = crossed.threshold.signal
    victim = _victim(signal, pods)
    if victim is None:
        return None
    grace = 1
    if crossed.threshold.grace_seconds:
        own = victim.pod.spec.termination_grace_period_seconds
        grace = settings.pod_grace_seconds_max if own is None else min(settings.pod_grace_seconds_max, own)
    return Eviction(victim.pod, "Evicted", _message(victim, crossed), signal, grace)


def _usage(signal: str, use: PodUse) -> tuple[int, int]:
    """Return what the pod uses and what it requested of the resource behind a signal."""
    resource = _RESOURCES[signal]
    requested = pod_requests(use.pod).get(resource, Quantity.ZERO).value
    used = {
        "memory": use.memory_bytes,
        "pids": use.processes,
        "inodes": use.inodes,
        "ephemeral-storage": use.disk_bytes,
    }
    return used[resource], requested


def _victim(signal: str, pods: Sequence[PodUse]) -> PodUse | None:
    candidates = [use for use in pods if not is_critical(use.pod)]
    if not candidates:
        return None

    def rank(use: PodUse) -> tuple[bool, int, int, str]:
        used, requested = _usage(signal, use)
        # Process ids and inodes cannot be requested, so that nobody keeps within his request.
        return (used <= requested, use.pod.spec.priority or 0, requested - used, use.pod.metadata.uid)

    return min(candidates, key=rank)


def _message(use: PodUse, crossed: Crossed) -> str:
    resource = _RESOURCES[crossed.threshold.signal]
    form = Format.DECIMAL_SI if resource in ("inodes", "pids") else Format.BINARY_SI
    limit, available = Quantity.of(crossed.limit, form), Quantity.of(crossed.available, form)
    message = f"The node was low on resource: {resource}. Threshold quantity: {limit}, available: {available}. "
    for container in use.pod.spec.containers:
        found = use.containers.get(container.name)
        if found is None or resource not in ("memory", "ephemeral-storage"):
            continue
        used = found.memory_bytes if resource == "memory" else found.disk_bytes
        request = container.resources.requests.get(resource, Quantity.ZERO)
        if used > request.value:
            message += (
                f"Container {container.name} was using {Quantity.of(used, Format.BINARY_SI)}, request is {request}, "
                f"has larger consumption of {resource}. "
            )
    return message


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

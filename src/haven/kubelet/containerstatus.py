"""Computes the API's ContainerStatus list from what the runtime shows and what was reported before.

Pure. The previous report matters: restart counts never go back, a container that vanished was terminated with
ContainerStatusUnknown, and a start that failed shows as Waiting with its reason.
Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#container-states
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from haven.api.core.podresources import is_sidecar
from haven.api.core.v1 import (
    Container,
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    ContainerUser,
    LinuxContainerUser,
    Pod,
    ResourceRequirements,
    VolumeMountStatus,
)
from haven.apimachinery import serialization, times
from haven.apimachinery.quantity import Format, Quantity
from haven.cri import interface as cri
from haven.kubelet.observation import ObservedContainer, ObservedPod
from haven.kubelet.podstate import any_regular_created, needs_restart
from haven.kubelet.resources import cpu_limit_of_quota, cpu_request_of_shares

__all__ = ["StartFailure", "StatusContext", "container_statuses"]

STATUS_UNKNOWN = "ContainerStatusUnknown"
RESTARTING_ALL = "RestartingAllContainers"
_EXIT_UNKNOWN = 137
_NANO = 1_000_000_000
_SHARES_MIN, _QUOTA_MILLI_MIN = 2, 10


@dataclass(frozen=True, slots=True)
class StartFailure:
    """Why a container could not be started the last time: a reason such as ErrImagePull, and its text."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class StatusContext:
    """What the statuses depend on beside the pod and the runtime."""

    failures: Mapping[str, StartFailure] = field(default_factory=dict)
    """By container name; only of starts that have not succeeded since."""
    recursive_read_only: bool = False
    """Whether the runtime can make mounts read-only in depth."""
    restarting_all: bool = False


def container_statuses(
    pod: Pod,
    observed: ObservedPod,
    containers: Sequence[Container],
    previous: Sequence[ContainerStatus],
    context: StatusContext,
    *,
    are_init: bool = False,
) -> list[ContainerStatus]:
    """Return one status per container: sorted by name, or in the spec's order for init containers."""
    before = {status.name: status for status in previous}
    statuses = {
        container.name: _default(pod, container, before.get(container.name), context) for container in containers
    }
    for container in containers:
        if observed.find(container.name) is None and container.name in before:
            statuses[container.name] = _vanished(pod, statuses[container.name], before[container.name], context)
    for container in containers:
        seen = [item for item in observed.containers if item.name == container.name][:2]
        if seen:
            current = _convert(pod, container, seen[0], before.get(container.name), observed.runtime_name, context)
            if len(seen) == 2:
                older = _convert(pod, container, seen[1], before.get(container.name), observed.runtime_name, context)
                current.last_state = older.state
            statuses[container.name] = current
    for container in containers:
        _apply_failure(pod, observed, container, statuses, context, are_init=are_init)
    if are_init:
        return [statuses[container.name] for container in containers]
    return [statuses[name] for name in sorted(statuses)]


def _waiting_reason(pod: Pod) -> str:
    return "PodInitializing" if pod.spec.init_containers else "ContainerCreating"


def _default(pod: Pod, container: Container, old: ContainerStatus | None, context: StatusContext) -> ContainerStatus:
    if old is not None and old.state.terminated is not None:
        return serialization.copy(old)
    status = ContainerStatus(
        name=container.name,
        image=container.image,
        state=ContainerState(waiting=ContainerStateWaiting(reason=_waiting_reason(pod))),
        volume_mounts=_mount_statuses(container, context),
    )
    if old is not None:
        status.restart_count = old.restart_count
        status.last_state = serialization.copy(old.last_state)
    return status


def _mount_statuses(container: Container, context: StatusContext) -> list[VolumeMountStatus]:
    result: list[VolumeMountStatus] = []
    for mount in container.volume_mounts:
        status = VolumeMountStatus(name=mount.name, mount_path=mount.mount_path, read_only=mount.read_only)
        if mount.read_only:
            is_recursive = (
                mount.recursive_read_only in ("IfPossible", "Enabled")
                and mount.mount_propagation in (None, "None")
                and context.recursive_read_only
            )
            status.recursive_read_only = "Enabled" if is_recursive else "Disabled"
        result.append(status)
    return result


def _vanished(pod: Pod, status: ContainerStatus, old: ContainerStatus, context: StatusContext) -> ContainerStatus:
    """A container that was reported and is gone from the runtime."""
    if context.restarting_all and old.state.waiting is None:
        message = "The container is removed because RestartAllContainers in place"
        status.state = ContainerState(waiting=ContainerStateWaiting(reason=RESTARTING_ALL, message=message))
        status.last_state = ContainerState(
            terminated=ContainerStateTerminated(exit_code=_EXIT_UNKNOWN, reason=RESTARTING_ALL, message=message)
        )
        status.restart_count = old.restart_count + 1
        return status
    if old.state.terminated is not None or old.state.running is None:
        return status
    waiting = status.state.waiting
    if waiting is None or waiting.reason != _waiting_reason(pod) or status.last_state.terminated is not None:
        return status
    # It ran when last seen, so it ended; only how is unknown. Without this the pod would look as if never started.
    status.last_state = ContainerState(
        terminated=ContainerStateTerminated(
            exit_code=_EXIT_UNKNOWN,
            reason=STATUS_UNKNOWN,
            message="The container could not be located when the pod was deleted.  The container used to be Running",
        )
    )
    if pod.metadata.deletion_timestamp is None:
        status.restart_count += 1
    return status


def _convert(
    pod: Pod,
    container: Container,
    found: ObservedContainer,
    old: ContainerStatus | None,
    runtime_name: str,
    context: StatusContext,
) -> ContainerStatus:
    observed = found.status
    container_id = f"{runtime_name}://{observed.id}"
    status = ContainerStatus(
        name=found.name,
        restart_count=found.restart_count,
        image=observed.image,
        image_id=observed.image_ref,
        container_id=container_id,
        volume_mounts=list(old.volume_mounts) if old is not None else _mount_statuses(container, context),
    )
    if old is not None:
        status.restart_count = max(status.restart_count, old.restart_count)
        if old.container_id != container_id and old.state.terminated is not None:
            status.last_state = ContainerState(terminated=serialization.copy(old.state.terminated))
        elif old.last_state.terminated is not None:
            status.last_state = ContainerState(terminated=serialization.copy(old.last_state.terminated))
    if observed.state is cri.ContainerState.RUNNING:
        status.state = ContainerState(running=ContainerStateRunning(started_at=_time(observed.started_at)))
        was_ended = old is not None and old.state.terminated is not None and old.container_id != container_id
        if old is not None and was_ended and old.restart_count >= found.restart_count:
            status.restart_count = old.restart_count + 1
    elif observed.state is cri.ContainerState.EXITED:
        status.state = ContainerState(
            terminated=ContainerStateTerminated(
                exit_code=observed.exit_code,
                reason=observed.reason,
                message=found.message,
                started_at=_time(observed.started_at),
                finished_at=_time(observed.finished_at),
                container_id=container_id,
            )
        )
    elif observed.state is cri.ContainerState.UNKNOWN and old is not None and old.state.running is not None:
        status.state = ContainerState(
            terminated=ContainerStateTerminated(
                exit_code=_EXIT_UNKNOWN,
                reason=RESTARTING_ALL if context.restarting_all else STATUS_UNKNOWN,
                message="The container could not be located when the pod was terminated",
            )
        )
        status.restart_count = old.restart_count + 1
    else:
        status.state = ContainerState(waiting=ContainerStateWaiting())
    status.allocated_resources = dict(container.resources.requests)
    status.resources = _resources(container, found, old if old and old.container_id == container_id else None)
    if observed.user is not None:
        status.user = ContainerUser(
            linux=LinuxContainerUser(
                uid=observed.user.uid,
                gid=observed.user.gid,
                supplemental_groups=list(observed.user.supplemental_groups),
            )
        )
    return status


def _resources(container: Container, found: ObservedContainer, old: ContainerStatus | None) -> ResourceRequirements:
    """Return what the container really has where the runtime tells, else what was allocated."""
    result = ResourceRequirements(
        limits=dict(container.resources.limits),
        requests=dict(container.resources.requests),
        claims=list(container.resources.claims),
    )
    actual = found.status.resources
    if found.state is not cri.ContainerState.RUNNING or actual is None:
        return result
    if result.limits:
        milli = cpu_limit_of_quota(actual.cpu_quota, actual.cpu_period)
        wanted = result.limits.get("cpu", Quantity.ZERO).milli_value
        if milli and max(milli, wanted) > _QUOTA_MILLI_MIN:
            result.limits["cpu"] = _prefer(result.limits.get("cpu"), Quantity.of_milli(milli))
        if actual.memory_limit_bytes > 0:
            memory = Quantity.of(actual.memory_limit_bytes, Format.BINARY_SI)
            result.limits["memory"] = _prefer(result.limits.get("memory"), memory)
    if result.requests and actual.cpu_shares:
        milli = cpu_request_of_shares(actual.cpu_shares)
        asked = result.requests.get("cpu", Quantity.ZERO).milli_value
        if max(milli, asked) > _SHARES_MIN and ("cpu" in result.requests or milli > _SHARES_MIN):
            result.requests["cpu"] = _prefer(result.requests.get("cpu"), Quantity.of_milli(milli))
    return result


def _prefer(written: Quantity | None, actual: Quantity) -> Quantity:
    """Keep the user's spelling of an equal amount."""
    return written if written is not None and written == actual else actual


def _apply_failure(
    pod: Pod,
    observed: ObservedPod,
    container: Container,
    statuses: dict[str, ContainerStatus],
    context: StatusContext,
    *,
    are_init: bool,
) -> None:
    """Show a container whose next start is pending as Waiting, with the reason of the last failed start."""
    found = observed.find(container.name)
    status = statuses[container.name]
    if are_init:
        is_done = found is not None and found.state is cri.ContainerState.EXITED and found.status.exit_code == 0
        if is_done and not is_sidecar(container):
            return
        is_lost = found is None and status.state.waiting is not None and not is_sidecar(container)
        if is_lost and any_regular_created(pod, observed):
            status.state = ContainerState(
                terminated=ContainerStateTerminated(
                    exit_code=0,
                    reason="Completed",
                    message="Unable to get init container status from container runtime and pod has been "
                    "initialized, treat it as exited normally",
                )
            )
            return
    if not needs_restart(container, pod, observed):
        return
    failure = context.failures.get(container.name)
    if failure is None:
        return
    if status.state.terminated is not None:
        status.last_state = status.state
    status.state = ContainerState(waiting=ContainerStateWaiting(reason=failure.reason, message=failure.message))


def _time(nanoseconds: int) -> str | None:
    return times.format_time(nanoseconds / _NANO) if nanoseconds else None

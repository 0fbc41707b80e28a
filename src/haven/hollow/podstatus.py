"""The status of a simulated Pod, as a kubelet reports the same situation. Pure.

Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-conditions
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from haven.api.core import v1 as core
from haven.api.core.podresources import qos_class
from haven.apimachinery import serialization, times
from haven.hollow.podstate import Container, End, PodState, State

__all__ = ["status_of"]

_OWN = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")


def status_of(state: PodState, now: float, *, host_ip: str) -> core.PodStatus:
    """Return the whole status; transition times move only with a condition's status."""
    pod = state.pod
    before = pod.status
    status = core.PodStatus(
        phase=state.phase,
        reason=state.reason,
        message=state.message,
        observed_generation=pod.metadata.generation,
        qos_class=before.qos_class or qos_class(pod),
        start_time=before.start_time or times.format_time(state.started_seconds),
        host_ip=host_ip,
        host_ips=[core.HostIP(ip=host_ip)],
        nominated_node_name=before.nominated_node_name,
        resource_claim_statuses=before.resource_claim_statuses,
        resize=before.resize,
        extended_resource_claim_status=before.extended_resource_claim_status,
    )
    ip = host_ip if pod.spec.host_network else state.ip
    status.pod_ip, status.pod_ips = ip, [core.PodIP(ip=ip)]
    status.init_container_statuses = [_container(item, pod) for item in state.init]
    status.container_statuses = sorted((_container(item, pod) for item in state.main), key=lambda item: item.name)
    status.ephemeral_container_statuses = [_container(item, pod) for item in state.ephemeral]
    status.conditions = _conditions(state, times.format_time(now))
    return status


def _container(item: Container, pod: core.Pod) -> core.ContainerStatus:
    spec = item.spec
    status = core.ContainerStatus(
        name=spec.name,
        image=spec.image,
        restart_count=max(item.restarts, 0),
        ready=item.ready,
        started=item.started,
        state=core.ContainerState(),
        allocated_resources=spec.resources.requests,
        resources=serialization.copy(spec.resources) if spec.resources != core.ResourceRequirements() else None,
    )
    if item.id:
        status.container_id = item.id
        status.image_id = f"{spec.image}@sha256:{hashlib.sha256(spec.image.encode()).hexdigest()}"
    if item.state is State.RUNNING:
        since = times.format_time(item.started_seconds)
        status.state.running = core.ContainerStateRunning(started_at=since)
    elif item.state is State.ENDED:
        assert item.end is not None
        status.state.terminated = _terminated(item.end)
    else:
        starting = "PodInitializing" if pod.spec.init_containers and not item.is_init else "ContainerCreating"
        status.state.waiting = core.ContainerStateWaiting(reason=item.reason or starting, message=item.message)
    if item.last_end is not None:
        status.last_state = core.ContainerState(terminated=_terminated(item.last_end))
    if item.is_init and not item.is_sidecar:
        status.ready = item.end is not None and item.end.exit_code == 0
    return status


def _terminated(end: End) -> core.ContainerStateTerminated:
    return core.ContainerStateTerminated(
        exit_code=end.exit_code,
        reason=end.reason,
        message=end.message,
        started_at=times.format_time(end.started_seconds),
        finished_at=times.format_time(end.finished_seconds),
        container_id=end.container_id,
    )


def _conditions(state: PodState, now: str) -> list[core.PodCondition]:
    pod = state.pod
    old = {item.type: item for item in pod.status.conditions}
    result = [serialization.copy(item) for item in pod.status.conditions if item.type not in _OWN]
    foreign = {item.type: item.status for item in result}

    def add(type_: str, verdict: tuple[str, str, str]) -> None:
        status, reason, message = verdict
        known = old.get(type_)
        same = known is not None and known.status == status
        result.append(
            core.PodCondition(
                type=type_,
                status=status,
                reason=reason,
                message=message,
                observed_generation=pod.metadata.generation,
                last_transition_time=known.last_transition_time if known is not None and same else now,
            )
        )

    add("PodReadyToStartContainers", ("False" if state.is_over or state.is_gone else "True", "", ""))
    add("Initialized", _initialized(state))
    containers = _containers_ready(state)
    add("Ready", _ready(pod, containers, foreign))
    add("ContainersReady", containers)
    add("PodScheduled", ("True", "", ""))
    return result


def _names(items: Sequence[Container]) -> str:
    return f"[{' '.join(item.spec.name for item in items)}]"


def _initialized(state: PodState) -> tuple[str, str, str]:
    if state.phase == "Succeeded":
        return "True", "PodCompleted", ""
    if any(item.restarts >= 0 for item in state.main):
        return "True", "", ""
    missing = [
        item
        for item in state.init
        if not (item.started if item.is_sidecar else item.end is not None and item.end.exit_code == 0)
    ]
    if not missing:
        return "True", "", ""
    return "False", "ContainersNotInitialized", f"containers with incomplete status: {_names(missing)}"


def _containers_ready(state: PodState) -> tuple[str, str, str]:
    if state.phase == "Succeeded":
        return "False", "PodCompleted", ""
    if state.phase == "Failed":
        return "False", "PodFailed", ""
    unready = [item for item in (*(i for i in state.init if i.is_sidecar), *state.main) if not item.ready]
    if unready:
        return "False", "ContainersNotReady", f"containers with unready status: {_names(unready)}"
    return "True", "", ""


def _ready(pod: core.Pod, containers: tuple[str, str, str], foreign: dict[str, str]) -> tuple[str, str, str]:
    if containers[0] != "True":
        return containers
    messages: list[str] = []
    for gate in pod.spec.readiness_gates:
        found = foreign.get(gate.condition_type)
        name = f'"{gate.condition_type}"'
        if found is None:
            messages.append(f"corresponding condition of pod readiness gate {name} does not exist.")
        elif found != "True":
            messages.append(f'the status of pod readiness gate {name} is not "True", but {found}')
    if messages:
        return "False", "ReadinessGatesNotReady", ", ".join(messages)
    return "True", "", ""

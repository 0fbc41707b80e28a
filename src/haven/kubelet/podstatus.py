"""Computes the API's PodStatus: phase, conditions, addresses, container statuses, readiness.

Pure; what upstream's kubelet reports for the same situation.
Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field

from haven.api.core.podresources import is_sidecar, pod_requests, qos_class
from haven.api.core.v1 import (
    Container,
    ContainerState,
    ContainerStateTerminated,
    ContainerStatus,
    HostIP,
    Pod,
    PodCondition,
    PodIP,
    PodStatus,
)
from haven.apimachinery import serialization
from haven.cri import interface as cri
from haven.kubelet.containerstatus import RESTARTING_ALL, StatusContext, container_statuses
from haven.kubelet.observation import ObservedPod
from haven.kubelet.podspec import (
    can_restart_all_containers,
    ephemeral_as_container,
    is_host_network,
    is_static,
    is_terminal,
    should_restart,
)
from haven.kubelet.podstate import ProbeResult, ProbeResults, sandbox_changed
from haven.kubelet.resources import pod_level_status

__all__ = [
    "KUBELET_CONDITIONS",
    "NodeFacts",
    "Verdict",
    "compute_status",
    "fill_transition_times",
    "pod_phase",
    "terminated_status",
]

KUBELET_CONDITIONS = frozenset(
    (
        "PodScheduled",
        "Ready",
        "Initialized",
        "ContainersReady",
        "PodReadyToStartContainers",
        "PodResizeInProgress",
        "PodResizePending",
        "AllContainersRestarting",
    )
)


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What the node adds to every pod's status."""

    host_ips: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The node's own decision that a pod is over: its phase, reason and message (Evicted, DeadlineExceeded…)."""

    phase: str
    reason: str
    message: str
    conditions: tuple[PodCondition, ...] = field(default_factory=tuple)


def compute_status(
    pod: Pod,
    observed: ObservedPod,
    previous: PodStatus,
    context: StatusContext,
    probes: ProbeResults,
    node: NodeFacts,
    *,
    is_terminal_now: bool = False,
    verdict: Verdict | None = None,
    resize_conditions: Sequence[PodCondition] = (),
) -> PodStatus:
    """Return the status to report. `is_terminal_now` says that no container will be started any more.

    `previous` is our last report, or the API's status when there is none. Transition times are left empty for
    `fill_transition_times`.
    """
    status = PodStatus(qos_class=pod.status.qos_class or qos_class(pod))
    status.pod_ips = [PodIP(ip=ip) for ip in order_ips(observed.ips, node.host_ips)]
    ephemeral = [ephemeral_as_container(item) for item in pod.spec.ephemeral_containers]
    init = pod.spec.init_containers
    status.container_statuses = container_statuses(
        pod, observed, pod.spec.containers, previous.container_statuses, context
    )
    status.init_container_statuses = container_statuses(
        pod, observed, init, previous.init_container_statuses, context, are_init=True
    )
    status.ephemeral_container_statuses = container_statuses(
        pod, observed, ephemeral, previous.ephemeral_container_statuses, context
    )
    status.allocated_resources = pod_requests(pod, overhead=False)
    status.resources = pod_level_status(pod)

    has_started = any(
        item.state in (cri.ContainerState.RUNNING, cri.ContainerState.EXITED)
        for item in observed.active()
        if any(item.name == container.name for container in pod.spec.containers)
    )
    statuses = [*status.container_statuses, *status.init_container_statuses]
    status.phase = pod_phase(pod, statuses, is_terminal_now=is_terminal_now, is_initialized=has_started)
    _keep_terminal_phase(pod, previous, status)
    if verdict is not None and not is_terminal(pod):
        status.phase, status.reason, status.message = verdict.phase, verdict.reason, verdict.message

    _fill_readiness(pod, status, probes)
    _fill_conditions(pod, observed, previous, status, context, verdict, resize_conditions)
    _fill_addresses(pod, status, previous, node)
    status.observed_generation = pod.metadata.generation
    status.start_time = previous.start_time or pod.status.start_time
    status.nominated_node_name = pod.status.nominated_node_name
    status.resource_claim_statuses = pod.status.resource_claim_statuses
    return status


def order_ips(ips: Sequence[str], host_ips: Sequence[str]) -> list[str]:
    """Return at most one address per family, the node's first family first."""
    first = ipaddress.ip_address(host_ips[0]).version if host_ips else 4
    parsed = [ipaddress.ip_address(ip) for ip in ips]
    result: list[str] = []
    for version in (first, 10 - first):
        result += [str(ip) for ip in parsed if ip.version == version][:1]
    return result


def _keep_terminal_phase(pod: Pod, previous: PodStatus, status: PodStatus) -> None:
    over = ("Failed", "Succeeded")
    if status.phase not in over:
        if previous.phase in over:
            status.phase = previous.phase
        elif pod.status.phase in over:
            status.phase = pod.status.phase
    if pod.status.phase in over:
        status.phase = pod.status.phase
    if status.phase == previous.phase:
        status.reason = previous.reason or pod.status.reason
        status.message = previous.message or pod.status.message


# Phase.


def pod_phase(pod: Pod, statuses: Sequence[ContainerStatus], *, is_terminal_now: bool, is_initialized: bool) -> str:
    """Return the phase that container statuses mean. `is_initialized`: a regular container of this sandbox started."""
    by_name = {status.name: status for status in statuses}
    pending_init, failed_init = _count_init(pod, by_name)
    if failed_init:
        return "Failed"
    pending_sidecars, running, waiting, unknown = _count_sidecars(pod, by_name)
    stopped = final = succeeded = 0
    for container in pod.spec.containers:
        status = by_name.get(container.name)
        if status is None:
            unknown += 1
        elif status.state.running is not None:
            running += 1
        elif status.state.terminated is not None:
            stopped += 1
            ended = status.state.terminated
            if not should_restart(container, pod, ended.exit_code) and ended.reason != RESTARTING_ALL:
                final += 1
            succeeded += ended.exit_code == 0
        elif status.state.waiting is not None:
            ended_before = status.last_state.terminated
            if ended_before is None:
                waiting += 1
            else:
                stopped += 1
                if not should_restart(container, pod, ended_before.exit_code) and ended_before.reason != RESTARTING_ALL:
                    final += 1
        else:
            unknown += 1
    if pending_init or (pending_sidecars and not is_initialized) or waiting:
        return "Pending"
    if running and not unknown:
        return "Running"
    if not running and stopped and not unknown:
        if is_terminal_now and not is_static(pod):
            return "Succeeded" if stopped == succeeded else "Failed"
        if stopped != final:
            return "Running"
        return "Succeeded" if stopped == succeeded else "Failed"
    return "Pending"


def _count_init(pod: Pod, by_name: dict[str, ContainerStatus]) -> tuple[int, int]:
    """Return how many plain init containers are still to come, and how many failed for good."""
    pending = failed = 0
    for container in pod.spec.init_containers:
        if is_sidecar(container):
            continue
        status = by_name.get(container.name)
        ended = None
        if status is not None and status.state.terminated is not None:
            ended = status.state.terminated
        elif status is not None and status.state.waiting is not None and status.last_state.terminated is not None:
            ended = status.last_state.terminated
        if ended is None:
            pending += 1
        elif ended.exit_code != 0 and not should_restart(container, pod, ended.exit_code):
            failed += ended.reason != RESTARTING_ALL
    return pending, failed


def _count_sidecars(pod: Pod, by_name: dict[str, ContainerStatus]) -> tuple[int, int, int, int]:
    """Return how many sidecars are not started, run, wait, and are unknown. Ended ones do not count."""
    pending = running = waiting = unknown = 0
    for container in pod.spec.init_containers:
        if not is_sidecar(container):
            continue
        status = by_name.get(container.name)
        if status is None:
            unknown += 1
        elif status.state.running is not None:
            pending += not status.started
            running += 1
        elif status.state.terminated is not None:
            continue
        elif status.state.waiting is not None:
            if status.last_state.terminated is None:
                pending += 1
                waiting += 1
        else:
            pending += 1
            unknown += 1
    return pending, running, waiting, unknown


# Readiness.


def _fill_readiness(pod: Pod, status: PodStatus, probes: ProbeResults) -> None:
    for container in pod.spec.containers:
        for item in status.container_statuses:
            if item.name == container.name:
                item.started = _is_started(container, item, probes)
                item.ready = item.started and _is_ready(container, item, probes)
    by_name = {item.name: item for item in status.init_container_statuses}
    for container in pod.spec.init_containers:
        item = by_name[container.name]
        item.started = _is_started(container, item, probes)
        if is_sidecar(container):
            item.ready = item.started and _is_ready(container, item, probes)
        else:
            item.ready = item.state.terminated is not None and item.state.terminated.exit_code == 0


def _raw_id(status: ContainerStatus) -> str:
    return status.container_id.partition("://")[2]


def _is_started(container: Container, status: ContainerStatus, probes: ProbeResults) -> bool:
    if status.state.running is None:
        return False
    if container.startup_probe is None:
        return True
    return probes.startup.get(_raw_id(status)) is ProbeResult.SUCCESS


def _is_ready(container: Container, status: ContainerStatus, probes: ProbeResults) -> bool:
    if status.state.running is None:
        return False
    if container.readiness_probe is None:
        return True
    return probes.readiness.get(_raw_id(status)) is ProbeResult.SUCCESS


# Conditions.


def _fill_conditions(
    pod: Pod,
    observed: ObservedPod,
    previous: PodStatus,
    status: PodStatus,
    context: StatusContext,
    verdict: Verdict | None,
    resize_conditions: Sequence[PodCondition],
) -> None:
    conditions = [serialization.copy(item) for item in pod.status.conditions if item.type not in KUBELET_CONDITIONS]
    conditions += [serialization.copy(item) for item in resize_conditions]
    disruption = next((item for item in previous.conditions if item.type == "DisruptionTarget"), None)
    added = list(verdict.conditions) if verdict else []
    for item in ([disruption] if disruption else []) + added:
        conditions = [other for other in conditions if other.type != item.type] + [serialization.copy(item)]
    generation = pod.metadata.generation

    def add(type_: str, value: str, reason: str = "", message: str = "") -> None:
        conditions.append(
            PodCondition(type=type_, status=value, reason=reason, message=message, observed_generation=generation)
        )

    all_statuses = [*status.init_container_statuses, *status.container_statuses]
    add("PodReadyToStartContainers", "False" if sandbox_changed(pod, observed)[0] else "True")
    add("Initialized", *_initialized(pod, status, all_statuses, previous))
    containers_ready = _containers_ready(pod, status, all_statuses)
    add("Ready", *_ready(pod, containers_ready, conditions))
    add("ContainersReady", *containers_ready)
    add("PodScheduled", "True")
    if can_restart_all_containers(pod):
        add("AllContainersRestarting", *_restarting(pod, observed, status, context))
    status.conditions = conditions


def _restarting(pod: Pod, observed: ObservedPod, status: PodStatus, context: StatusContext) -> tuple[str, ...]:
    if status.phase == "Succeeded":
        return "False", "PodCompleted"
    if status.phase == "Failed":
        return "False", "PodFailed"
    is_cleaned = all(
        observed.find(container.name) is None for container in (*pod.spec.init_containers, *pod.spec.containers)
    )
    if not context.restarting_all or is_cleaned:
        return "False", ""
    return "True", "RestartAllContainersStarted", "container exited with restart policy rule"


def _names(names: Sequence[str]) -> str:
    return f"[{' '.join(names)}]"


def _initialized(
    pod: Pod, status: PodStatus, statuses: Sequence[ContainerStatus], previous: PodStatus
) -> tuple[str, str, str]:
    by_name = {item.name: item for item in statuses}
    unknown: list[str] = []
    incomplete: list[str] = []
    for container in pod.spec.init_containers:
        item = by_name.get(container.name)
        if item is None:
            unknown.append(container.name)
        elif not (item.started if is_sidecar(container) else item.ready):
            incomplete.append(container.name)
    if status.phase == "Succeeded" and not unknown:
        return "True", "PodCompleted", ""
    regular = {container.name for container in pod.spec.containers}
    has_started = any(
        item.name in regular
        and (
            item.state.running is not None
            or item.state.terminated is not None
            or item.last_state.terminated is not None
        )
        for item in statuses
    )
    if has_started or not (unknown or incomplete):
        return "True", "", ""
    if any(item.type == "Initialized" and item.status == "True" for item in previous.conditions):
        return "True", "", ""
    messages = []
    if unknown:
        messages.append(f"containers with unknown status: {_names(unknown)}")
    if incomplete:
        messages.append(f"containers with incomplete status: {_names(incomplete)}")
    return "False", "ContainersNotInitialized", ", ".join(messages)


def _containers_ready(pod: Pod, status: PodStatus, statuses: Sequence[ContainerStatus]) -> tuple[str, str, str]:
    by_name = {item.name: item for item in statuses}
    unknown: list[str] = []
    unready: list[str] = []
    for container in (*(item for item in pod.spec.init_containers if is_sidecar(item)), *pod.spec.containers):
        item = by_name.get(container.name)
        if item is None:
            unknown.append(container.name)
        elif not item.ready:
            unready.append(container.name)
    if status.phase == "Succeeded" and not unknown:
        return "False", "PodCompleted", ""
    if status.phase == "Failed":
        return "False", "PodFailed", ""
    messages = []
    if unknown:
        messages.append(f"containers with unknown status: {_names(unknown)}")
    if unready:
        messages.append(f"containers with unready status: {_names(unready)}")
    if messages:
        return "False", "ContainersNotReady", ", ".join(messages)
    return "True", "", ""


def _ready(
    pod: Pod, containers_ready: tuple[str, str, str], conditions: Sequence[PodCondition]
) -> tuple[str, str, str]:
    if containers_ready[0] != "True":
        return containers_ready
    messages: list[str] = []
    for gate in pod.spec.readiness_gates:
        found = next((item for item in conditions if item.type == gate.condition_type), None)
        if found is None:
            messages.append(f'corresponding condition of pod readiness gate "{gate.condition_type}" does not exist.')
        elif found.status != "True":
            messages.append(
                f'the status of pod readiness gate "{gate.condition_type}" is not "True", but {found.status}'
            )
    if messages:
        return "False", "ReadinessGatesNotReady", ", ".join(messages)
    return "True", "", ""


def _fill_addresses(pod: Pod, status: PodStatus, previous: PodStatus, node: NodeFacts) -> None:
    if node.host_ips:
        status.host_ip = node.host_ips[0]
        status.host_ips = [HostIP(ip=ip) for ip in node.host_ips[:2]]
        if is_host_network(pod):
            status.pod_ips = [PodIP(ip=ip) for ip in node.host_ips[:2]]
    if not status.pod_ips and status.phase in ("Succeeded", "Failed"):
        # The address of a pod that is over stays readable, though it may be in use again.
        status.pod_ips = list(previous.pod_ips or pod.status.pod_ips)
    if status.pod_ips:
        status.pod_ip = status.pod_ips[0].ip


def fill_transition_times(status: PodStatus, previous: PodStatus, now: str) -> None:
    """Give each condition the time at which its status last changed, and the status its start time."""
    before = {item.type: item for item in previous.conditions}
    for condition in status.conditions:
        old = before.get(condition.type)
        if old is not None and old.status == condition.status and old.last_transition_time:
            condition.last_transition_time = old.last_transition_time
        elif condition.type in KUBELET_CONDITIONS or not condition.last_transition_time:
            condition.last_transition_time = now
    if status.start_time is None:
        status.start_time = now


def terminated_status(pod: Pod, status: PodStatus) -> PodStatus:
    """Return the last status of a pod of which nothing runs any more: every container ended, the phase is final."""
    result = serialization.copy(status)
    initialized = any(item.type == "Initialized" and item.status == "True" for item in status.conditions)
    if initialized:
        for item in result.container_statuses:
            _mark_lost(item)
    seen_started = False
    for item in reversed(result.init_container_statuses):
        # Those after the last that ever started did not fail; they never had their turn.
        seen_started |= item.state.running is not None or item.state.terminated is not None
        seen_started |= item.last_state.terminated is not None
        if seen_started:
            _mark_lost(item)
    if not is_static(pod) and result.phase not in ("Succeeded", "Failed"):
        result.phase = "Failed"
    return result


def _mark_lost(status: ContainerStatus) -> None:
    """Say of a container that nobody saw end that it failed; what is known of others stays."""
    if status.state.terminated is not None:
        return
    status.state = ContainerState(
        terminated=ContainerStateTerminated(
            exit_code=137,
            reason="ContainerStatusUnknown",
            message="The container could not be located when the pod was terminated",
        )
    )
    status.ready = False
    status.started = False

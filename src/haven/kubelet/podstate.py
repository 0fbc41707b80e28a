"""Decides what a running pod needs next: the difference between its spec and what the runtime shows, as actions.

Pure. The order of things is upstream's: a lost sandbox means starting over, init containers run one after the other,
sidecars once they started let the next one begin and are restarted for ever, regular containers follow.
Source: https://kubernetes.io/docs/concepts/workloads/pods/init-containers/ and .../sidecar-containers/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from haven.api.core.podresources import is_sidecar
from haven.api.core.v1 import Container, Pod, PodStatus
from haven.cri.interface import ContainerState, NamespaceMode, SandboxState
from haven.kubelet.observation import ObservedContainer, ObservedPod
from haven.kubelet.podspec import (
    container_hash,
    is_host_network,
    matching_restart_rule,
    pod_restarts_on_failure,
    should_restart,
)

__all__ = [
    "KillContainer",
    "KillReason",
    "PodActions",
    "ProbeResult",
    "ProbeResults",
    "any_regular_created",
    "compute_actions",
    "needs_restart",
    "restarts_all_containers",
    "sandbox_changed",
]


class ProbeResult(Enum):
    """What the last decisive run of a probe meant."""

    SUCCESS = "success"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class ProbeResults:
    """Probe results by container id; a container whose probe has not decided yet is missing."""

    startup: Mapping[str, ProbeResult] = field(default_factory=dict)
    liveness: Mapping[str, ProbeResult] = field(default_factory=dict)
    readiness: Mapping[str, ProbeResult] = field(default_factory=dict)


class KillReason(Enum):
    """Why a container is killed, where it matters for the grace period."""

    OTHER = "Unknown"
    STARTUP_PROBE = "StartupProbe"
    LIVENESS_PROBE = "LivenessProbe"
    RESTART_ALL = "RestartAllContainers"


@dataclass(frozen=True, slots=True)
class KillContainer:
    """Kill this container; `message` goes into the Killing event."""

    container_id: str
    name: str
    message: str
    reason: KillReason = KillReason.OTHER


@dataclass(slots=True)
class PodActions:
    """What to do, in this order: kill the pod or single containers, make a sandbox, start containers.

    Indexes are positions in the spec's lists.
    """

    kill_pod: bool = False
    create_sandbox: bool = False
    sandbox_id: str = ""
    attempt: int = 0
    kill: list[KillContainer] = field(default_factory=list)
    reset: list[KillContainer] = field(default_factory=list)
    """Containers to kill at once and remove, because the whole pod starts anew."""
    start_ephemeral: list[int] = field(default_factory=list)
    start_init: list[int] = field(default_factory=list)
    start: list[int] = field(default_factory=list)

    @property
    def is_nothing(self) -> bool:
        return not (
            self.kill_pod
            or self.create_sandbox
            or self.kill
            or self.reset
            or self.start_ephemeral
            or self.start_init
            or self.start
        )


def sandbox_changed(pod: Pod, observed: ObservedPod) -> tuple[bool, int, str]:
    """Return whether a new sandbox is needed, its attempt number, and the id of the present one."""
    newest = observed.sandbox
    if newest is None:
        return True, 0, ""
    ready = sum(sandbox.info.state is SandboxState.READY for sandbox in observed.sandboxes)
    following, sandbox_id = newest.info.attempt + 1, newest.info.id
    if ready > 1 or newest.info.state is not SandboxState.READY:
        return True, following, sandbox_id
    wanted = NamespaceMode.NODE if is_host_network(pod) else NamespaceMode.POD
    if newest.network is not wanted:
        return True, following, ""
    if not is_host_network(pod) and not newest.ips:
        return True, following, sandbox_id
    return False, newest.info.attempt, sandbox_id


def needs_restart(container: Container, pod: Pod, observed: ObservedPod) -> bool:
    """Return whether a container that is not running shall be started."""
    if pod.metadata.deletion_timestamp is not None:
        return False
    found = observed.find(container.name)
    if found is None:
        return True
    if found.state is ContainerState.RUNNING:
        return False
    if found.state is not ContainerState.EXITED:
        return True
    return should_restart(container, pod, found.status.exit_code)


def restarts_all_containers(pod: Pod, observed: ObservedPod, status: PodStatus) -> bool:
    """Return whether some container ended in a way that its rules answer with a restart of the whole pod."""
    if any(item.type == "AllContainersRestarting" and item.status == "True" for item in status.conditions):
        return True
    for container in (*pod.spec.init_containers, *pod.spec.containers):
        found = observed.find(container.name)
        if found is None or found.state is not ContainerState.EXITED:
            continue
        rule = matching_restart_rule(container, found.status.exit_code)
        if rule is not None and rule.action == "RestartAllContainers":
            return True
    return False


def any_regular_created(pod: Pod, observed: ObservedPod) -> bool:
    """Return whether a regular container exists, which means that initialization was over at some time."""
    return any(observed.find(container.name) is not None for container in pod.spec.containers)


def compute_actions(
    pod: Pod,
    observed: ObservedPod,
    probes: ProbeResults = ProbeResults(),
    *,
    restart_all: bool = False,
    resized: frozenset[str] = frozenset(),
) -> PodActions:
    """Return what brings the pod nearer to its spec; nothing if it is where it should be.

    `resized` has the ids of running containers whose new resources need a restart.
    """
    create, attempt, sandbox_id = sandbox_changed(pod, observed)
    actions = PodActions(kill_pod=create, create_sandbox=create, sandbox_id=sandbox_id, attempt=attempt)
    if restart_all:
        actions.kill_pod = actions.create_sandbox = False
        actions.reset = _containers_to_reset(pod, observed)
        return actions
    if create:
        _start_over(pod, observed, actions)
        return actions
    actions.start_ephemeral = [
        index
        for index, container in enumerate(pod.spec.ephemeral_containers)
        if observed.find(container.name) is None  # They are never restarted.
    ]
    is_initialized = _init_actions(pod, observed, probes, actions, resized)
    if actions.kill_pod or not is_initialized:
        return actions
    _regular_actions(pod, observed, probes, actions, resized)
    return actions


def _start_over(pod: Pod, observed: ObservedPod, actions: PodActions) -> None:
    if not pod_restarts_on_failure(pod) and actions.attempt != 0 and observed.containers:
        # It has run and must not run again: only clean up.
        actions.create_sandbox = False
        return
    to_start: list[int] = []
    for index, container in enumerate(pod.spec.containers):
        policy = container.restart_policy or pod.spec.restart_policy
        found = observed.find(container.name)
        has_succeeded = found is not None and found.state is ContainerState.EXITED and found.status.exit_code == 0
        if policy == "OnFailure" and has_succeeded:
            continue
        to_start.append(index)
    if not to_start and any_regular_created(pod, observed):
        actions.create_sandbox = False
        return
    if pod.spec.init_containers:
        actions.start_init = [0]
    else:
        actions.start = to_start


def _init_actions(
    pod: Pod, observed: ObservedPod, probes: ProbeResults, actions: PodActions, resized: frozenset[str]
) -> bool:
    """Add what init containers need; return whether regular containers may run.

    Goes from the last to the first, because those that completed may have been removed from the runtime.
    """
    containers = pod.spec.init_containers
    if not containers:
        return True
    is_initialized = any(
        found is not None and found.state in (ContainerState.CREATED, ContainerState.RUNNING)
        for found in (observed.find(container.name) for container in pod.spec.containers)
    )
    was_initialized = is_initialized
    last = len(containers) - 1
    for index in range(last, -1, -1):
        container = containers[index]
        found = observed.find(container.name)
        if found is None:
            if was_initialized and is_sidecar(container):
                actions.start_init.append(index)
            continue
        if was_initialized and not is_sidecar(container):
            continue
        if found.state is ContainerState.CREATED:
            actions.start_init.append(index)
        elif found.state is ContainerState.RUNNING:
            if is_sidecar(container) and _sidecar_is_up(container, found, probes, actions, index):
                if index == last:
                    is_initialized = True
                elif not was_initialized:
                    actions.start_init.append(index + 1)
                _check_running_sidecar(container, found, probes, actions, index, resized)
        elif is_sidecar(container):
            if found.state is ContainerState.UNKNOWN:
                actions.kill.append(_kill_unknown(container, found, "Init container"))
            actions.start_init.append(index)
        elif found.state is ContainerState.EXITED and found.status.exit_code == 0:
            if index == last:
                is_initialized = True
            else:
                actions.start_init.append(index + 1)
        else:
            is_unknown = found.state is ContainerState.UNKNOWN
            policy = container.restart_policy or pod.spec.restart_policy
            may_restart = policy != "Never" if is_unknown else needs_restart(container, pod, observed)
            if not may_restart:
                actions.kill_pod = True
                actions.start_init = []
                return False
            if is_unknown:
                actions.kill.append(_kill_unknown(container, found, "Init container"))
            actions.start_init.append(index)
        # Since this one exists, all before it were initialized once.
        was_initialized = True
    # Nothing was ever started: begin with the first.
    if not was_initialized:
        actions.start_init.append(0)
    actions.start_init = sorted(set(actions.start_init))
    return is_initialized


def _sidecar_is_up(
    container: Container, found: ObservedContainer, probes: ProbeResults, actions: PodActions, index: int
) -> bool:
    """Return whether a running sidecar counts as started; one whose startup probe failed is replaced."""
    if container.startup_probe is None:
        return True
    result = probes.startup.get(found.status.id)
    if result is ProbeResult.FAILURE:
        message = f"Init container {container.name} failed startup probe"
        actions.kill.append(KillContainer(found.status.id, container.name, message, KillReason.STARTUP_PROBE))
        actions.start_init.append(index)
    return result is ProbeResult.SUCCESS


def _check_running_sidecar(
    container: Container,
    found: ObservedContainer,
    probes: ProbeResults,
    actions: PodActions,
    index: int,
    resized: frozenset[str],
) -> None:
    if _is_changed(container, found):
        message = f"Init container {container.name} definition changed"
        actions.kill.append(KillContainer(found.status.id, container.name, message))
        actions.start_init.append(index)
    elif container.liveness_probe is not None and probes.liveness.get(found.status.id) is ProbeResult.FAILURE:
        message = f"Init container {container.name} failed liveness probe"
        actions.kill.append(KillContainer(found.status.id, container.name, message, KillReason.LIVENESS_PROBE))
        actions.start_init.append(index)
    elif found.status.id in resized:
        message = f"Init container {container.name} resize requires restart"
        actions.kill.append(KillContainer(found.status.id, container.name, message))
        actions.start_init.append(index)


def _regular_actions(
    pod: Pod, observed: ObservedPod, probes: ProbeResults, actions: PodActions, resized: frozenset[str]
) -> None:
    kept = 0
    for index, container in enumerate(pod.spec.containers):
        found = observed.find(container.name)
        if found is None or found.state is not ContainerState.RUNNING:
            if needs_restart(container, pod, observed):
                actions.start.append(index)
                if found is not None and found.state is ContainerState.UNKNOWN:
                    actions.kill.append(_kill_unknown(container, found, "Container"))
            continue
        # A probe's failure is answered by policy alone; rules speak about exit codes, and there is none yet.
        policy = container.restart_policy or pod.spec.restart_policy
        may_restart = policy != "Never"
        reason = KillReason.OTHER
        if _is_changed(container, found):
            message = f"Container {container.name} definition changed"
            may_restart = True
        elif probes.liveness.get(found.status.id) is ProbeResult.FAILURE:
            message, reason = f"Container {container.name} failed liveness probe", KillReason.LIVENESS_PROBE
        elif probes.startup.get(found.status.id) is ProbeResult.FAILURE:
            message, reason = f"Container {container.name} failed startup probe", KillReason.STARTUP_PROBE
        elif found.status.id in resized:
            message = f"Container {container.name} resize requires restart"
            may_restart = True
        else:
            kept += 1
            continue
        if may_restart:
            message += ", will be restarted"
            actions.start.append(index)
        actions.kill.append(KillContainer(found.status.id, container.name, message, reason))
    if kept == 0 and not actions.start:
        actions.kill_pod = True
        # Sidecars must not keep alive a pod whose work is done.
        actions.start_init = []


def _is_changed(container: Container, found: ObservedContainer) -> bool:
    return bool(found.hash) and found.hash != container_hash(container)


def _kill_unknown(container: Container, found: ObservedContainer, kind: str) -> KillContainer:
    message = f'{kind} is in "unknown" state, try killing it before restart'
    return KillContainer(found.status.id, container.name, message)


def _containers_to_reset(pod: Pod, observed: ObservedPod) -> list[KillContainer]:
    """Return every container, regular ones first; those that caused the restart last, so that a crash repeats it."""
    sources: list[KillContainer] = []
    others: list[KillContainer] = []
    for container in (*pod.spec.containers, *pod.spec.init_containers):
        for found in observed.containers:
            if found.name != container.name:
                continue
            item = KillContainer(found.status.id, container.name, "killing", KillReason.RESTART_ALL)
            rule = None
            if found.state is ContainerState.EXITED:
                rule = matching_restart_rule(container, found.status.exit_code)
            is_source = rule is not None and rule.action == "RestartAllContainers"
            (sources if is_source else others).append(item)
    return [*others, *sources]

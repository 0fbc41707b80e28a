"""Changes of CPU and memory of a running pod: what to update in place, what needs a restart. Pure.

Source: https://kubernetes.io/docs/tasks/configure-pod-container/resize-container-resources/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from haven.api.core.podresources import is_sidecar, pod_requests
from haven.api.core.v1 import Container, Pod, PodCondition, ResourceRequirements
from haven.apimachinery import serialization
from haven.apimachinery.quantity import Quantity
from haven.cri.interface import ContainerState, LinuxResources
from haven.kubelet.cgroups import CgroupLimits
from haven.kubelet.observation import ObservedPod
from haven.kubelet.podspec import should_restart
from haven.kubelet.resources import container_resources

__all__ = [
    "ResizePlan",
    "allocated_of_status",
    "allocation",
    "cannot_fit",
    "differs",
    "is_carried_out",
    "larger",
    "pending_condition",
    "plan",
    "progress_condition",
    "resize_message",
    "with_resources",
]

Allocation = Mapping[str, ResourceRequirements]


@dataclass(frozen=True, slots=True)
class ResizePlan:
    """Updates by container id, and containers that must be started anew for their change."""

    updates: Mapping[str, LinuxResources]
    restarts: frozenset[str]


def _resizable(pod: Pod) -> list[Container]:
    return [*pod.spec.containers, *(item for item in pod.spec.init_containers if is_sidecar(item))]


def allocation(pod: Pod) -> dict[str, ResourceRequirements]:
    """Return the resources of each container that a resize can change."""
    return {container.name: container.resources for container in _resizable(pod)}


def allocated_of_status(pod: Pod) -> dict[str, ResourceRequirements]:
    """Return what the last report says was allocated; for taking over a pod after a restart of this agent."""
    result = allocation(pod)
    for status in (*pod.status.container_statuses, *pod.status.init_container_statuses):
        if status.name in result and status.allocated_resources and status.resources is not None:
            limits = status.resources.limits or result[status.name].limits
            result[status.name] = ResourceRequirements(
                requests=status.allocated_resources, limits=limits, claims=result[status.name].claims
            )
    return result


def differs(pod: Pod, allocated: Allocation) -> bool:
    """Return whether the pod's spec asks for something else than is allocated."""
    return any(
        _numbers(container.resources) != _numbers(allocated[container.name])
        for container in _resizable(pod)
        if container.name in allocated
    )


def _numbers(resources: ResourceRequirements) -> tuple[dict[str, int], dict[str, int]]:
    return (
        {name: amount.nano for name, amount in resources.requests.items()},
        {name: amount.nano for name, amount in resources.limits.items()},
    )


def with_resources(pod: Pod, allocated: Allocation) -> Pod:
    """Return the pod as if its containers asked for what is allocated."""
    result = serialization.copy(pod)
    for container in _resizable(result):
        if container.name in allocated:
            container.resources = serialization.copy(allocated[container.name])
    return result


def cannot_fit(pod: Pod, others: Sequence[Pod], allocatable: Mapping[str, Quantity]) -> tuple[str, str] | None:
    """Return why the node cannot give the pod what it asks for: Infeasible (never) or Deferred (not now)."""
    requests = pod_requests(msgspec.structs.replace(pod, status=type(pod.status)()))
    for name in ("cpu", "memory"):
        capacity = allocatable.get(name)
        wanted = requests.get(name, Quantity.ZERO)
        if capacity is not None and wanted > capacity:
            numbers = (wanted.milli_value, capacity.milli_value) if name == "cpu" else (wanted.value, capacity.value)
            return (
                "Infeasible",
                f"Node didn't have enough capacity: {name}, requested: {numbers[0]}, capacity: {numbers[1]}",
            )
    for name in ("cpu", "memory"):
        capacity = allocatable.get(name)
        if capacity is None:
            continue
        used = Quantity.ZERO
        for other in others:
            used = used + pod_requests(other).get(name, Quantity.ZERO)
        wanted = requests.get(name, Quantity.ZERO)
        if used + wanted > capacity:
            numbers3 = (
                (wanted.milli_value, used.milli_value, capacity.milli_value)
                if name == "cpu"
                else (wanted.value, used.value, capacity.value)
            )
            return (
                "Deferred",
                f"Node didn't have enough resource: {name}, requested: {numbers3[0]}, used: {numbers3[1]}, "
                f"capacity: {numbers3[2]}",
            )
    return None


def pending_condition(pod: Pod, reason: str, message: str, now: str) -> PodCondition:
    """Return the condition of a resize that waits, or never can be."""
    return PodCondition(
        type="PodResizePending",
        status="True",
        reason=reason,
        message=message,
        observed_generation=pod.metadata.generation,
        last_transition_time=now,
    )


def progress_condition(pod: Pod, now: str) -> PodCondition:
    """Return the condition of a resize that has been granted and is being carried out."""
    return PodCondition(
        type="PodResizeInProgress",
        status="True",
        observed_generation=pod.metadata.generation,
        last_transition_time=now,
    )


def is_carried_out(pod: Pod, observed: ObservedPod, left: ResizePlan) -> bool:
    """Tell whether all containers run with their new resources; those that have ended for good do not matter."""
    if left.updates or left.restarts:
        return False
    for container in _resizable(pod):
        found = observed.find(container.name)
        if found is None or found.state is ContainerState.RUNNING:
            continue
        if found.state is not ContainerState.EXITED or should_restart(container, pod, found.status.exit_code):
            return False
    return True


def plan(pod: Pod, observed: ObservedPod, applied: Allocation, memory_capacity_bytes: int) -> ResizePlan:
    """Return how to bring running containers to the pod's resources. `applied` is what each (by id) got last."""
    updates: dict[str, LinuxResources] = {}
    restarts: set[str] = set()
    for container in _resizable(pod):
        found = observed.find(container.name)
        if found is None or found.state is not ContainerState.RUNNING:
            continue
        container_id = found.status.id
        known = applied.get(container_id)
        if known is not None and _numbers(known) == _numbers(container.resources):
            continue
        wanted = container_resources(pod, container, memory_capacity_bytes)
        actual = found.status.resources
        if actual is None:
            continue
        changes_cpu = wanted.cpu_shares != actual.cpu_shares or _quota(wanted) != _quota(actual)
        changes_memory = wanted.memory_limit_bytes != actual.memory_limit_bytes
        if known is None and not (changes_cpu or changes_memory):
            continue
        policies = {policy.resource_name: policy.restart_policy for policy in container.resize_policy}
        old = known or ResourceRequirements()
        needs_restart = any(
            policies.get(name) == "RestartContainer"
            and (_amount(old.requests, name), _amount(old.limits, name))
            != (_amount(container.resources.requests, name), _amount(container.resources.limits, name))
            for name in ("cpu", "memory")
        )
        if needs_restart:
            restarts.add(container_id)
        else:
            updates[container_id] = wanted
    return ResizePlan(updates, frozenset(restarts))


def _amount(amounts: Mapping[str, Quantity], name: str) -> int:
    return amounts.get(name, Quantity.ZERO).nano


def _quota(resources: LinuxResources) -> int:
    return max(resources.cpu_quota, 0)


def larger(current: CgroupLimits | None, wanted: CgroupLimits) -> CgroupLimits:
    """Return limits that leave room for both: a parent must never be smaller than its children on the way."""
    if current is None:
        return wanted

    def most(old: int | None, new: int | None) -> int | None:
        return None if old is None or new is None else max(old, new)

    return CgroupLimits(
        cpu_shares=most(current.cpu_shares, wanted.cpu_shares),
        cpu_quota=most(current.cpu_quota, wanted.cpu_quota),
        memory_bytes=most(current.memory_bytes, wanted.memory_bytes),
        pids_max=wanted.pids_max,
    )


def resize_message(pod: Pod, what: str) -> str:
    """Return the text of an event about a resize: `what` happened, and the resources asked for."""
    details: dict[str, Any] = {}
    for name, containers in (("initContainers", pod.spec.init_containers), ("containers", pod.spec.containers)):
        if containers:
            details[name] = [
                {"name": container.name, "resources": serialization.to_tree(container.resources)}
                for container in containers
            ]
    details["generation"] = pod.metadata.generation
    return f"Pod resize {what}: {msgspec.json.encode(details).decode()}"

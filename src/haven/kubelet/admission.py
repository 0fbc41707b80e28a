"""Decides whether the node takes a pod that the scheduler (or somebody else) bound to it. Pure.

A refused pod fails at once, with upstream's reason: its controller makes another, which the scheduler places anew.
Source: https://kubernetes.io/docs/concepts/scheduling-eviction/ (node-level admission)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from haven.api.core.nodeselection import matches_required
from haven.api.core.podresources import pod_requests
from haven.api.core.taints import NO_EXECUTE, untolerated
from haven.api.core.v1 import Node, Pod
from haven.apimachinery.quantity import Quantity
from haven.kubelet.criticalpreemption import request_of
from haven.kubelet.podspec import is_critical, is_static

__all__ = ["Refused", "admit", "shortages"]

_SAFE_SYSCTLS = frozenset(
    (
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_wmem",
    )
)


@dataclass(frozen=True, slots=True)
class Refused:
    """Why the node does not take a pod. `is_for_room`: it would if others went."""

    reason: str
    message: str
    is_for_room: bool = False


def admit(
    pod: Pod,
    active: Sequence[Pod],
    node: Node | None,
    allocatable: Mapping[str, Quantity],
    pressures: frozenset[str],
    allowed_unsafe_sysctls: Sequence[str] = (),
    *,
    is_shutting_down: bool = False,
) -> Refused | None:
    """Return why the node refuses the pod, None if it takes it. `active` is every other pod that may still run."""
    if is_shutting_down:
        return Refused("NodeShutdown", "Pod was rejected as the node is shutting down.")
    for check in (_pressure(pod, pressures), _sysctls(pod, allowed_unsafe_sysctls), _operating_system(pod)):
        if check is not None:
            return Refused(*check)
    shortage = _shortage_text(pod, active, allocatable)
    for check in (_node(pod, node), _ports(pod, active)):
        if check is not None:
            # What is wrong besides, no eviction mends; the missing room is still what is told first.
            return Refused(*(shortage or check))
    return Refused(*shortage, is_for_room=True) if shortage is not None else None


def shortages(pod: Pod, active: Sequence[Pod], allocatable: Mapping[str, Quantity]) -> dict[str, int]:
    """Return how much of which resource is missing for a pod: thousandths of CPUs, units of everything else."""
    names = sorted(pod_requests(pod), key=lambda item: (item not in ("cpu", "memory", "ephemeral-storage"), item))
    found = {}
    for name in ("pods", *names):
        capacity = allocatable.get(name)
        requested = request_of(pod, name)
        if capacity is None or requested <= 0:
            continue  # Extended resources of devices that are not registered are the scheduler's business.
        missing = requested + sum(request_of(other, name) for other in active) - _amount(name, capacity)
        if missing > 0:
            found[name] = missing
    return found


Refusal = tuple[str, str]


def _pressure(pod: Pod, pressures: frozenset[str]) -> Refusal | None:
    if not pressures or is_critical(pod):
        return None
    if pressures == {"MemoryPressure"}:
        tier_counts = pod_requests(pod)
        tolerated = any(
            item.key in ("node.kubernetes.io/memory-pressure", "") and item.operator in ("Exists", "")
            for item in pod.spec.tolerations
        )
        if tier_counts.get("memory") or tolerated:
            return None
    return "Evicted", f"The node had condition: [{', '.join(sorted(pressures))}]. "


def _sysctls(pod: Pod, allowed: Sequence[str]) -> Refusal | None:
    context = pod.spec.security_context
    for item in context.sysctls if context else []:
        name = item.name.replace("/", ".")
        is_allowed = name in _SAFE_SYSCTLS or any(
            name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1])) for pattern in allowed
        )
        if not is_allowed:
            return "SysctlForbidden", f'forbidden sysctl: "{item.name}" not allowlisted'
        if pod.spec.host_network and name.startswith("net."):
            return "SysctlForbidden", f'forbidden sysctl: "{item.name}" not allowed with host net enabled'
        if pod.spec.host_ipc and name.startswith(("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")):
            return "SysctlForbidden", f'forbidden sysctl: "{item.name}" not allowed with host ipc enabled'
    return None


def _operating_system(pod: Pod) -> Refusal | None:
    wanted = pod.spec.os.name if pod.spec.os else ""
    if wanted and wanted != "linux":
        return "PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"
    return None


def _shortage_text(pod: Pod, active: Sequence[Pod], allocatable: Mapping[str, Quantity]) -> Refusal | None:
    missing = shortages(pod, active, allocatable)
    if not missing:
        return None
    name = next(iter(missing))
    requested, total = request_of(pod, name), _amount(name, allocatable[name])
    used = sum(request_of(other, name) for other in active)
    return (
        f"OutOf{name}",
        f"Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {total}",
    )


def _amount(name: str, quantity: Quantity) -> int:
    """CPU counts in thousandths, everything else in units."""
    return quantity.milli_value if name == "cpu" else quantity.value


def _node(pod: Pod, node: Node | None) -> Refusal | None:
    if node is None:
        return None
    if not matches_required(pod.spec, node.metadata.name, node.metadata.labels):
        return "NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
    if pod.spec.node_name and pod.spec.node_name != node.metadata.name:
        return "NodeName", "Predicate NodeName failed: node(s) didn't match the requested node name"
    if not is_static(pod):
        taint = untolerated(node.spec.taints, pod.spec.tolerations, lambda item: item.effect == NO_EXECUTE)
        if taint is not None:
            return "TaintToleration", "Predicate TaintToleration failed: node(s) had untolerated taint"
    return None


def _ports(pod: Pod, active: Sequence[Pod]) -> Refusal | None:
    wanted = _host_ports(pod)
    if not wanted:
        return None
    taken = [port for other in active for port in _host_ports(other)]
    for ip, protocol, number in wanted:
        for other_ip, other_protocol, other_number in taken:
            same_address = ip == other_ip or "0.0.0.0" in (ip, other_ip)
            if number == other_number and protocol == other_protocol and same_address:
                return (
                    "NodePorts",
                    "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
                )
    return None


def _host_ports(pod: Pod) -> list[tuple[str, str, int]]:
    return [
        (port.host_ip or "0.0.0.0", port.protocol or "TCP", port.host_port)
        for container in (*pod.spec.containers, *pod.spec.init_containers)
        for port in container.ports
        if port.host_port
    ]

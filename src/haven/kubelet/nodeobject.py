"""Computes the Node object: registration, capacity, conditions, addresses. Pure; the runner reads and writes.

Source: https://kubernetes.io/docs/reference/node/node-status/
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from haven.api.core.v1 import (
    ContainerImage,
    DaemonEndpoint,
    Node,
    NodeAddress,
    NodeCondition,
    NodeDaemonEndpoints,
    NodeFeatures,
    NodeRuntimeHandler,
    NodeRuntimeHandlerFeatures,
    NodeSpec,
    NodeStatus,
    NodeSystemInfo,
    Taint,
)
from haven.apimachinery import meta, serialization
from haven.apimachinery.quantity import Format, Quantity
from haven.cri import interface as cri
from haven.kubelet.ociimage import architecture_name
from haven.kubelet.settings import Settings

__all__ = [
    "PRESSURE_EVENTS",
    "Health",
    "allocatable_of",
    "capacity_of",
    "conditions",
    "initial_node",
    "node_status",
    "report_differs",
]

_IMAGES_MAX = 50
_NAMES_PER_IMAGE_MAX = 5
_HEALTHY = {
    "MemoryPressure": ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    "DiskPressure": ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    "PIDPressure": ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
}
PRESSURE_EVENTS = {
    ("MemoryPressure", "True"): "NodeHasInsufficientMemory",
    ("MemoryPressure", "False"): "NodeHasSufficientMemory",
    ("DiskPressure", "True"): "NodeHasDiskPressure",
    ("DiskPressure", "False"): "NodeHasNoDiskPressure",
    ("PIDPressure", "True"): "NodeHasInsufficientPID",
    ("PIDPressure", "False"): "NodeHasSufficientPID",
}
"""The reason of the event that tells a condition's change."""
_PRESSED = {
    "MemoryPressure": ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
    "DiskPressure": ("KubeletHasDiskPressure", "kubelet has disk pressure"),
    "PIDPressure": ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
}


@dataclass(frozen=True, slots=True)
class Health:
    """What decides the conditions. Problems are texts, "" for none."""

    runtime_problem: str = ""
    network_problem: str = ""
    pleg_problem: str = ""
    pressures: frozenset[str] = frozenset()
    shutdown_problem: str = ""


def capacity_of(
    *, cpus: int, memory_bytes: int, disk_bytes: int, hugepages: Mapping[str, int], max_pods: int
) -> dict[str, Quantity]:
    """Return what the node has."""
    result = {
        "cpu": Quantity.of(cpus),
        "memory": Quantity.of(f"{memory_bytes // 1024}Ki"),
        "ephemeral-storage": Quantity.of(f"{disk_bytes // 1024}Ki"),
        "pods": Quantity.of(max_pods),
    }
    for size, amount in hugepages.items():
        result[f"hugepages-{Quantity.of(int(size), Format.BINARY_SI)}"] = Quantity.of(amount, Format.BINARY_SI)
    return result


def allocatable_of(
    capacity: Mapping[str, Quantity], reserved: Mapping[str, Quantity], *, memory_threshold: int, disk_threshold: int
) -> dict[str, Quantity]:
    """Return what pods may request: capacity without what is reserved and what eviction keeps free."""
    result: dict[str, Quantity] = {}
    kept = {"memory": memory_threshold, "ephemeral-storage": disk_threshold}
    huge = sum(amount.value for name, amount in capacity.items() if name.startswith("hugepages-"))
    for name, amount in capacity.items():
        left = amount - reserved.get(name, Quantity.ZERO)
        if name in kept:
            left = left - Quantity.of(kept[name], Format.BINARY_SI)
        if name == "memory":
            left = left - Quantity.of(huge, Format.BINARY_SI)
        result[name] = max(left, Quantity(0, amount.format))
    # Upstream writes disk as plain bytes here.
    disk = result.get("ephemeral-storage")
    if disk is not None:
        result["ephemeral-storage"] = Quantity.of(disk.value)
    return result


def conditions(health: Health, previous: Sequence[NodeCondition], now: str) -> list[NodeCondition]:
    """Return the node's conditions, in upstream's order; transition times move only with the status."""
    before = {item.type: item for item in previous}
    result: list[NodeCondition] = []

    def add(type_: str, is_true: bool, reason: str, message: str) -> None:
        status = "True" if is_true else "False"
        old = before.get(type_)
        since = old.last_transition_time if old is not None and old.status == status else now
        result.append(
            NodeCondition(
                type=type_,
                status=status,
                reason=reason,
                message=message,
                last_heartbeat_time=now,
                last_transition_time=since or now,
            )
        )

    own = {"Ready", *_HEALTHY}
    result += [serialization.copy(item) for item in previous if item.type not in own]
    for type_, healthy in _HEALTHY.items():
        is_pressed = type_ in health.pressures
        reason, message = _PRESSED[type_] if is_pressed else healthy
        add(type_, is_pressed, reason, message)
    found = (health.runtime_problem, health.network_problem, health.pleg_problem, health.shutdown_problem)
    problems = [text for text in found if text]
    if len(problems) == 1:
        add("Ready", False, "KubeletNotReady", problems[0])
    elif problems:
        add("Ready", False, "KubeletNotReady", f"[{', '.join(problems)}]")
    else:
        add("Ready", True, "KubeletReady", "kubelet is posting ready status")
    return result


def addresses(settings: Settings, host_ips: Sequence[str]) -> list[NodeAddress]:
    """Return the node's addresses and its name."""
    return [
        *(NodeAddress(type="InternalIP", address=ip) for ip in host_ips),
        NodeAddress(type="Hostname", address=settings.reported_hostname),
    ]


def images(found: Sequence[cri.Image]) -> list[ContainerImage]:
    """Return the largest images, digests before tags."""
    ordered = sorted(found, key=lambda image: (-image.size_bytes, image.id))
    result: list[ContainerImage] = []
    for image in ordered:
        names = [*image.repo_digests, *image.repo_tags][:_NAMES_PER_IMAGE_MAX]
        if names:
            result.append(ContainerImage(names=names, size_bytes=image.size_bytes))
    return result[:_IMAGES_MAX]


def runtime_handlers(handlers: Sequence[cri.HandlerFeatures]) -> list[NodeRuntimeHandler]:
    """Return what the runtime says of its handlers."""
    return [
        NodeRuntimeHandler(
            name=handler.name,
            features=NodeRuntimeHandlerFeatures(
                recursive_read_only_mounts=handler.recursive_read_only_mounts,
                user_namespaces=handler.user_namespaces,
            ),
        )
        for handler in handlers
    ]


def initial_node(settings: Settings, status: NodeStatus) -> Node:
    """Return the node as it is registered."""
    labels = {
        "beta.kubernetes.io/arch": architecture_name(),
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": architecture_name(),
        "kubernetes.io/hostname": settings.reported_hostname,
        "kubernetes.io/os": "linux",
        **settings.node_labels,
    }
    return Node(
        metadata=meta.ObjectMeta(
            name=settings.node_name,
            labels=labels,
            annotations={"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
        ),
        spec=NodeSpec(
            provider_id=settings.provider_id,
            taints=[Taint(key=key, value=value, effect=effect) for key, value, effect in settings.node_taints],
        ),
        status=status,
    )


def node_status(
    settings: Settings,
    previous: NodeStatus,
    *,
    capacity: Mapping[str, Quantity],
    allocatable: Mapping[str, Quantity],
    host_ips: Sequence[str],
    info: NodeSystemInfo,
    found_images: Sequence[cri.Image],
    features: cri.Features,
    supports_strict_groups: bool,
    health: Health,
    now: str,
) -> NodeStatus:
    """Return the status to report."""
    result = serialization.copy(previous)
    # Extended resources are reported by others, who need only say how much there is: pods may have all of it.
    kept = {name: amount for name, amount in previous.capacity.items() if name not in capacity and "/" in name}
    result.capacity = {**capacity, **kept}
    result.allocatable = {**allocatable, **kept}
    result.conditions = conditions(health, previous.conditions, now)
    result.addresses = addresses(settings, host_ips)
    result.daemon_endpoints = NodeDaemonEndpoints(kubelet_endpoint=DaemonEndpoint(port=settings.server_port))
    result.node_info = info
    result.images = images(found_images)
    result.runtime_handlers = runtime_handlers(features.handlers)
    result.features = NodeFeatures(supplemental_groups_policy=supports_strict_groups)
    return result


def report_differs(old: NodeStatus, new: NodeStatus) -> bool:
    """Return whether a status says something new, heartbeats aside."""
    return _without_heartbeats(old) != _without_heartbeats(new)


def _without_heartbeats(status: NodeStatus) -> bytes:
    plain = serialization.copy(status)
    for condition in plain.conditions:
        condition.last_heartbeat_time = None
    return serialization.encode(plain)


def first_family(ips: Sequence[str]) -> int:
    """Return 4 or 6, the family of the node's first address."""
    return ipaddress.ip_address(ips[0]).version if ips else 4

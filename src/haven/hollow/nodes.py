"""What a simulated node says of itself: its Node object and its lease. Pure.

Source: https://kubernetes.io/docs/reference/node/node-status/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from haven.api.coordination import v1 as coordination
from haven.api.core import v1 as core
from haven.apimachinery import meta, times
from haven.apimachinery.quantity import Quantity

__all__ = [
    "LEASE_NAMESPACE",
    "LEASE_SECONDS",
    "NodeSettings",
    "lease_object",
    "node_address",
    "node_object",
    "pod_address",
]

LEASE_NAMESPACE = "kube-node-lease"
LEASE_SECONDS = 40
_NODES_FROM = IPv4Address("172.30.0.1")
_PODS_FROM = IPv4Address("10.244.0.1")
_POD_ADDRESSES = 2**16 * 3
KUBELET_VERSION = "v1.36.0"


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """A node as a test wants it."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[core.Taint, ...] = ()
    capacity: Mapping[str, str] = field(default_factory=dict)
    """Beside or instead of the usual 16 cores, 64Gi and 110 Pods; extended resources too."""
    unschedulable: bool = False
    images: tuple[str, ...] = ()


def node_address(number: int) -> str:
    """Return the address of the n-th node; nobody listens there."""
    return str(_NODES_FROM + number)


def pod_address(number: int) -> str:
    """Return the n-th Pod's address; after some 200,000 Pods they come again."""
    return str(_PODS_FROM + number % _POD_ADDRESSES)


def node_object(settings: NodeSettings, number: int, now: float, *, port: int, ready: bool = True) -> core.Node:
    """Return the node as it registers."""
    time = times.format_time(now)
    amounts = {"cpu": "16", "memory": "64Gi", "ephemeral-storage": "100Gi", "pods": "110", **settings.capacity}
    capacity = {name: Quantity.of(amount) for name, amount in amounts.items()}
    labels = {
        "beta.kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": settings.name,
        "kubernetes.io/os": "linux",
        **settings.labels,
    }
    status = core.NodeStatus(
        capacity=capacity,
        allocatable=dict(capacity),
        conditions=node_conditions(time, time, ready=ready),
        addresses=[
            core.NodeAddress(type="InternalIP", address=node_address(number)),
            core.NodeAddress(type="Hostname", address=settings.name),
        ],
        daemon_endpoints=core.NodeDaemonEndpoints(kubelet_endpoint=core.DaemonEndpoint(port=port)),
        node_info=core.NodeSystemInfo(
            machine_id=f"{number:032x}",
            system_uuid=f"00000000-0000-4000-8000-{number:012x}",
            boot_id=f"00000000-0000-4000-9000-{number:012x}",
            kernel_version="6.1.0-hollow",
            os_image="Haven hollow node",
            container_runtime_version="hollow://1.0.0",
            kubelet_version=KUBELET_VERSION,
            operating_system="linux",
            architecture="amd64",
        ),
        images=[core.ContainerImage(names=[image], size_bytes=10_000_000) for image in settings.images],
    )
    return core.Node(
        metadata=meta.ObjectMeta(
            name=settings.name,
            labels=labels,
            annotations={"volumes.kubernetes.io/controller-managed-attach-detach": "true", **settings.annotations},
        ),
        spec=core.NodeSpec(
            taints=list(settings.taints),
            unschedulable=settings.unschedulable,
            provider_id=f"hollow://{settings.name}",
        ),
        status=status,
    )


def node_conditions(now: str, since: str, *, ready: bool) -> list[core.NodeCondition]:
    """Return the conditions of a node that is well, or whose kubelet is not."""
    healthy = (
        ("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    )
    result = [_condition(type_, "False", reason, message, now, since) for type_, reason, message in healthy]
    if ready:
        result.append(_condition("Ready", "True", "KubeletReady", "kubelet is posting ready status", now, since))
    else:
        message = "container runtime network not ready: the test says so"
        result.append(_condition("Ready", "False", "KubeletNotReady", message, now, since))
    return result


def _condition(type_: str, status: str, reason: str, message: str, now: str, since: str) -> core.NodeCondition:
    return core.NodeCondition(
        type=type_, status=status, reason=reason, message=message, last_heartbeat_time=now, last_transition_time=since
    )


def lease_object(node: core.Node, now: float) -> coordination.Lease:
    """Return the lease by which a node shows that it lives."""
    owner = meta.OwnerReference(api_version="v1", kind="Node", name=node.metadata.name, uid=node.metadata.uid)
    return coordination.Lease(
        metadata=meta.ObjectMeta(name=node.metadata.name, namespace=LEASE_NAMESPACE, owner_references=[owner]),
        spec=coordination.LeaseSpec(
            holder_identity=node.metadata.name,
            lease_duration_seconds=LEASE_SECONDS,
            renew_time=times.format_micro_time(now),
        ),
    )

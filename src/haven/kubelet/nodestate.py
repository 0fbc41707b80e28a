"""What the parts of this room share about the node: facts that one part finds out and the others read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from haven.api.core.v1 import Node, Service
from haven.apimachinery.quantity import Quantity
from haven.client.informer import Informer
from haven.cri import interface as cri
from haven.kubelet.podnetwork import ResolverSettings

__all__ = ["NodeState"]


@dataclass
class NodeState:
    """The node as it is known now. Owned by the node status loop, which alone changes it; pod workers read."""

    host_ips: tuple[str, ...] = ()
    memory_bytes: int = 0
    capacity: dict[str, Quantity] = field(default_factory=dict)
    allocatable: dict[str, Quantity] = field(default_factory=dict)
    node: Node | None = None
    network_problem: str = "container runtime status check may not have completed yet"
    runtime_problem: str = "container runtime status check may not have completed yet"
    features: cri.Features = cri.Features(container_events=False, runtime_config=False, systemd_cgroups=None)
    runtime_name: str = "containerd"
    runtime_version: str = ""
    supports_strict_groups: bool = False
    resolver: ResolverSettings = ResolverSettings()
    services: Informer[Service] | None = None
    pressures: frozenset[str] = frozenset()
    is_shutting_down: bool = False

    @property
    def visible_services(self) -> Sequence[Service]:
        """The services that environment variables tell of."""
        return self.services.list() if self.services is not None else ()

    @property
    def supports_image_volumes(self) -> bool:
        """Whether the runtime mounts images as volumes (containerd since 2.1, cri-o since 1.31)."""
        return image_volumes_supported(self.runtime_name, self.runtime_version)


def image_volumes_supported(name: str, version: str) -> bool:
    """Return whether this runtime mounts images; others ignore the request silently."""
    numbers = [part for part in version.lstrip("v").split(".")[:2] if part.isdigit()]
    if len(numbers) < 2:
        return False
    parsed = (int(numbers[0]), int(numbers[1]))
    return parsed >= {"containerd": (2, 1), "cri-o": (1, 31)}.get(name, (1_000_000, 0))

"""What the scheduler keeps of a Pod: its amounts as integers, its ports, its labels; made once per Pod."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from haven.api.core import v1 as core
from haven.api.core.podresources import is_sidecar, pod_requests
from haven.apimachinery import times
from haven.apimachinery.names import UID
from haven.apimachinery.quantity import Quantity

__all__ = ["ClaimUse", "HostPort", "PodInfo", "amounts_of"]

# A container that asks for nothing still uses something: these stand in when nodes are scored, never when filtered.
SCORED_CPU = Quantity.of_milli(100)
SCORED_MEMORY = Quantity.parse("200Mi")


class HostPort(NamedTuple):
    """A port that a Pod takes on its node; address "0.0.0.0" conflicts with every other."""

    protocol: str
    port: int
    address: str


class ClaimUse(NamedTuple):
    """A claim that a Pod mounts; that of an ephemeral volume is made for the Pod, under a name of the Pod's."""

    name: str
    is_ephemeral: bool


@dataclass(frozen=True, slots=True, eq=False)
class PodInfo:
    """A Pod as plugins see it. `amounts` are integers: milli-cores of cpu, bytes or counts of everything else."""

    pod: core.Pod
    uid: UID
    namespace: str
    name: str
    priority: int
    created_seconds: float
    amounts: dict[str, int]
    scored_cpu: int
    scored_memory: int
    host_ports: tuple[HostPort, ...]
    claims: tuple[ClaimUse, ...]

    @classmethod
    def of(cls, pod: core.Pod) -> PodInfo:
        """Read a Pod."""
        scored = pod_requests(pod, missing={"cpu": SCORED_CPU, "memory": SCORED_MEMORY})
        created = pod.metadata.creation_timestamp
        return cls(
            pod=pod,
            uid=pod.metadata.uid,
            namespace=pod.metadata.namespace,
            name=pod.metadata.name,
            priority=pod.spec.priority or 0,
            created_seconds=times.parse(created) if created else 0.0,
            amounts=amounts_of(pod_requests(pod)),
            scored_cpu=scored["cpu"].milli_value,
            scored_memory=scored["memory"].value,
            host_ports=_host_ports(pod.spec),
            claims=_claims(pod) if pod.spec.volumes else (),
        )

    @property
    def claim_places(self) -> list[str]:
        """Return the namespace/name of each claim that other Pods may use too."""
        return [f"{self.namespace}/{use.name}" for use in self.claims if not use.is_ephemeral]

    @property
    def is_terminating(self) -> bool:
        return self.pod.metadata.deletion_timestamp is not None


def amounts_of(resources: dict[str, Quantity]) -> dict[str, int]:
    """Return a resource list as integers."""
    return {name: amount.milli_value if name == "cpu" else amount.value for name, amount in resources.items()}


def _host_ports(spec: core.PodSpec) -> tuple[HostPort, ...]:
    sidecars = [container for container in spec.init_containers if is_sidecar(container)]
    return tuple(
        HostPort(port.protocol or "TCP", port.host_port, port.host_ip or "0.0.0.0")
        for container in (*spec.containers, *sidecars)
        for port in container.ports
        if port.host_port > 0
    )


def _claims(pod: core.Pod) -> tuple[ClaimUse, ...]:
    found = []
    for volume in pod.spec.volumes:
        if volume.persistent_volume_claim is not None:
            found.append(ClaimUse(volume.persistent_volume_claim.claim_name, is_ephemeral=False))
        elif volume.ephemeral is not None:
            found.append(ClaimUse(f"{pod.metadata.name}-{volume.name}", is_ephemeral=True))
    return tuple(found)

"""Give each node its share of the cluster's Pod addresses.

Source: https://kubernetes.io/docs/concepts/architecture/nodes/#node-controller (CIDR assignment)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network

from haven.api.core import v1 as core
from haven.api.scheme import resource_of
from haven.apimachinery.names import NamespacedName
from haven.client.interface import Patch, PatchType
from haven.controllers.actions import Change, Emit, Steps, Wiring, key_from
from haven.controllers.nodelifecycle import reference

__all__ = ["NodeIPAMController", "free_network"]

Network = IPv4Network | IPv6Network
MASK_V4, MASK_V6 = 24, 64


def free_network(cluster: Network, taken: Iterable[Network]) -> Network | None:
    """Return the lowest part of the cluster's network that overlaps with no other; None if all are taken."""
    prefix = max(cluster.prefixlen, MASK_V4 if cluster.version == 4 else MASK_V6)
    size = 1 << (cluster.max_prefixlen - prefix)
    first = int(cluster.network_address)
    count = 1 << (prefix - cluster.prefixlen)
    used: set[int] = set()
    for each in taken:
        if each.version == cluster.version and each.overlaps(cluster):
            start = max(int(each.network_address), first)
            end = min(int(each.broadcast_address), int(cluster.broadcast_address))
            used.update(range((start - first) // size, (end - first) // size + 1))
    for index in range(count):
        if index not in used:
            return ip_network((first + index * size, prefix))
    return None


class NodeIPAMController:
    """Keys are nodes. One worker: two must not give out the same network."""

    workers = 1

    def __init__(self, wiring: Wiring, *, cluster_networks: Sequence[Network]) -> None:
        self._wiring = wiring
        self._cluster_networks = tuple(cluster_networks)
        self._nodes = wiring.reader(core.Node)
        self._nodes.add_handler(self._changed)

    def _changed(self, old: core.Node | None, new: core.Node | None) -> None:
        if new is not None and not new.spec.pod_cidr:
            self._wiring.enqueue(key_from(new))
        elif new is None:
            for node in self._nodes.list():  # A network came free; somebody may be waiting for it.
                if not node.spec.pod_cidr:
                    self._wiring.enqueue(key_from(node))

    def sync(self, key: NamespacedName) -> Steps[None]:
        node = self._nodes.get(*key)
        if node is None or node.spec.pod_cidr:
            return
        taken = [ip_network(text) for each in self._nodes.list() for text in _networks_of(each)]
        found: list[str] = []
        for cluster in self._cluster_networks:
            free = free_network(cluster, taken)
            if free is None:
                message = f"Node {key.name} status is now: CIDRNotAvailable"
                yield Emit(reference(node), "Normal", "CIDRNotAvailable", message)
                return
            found.append(str(free))
        spec = {"podCIDR": found[0], "podCIDRs": found}
        yield Change(resource_of(core.Node), "", key.name, Patch(PatchType.STRATEGIC, {"spec": spec}))


def _networks_of(node: core.Node) -> list[str]:
    return node.spec.pod_cidrs or ([node.spec.pod_cidr] if node.spec.pod_cidr else [])

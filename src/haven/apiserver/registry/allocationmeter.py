"""How many cluster IPs and node ports are taken, and how taking them went, under upstream's metric names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address

from haven.metrics.families import Registry

__all__ = ["DYNAMIC", "STATIC", "AllocationMeter", "addresses_of"]

Network = IPv4Network | IPv6Network
STATIC, DYNAMIC = "static", "dynamic"
_ADDRESS, _PORT = "kube_apiserver_clusterip_allocator_", "kube_apiserver_nodeport_allocator_"


class AllocationMeter:
    """Counts. `taken` returns the cluster IPs that Services have; networks are shown once one was asked for."""

    def __init__(self, registry: Registry, taken: Callable[[], Iterable[str]]) -> None:
        self._registry = registry
        self._taken = taken
        self._networks: dict[str, Network] = {}
        registry.add_collector(self._collect)

    def address(self, network: Network, scope: str, seconds: float) -> None:
        """Count an address that was taken."""
        cidr = self._note(network)
        self._registry[_ADDRESS + "allocation_total"].child(cidr, scope).value += 1
        self._registry[_ADDRESS + "allocation_duration_seconds"].histogram(cidr).add(seconds)

    def no_address(self, network: Network, scope: str) -> None:
        """Count an address that could not be had."""
        self._registry[_ADDRESS + "allocation_errors_total"].child(self._note(network), scope).value += 1

    def port(self, scope: str, *, found: bool) -> None:
        """Count a node port that was taken or could not be had."""
        name = "allocation_total" if found else "allocation_errors_total"
        self._registry[_PORT + name].child(scope).value += 1

    def _note(self, network: Network) -> str:
        cidr = str(network)
        self._networks[cidr] = network
        return cidr

    def _collect(self) -> None:
        if not self._networks:
            return
        taken = [ip_address(text) for text in self._taken()]
        for cidr, network in self._networks.items():
            used = sum(1 for one in taken if one.version == network.version and one in network)
            self._registry[_ADDRESS + "allocated_ips"].set((cidr,), used)
            self._registry[_ADDRESS + "available_ips"].set((cidr,), max(0, addresses_of(network) - used))


def addresses_of(network: Network) -> int:
    """Return how many addresses there are for Services: not the network's own, nor IPv4's broadcast."""
    return network.num_addresses - (2 if network.version == 4 else 1)

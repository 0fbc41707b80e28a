"""From Services to what this node must do for each of their ports: plain values, compared to find changes.

Source: https://kubernetes.io/docs/reference/networking/virtual-ips/
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from haven.api.core import v1 as core
from haven.api.discovery import v1 as discovery
from haven.kubeproxy.endpoints import Node, Target, backends_of, for_cluster, for_node

__all__ = ["Family", "Plan", "PortKey", "ServicePort", "plan_service", "proxied"]

NOT_PROXIED_LABEL = "service.kubernetes.io/service-proxy-name"
HEADLESS_LABEL = "service.kubernetes.io/headless"


class Family(NamedTuple):
    """An address family by its names in Services, EndpointSlices and nftables."""

    ip_family: str
    address_type: str
    table: str


IPV4 = Family("IPv4", "IPv4", "ip")
IPV6 = Family("IPv6", "IPv6", "ip6")
FAMILIES = (IPV4, IPV6)


class PortKey(NamedTuple):
    """One port of one Service in one family."""

    namespace: str
    service: str
    protocol: str
    port: int
    family: Family


@dataclass(frozen=True, slots=True)
class ServicePort:
    """What the rules of one Service port say. `cluster` are all endpoints that may be used, `local` those here.

    Traffic from inside goes to `internal`; from outside to `cluster`, or to `local` when `external_local`.
    """

    key: PortKey
    cluster_ip: str
    external_ips: tuple[str, ...]
    load_balancer_ips: tuple[str, ...]
    source_ranges: tuple[str, ...]
    node_port: int
    affinity_seconds: int
    cluster: tuple[Target, ...]
    local: tuple[Target, ...]
    internal_local: bool
    external_local: bool

    @property
    def internal(self) -> tuple[Target, ...]:
        return self.local if self.internal_local else self.cluster

    @property
    def external(self) -> tuple[Target, ...]:
        return self.local if self.external_local else self.cluster


Plan = dict[PortKey, ServicePort]


def proxied(service: core.Service) -> bool:
    """Tell whether the proxy serves it: it has an address, and no other proxy claims it."""
    spec = service.spec
    if spec.type == "ExternalName" or spec.cluster_ip in ("", "None"):
        return False
    return NOT_PROXIED_LABEL not in service.metadata.labels and HEADLESS_LABEL not in service.metadata.labels


def plan_service(
    service: core.Service, slices: Sequence[discovery.EndpointSlice], node: Node, not_here: frozenset[str] = frozenset()
) -> Plan:
    """Return the ports of one Service; addresses in `not_here` are answered by the node itself."""
    plan: Plan = {}
    if not proxied(service):
        return plan
    spec = service.spec
    addresses = spec.cluster_ips or [spec.cluster_ip]
    affinity = 0
    if spec.session_affinity == "ClientIP":
        config = spec.session_affinity_config
        seconds = config.client_ip.timeout_seconds if config and config.client_ip else None
        affinity = seconds or 10800
    for address in addresses:
        family = _family(address)
        if address in not_here:
            continue
        for port in spec.ports:
            protocol = port.protocol or "TCP"
            key = PortKey(service.metadata.namespace, service.metadata.name, protocol, port.port, family)
            backends = backends_of(slices, port.name, protocol, family.address_type, node)
            plan[key] = ServicePort(
                key=key,
                cluster_ip=address,
                external_ips=_of_family(spec.external_ips, family),
                load_balancer_ips=_load_balancer_ips(service, family),
                source_ranges=_of_family(spec.load_balancer_source_ranges, family),
                node_port=port.node_port,
                affinity_seconds=affinity,
                cluster=for_cluster(backends, node),
                local=for_node(backends),
                internal_local=spec.internal_traffic_policy == "Local",
                external_local=spec.external_traffic_policy == "Local",
            )
    return plan


def _load_balancer_ips(service: core.Service, family: Family) -> tuple[str, ...]:
    if service.spec.type != "LoadBalancer":
        return ()
    ingress = service.status.load_balancer.ingress
    return _of_family([item.ip for item in ingress if item.ip and item.ip_mode != "Proxy"], family)


def _of_family(addresses: Iterable[str], family: Family) -> tuple[str, ...]:
    return tuple(sorted({address for address in addresses if _family(address) == family}))


def _family(address: str) -> Family:
    return IPV6 if ipaddress.ip_network(address.strip(), strict=False).version == 6 else IPV4

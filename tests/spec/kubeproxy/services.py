"""Services and EndpointSlices for the proxy's tests."""

from __future__ import annotations

from typing import Any

from haven.api.core import v1 as core
from haven.api.discovery import v1 as discovery
from haven.apimachinery import meta


def a_service(
    name: str = "web",
    *,
    cluster_ip: str = "10.96.0.50",
    node_port: int = 0,
    port: int = 80,
    protocol: str = "TCP",
    **spec: Any,
) -> core.Service:
    ports = [core.ServicePort(port=port, protocol=protocol, node_port=node_port, target_port=8080)]
    return core.Service(
        metadata=meta.ObjectMeta(name=name, namespace="default"),
        spec=core.ServiceSpec(
            type="NodePort" if node_port else "ClusterIP",
            cluster_ip=cluster_ip,
            cluster_ips=[cluster_ip],
            ports=ports,
            **spec,
        ),
    )


def an_endpoint(
    address: str,
    *,
    node: str = "n1",
    ready: bool | None = True,
    serving: bool | None = None,
    terminating: bool | None = None,
    zones: list[str] | None = None,
) -> discovery.Endpoint:
    hints = discovery.EndpointHints(for_zones=[discovery.ForZone(name=zone) for zone in zones]) if zones else None
    return discovery.Endpoint(
        addresses=[address],
        node_name=node,
        conditions=discovery.EndpointConditions(ready=ready, serving=serving, terminating=terminating),
        hints=hints,
    )


def a_slice(*endpoints: discovery.Endpoint, port: int = 8080, protocol: str = "TCP") -> discovery.EndpointSlice:
    return discovery.EndpointSlice(
        address_type="IPv4",
        endpoints=list(endpoints),
        ports=[discovery.EndpointPort(name="", port=port, protocol=protocol)],
    )

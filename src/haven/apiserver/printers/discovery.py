"""Rows of the group discovery.k8s.io."""

from __future__ import annotations

from typing import Any

from haven.api.discovery import v1 as discovery_v1
from haven.apiserver.printers.format import age, shortened

__all__ = ["ROWS"]


def _endpoint_slice(item: discovery_v1.EndpointSlice, now: float) -> list[Any]:
    addresses = [address for endpoint in item.endpoints or () for address in endpoint.addresses or ()]
    return [
        item.metadata.name,
        item.address_type,
        shortened([_port(port) for port in item.ports or ()]),
        shortened(addresses),
        age(item.metadata.creation_timestamp, now),
    ]


def _port(port: discovery_v1.EndpointPort) -> str:
    if port.port is not None:
        return str(port.port)
    return "*" if port.name is None else port.name


ROWS = {"EndpointSlice": _endpoint_slice}

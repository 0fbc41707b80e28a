"""Which endpoints of a Service traffic on this node goes to.

Ready endpoints are used; if none is ready, those that still serve while they terminate. Hints of the EndpointSlices
keep traffic in the zone or on the node if every endpoint has one and one is for us; a Local policy keeps it on the
node always.
Source: https://kubernetes.io/docs/concepts/services-networking/service-traffic-policy/, KEP-1669, KEP-2433, KEP-3015.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from haven.api.discovery import v1 as discovery

__all__ = ["Backend", "Node", "Target", "backends_of", "for_cluster", "for_node"]


class Target(NamedTuple):
    """Where a packet is sent."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Backend:
    """One endpoint of one port, as this node sees it."""

    target: Target
    ready: bool
    serving: bool
    terminating: bool
    is_local: bool
    zone_hints: frozenset[str] | None
    node_hints: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Node:
    """What the proxy must know of its own node."""

    name: str
    zone: str = ""


def backends_of(
    slices: Iterable[discovery.EndpointSlice], port_name: str, protocol: str, address_type: str, node: Node
) -> list[Backend]:
    """Return a port's endpoints of one address family, sorted and each once."""
    found: dict[Target, Backend] = {}
    for item in slices:
        if item.address_type != address_type:
            continue
        for port in item.ports or ():
            if (port.name or "") != port_name or (port.protocol or "TCP") != protocol or not port.port:
                continue
            for endpoint in item.endpoints or ():
                if not endpoint.addresses:
                    continue
                target = Target(endpoint.addresses[0], port.port)
                known = found.get(target)
                # While a Pod moves between slices it is in two: the one that says ready wins.
                if known is None or not known.ready:
                    found[target] = _backend(endpoint, target, node)
    return [found[target] for target in sorted(found)]


def _backend(endpoint: discovery.Endpoint, target: Target, node: Node) -> Backend:
    conditions = endpoint.conditions
    ready = conditions.ready is not False  # Unknown counts as ready, for slices that people write by hand.
    serving = conditions.serving if conditions.serving is not None else ready
    hints = endpoint.hints
    return Backend(
        target=target,
        ready=ready,
        serving=serving,
        terminating=bool(conditions.terminating),
        is_local=endpoint.node_name == node.name,
        zone_hints=frozenset(zone.name for zone in hints.for_zones) if hints and hints.for_zones else None,
        node_hints=frozenset(item.name for item in hints.for_nodes) if hints and hints.for_nodes else None,
    )


def for_cluster(backends: Sequence[Backend], node: Node) -> tuple[Target, ...]:
    """Return the targets of the Cluster policy."""
    ready = [backend for backend in backends if backend.ready]
    if ready:
        return tuple(backend.target for backend in _hinted(ready, node))
    return tuple(backend.target for backend in backends if backend.serving and backend.terminating)


def for_node(backends: Sequence[Backend]) -> tuple[Target, ...]:
    """Return the targets of the Local policy."""
    local = [backend for backend in backends if backend.is_local]
    ready = tuple(backend.target for backend in local if backend.ready)
    return ready or tuple(backend.target for backend in local if backend.serving and backend.terminating)


def _hinted(ready: list[Backend], node: Node) -> list[Backend]:
    if all(backend.node_hints is not None for backend in ready):
        mine = [backend for backend in ready if backend.node_hints and node.name in backend.node_hints]
        if mine:
            return mine
    if node.zone and all(backend.zone_hints is not None for backend in ready):
        mine = [backend for backend in ready if backend.zone_hints and node.zone in backend.zone_hints]
        if mine:
            return mine
    return ready

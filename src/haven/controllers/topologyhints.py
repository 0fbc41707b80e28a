"""Share a Service's endpoints out among zones, by how much CPU the nodes of each have.

An endpoint is meant for its own zone; zones with more than their share give some to those with less. Where nodes tell
too little, or a zone would be overloaded by more than a fifth, there are no hints at all. Pure.
Source: https://kubernetes.io/docs/concepts/services-networking/topology-aware-routing/
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from haven.api.core import v1 as core
from haven.api.discovery import v1 as discovery
from haven.apimachinery import serialization

__all__ = ["DISABLED", "ENABLED", "Unfit", "is_overloaded", "share_out", "wants_hints", "without_hints", "zone_shares"]

ENABLED = "Topology Aware Hints has been enabled"
DISABLED = "Topology Aware Hints has been disabled"
OVERLOAD_MAX = 0.2
ZONE = "topology.kubernetes.io/zone"
_MODES = ("service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode")
_EXCLUDED = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")


class Unfit(Exception):
    """There can be no hints; the message says why."""


@dataclass(frozen=True, slots=True)
class _Share:
    minimum: int
    maximum: int
    desired: float


def wants_hints(service: core.Service) -> bool:
    """Tell whether a Service's annotations ask for hints by zone."""
    annotations = service.metadata.annotations
    mode = next((annotations[name] for name in _MODES if name in annotations), "")
    return mode in ("Auto", "auto")


def zone_shares(nodes: Iterable[core.Node]) -> dict[str, float]:
    """Return the part of the CPU of all ready nodes that each zone has; {} where that does not tell enough."""
    millicores: Counter[str] = Counter()
    for node in nodes:
        if any(label in node.metadata.labels for label in _EXCLUDED) or not _is_ready(node):
            continue
        zone, cpu = node.metadata.labels.get(ZONE), node.status.allocatable.get("cpu")
        if not zone or cpu is None or cpu.milli_value == 0:
            return {}
        millicores[zone] += cpu.milli_value
    if len(millicores) < 2:
        return {}
    total = sum(millicores.values())
    return {zone: amount / total for zone, amount in sorted(millicores.items())}


def _is_ready(node: core.Node) -> bool:
    return any(each.type == "Ready" and each.status == "True" for each in node.status.conditions)


def is_overloaded(endpoints: Mapping[str, int], shares: Mapping[str, float]) -> bool:
    """Tell whether some zone has too few of the endpoints, given the shares that zones have now."""
    if not endpoints:
        return False
    total = sum(endpoints.values())
    return not shares or any(endpoints.get(zone, 0) < _least(total * share) for zone, share in shares.items())


def _least(desired: float) -> int:
    return math.ceil(desired * (1 / (1 + OVERLOAD_MAX)))


def without_hints(unchanged: Iterable[discovery.EndpointSlice]) -> list[discovery.EndpointSlice]:
    """Return copies of those slices that had hints, without them."""
    changed = [
        serialization.copy(each) for each in unchanged if any(one.hints is not None for one in each.endpoints or ())
    ]
    _clear(changed)
    return changed


def _clear(changing: Iterable[discovery.EndpointSlice]) -> None:
    for each in changing:
        for endpoint in each.endpoints or ():
            endpoint.hints = None


def share_out(
    changing: Sequence[discovery.EndpointSlice],
    unchanged: Sequence[discovery.EndpointSlice],
    shares: Mapping[str, float],
) -> tuple[list[discovery.EndpointSlice], dict[str, int]]:
    """Give hints to the endpoints of slices that are written anyway; raise Unfit, with no hints left in them.

    Return copies of unchanged slices whose hints no longer do, and how many endpoints each zone gets.
    """
    try:
        return _share_out(changing, unchanged, shares)
    except Unfit:
        _clear(changing)
        raise


def _share_out(
    changing: Sequence[discovery.EndpointSlice],
    unchanged: Sequence[discovery.EndpointSlice],
    shares: Mapping[str, float],
) -> tuple[list[discovery.EndpointSlice], dict[str, int]]:
    ready = sum(_is_ready_endpoint(one) for each in (*changing, *unchanged) for one in each.endpoints or ())
    allocations = _allocations(shares, ready)
    given: Counter[str] = Counter()
    stale = []
    for each in unchanged:
        held = _held(each, given, allocations)
        if held is None:
            stale.append(serialization.copy(each))
        else:
            given.update(held)
    endpoints = [one for each in (*changing, *stale) for one in each.endpoints or () if _is_ready_endpoint(one)]
    for one in endpoints:
        if not one.zone:
            raise Unfit("One or more endpoints do not have a zone specified")
        given[one.zone] += 1
        one.hints = _for_zone(one.zone)
    giving, receiving = _moves(allocations, given)
    for one in endpoints:
        taker = next((zone for zone in sorted(receiving) if receiving[zone]), None)
        if taker is None:
            break
        if one.zone and giving[one.zone]:
            one.hints = _for_zone(taker)
            giving[one.zone] -= 1
            receiving[taker] -= 1
            given[taker] += 1
            given[one.zone] -= 1
    if not given:
        raise Unfit("No hints allocated for zones")
    return stale, dict(given)


def _for_zone(zone: str) -> discovery.EndpointHints:
    return discovery.EndpointHints(for_zones=[discovery.ForZone(name=zone)])


def _is_ready_endpoint(endpoint: discovery.Endpoint) -> bool:
    return bool(endpoint.conditions.ready)


def _allocations(shares: Mapping[str, float], endpoints: int) -> dict[str, _Share]:
    if not shares:
        raise Unfit("Insufficient Node information: allocatable CPU or zone not specified on one or more nodes")
    count = f"({endpoints} endpoints, {len(shares)} zones)"
    if len(shares) > endpoints:
        raise Unfit(f"Insufficient number of endpoints {count}")
    least = {zone: _least(share * endpoints) for zone, share in shares.items()}
    spare = endpoints - sum(least.values())
    if spare < 0:
        text = "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold"
        raise Unfit(f"{text} {count}")
    return {
        zone: _Share(least[zone], least[zone] + spare, max(share * endpoints, float(least[zone])))
        for zone, share in shares.items()
    }


def _held(
    each: discovery.EndpointSlice, given: Mapping[str, int], allocations: Mapping[str, _Share]
) -> Counter[str] | None:
    """Return the hints that an unchanged slice has by zone, None if they have to be given anew."""
    held: Counter[str] = Counter()
    for one in each.endpoints or ():
        if not _is_ready_endpoint(one):
            continue
        zones = one.hints.for_zones if one.hints is not None else []
        if not zones or any(zone.name not in allocations for zone in zones):
            return None
        held.update(zone.name for zone in zones)
    if any(count + given.get(zone, 0) > allocations[zone].maximum for zone, count in held.items()):
        return None
    return held


def _moves(allocations: Mapping[str, _Share], given: Mapping[str, int]) -> tuple[Counter[str], Counter[str]]:
    """Return how many endpoints each zone gives away and gets; half an endpoint is not moved."""
    excess = {zone: given.get(zone, 0) - each.desired for zone, each in allocations.items()}
    surplus = {zone: amount for zone, amount in excess.items() if amount > 0}
    lack = {zone: -amount for zone, amount in excess.items() if amount < 0}
    giving: Counter[str] = Counter()
    receiving: Counter[str] = Counter()
    while surplus and lack:
        giver, taker = max(surplus, key=surplus.__getitem__), max(lack, key=lack.__getitem__)
        if min(surplus[giver], lack[taker]) < 0.5 or max(surplus[giver], lack[taker]) < 1.0:
            break
        giving[giver] += 1
        receiving[taker] += 1
        surplus[giver] -= 1
        lack[taker] -= 1
    return giving, receiving

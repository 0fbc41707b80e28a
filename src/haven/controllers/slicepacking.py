"""Packing endpoints into EndpointSlices with as few writes as possible.

Pure. A slice that stays as it is costs nothing; every change is sent to every node. So endpoints stay where they are,
new ones fill slices that change anyway, then one with room, then new slices.
Source: https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/#distribution-of-endpointslices
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from haven.api.discovery import v1 as discovery
from haven.apimachinery import serialization

__all__ = ["PortsKey", "SlicePlan", "endpoint_key", "is_same_endpoint", "pack", "ports_key", "recycle"]

PortsKey = tuple[tuple[str, int, str, str], ...]


@dataclass(slots=True)
class SlicePlan:
    """What to write. Slices to update are copies with their new content; those to create have no name yet."""

    create: list[discovery.EndpointSlice] = field(default_factory=list)
    update: list[discovery.EndpointSlice] = field(default_factory=list)
    delete: list[discovery.EndpointSlice] = field(default_factory=list)

    def add(self, other: SlicePlan) -> None:
        """Take over another plan's parts."""
        self.create += other.create
        self.update += other.update
        self.delete += other.delete


def ports_key(ports: Sequence[discovery.EndpointPort] | None) -> PortsKey:
    """Return what tells two lists of ports apart, whatever their order."""
    return tuple(sorted((p.name or "", p.port or 0, p.protocol or "", p.app_protocol or "") for p in ports or ()))


def endpoint_key(endpoint: discovery.Endpoint) -> tuple[object, ...]:
    """Return an endpoint's identity: where and whose it is, not how it is."""
    target = endpoint.target_ref
    place = (target.namespace, target.name) if target is not None else ("", "")
    return (*sorted(endpoint.addresses or ()), endpoint.hostname or "", *place)


def is_same_endpoint(one: discovery.Endpoint, other: discovery.Endpoint) -> bool:
    """Tell whether two endpoints with the same identity are in the same state; hints do not count."""
    return (
        one.node_name == other.node_name
        and one.zone == other.zone
        and one.conditions == other.conditions
        and (one.target_ref.uid if one.target_ref else "") == (other.target_ref.uid if other.target_ref else "")
    )


def pack(
    existing: Sequence[discovery.EndpointSlice],
    desired: Sequence[discovery.Endpoint],
    new_slice: Callable[[], discovery.EndpointSlice],
    labels: Mapping[str, str],
    endpoints_max: int,
) -> SlicePlan:
    """Return how the slices of one list of ports come to hold the desired endpoints."""
    left = {endpoint_key(each): each for each in desired}
    unchanged: list[discovery.EndpointSlice] = []
    changed: list[discovery.EndpointSlice] = []
    plan = SlicePlan()
    for each in existing:
        before = each.endpoints or []
        kept: list[discovery.Endpoint] = []
        is_same = True
        for endpoint in before:
            wanted = left.pop(endpoint_key(endpoint), None)
            if wanted is not None:
                kept.append(wanted)
                is_same = is_same and is_same_endpoint(wanted, endpoint)
        if is_same and len(kept) == len(before):
            if each.metadata.labels == labels:
                unchanged.append(each)
            else:
                changed.append(_with(each, before, labels))
        elif kept:
            changed.append(_with(each, kept, labels))
        else:
            plan.delete.append(each)
    waiting = list(left.values())
    for each in sorted(changed, key=lambda slice: (-len(slice.endpoints or ()), slice.metadata.name)):
        waiting = _fill(each, waiting, endpoints_max)
    while waiting:
        roomy = _with_room(unchanged, len(waiting), endpoints_max)
        if roomy is None:
            target = new_slice()
            plan.create.append(target)
        else:
            unchanged.remove(roomy)
            target = _with(roomy, roomy.endpoints or [], labels)
            changed.append(target)
        waiting = _fill(target, waiting, endpoints_max)
    plan.update += changed
    return plan


def recycle(plan: SlicePlan) -> SlicePlan:
    """Return a plan that rewrites slices instead of deleting them and creating others."""
    create, update, delete = list(plan.create), list(plan.update), []
    for doomed in plan.delete:
        match = next((each for each in create if each.address_type == doomed.address_type), None)
        if match is None:
            delete.append(doomed)
            continue
        create.remove(match)
        reborn = serialization.copy(doomed)
        reborn.metadata.labels = match.metadata.labels
        reborn.metadata.owner_references = match.metadata.owner_references
        reborn.endpoints, reborn.ports = match.endpoints, match.ports
        update.append(reborn)
    return SlicePlan(create, update, delete)


def _with(
    each: discovery.EndpointSlice, endpoints: Sequence[discovery.Endpoint], labels: Mapping[str, str]
) -> discovery.EndpointSlice:
    result = serialization.copy(each)
    result.endpoints = list(endpoints)
    result.metadata.labels = dict(labels)
    return result


def _fill(
    target: discovery.EndpointSlice, waiting: list[discovery.Endpoint], endpoints_max: int
) -> list[discovery.Endpoint]:
    room = max(endpoints_max - len(target.endpoints or ()), 0)
    target.endpoints = [*(target.endpoints or ()), *waiting[:room]]
    return waiting[room:]


def _with_room(
    slices: Sequence[discovery.EndpointSlice], count: int, endpoints_max: int
) -> discovery.EndpointSlice | None:
    """Return the slice that these endpoints fill best; None if they fit nowhere."""
    fitting = [each for each in slices if len(each.endpoints or ()) + count <= endpoints_max]
    if count >= endpoints_max or not fitting:
        return None
    return max(fitting, key=lambda each: (len(each.endpoints or ()), each.metadata.name))

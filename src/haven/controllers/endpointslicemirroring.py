"""Mirror Endpoints that people write by hand (Services without a selector) into EndpointSlices.

Source: https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/#endpointslice-mirroring
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from haven.api.core import v1 as core
from haven.api.discovery import v1 as discovery
from haven.api.scheme import resource_of
from haven.apimachinery import meta
from haven.apimachinery.names import NamespacedName
from haven.client.owner import controller_reference
from haven.controllers.actions import Delete, Emit, Steps, Wiring, key_from
from haven.controllers.endpointslice import index_by_service, write_slices
from haven.controllers.portorder import slice_port_by_hash
from haven.controllers.serviceendpoints import MANAGED_BY, SERVICE_NAME, TRIGGER_TIME
from haven.controllers.slicepacking import PortsKey, SlicePlan, endpoint_key, is_same_endpoint, ports_key, recycle

__all__ = ["EndpointSliceMirroringController", "plan_mirror"]

MANAGER = "endpointslicemirroring-controller.k8s.io"
SKIP_MIRROR = "endpointslice.kubernetes.io/skip-mirror"
LEADER = "control-plane.alpha.kubernetes.io/leader"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
ADDRESSES_PER_SUBSET_MAX = 1000

_Key = tuple[str, PortsKey]


def _endpoint_of(address: core.EndpointAddress, *, ready: bool) -> tuple[str, discovery.Endpoint] | None:
    try:
        parsed = ipaddress.ip_address(address.ip)
    except ValueError:
        return None
    return f"IPv{parsed.version}", discovery.Endpoint(
        addresses=[str(parsed)],
        conditions=discovery.EndpointConditions(ready=ready),
        hostname=address.hostname or None,
        target_ref=address.target_ref,
        node_name=address.node_name,
    )


def plan_mirror(endpoints: core.Endpoints, existing: Sequence[discovery.EndpointSlice]) -> tuple[SlicePlan, int, int]:
    """Return what to write, how many addresses are invalid, and how many were left out for being too many."""
    wanted: dict[_Key, tuple[list[discovery.EndpointPort], list[discovery.Endpoint]]] = {}
    invalid = skipped = 0
    for subset in endpoints.subsets:
        ports = [
            discovery.EndpointPort(
                name=port.name, port=port.port, protocol=port.protocol, app_protocol=port.app_protocol
            )
            for port in subset.ports
        ]
        ports.sort(key=slice_port_by_hash)
        count = 0
        for ready, members in ((True, subset.addresses), (False, subset.not_ready_addresses)):
            for address in members:
                found = _endpoint_of(address, ready=ready)
                if found is None:
                    invalid += 1
                elif count >= ADDRESSES_PER_SUBSET_MAX:
                    skipped += 1
                else:
                    count += 1
                    wanted.setdefault((found[0], ports_key(ports)), (ports, []))[1].append(found[1])
    by_key: dict[_Key, list[discovery.EndpointSlice]] = {}
    for each in existing:
        by_key.setdefault((each.address_type, ports_key(each.ports)), []).append(each)
    plan = SlicePlan()
    for key, (ports, mirrored) in wanted.items():
        old = by_key.pop(key, [])
        plan.delete += old[1:]
        new = _new_slice(endpoints, key[0], ports)
        new.endpoints = list({endpoint_key(each): each for each in mirrored}.values())
        if not old:
            plan.create.append(new)
        elif not _is_same(old[0], new):
            new.metadata.name, new.metadata.generate_name = old[0].metadata.name, ""
            new.metadata.resource_version = old[0].metadata.resource_version
            plan.update.append(new)
    for leftover in by_key.values():
        plan.delete += leftover
    return recycle(plan), invalid, skipped


def _is_same(old: discovery.EndpointSlice, new: discovery.EndpointSlice) -> bool:
    before = {endpoint_key(each): each for each in old.endpoints or ()}
    after = {endpoint_key(each): each for each in new.endpoints or ()}
    return (
        before.keys() == after.keys()
        and all(is_same_endpoint(before[key], after[key]) for key in before)
        and old.metadata.labels == new.metadata.labels
        and old.metadata.annotations == new.metadata.annotations
        and [each.uid for each in old.metadata.owner_references] == [each.uid for each in new.metadata.owner_references]
    )


def _new_slice(endpoints: core.Endpoints, family: str, ports: list[discovery.EndpointPort]) -> discovery.EndpointSlice:
    hidden = (TRIGGER_TIME, LAST_APPLIED)
    return discovery.EndpointSlice(
        metadata=meta.ObjectMeta(
            generate_name=f"{endpoints.metadata.name}-",
            namespace=endpoints.metadata.namespace,
            labels=endpoints.metadata.labels | {SERVICE_NAME: endpoints.metadata.name, MANAGED_BY: MANAGER},
            annotations={k: v for k, v in endpoints.metadata.annotations.items() if k not in hidden},
            owner_references=[controller_reference(endpoints, resource_of(core.Endpoints).gvk)],
        ),
        address_type=family,
        ports=ports,
    )


class EndpointSliceMirroringController:
    """Keys are Endpoints."""

    workers = 5

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._services = wiring.reader(core.Service)
        self._endpoints = wiring.reader(core.Endpoints)
        self._slices = wiring.reader(discovery.EndpointSlice)
        self._slices.add_index(SERVICE_NAME, index_by_service)
        self._services.add_handler(self._changed)
        self._endpoints.add_handler(self._changed)
        self._slices.add_handler(self._slice_changed)

    def _changed(self, old: core.Service | core.Endpoints | None, new: core.Service | core.Endpoints | None) -> None:
        self._wiring.enqueue(key_from(old if new is None else new))

    def _slice_changed(self, old: discovery.EndpointSlice | None, new: discovery.EndpointSlice | None) -> None:
        each = old if new is None else new
        assert each is not None
        name = each.metadata.labels.get(SERVICE_NAME)
        if name and each.metadata.labels.get(MANAGED_BY) == MANAGER:
            self._wiring.enqueue(NamespacedName(each.metadata.namespace, name))

    def sync(self, key: NamespacedName) -> Steps[None]:
        existing = [
            each
            for each in self._slices.indexed(SERVICE_NAME, f"{key.namespace}/{key.name}")
            if each.metadata.labels.get(MANAGED_BY) == MANAGER
        ]
        endpoints = self._endpoints.get(*key)
        service = self._services.get(*key)
        if endpoints is None or service is None or service.spec.selector or not _should_mirror(endpoints):
            for each in existing:
                yield Delete(resource_of(discovery.EndpointSlice), each.metadata.namespace, each.metadata.name)
            return
        plan, invalid, skipped = plan_mirror(endpoints, existing)
        alive = endpoints.metadata.deletion_timestamp is None
        yield from write_slices(plan, trigger_time=None, may_create=alive)
        if invalid:
            message = f"Skipped {invalid} invalid IP addresses when mirroring to EndpointSlices"
            yield Emit(endpoints, "Warning", "InvalidIPAddress", message)
        if skipped:
            message = (
                "A max of 1000 addresses can be mirrored to EndpointSlices per Endpoints subset. "
                f"{skipped} addresses were skipped"
            )
            yield Emit(endpoints, "Warning", "TooManyAddressesToMirror", message)


def _should_mirror(endpoints: core.Endpoints) -> bool:
    return endpoints.metadata.labels.get(SKIP_MIRROR) != "true" and LEADER not in endpoints.metadata.annotations

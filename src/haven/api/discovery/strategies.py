"""EndpointSlices: defaults, what is wrong with them, how they are written.

Source: https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/ and the behaviour of
pkg/apis/discovery.
"""

from __future__ import annotations

from typing import Any

import msgspec

from haven.api.core.validation.endpoints import PORT_PROTOCOLS, validate_endpoint_ip
from haven.api.core.validation.metadata import validate_dns1123_label, validate_meta, validate_qualified_name
from haven.api.discovery import v1
from haven.api.strategy import Strategy
from haven.apimachinery import meta
from haven.apimachinery.fielderrors import (
    ErrorList,
    Path,
    duplicate,
    invalid,
    not_supported,
    required,
    too_many,
)
from haven.apimachinery.validation.addresses import ip_warnings, is_ipv6, validate_ip, validate_legacy_ip
from haven.apimachinery.validation.labels import validate_labels
from haven.apimachinery.validation.names import (
    dns1123_subdomain_errors,
    label_value_errors,
    validate_fully_qualified_domain_name,
)
from haven.apimachinery.validation.objectmeta import IMMUTABLE

__all__ = ["STRATEGIES"]

_ENDPOINTS_MAX = 1000
_ADDRESSES_MAX = 100
_PORTS_MAX = 20000
_LABELS_MAX = 16
_HINTS_MAX = 8
_TYPES = ("FQDN", "IPv4", "IPv6")


def _default(slice_: v1.EndpointSlice) -> None:
    for port in slice_.ports or ():
        if port.name is None:
            port.name = ""
        if port.protocol is None:
            port.protocol = "TCP"


def _validate(slice_: v1.EndpointSlice, old: v1.EndpointSlice | None = None) -> ErrorList:
    errors = validate_meta(slice_.metadata, namespaced=True)
    kind, path = slice_.address_type, Path("addressType")
    if not kind:
        errors.append(required(path, ""))
    elif kind not in _TYPES:
        errors.append(not_supported(path, kind, _TYPES))
    errors += _ports(slice_.ports or [], Path("ports"))
    if old is None or old.endpoints != slice_.endpoints:
        errors += _endpoints(slice_.endpoints or [], kind, Path("endpoints"))
    return errors


def _endpoints(endpoints: list[v1.Endpoint], kind: str, path: Path) -> ErrorList:
    if len(endpoints) > _ENDPOINTS_MAX:
        return [too_many(path, len(endpoints), _ENDPOINTS_MAX)]
    errors: ErrorList = []
    for index, endpoint in enumerate(endpoints):
        place = path.index(index)
        addresses, where = endpoint.addresses or [], place.child("addresses")
        if not addresses:
            errors.append(required(where, "must contain at least 1 address"))
        elif len(addresses) > _ADDRESSES_MAX:
            errors.append(too_many(where, len(addresses), _ADDRESSES_MAX))
        for number, address in enumerate(addresses):
            errors += _address(address, kind, where, where.index(number))
        if endpoint.node_name is not None:
            name = endpoint.node_name
            errors += [invalid(place.child("nodeName"), name, text) for text in dns1123_subdomain_errors(name)]
        topology = endpoint.deprecated_topology
        if len(topology) > _LABELS_MAX:
            errors.append(too_many(place.child("deprecatedTopology"), len(topology), _LABELS_MAX))
        errors += validate_labels(topology, place.child("deprecatedTopology"))
        if endpoint.hostname is not None:
            errors += validate_dns1123_label(endpoint.hostname, place.child("hostname"))
        if endpoint.hints is not None:
            errors += _hints(endpoint.hints, place.child("hints"))
    return errors


def _address(address: str, kind: str, path: Path, place: Path) -> ErrorList:
    if kind == "FQDN":
        return validate_fully_qualified_domain_name(address, place)
    if kind not in ("IPv4", "IPv6"):
        return []
    if found := (validate_legacy_ip(address, place) if kind == "IPv4" else validate_ip(address, place)):
        return found
    errors: ErrorList = []
    if is_ipv6(address) is not (kind == "IPv6"):
        errors.append(invalid(path, address, f"must be an {kind} address"))
    return errors + validate_endpoint_ip(address, place)


def _ports(ports: list[v1.EndpointPort], path: Path) -> ErrorList:
    if len(ports) > _PORTS_MAX:
        return [too_many(path, len(ports), _PORTS_MAX)]
    errors: ErrorList = []
    names: set[str] = set()
    for index, port in enumerate(ports):
        place, name = path.index(index), port.name or ""
        if name:
            errors += validate_dns1123_label(name, place.child("name"))
        if name in names:
            errors.append(duplicate(place.child("name"), name))
        names.add(name)
        if port.protocol is None:
            errors.append(required(place.child("protocol"), ""))
        elif port.protocol not in PORT_PROTOCOLS:
            errors.append(not_supported(place.child("protocol"), port.protocol, PORT_PROTOCOLS))
        if port.app_protocol is not None:
            errors += validate_qualified_name(port.app_protocol, place.child("appProtocol"))
    return errors


def _hints(hints: v1.EndpointHints, path: Path) -> ErrorList:
    zones = path.child("forZones")
    if len(hints.for_zones) > _HINTS_MAX:
        return [too_many(zones, len(hints.for_zones), _HINTS_MAX)]
    errors: ErrorList = []
    seen: set[str] = set()
    for index, zone in enumerate(hints.for_zones):
        place = zones.index(index).child("name")
        if zone.name in seen:
            errors.append(duplicate(place, zone.name))
        seen.add(zone.name)
        errors += [invalid(place, zone.name, text) for text in label_value_errors(zone.name)]
    nodes = path.child("forNodes")
    if len(hints.for_nodes) > _HINTS_MAX:
        return [*errors, too_many(nodes, len(hints.for_nodes), _HINTS_MAX)]
    names: set[str] = set()
    for index, node in enumerate(hints.for_nodes):
        place = nodes.index(index).child("name")
        if node.name in names:
            errors.append(duplicate(place, node.name))
        names.add(node.name)
        errors += [invalid(place, node.name, text) for text in dns1123_subdomain_errors(node.name)]
    return errors


def _validate_update(new: v1.EndpointSlice, old: v1.EndpointSlice) -> ErrorList:
    errors = _validate(new, old)
    if new.address_type != old.address_type:
        errors.append(invalid(Path("addressType"), new.address_type, IMMUTABLE))
    return errors


def _create(new: v1.EndpointSlice) -> None:
    new.metadata.generation = 1
    _drop_topology(new, None)


def _content(one: v1.EndpointSlice) -> v1.EndpointSlice:
    """Return what the generation counts; a list that is null is as good as an empty one."""
    return msgspec.structs.replace(
        one, metadata=meta.ObjectMeta(), endpoints=one.endpoints or [], ports=one.ports or []
    )


def _update(new: v1.EndpointSlice, old: v1.EndpointSlice) -> None:
    if _content(new) != _content(old) or new.metadata.labels != old.metadata.labels:
        new.metadata.generation = old.metadata.generation + 1
    if new.endpoints != old.endpoints:
        _drop_topology(new, old)


def _drop_topology(new: v1.EndpointSlice, old: v1.EndpointSlice | None) -> None:
    """Drop the topology of older versions, but keep the node that it names if it was there before."""
    host = "kubernetes.io/hostname"
    known = {item.deprecated_topology.get(host, "") for item in (old.endpoints or ())} if old is not None else set()
    for endpoint in new.endpoints or ():
        name = endpoint.deprecated_topology.get(host)
        if endpoint.node_name is None and name and name in known and not dns1123_subdomain_errors(name):
            endpoint.node_name = name
        endpoint.deprecated_topology = {}


_CONTROLLERS = ("endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io")


def _warnings(new: v1.EndpointSlice, old: v1.EndpointSlice | None) -> list[str]:
    warnings: list[str] = []
    if old is None and new.address_type == "FQDN":
        warnings.append("spec.addressType: FQDN endpoints are deprecated")
    if new.metadata.labels.get("endpointslice.kubernetes.io/managed-by") in _CONTROLLERS:
        return warnings
    for index, endpoint in enumerate(new.endpoints or ()):
        for number, address in enumerate(endpoint.addresses or ()):
            warnings += ip_warnings(Path("endpoints").index(index).child("addresses").index(number), address)
    return warnings


STRATEGIES: dict[str, Strategy[Any]] = {
    "endpointslices": Strategy(
        default=_default,
        prepare_for_create=_create,
        validate=_validate,
        prepare_for_update=_update,
        validate_update=_validate_update,
        warnings=_warnings,
        name_errors=lambda name: list(dns1123_subdomain_errors(name)),
    )
}

"""What is wrong with Endpoints.

Source: the behaviour of pkg/apis/core/validation.
"""

from __future__ import annotations

from haven.api.core import v1
from haven.api.core.validation.metadata import (
    validate_dns1123_label,
    validate_dns1123_subdomain,
    validate_meta,
    validate_meta_update,
    validate_qualified_name,
)
from haven.apimachinery.fielderrors import ErrorList, Path, invalid, not_supported, required
from haven.apimachinery.validation.addresses import parse_address, validate_legacy_ip
from haven.apimachinery.validation.names import port_number_errors

__all__ = ["PORT_PROTOCOLS", "validate_endpoint_ip", "validate_endpoints", "validate_endpoints_update"]

PORT_PROTOCOLS = ("SCTP", "TCP", "UDP")


def validate_endpoint_ip(text: str, path: Path) -> ErrorList:
    """Check that an address can belong to something in the cluster."""
    address = parse_address(text)
    if address is None:
        return [invalid(path, text, "must be a valid IP address")]
    errors: ErrorList = []
    if address.is_unspecified:
        errors.append(invalid(path, text, f"may not be unspecified ({text})"))
    if address.is_loopback:
        errors.append(invalid(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)"))
    if address.is_link_local:
        errors.append(invalid(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"))
    packed = address.packed
    is_multicast = packed[:3] == b"\xe0\x00\x00" if address.version == 4 else (packed[0], packed[1] & 15) == (255, 2)
    if is_multicast:
        errors.append(invalid(path, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"))
    return errors


def validate_endpoints(endpoints: v1.Endpoints, old: v1.Endpoints | None = None) -> ErrorList:
    """Check Endpoints; what was wrong before and stays is forgiven."""
    errors = validate_meta(endpoints.metadata, namespaced=True)
    if old is not None and old.subsets == endpoints.subsets:
        return errors
    for index, subset in enumerate(endpoints.subsets):
        errors += _subset(subset, Path("subsets").index(index))
    return errors


def validate_endpoints_update(new: v1.Endpoints, old: v1.Endpoints) -> ErrorList:
    """Check changed Endpoints."""
    return validate_meta_update(new.metadata, old.metadata) + validate_endpoints(new, old)


def _subset(subset: v1.EndpointSubset, path: Path) -> ErrorList:
    errors: ErrorList = []
    if not subset.addresses and not subset.not_ready_addresses:
        errors.append(required(path, "must specify `addresses` or `notReadyAddresses`"))
    for index, address in enumerate(subset.addresses):
        errors += _address(address, path.child("addresses").index(index))
    for index, address in enumerate(subset.not_ready_addresses):
        errors += _address(address, path.child("notReadyAddresses").index(index))
    for index, port in enumerate(subset.ports):
        errors += _port(port, len(subset.ports) > 1, path.child("ports").index(index))
    return errors


def _address(address: v1.EndpointAddress, path: Path) -> ErrorList:
    errors = validate_legacy_ip(address.ip, path.child("ip"))
    if address.hostname:
        errors += validate_dns1123_label(address.hostname, path.child("hostname"))
    if address.node_name is not None:
        errors += validate_dns1123_subdomain(address.node_name, path.child("nodeName"))
    return errors + validate_endpoint_ip(address.ip, path.child("ip"))


def _port(port: v1.EndpointPort, needs_name: bool, path: Path) -> ErrorList:
    errors: ErrorList = []
    if needs_name and not port.name:
        errors.append(required(path.child("name"), ""))
    elif port.name:
        errors += validate_dns1123_label(port.name, path.child("name"))
    errors += [invalid(path.child("port"), port.port, text) for text in port_number_errors(port.port)]
    if not port.protocol:
        errors.append(required(path.child("protocol"), ""))
    elif port.protocol not in PORT_PROTOCOLS:
        errors.append(not_supported(path.child("protocol"), port.protocol, PORT_PROTOCOLS))
    if port.app_protocol is not None:
        errors += validate_qualified_name(port.app_protocol, path.child("appProtocol"))
    return errors

"""What is wrong with an IP address or a network, and the warnings about odd ways to write one.

Older fields keep what they once accepted: IPv4 octets with leading zeros and IPv4-mapped IPv6 addresses. New values
are held to the strict rule, values that an object already had are not (`valid_old`).
Source: the behaviour of k8s.io/apimachinery/pkg/util/validation (ip).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Container
from functools import lru_cache

from haven.apimachinery.fielderrors import ErrorList, Path, invalid
from haven.apimachinery.goformat import quote

__all__ = [
    "Address",
    "Network",
    "canonical_address",
    "cidr_warnings",
    "ip_warnings",
    "is_ipv6",
    "parse_address",
    "parse_network",
    "validate_cidr",
    "validate_interface_address",
    "validate_ip",
    "validate_legacy_cidr",
    "validate_legacy_ip",
]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _strip_zeros(text: str) -> str:
    """Write IPv4 octets without leading zeros: upstream reads them as decimal."""
    if "." not in text or ":" in text:
        return text
    return ".".join(part.lstrip("0") or "0" if part.isascii() and part.isdigit() else part for part in text.split("."))


def _unmapped(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(4096)
def parse_address(text: str) -> Address | None:
    """Return an address, read leniently; IPv4-mapped IPv6 becomes IPv4, as in Go's net.IP. None if it is none."""
    if "%" in text or not text.isascii():
        return None
    try:
        return _unmapped(ipaddress.ip_address(_strip_zeros(text)))
    except ValueError:
        return None


@lru_cache(4096)
def _parse_interface(text: str) -> tuple[Address, Network] | None:
    host, slash, bits = text.partition("/")
    if not slash or "%" in text or not (bits.isascii() and bits.isdigit()):
        return None
    try:
        raw = ipaddress.ip_address(_strip_zeros(host))
        network = ipaddress.ip_network((raw, int(bits)), strict=False)
    except ValueError:
        return None
    if isinstance(raw, ipaddress.IPv6Address) and raw.ipv4_mapped is not None and int(bits) >= 96:
        network = ipaddress.ip_network((raw.ipv4_mapped, int(bits) - 96), strict=False)
    return _unmapped(raw), network


def parse_network(text: str) -> Network | None:
    """Return a network, read leniently, without its host bits; None if it is none."""
    found = _parse_interface(text)
    return found[1] if found else None


def is_ipv6(text: str) -> bool:
    """Tell whether a valid address, or a valid network, is of IPv6."""
    address = parse_address(text.partition("/")[0])
    return isinstance(address, ipaddress.IPv6Address)


def canonical_address(address: Address) -> str:
    """Write an address as Go does."""
    return str(address)


def _is_mapped(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None


def _is_strict(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _strict_ip_errors(path: Path, value: str) -> ErrorList:
    if not _is_strict(value):
        return [invalid(path, value, "must not have leading 0s")]
    if _is_mapped(value):
        return [invalid(path, value, "must not be an IPv4-mapped IPv6 address")]
    return []


def validate_legacy_ip(value: str, path: Path, *, strict: bool = True, valid_old: Container[str] = ()) -> ErrorList:
    """Check an address in one of the older fields."""
    if value in valid_old:
        return []
    if parse_address(value) is None:
        return [invalid(path, value, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")]
    return _strict_ip_errors(path, value) if strict else []


def validate_ip(value: str, path: Path) -> ErrorList:
    """Check an address that must be written in its one canonical form."""
    if errors := validate_legacy_ip(value, path):
        return errors
    address = parse_address(value)
    if address is not None and value != str(address):
        return [invalid(path, value, f"must be in canonical form ({quote(str(address))})")]
    return []


def ip_warnings(path: Path, value: str) -> list[str]:
    """Return warnings about an address that is valid but oddly written."""
    address = parse_address(value)
    if address is None:
        return []
    if not _is_strict(value) or _is_mapped(value):
        return [f"{path}: non-standard IP address {quote(value)} is invalid: use {quote(str(address))}"]
    if isinstance(address, ipaddress.IPv6Address) and str(address) != value:
        canonical = quote(str(address))
        return [f"{path}: IPv6 address {quote(value)} should be in RFC 5952 canonical format ({canonical})"]
    return []


def _is_strict_prefix(value: str) -> bool:
    host, _, bits = value.partition("/")
    return _is_strict(host) and (bits == "0" or not bits.startswith("0"))


def validate_legacy_cidr(value: str, path: Path, *, strict: bool = True, valid_old: Container[str] = ()) -> ErrorList:
    """Check a network in one of the older fields."""
    if value in valid_old:
        return []
    found = _parse_interface(value)
    if found is None:
        return [invalid(path, value, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")]
    if not strict:
        return []
    if not _is_strict_prefix(value):
        return [invalid(path, value, "must not have leading 0s in IP or prefix length")]
    if _is_mapped(value.partition("/")[0]):
        return [invalid(path, value, "must not have an IPv4-mapped IPv6 address")]
    if found[0] != found[1].network_address:
        return [invalid(path, value, "must not have bits set beyond the prefix length")]
    return []


def validate_cidr(value: str, path: Path) -> ErrorList:
    """Check a network that must be written in its one canonical form."""
    if errors := validate_legacy_cidr(value, path):
        return errors
    network = parse_network(value)
    if network is not None and value != str(network):
        return [invalid(path, value, f"must be in canonical form ({quote(str(network))})")]
    return []


def cidr_warnings(path: Path, value: str) -> list[str]:
    """Return warnings about a network that is valid but oddly written."""
    found = _parse_interface(value)
    if found is None:
        return []
    address, network = found
    warnings = []
    if address != network.network_address:
        single = quote(f"{address}/{network.max_prefixlen}")
        shown = f"{quote(value)} is ambiguous in this context (should be {quote(str(network))} or {single}?)"
        warnings.append(f"{path}: CIDR value {shown}")
    if not _is_strict_prefix(value) or _is_mapped(value.partition("/")[0]):
        warnings.append(f"{path}: non-standard CIDR value {quote(value)} is invalid: use {quote(str(network))}")
    canonical = f"{address}/{network.prefixlen}"
    if not warnings and isinstance(address, ipaddress.IPv6Address) and canonical != value:
        shown = f"{quote(value)} should be in RFC 5952 canonical format ({quote(canonical)})"
        warnings.append(f"{path}: IPv6 CIDR value {shown}")
    return warnings


def validate_interface_address(value: str, path: Path) -> ErrorList:
    """Check an address with a prefix length, in canonical form."""
    found = _parse_interface(value)
    if found is None:
        return [invalid(path, value, "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)")]
    canonical = f"{found[0]}/{found[1].prefixlen}"
    if value != canonical:
        return [invalid(path, value, f"must be in canonical form ({quote(canonical)})")]
    return []

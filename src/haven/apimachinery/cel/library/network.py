"""IP addresses and networks.

Source: https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-ip-address-library, #kubernetes-cidr-library.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from haven.apimachinery.cel import values
from haven.apimachinery.cel.declarations import Library
from haven.apimachinery.cel.errors import CelError
from haven.apimachinery.cel.types import BOOL, INT, STRING, opaque_type
from haven.apimachinery.goformat import quote
from haven.apimachinery.validation.addresses import canonical_address

__all__ = ["library"]

_IP = opaque_type("net.IP")
_CIDR = opaque_type("net.CIDR")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_MAPPED = ipaddress.ip_network("::ffff:0:0/96")


class Ip(values.Opaque):
    """An address."""

    __slots__ = ("address",)
    type = _IP

    def __init__(self, address: Address) -> None:
        self.address = address

    @property
    def size(self) -> int:
        return self.address.max_prefixlen // 8

    def equals(self, other: Any) -> bool:
        return bool(self.address == other.address)

    def __str__(self) -> str:
        return canonical_address(self.address)


class Cidr(values.Opaque):
    """An address and how many of its bits name the network."""

    __slots__ = ("address", "bits")
    type = _CIDR

    def __init__(self, address: Address, bits: int) -> None:
        self.address = address
        self.bits = bits

    @property
    def size(self) -> int:
        return (self.bits + 7) // 8

    @property
    def network(self) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        return ipaddress.ip_network((self.address, self.bits), strict=False)

    def equals(self, other: Any) -> bool:
        return bool(self.address == other.address) and self.bits == other.bits

    def __str__(self) -> str:
        return f"{canonical_address(self.address)}/{self.bits}"


def _parse_failure(text: str) -> str:
    """Say why a text is no address, as Go's parser does."""
    shown = quote(text)
    start = f"ParseAddr({shown})"
    for char in text:
        if char == ".":
            return f"{start}: {_v4_failure(text)}"
        if char == ":":
            return f"{start}: {_v6_failure(text)}"
        if char == "%":
            return f"{start}: missing IPv6 address"
    return f"{start}: unable to parse IP"


def _v4_failure(text: str) -> str:
    parts = text.split(".")
    for index, part in enumerate(parts):
        for position, char in enumerate(part):
            if not char.isascii() or not char.isdigit():
                rest = ".".join(parts[index:])[position:]
                return f"unexpected character (at {quote(rest)})"
            if position == 1 and part[0] == "0":
                return "IPv4 field has octet with leading zero"
            if int(part[: position + 1]) > 255:
                return "IPv4 field has value >255"
        if not part:
            rest = "." + ".".join(parts[index + 1 :])
            return (
                f"IPv4 field must have at least one digit (at {quote(rest)})"
                if index < len(parts) - 1
                else "IPv4 field must have at least one digit"
            )
        if index == 4:
            return "IPv4 address too long"
    return "IPv4 address too short"


def _v6_failure(text: str) -> str:
    match = re.match(r"[0-9A-Fa-f:.]*", text)
    assert match is not None
    rest = text[match.end() :]
    if rest:
        return f"each colon-separated field must have at least one digit (at {quote(rest)})"
    for field in text.split(":"):
        if len(field) > 4 and "." not in field:
            return f"each group must have 4 or less digits (at {quote(text[text.index(field) :])})"
    if text.count("::") > 1 or ":::" in text:
        second = text.index("::", text.index("::") + 1)
        return f"multiple :: in address (at {quote(text[second + 1 :])})"
    if "::" not in text and text.count(":") < 7:
        return "address string too short"
    rest = ":".join(text.split(":")[8:])
    return f"trailing garbage after address (at {quote(rest)})" if rest else f"unexpected character (at {quote(text)})"


def _parse_address(text: str) -> Address:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise CelError(
            f"IP Address {quote(text)} parse error during conversion from string: {_parse_failure(text)}"
        ) from None
    if "%" in text:
        raise CelError(f"IP address {quote(text)} with zone value is not allowed")
    if address in _MAPPED:
        raise CelError(f"IPv4-mapped IPv6 address {quote(text)} is not allowed")
    return address


def _ip(text: str) -> Ip:
    return Ip(_parse_address(text))


def _is_ip(text: str) -> bool:
    try:
        _parse_address(text)
    except CelError:
        return False
    return True


_CIDR_ERROR = "network address parse error during conversion from string: "


def _parse_cidr(text: str) -> Cidr:
    shown = f"netip.ParsePrefix({quote(text)})"
    base, slash, bits_text = text.rpartition("/")
    if not slash:
        raise CelError(f"{_CIDR_ERROR}{shown}: no '/'")
    try:
        address = ipaddress.ip_address(base)
    except ValueError:
        raise CelError(f"{_CIDR_ERROR}{shown}: {_parse_failure(base)}") from None
    if "%" in base:
        raise CelError(f"{_CIDR_ERROR}{shown}: IPv6 zones cannot be present in a prefix")
    if len(bits_text) > 1 and not "1" <= bits_text[0] <= "9":
        raise CelError(f"{_CIDR_ERROR}{shown}: bad bits after slash: {quote(bits_text)}")
    if not re.fullmatch(r"[0-9]+", bits_text):
        raise CelError(f"{_CIDR_ERROR}{shown}: bad bits after slash: {quote(bits_text)}")
    if int(bits_text) > address.max_prefixlen:
        raise CelError(f"{_CIDR_ERROR}{shown}: prefix length out of range")
    if address in _MAPPED:
        raise CelError(f"IPv4-mapped IPv6 address {quote(text)} is not allowed")
    return Cidr(address, int(bits_text))


def _cidr(text: str) -> Cidr:
    try:
        return _parse_cidr(text)
    except CelError as error:
        raise CelError(f"{_CIDR_ERROR}{error.message}") from None


def _is_cidr(text: str) -> bool:
    try:
        _parse_cidr(text)
    except CelError:
        return False
    return True


def _contains_ip(cidr: Cidr, other: Any) -> bool:
    try:
        address = other.address if isinstance(other, Ip) else _parse_address(other)
    except CelError:
        raise values.no_overload(other) from None
    return address.version == cidr.address.version and address in cidr.network


def _contains_cidr(cidr: Cidr, other: Any) -> bool:
    inner = other if isinstance(other, Cidr) else _cidr(other)
    return (
        inner.address.version == cidr.address.version
        and cidr.network.overlaps(inner.network)
        and cidr.bits <= inner.bits
    )


def _is_global_unicast(ip: Ip) -> bool:
    address = ip.address
    if address.version == 4 and int(address) == 0xFFFFFFFF:
        return False
    return not (address.is_unspecified or address.is_loopback or address.is_multicast or _is_link_local_unicast(ip))


def _is_link_local_unicast(ip: Ip) -> bool:
    return ip.address in (
        ipaddress.ip_network("169.254.0.0/16") if ip.address.version == 4 else ipaddress.ip_network("fe80::/10")
    )


def _is_link_local_multicast(ip: Ip) -> bool:
    if ip.address.version == 4:
        return ip.address in ipaddress.ip_network("224.0.0.0/24")
    packed = ip.address.packed
    return packed[0] == 0xFF and packed[1] & 0x0F == 0x02


def library() -> Library:
    lib = Library(types={_IP.name: _IP, _CIDR.name: _CIDR})
    declare = lib.declare
    declare("ip", ("string_to_ip", (STRING,), _IP, _ip))
    declare("ip", ("cidr_ip", (_CIDR,), _IP, lambda cidr: Ip(cidr.address)), member=True)
    declare("family", ("ip_family", (_IP,), INT, lambda ip: ip.address.version), member=True)
    declare(
        "ip.isCanonical",
        ("ip_is_canonical", (STRING,), BOOL, lambda text: canonical_address(_parse_address(text)) == text),
    )
    declare("isUnspecified", ("ip_is_unspecified", (_IP,), BOOL, lambda ip: ip.address.is_unspecified), member=True)
    declare("isLoopback", ("ip_is_loopback", (_IP,), BOOL, lambda ip: ip.address.is_loopback), member=True)
    declare("isLinkLocalMulticast", ("ip_is_link_local_multicast", (_IP,), BOOL, _is_link_local_multicast), member=True)
    declare("isLinkLocalUnicast", ("ip_is_link_local_unicast", (_IP,), BOOL, _is_link_local_unicast), member=True)
    declare("isGlobalUnicast", ("ip_is_global_unicast", (_IP,), BOOL, _is_global_unicast), member=True)
    declare("isIP", ("is_ip", (STRING,), BOOL, _is_ip))
    declare("string", ("ip_to_string", (_IP,), STRING), ("cidr_to_string", (_CIDR,), STRING))
    declare("cidr", ("string_to_cidr", (STRING,), _CIDR, _cidr))
    declare(
        "containsIP", ("cidr_contains_ip_string", (_CIDR, STRING), BOOL, _contains_ip),
        ("cidr_contains_ip_ip", (_CIDR, _IP), BOOL, _contains_ip), member=True,
    )  # fmt: skip
    declare(
        "containsCIDR", ("cidr_contains_cidr_string", (_CIDR, STRING), BOOL, _contains_cidr),
        ("cidr_contains_cidr", (_CIDR, _CIDR), BOOL, _contains_cidr), member=True,
    )  # fmt: skip
    declare("prefixLength", ("cidr_prefix_length", (_CIDR,), INT, lambda cidr: cidr.bits), member=True)
    declare(
        "masked",
        ("cidr_masked", (_CIDR,), _CIDR, lambda cidr: Cidr(cidr.network.network_address, cidr.bits)),
        member=True,
    )
    declare("isCIDR", ("is_cidr", (STRING,), BOOL, _is_cidr))
    return lib

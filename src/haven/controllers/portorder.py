"""The order in which Go's controllers write the ports of an endpoint: that of a hash of how each one prints.

It means nothing, but it is the same everywhere and for ever, and who compares lists of ports sees it.
"""

from __future__ import annotations

from functools import lru_cache

from haven.api.core import v1 as core
from haven.api.discovery import v1 as discovery

__all__ = ["by_hash", "slice_port_by_hash"]

_FNV_BASIS = 0x6C62272E07BB014262B821756295C58D
_FNV_PRIME = 0x0000000001000000000000000000013B
_FNV_MASK = (1 << 128) - 1


@lru_cache(maxsize=4096)  # All Pods of a Service have the same few ports.
def _fnv_128a(text: str) -> int:
    value = _FNV_BASIS
    for byte in text.encode():
        value = ((value ^ byte) * _FNV_PRIME) & _FNV_MASK
    return value


def by_hash(port: core.EndpointPort) -> int:
    """Return the sort key of a port of Endpoints."""
    return _fnv_128a(
        f"(v1.EndpointPort){{Name:(string){port.name} Port:(int32){port.port} Protocol:(v1.Protocol){port.protocol}"
        f" AppProtocol:(*string){_pointed(port.app_protocol)}}}"
    )


def slice_port_by_hash(port: discovery.EndpointPort) -> int:
    """Return the sort key of a port of an EndpointSlice."""
    number = None if port.port is None else str(port.port)
    return _fnv_128a(
        f"(v1.EndpointPort){{Name:(*string){_pointed(port.name)} Protocol:(*v1.Protocol){_pointed(port.protocol)}"
        f" Port:(*int32){_pointed(number)} AppProtocol:(*string){_pointed(port.app_protocol)}}}"
    )


def _pointed(value: str | None) -> str:
    return "<nil>" if value is None else value

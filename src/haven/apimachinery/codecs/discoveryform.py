"""The protobuf form of apidiscovery.k8s.io/v2's APIGroupDiscoveryList, the one kind of that group that is served.

It is no resource, so the schema engine does not know it. Field numbers: the API's published generated.proto.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from haven.apimachinery.codecs.protobuf import envelope
from haven.apimachinery.codecs.wire import BYTES_WIRE, sized, varint

__all__ = ["encode_group_discovery"]

_Layout: TypeAlias = Mapping[str, tuple[int, "_Layout | None"]]

_KIND: Final[_Layout] = {"group": (1, None), "version": (2, None), "kind": (3, None)}
_SUBRESOURCE: Final[_Layout] = {
    "subresource": (1, None), "responseKind": (2, _KIND), "acceptedTypes": (3, _KIND), "verbs": (4, None),
}  # fmt: skip
_RESOURCE: Final[_Layout] = {
    "resource": (1, None), "responseKind": (2, _KIND), "scope": (3, None), "singularResource": (4, None),
    "verbs": (5, None), "shortNames": (6, None), "categories": (7, None), "subresources": (8, _SUBRESOURCE),
}  # fmt: skip
_VERSION: Final[_Layout] = {"version": (1, None), "resources": (2, _RESOURCE), "freshness": (3, None)}
_GROUP: Final[_Layout] = {"metadata": (1, {"name": (1, None)}), "versions": (2, _VERSION)}
_LIST: Final[_Layout] = {"metadata": (1, {}), "items": (2, _GROUP)}


def encode_group_discovery(tree: Mapping[str, Any]) -> bytes:
    """Return an APIGroupDiscoveryList in its frame."""
    return envelope(_message(tree, _LIST), tree["apiVersion"], tree["kind"])


def _message(tree: Mapping[str, Any], layout: _Layout) -> bytes:
    parts: list[bytes] = []
    for name, (number, inner) in layout.items():
        value = tree.get(name)
        tag = varint(number << 3 | BYTES_WIRE)
        for item in value if isinstance(value, list) else () if value is None else (value,):
            parts.append(sized(tag, item.encode() if inner is None else _message(item, inner)))
    return b"".join(parts)

"""managedFields across the scale subresource: spec.replicas of a Scale is a field of its parent.

`to_scale` shows the parent's owners of replicas; after the Scale was updated, `to_parent` writes its owners back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from haven.apimachinery.apply.fieldset import FieldSet, difference, has, of_paths
from haven.apimachinery.apply.managers import Managed, Owned, decode, encode

__all__ = ["to_parent", "to_scale"]

Entry = dict[str, Any]
_SCALE_VERSION = "autoscaling/v1"
_REPLICAS = ("f:spec", "f:replicas")
_REPLICAS_SET: FieldSet = of_paths(("spec", "replicas"))

Paths = Mapping[str, tuple[str, ...] | None]
"""Where the parent keeps its replicas, as field names, by API version; None if it has none there."""


def to_scale(parent_entries: list[Entry], paths: Paths) -> list[Entry]:
    """Return the managedFields of the Scale of an object; raise InvalidManagedFields."""
    result: Managed = {}
    for manager, owned in decode(parent_entries, trusted=True).items():
        path = paths.get(owned.api_version)
        if path is not None and has(owned.fields, _elements(path)):
            result[manager] = Owned(_REPLICAS_SET, _SCALE_VERSION, owned.time)
    return encode(result)


def to_parent(parent_entries: list[Entry], scale_entries: list[Entry], api_version: str, paths: Paths) -> list[Entry]:
    """Return the managedFields of an object after its Scale was written; raise InvalidManagedFields."""
    scale = decode(scale_entries, trusted=True)
    result: Managed = {}
    parents = decode(parent_entries, trusted=True)
    for manager, owned in parents.items():
        if owned.api_version not in paths:
            continue
        path = paths[owned.api_version]
        if path is None or not has(owned.fields, _elements(path)):
            result[manager] = owned
        elif manager in scale:
            result[manager] = owned
            del scale[manager]
        else:
            left = difference(owned.fields, of_paths(path))
            if left:
                result[manager] = owned._replace(fields=left)
    target = paths.get(api_version)
    for manager, owned in scale.items():
        if target is not None and has(owned.fields, _REPLICAS):
            before = parents.get(manager)
            # Upstream looks the time up among the parent's managers, where a new one has none.
            result[manager] = Owned(of_paths(target), api_version, before.time if before else None)
    return encode(result)


def _elements(path: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"f:{name}" for name in path)

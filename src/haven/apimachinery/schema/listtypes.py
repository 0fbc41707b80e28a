"""Whether the items of lists declared as sets or as maps are unique.

Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from haven.apimachinery.fielderrors import ErrorList, Path, duplicate, go_json, invalid

__all__ = ["validate_lists"]

OpenAPI = Mapping[str, Any]


def validate_lists(value: Any, schema: OpenAPI, path: Path | None = None) -> ErrorList:
    """Return a complaint about the second of each set of equal items."""
    errors: ErrorList = []
    if isinstance(value, dict):
        properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
        for name, item in value.items():
            sub = properties.get(name)
            if isinstance(extra, dict):
                errors += validate_lists(item, extra, (path or Path()).key(name))
            if sub is not None:
                errors += validate_lists(item, sub, Path(name) if path is None else path.child(name))
    elif isinstance(value, list):
        place = path or Path()
        kind = schema.get("x-kubernetes-list-type")
        if kind == "set":
            errors += [duplicate(place.index(index), value[index]) for index in _repeated(value)]
        elif kind == "map":
            errors += _keyed(value, tuple(schema.get("x-kubernetes-list-map-keys") or ()), place)
        items = schema.get("items")
        if isinstance(items, dict):
            for index, item in enumerate(value):
                errors += validate_lists(item, items, place.index(index))
    return errors


def _keyed(items: list[Any], names: tuple[str, ...], path: Path) -> ErrorList:
    for index, item in enumerate(items):
        if item is not None and not isinstance(item, dict):
            return [invalid(path.index(index), item, "must be an object for an array of list-type map")]
    keys = [{name: item[name] for name in names if name in item} if item is not None else {} for item in items]
    return [duplicate(path.index(index), keys[index]) for index in _repeated(keys)]


def _repeated(items: list[Any]) -> list[int]:
    """Return the index of the second of each set of equal items."""
    seen: dict[Any, int] = {}
    result = []
    for index, item in enumerate(items):
        key = (type(item), go_json(item))
        seen[key] = seen.get(key, 0) + 1
        if seen[key] == 2:
            result.append(index)
    return result

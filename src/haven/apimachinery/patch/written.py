"""The order of keys in which a refused patch result is shown.

Upstream's library patches JSON text and takes apart only the objects that it must; those are written back with sorted
keys, the others as they stood: the live object's in the order of its type, the patch's in its own.
"""

from __future__ import annotations

from typing import Any

from haven.apimachinery.schema.model import Schema

__all__ = ["as_written"]

Steps = tuple[str, ...]


def as_written(tree: Any, live: dict[str, Any], patch: Any, schema: Schema, *, is_json_patch: bool) -> Any:
    """Return what a patch made of the live object, in the order in which upstream shows it."""
    if not is_json_patch:
        return _merged(tree, live, patch, schema)
    opened, added = _steps(patch)
    return _along(tree, (), opened, added, schema)


def _steps(operations: Any) -> tuple[set[Steps], set[Steps]]:
    """Return the paths of the containers that the operations of a JSON patch go through, and those of new values."""
    opened: set[Steps] = {()}
    added: set[Steps] = set()
    for operation in operations or ():
        for name in ("path", "from"):
            path = operation.get(name) if isinstance(operation, dict) else None
            if isinstance(path, str):
                parts = tuple(part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:])
                opened.update(parts[:length] for length in range(1, len(parts)))
                if name == "path":
                    added.add(parts)
    return opened, added


def _along(value: Any, path: Steps, opened: set[Steps], added: set[Steps], schema: Schema | None) -> Any:
    if path not in opened:
        return value if path in added else _in_order(value, schema)
    if isinstance(value, dict):
        return {
            name: _along(value[name], (*path, name), opened, added, schema.child(name) if schema else None)
            for name in sorted(value)
        }
    if isinstance(value, list):
        element = schema.element if schema else None
        return [_along(item, (*path, str(index)), opened, added, element) for index, item in enumerate(value)]
    return value


def _merged(tree: Any, live: dict[str, Any], patch: dict[str, Any], schema: Schema | None) -> Any:
    result = {}
    for name in sorted(tree):
        value, child = tree[name], schema.child(name) if schema else None
        if name not in patch:
            value = _in_order(value, child)
        else:
            before, change = live.get(name), patch[name]
            if isinstance(before, dict) and isinstance(change, dict):
                value = _merged(value, before, change, child)
            elif not isinstance(before, dict):
                value = _sorted(value)
        result[name] = value
    return result


def _in_order(value: Any, schema: Schema | None) -> Any:
    """Return a value with its type's fields in the order in which the type declares them."""
    if isinstance(value, dict):
        names = [name for name in schema.fields if name in value] if schema else []
        names += [name for name in value if name not in names]
        return {name: _in_order(value[name], schema.child(name) if schema else None) for name in names}
    if isinstance(value, list):
        element = schema.element if schema else None
        return [_in_order(item, element) for item in value]
    return value


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return value

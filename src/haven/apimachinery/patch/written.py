"""The order of keys in which a refused patch result is shown.

Upstream's library patches JSON text and takes apart only the objects that it must; those are written back with sorted
keys, the others as they stood.
"""

from __future__ import annotations

from typing import Any

__all__ = ["as_written"]


def as_written(is_json_patch: bool, tree: Any, live: dict[str, Any], patch: Any) -> Any:
    """Return what a patch made of the live object, in the order in which upstream shows it."""
    if is_json_patch:
        return _along(tree, (), _opened(patch))
    return _merged(tree, live, patch) if isinstance(tree, dict) else tree


def _opened(operations: Any) -> set[tuple[str, ...]]:
    """Return the paths of the containers that the operations of a JSON patch go through."""
    result: set[tuple[str, ...]] = {()}
    for operation in operations or ():
        for name in ("path", "from"):
            path = operation.get(name) if isinstance(operation, dict) else None
            if isinstance(path, str):
                parts = [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:-1]]
                result.update(tuple(parts[:length]) for length in range(1, len(parts) + 1))
    return result


def _along(value: Any, path: tuple[str, ...], opened: set[tuple[str, ...]]) -> Any:
    if path not in opened:
        return value
    if isinstance(value, dict):
        return {name: _along(value[name], (*path, name), opened) for name in sorted(value)}
    if isinstance(value, list):
        return [_along(item, (*path, str(index)), opened) for index, item in enumerate(value)]
    return value


def _merged(tree: dict[str, Any], live: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    result = {}
    for name in sorted(tree):
        value = tree[name]
        if name in patch:
            before, change = live.get(name), patch[name]
            if isinstance(before, dict) and isinstance(change, dict):
                value = _merged(value, before, change)
            elif not isinstance(before, dict):
                value = _sorted(value)
        result[name] = value
    return result


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return value

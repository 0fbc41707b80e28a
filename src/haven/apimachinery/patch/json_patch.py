"""JSON Patch (RFC 6902), with the habits of the library that upstream uses.

Negative indices count from the end, a path need not begin with a slash (what stands before the first one is ignored),
and a missing member reads as null where it is only looked at.
"""

from __future__ import annotations

import re
from typing import Any

from haven.apimachinery.patch.errors import PatchError

__all__ = ["OPERATIONS_MAX", "apply"]

OPERATIONS_MAX = 10_000
_INDEX = re.compile(r"[+-]?\d+", re.ASCII)
_MISSING = object()


def apply(document: Any, operations: list[Any]) -> Any:
    """Return the patched document; raise PatchError. The document is changed in place: pass one of your own."""
    root = document
    for operation in operations:
        root = _one(root, operation if isinstance(operation, dict) else {})
    return root


def _one(root: Any, operation: dict[str, Any]) -> Any:
    kind = operation.get("op")
    if not isinstance(kind, str):
        kind = "unknown"
    if kind == "add":
        path = _text(operation, "path", "add operation failed to decode path")
        container, key = _container(root, path)
        if container is None:
            raise PatchError(f'add operation does not apply: doc is missing path: "{path}": missing value')
        _add(container, key, operation.get("value"), f"error in add for path: '{path}'")
    elif kind == "remove":
        path = _text(operation, "path", "remove operation failed to decode path")
        container, key = _container(root, path)
        if container is None:
            raise PatchError(f'remove operation does not apply: doc is missing path: "{path}": missing value')
        _remove(container, key, f"error in remove for path: '{path}'")
    elif kind == "replace":
        return _replace(root, operation)
    elif kind == "move":
        _move(root, operation)
    elif kind == "copy":
        _copy(root, operation)
    elif kind == "test":
        _test(root, operation)
    else:
        raise PatchError(f"Unexpected kind: {kind}")
    return root


def _replace(root: Any, operation: dict[str, Any]) -> Any:
    path = _text(operation, "path", "replace operation failed to decode path")
    value = operation.get("value")
    if path == "":
        if not isinstance(value, dict | list):
            raise PatchError("replace operation value must be object or array: %!w(<nil>)")
        return value
    container, key = _container(root, path)
    if container is None:
        raise PatchError(f"replace operation does not apply: doc is missing path: {path}: missing value")
    if isinstance(container, dict):
        container[key] = value
    else:
        index = _place(container, key)
        if isinstance(index, str):
            raise PatchError(f"replace operation does not apply: doc is missing key: {path}: missing value")
        container[index] = value
    return root


def _move(root: Any, operation: dict[str, Any]) -> None:
    origin = _text(operation, "from", "move operation failed to decode from")
    container, key = _container(root, origin)
    if container is None:
        raise PatchError(f"move operation does not apply: doc is missing from path: {origin}: missing value")
    value = _get(container, key, f"error in move for path: '{key}'")
    _remove(container, key, f"error in move for path: '{key}'")
    path = _text(operation, "path", "move operation failed to decode path")
    container, key = _container(root, path)
    if container is None:
        raise PatchError(f"move operation does not apply: doc is missing destination path: {path}: missing value")
    _add(container, key, value, f"error in move for path: '{path}'")


def _copy(root: Any, operation: dict[str, Any]) -> None:
    origin = _text(operation, "from", "copy operation failed to decode from")
    container, key = _container(root, origin)
    if container is None:
        raise PatchError(f"copy operation does not apply: doc is missing from path: {origin}: missing value")
    value = _get(container, key, f"error in copy for from: '{origin}'")
    path = _text(operation, "path", "copy operation failed to decode path")
    container, key = _container(root, path)
    if container is None:
        raise PatchError(f"copy operation does not apply: doc is missing destination path: {path}: missing value")
    _add(container, key, _deep_copy(value), "error while adding value during copy")


def _test(root: Any, operation: dict[str, Any]) -> None:
    path = _text(operation, "path", "test operation failed to decode path")
    wanted = operation.get("value")
    if path == "":
        value = root
    else:
        container, key = _container(root, path)
        if container is None:
            raise PatchError(f"test operation does not apply: is missing path: {path}: missing value")
        value = _get(container, key, f"error in test for path: '{path}'")
    if not _equal(value, wanted):
        raise PatchError(f"testing value {path} failed: test failed")


def _text(operation: dict[str, Any], name: str, what: str) -> str:
    value = operation.get(name)
    if not isinstance(value, str):
        raise PatchError(f"{what}: missing value")
    return value


def _container(root: Any, path: str) -> tuple[Any, str]:
    """Return the dict or list that holds the last part of a path, and that part; (None, "") if there is none."""
    parts = path.split("/")
    if len(parts) < 2:
        return None, ""
    node = root
    for part in parts[1:-1]:
        key = _unescape(part)
        if isinstance(node, dict):
            node = node.get(key)
        else:
            index = _place(node, key)
            if isinstance(index, str):
                return None, ""
            node = node[index]
        if not isinstance(node, dict | list):
            return None, ""
    return node, _unescape(parts[-1])


def _unescape(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~") if "~" in part else part


def _place(items: list[Any], key: str) -> int | str:
    """Return the index that a key means in a list, or what is wrong with it."""
    if not _INDEX.fullmatch(key):
        return f'strconv.Atoi: parsing "{key}": invalid syntax'
    index = int(key)
    if index >= len(items) or index < -len(items):
        return f"Unable to access invalid index: {index}: invalid index referenced"
    return index + len(items) if index < 0 else index


def _get(container: Any, key: str, what: str) -> Any:
    if isinstance(container, dict):
        return container.get(key)
    index = _place(container, key)
    if isinstance(index, str):
        raise PatchError(f"{what}: {index}")
    return container[index]


def _add(container: Any, key: str, value: Any, what: str) -> None:
    if isinstance(container, dict):
        container[key] = value
        return
    if key == "-":
        container.append(value)
        return
    if not _INDEX.fullmatch(key):
        raise PatchError(f"{what}: value was not a proper array index: '{key}'")
    index, size = int(key), len(container) + 1
    if index >= size or index < -size:
        raise PatchError(f"{what}: Unable to access invalid index: {index}: invalid index referenced")
    container.insert(index + size if index < 0 else index, value)


def _remove(container: Any, key: str, what: str) -> None:
    if isinstance(container, dict):
        if container.pop(key, _MISSING) is _MISSING:
            raise PatchError(f"{what}: Unable to remove nonexistent key: {key}: missing value")
        return
    index = _place(container, key)
    if isinstance(index, str):
        raise PatchError(f"{what}: {index}")
    del container[index]


def _deep_copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _deep_copy(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_deep_copy(item) for item in value]
    return value


def _equal(one: Any, other: Any) -> bool:
    """Compare as JSON texts are compared: 1, 1.0 and true are three values."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(item, other[name]) for name, item in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(_equal(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)

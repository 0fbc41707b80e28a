"""JSON Merge Patch (RFC 7386) as upstream's library does it: nulls in lists stay, and in lists for objects too."""

from __future__ import annotations

from typing import Any

__all__ = ["apply", "without_nulls"]


def apply(document: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Return the document with the patch merged in; the inputs stay as they are, the result shares parts with both."""
    result = dict(document)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
            continue
        current = result.get(name)
        if type(current) is dict and type(value) is dict:
            result[name] = apply(current, value)
        elif type(current) is dict:
            result[name] = value
        else:
            result[name] = without_nulls(value)
    return result


def without_nulls(value: Any) -> Any:
    """Return a new value of a patch: objects lose what is null."""
    if type(value) is dict:
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    if type(value) is list:
        return [without_nulls(item) for item in value]
    return value

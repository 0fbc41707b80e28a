"""Maps and lists that a client gave as empty, which upstream's complaints show otherwise than missing ones.

Typed objects have an empty map either way; Go has an empty one or none. Only a complaint can tell, so objects are
marked when they have been found bad, and looked at once more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from haven.apimachinery import meta

__all__ = ["given", "is_given", "mark_given"]


class _GivenMap(dict[Any, Any]):
    """An empty map that was written down."""


class _GivenList(list[Any]):
    """An empty list that was written down."""


def is_given(value: Any) -> bool:
    """Tell an empty map or list that the client wrote down."""
    return isinstance(value, _GivenMap | _GivenList)


def given(value: Any) -> Any:
    """Return a map or list for a complaint; None if it is empty and nobody wrote it down."""
    return value if value or is_given(value) else None


def mark_given(tree: Any, obj: Any) -> bool:
    """Mark what a body gave as empty in the object that was made of it; return whether there was anything."""
    if isinstance(obj, msgspec.Struct) and isinstance(tree, Mapping):
        return _mark_struct(tree, obj)
    if isinstance(tree, Sequence) and isinstance(obj, list) and len(tree) == len(obj):
        found = [mark_given(part, item) for part, item in zip(tree, obj, strict=True)]
        return any(found)
    return False


def _shows(obj: msgspec.Struct, attribute: str) -> bool:
    """Tell whether a complaint could show the difference: types with JSON tags of their own leave out empty fields."""
    return type(obj).__module__ != meta.__name__ or attribute == "labels"


def _mark_struct(tree: Mapping[str, Any], obj: msgspec.Struct) -> bool:
    found = False
    for name, attribute in zip(obj.__struct_encode_fields__, obj.__struct_fields__, strict=True):
        part = tree.get(name)
        if not isinstance(part, dict | list):
            continue
        value = getattr(obj, attribute)
        if part:
            found = mark_given(part, value) or found
        elif value in ({}, []) and not isinstance(value, msgspec.Struct) and _shows(obj, attribute):
            setattr(obj, attribute, _GivenMap() if isinstance(value, dict) else _GivenList())
            found = True
    return found

"""Maps and lists that a client gave as empty, which upstream's complaints show otherwise than missing ones.

Typed objects have an empty map either way; Go has an empty one or none. Complaints can tell, so objects are marked when
they have been found bad, and looked at once more; and so do the generations of a few kinds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from haven.apimachinery import meta

__all__ = ["given", "gives_empty", "is_given", "mark_given"]


class _GivenMap(dict[Any, Any]):
    """An empty map that was written down."""


class _GivenList(list[Any]):
    """An empty list that was written down."""


class _GivenBytes(bytes):
    """An empty text of bytes that was written down."""


def is_given(value: Any) -> bool:
    """Tell an empty map, list or text of bytes that the client wrote down."""
    return isinstance(value, _GivenMap | _GivenList | _GivenBytes)


def given(value: Any) -> Any:
    """Return a map, list or bytes for a complaint; None if it is empty and nobody wrote it down."""
    return value if value or is_given(value) else None


def mark_given(tree: Any, obj: Any) -> bool:
    """Mark what a body gave as empty in the object that was made of it; return whether there was anything."""
    found = False
    for owner, attribute, empty in _empties(tree, obj):
        if _shows(owner, attribute):
            setattr(owner, attribute, empty)
            found = True
    return found


def gives_empty(tree: Any, obj: Any) -> bool:
    """Tell whether a body gave anything as empty to the object that was made of it."""
    return any(True for _ in _empties(tree, obj))


def _shows(obj: msgspec.Struct, attribute: str) -> bool:
    """Tell whether a complaint could show the difference: types with JSON tags of their own leave out empty fields."""
    return type(obj).__module__ != meta.__name__ or attribute == "labels"


def _empties(tree: Any, obj: Any) -> Iterator[tuple[msgspec.Struct, str, Any]]:
    """Yield what was given as empty: the struct, its attribute, and the value that says so."""
    if isinstance(obj, msgspec.Struct) and isinstance(tree, Mapping):
        for name, attribute in zip(obj.__struct_encode_fields__, obj.__struct_fields__, strict=True):
            part = tree.get(name)
            if part is None or (not part and not isinstance(part, dict | list | str)):
                continue
            value = getattr(obj, attribute)
            if part:
                yield from _empties(part, value)
            elif value == b"" and isinstance(value, bytes):
                yield obj, attribute, _GivenBytes()
            elif value == {} and isinstance(value, dict):
                yield obj, attribute, _GivenMap()
            elif value == [] and isinstance(value, list):
                yield obj, attribute, _GivenList()
    elif isinstance(tree, list) and isinstance(obj, list) and len(tree) == len(obj):
        for part, item in zip(tree, obj, strict=True):
            yield from _empties(part, item)

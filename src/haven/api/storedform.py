"""What becomes of an object when it is stored: lists without items and lists that were not given are the same.

Upstream stores protobuf, which cannot tell them apart, so a required list given as `[]` is answered as `null`. The
kinds of two groups are stored as JSON and keep what was given.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Hashable
from functools import cache
from typing import Any, cast

import msgspec

from haven.apimachinery.structs import Struct

__all__ = ["forget_empty_lists"]

_AS_JSON = ("haven.api.apiextensions.", "haven.api.apiregistration.")

Change = Callable[[Any], None]


def forget_empty_lists(obj: Any) -> None:
    """Make `null` of the empty lists in fields that are always written."""
    if (change := _change(cast(Hashable, type(obj)))) is not None:
        change(obj)


@cache
def _change(kind: type[Any]) -> Change | None:
    """Return the change for objects of a type; None if they cannot hold such lists."""
    if kind.__module__.startswith(_AS_JSON) or not issubclass(kind, Struct):
        return None
    lists, inner = _plan(kind, ())
    return _changing(lists, inner) if lists or inner else None


Inner = tuple[str, str, Change]


def _plan(kind: type[Any], outer: tuple[type[Any], ...]) -> tuple[list[str], list[Inner]]:
    lists: list[str] = []
    inner: list[Inner] = []
    hints = typing.get_type_hints(kind)
    for field in msgspec.structs.fields(kind):
        options = _options(hints[field.name])
        shape, item = _shape(options)
        if shape == "list" and type(None) in options and field.default_factory is not msgspec.NODEFAULT:
            lists.append(field.name)
        if item is None or item in outer:
            continue
        deeper = _plan(item, (*outer, kind))
        if deeper[0] or deeper[1]:
            inner.append((field.name, shape, _changing(*deeper)))
    return lists, inner


def _options(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _shape(options: tuple[Any, ...]) -> tuple[str, type[Any] | None]:
    """Return how a field holds structs, and their type: as one, in a list, or in a dict."""
    for option in options:
        origin, arguments = typing.get_origin(option), typing.get_args(option)
        if origin in (list, dict):
            item = arguments[-1]
            is_struct = isinstance(item, type) and issubclass(item, Struct)
            return origin.__name__, item if is_struct else None
        if isinstance(option, type) and issubclass(option, Struct):
            return "one", option
    return "", None


def _changing(lists: list[str], inner: list[Inner]) -> Change:
    def change(obj: Any) -> None:
        for name in lists:
            if getattr(obj, name) == []:
                setattr(obj, name, None)
        for name, shape, deeper in inner:
            value = getattr(obj, name)
            if not value:
                continue
            if shape == "one":
                deeper(value)
            else:
                for item in value if shape == "list" else value.values():
                    deeper(item)

    return change

"""Functions on lists and on lists as sets.

Source: https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-list-library,
https://pkg.go.dev/github.com/google/cel-go/ext#Lists (version 3), #Sets.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from haven.apimachinery.cel import values
from haven.apimachinery.cel.declarations import Library
from haven.apimachinery.cel.errors import CelError
from haven.apimachinery.cel.types import (
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    DYN,
    INT,
    STRING,
    TIMESTAMP,
    UINT,
    list_type,
    type_param,
)

__all__ = ["library"]

_SUMMABLE = (
    ("int", INT, 0),
    ("uint", UINT, values.Uint(0)),
    ("double", DOUBLE, 0.0),
    ("duration", DURATION, values.Duration(0)),
)
_COMPARABLE = (
    ("int", INT), ("uint", UINT), ("double", DOUBLE), ("bool", BOOL), ("duration", DURATION), ("timestamp", TIMESTAMP),
    ("string", STRING), ("bytes", BYTES),
)  # fmt: skip
_RANGE_MAX = 10_000_000


def _is_sorted(items: Any) -> bool:
    previous: Any = None
    for index, item in enumerate(items):
        if index and values.compare(previous, item) > 0:
            return False
        previous = item
    return True


def _sum_from(zero: Any) -> Callable[[Any], Any]:
    return lambda items: functools.reduce(values.add, items, zero)


def _extreme(name: str, sign: int) -> Callable[[Any], Any]:
    def implementation(items: Any) -> Any:
        found: Any = None
        for index, item in enumerate(items):
            if not index or values.compare(item, found) == sign:
                found = item
        if not len(items):
            raise CelError(f"{name} called on empty list")
        return found

    return implementation


def _index_of(items: Any, item: Any) -> int:
    return next((index for index, other in enumerate(items) if values.equal(other, item)), -1)


def _last_index_of(items: Any, item: Any) -> int:
    return max((index for index, other in enumerate(items) if values.equal(other, item)), default=-1)


def _slice(items: Any, start: int, end: int) -> list[Any]:
    if start < 0 or end < 0:
        raise CelError(f"cannot slice({start}, {end}), negative indexes not supported")
    if start > end:
        raise CelError(f"cannot slice({start}, {end}), start index must be less than or equal to end index")
    if len(items) < end:
        raise CelError(f"cannot slice({start}, {end}), list is length {len(items)}")
    return [values.get(items, index) for index in range(start, end)]


def _flatten(items: Any, depth: int = 1) -> list[Any]:
    if depth < 0:
        raise CelError("level must be non-negative")
    out: list[Any] = []
    for item in items:
        if depth and values.is_list(item):
            out.extend(_flatten(item, depth - 1))
        else:
            out.append(item)
    return out


def _sort(items: Any) -> Any:
    return _sort_by(items, items)


def _sort_by(items: Any, keys: Any) -> Any:
    if len(items) != len(keys):
        raise CelError(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got "
            f"{len(items)} and {len(keys)} elements respectively"
        )
    if not len(items):
        return items
    keyed = list(zip(keys, items, strict=True))
    first = values.type_of(keyed[0][0])
    if first.kind not in ("int", "uint", "double", "bool", "duration", "timestamp", "string", "bytes"):
        raise CelError("list elements must be comparable")
    if any(values.type_of(key) != first for key, _ in keyed):
        raise CelError("list elements must have the same type")
    keyed.sort(key=functools.cmp_to_key(_by_key))
    return [item for _, item in keyed]


def _by_key(one: tuple[Any, Any], other: tuple[Any, Any]) -> int:
    return values.compare(one[0], other[0])


def _range(count: int) -> list[int]:
    # The cost is known only afterwards; a list this long is beyond any limit.
    if count > _RANGE_MAX:
        raise CelError("operation cancelled: actual cost limit exceeded")
    return list(range(count))


def _distinct(items: Any) -> list[Any]:
    out: list[Any] = []
    for item in items:
        if not any(values.equal(item, other) for other in out):
            out.append(item)
    return out


def _contains_all(items: Any, wanted: Any) -> bool:
    return all(any(values.equal(item, other) for other in items) for item in wanted)


def library() -> Library:
    lib = Library()
    declare = lib.declare
    item, any_list = type_param("A"), list_type(type_param("A"))
    for name, type_ in _COMPARABLE:
        listed = list_type(type_)
        declare("isSorted", (f"list_{name}_is_sorted_bool", (listed,), BOOL), member=True, implementation=_is_sorted)
        declare("max", (f"list_{name}_max_{name}", (listed,), type_), member=True, implementation=_extreme("max", 1))
        declare("min", (f"list_{name}_min_{name}", (listed,), type_), member=True, implementation=_extreme("min", -1))
    for name, type_, zero in _SUMMABLE:
        declare("sum", (f"list_{name}_sum_{name}", (list_type(type_),), type_, _sum_from(zero)), member=True)
    declare("indexOf", ("list_a_index_of_int", (any_list, item), INT, _index_of), member=True)
    declare("lastIndexOf", ("list_a_last_index_of_int", (any_list, item), INT, _last_index_of), member=True)
    declare("slice", ("list_slice", (any_list, INT, INT), any_list, _slice), member=True)
    declare(
        "flatten", ("list_flatten", (list_type(any_list),), any_list, _flatten),
        ("list_flatten_int", (list_type(DYN), INT), list_type(DYN), _flatten), member=True,
    )  # fmt: skip
    for _, type_ in _COMPARABLE:
        listed = list_type(type_)
        declare("sort", (f"list_{type_.name}_sort", (listed,), listed), member=True, implementation=_sort)
        declare(
            "@sortByAssociatedKeys", (f"list_{type_.name}_sortByAssociatedKeys", (any_list, listed), any_list),
            member=True, implementation=_sort_by,
        )  # fmt: skip
    declare("lists.range", ("lists_range", (INT,), list_type(INT), _range))
    declare("reverse", ("list_reverse", (any_list,), any_list, lambda items: list(items)[::-1]), member=True)
    declare("distinct", ("list_distinct", (any_list,), any_list, _distinct), member=True)
    declare("sets.contains", ("list_sets_contains_list", (any_list, any_list), BOOL, _contains_all))
    declare(
        "sets.equivalent",
        ("list_sets_equivalent_list", (any_list, any_list), BOOL,
         lambda one, other: _contains_all(one, other) and _contains_all(other, one)),
    )  # fmt: skip
    declare(
        "sets.intersects",
        ("list_sets_intersects_list", (any_list, any_list), BOOL,
         lambda one, other: any(any(values.equal(item, mine) for mine in other) for item in one)),
    )  # fmt: skip
    return lib

"""What calls cost while an expression runs.

One unit is about one step of the evaluator. The figures are upstream's, so that what is refused here is what is
refused there.

Source: https://kubernetes.io/docs/reference/using-api/cel/#runtime-cost-budget; cel-go's and Kubernetes' cost trackers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from haven.apimachinery.cel.values import ListView, MapView, Opaque, Optional, entries, is_list, is_map

__all__ = ["LIST_COST", "MAP_COST", "REGEX_FACTOR", "STRING_FACTOR", "STRUCT_COST", "call_cost", "sized"]

LIST_COST: Final = 10
MAP_COST: Final = 30
STRUCT_COST: Final = 40
STRING_FACTOR: Final = 0.1
REGEX_FACTOR: Final = 0.25
# The shortest requirement of a selector is two characters; what represents one is an object and a list.
SELECTOR_REQUIREMENTS: Final = 0.5
REQUIREMENT_COST: Final = float(LIST_COST + STRUCT_COST)

CallCost = Callable[[Sequence[Any], Any], int]

_AUTHORIZATION_CHECK: Final = 350_000
_ONE: Final = frozenset(
    [
        "serviceAccount",
        "path",
        "group",
        "resource",
        "subresource",
        "namespace",
        "name",
        "allowed",
        "reason",
        "error",
        "errored",
        "masked",
        "prefixLength",
        "family",
        "isUnspecified",
        "isLoopback",
        "isLinkLocalMulticast",
        "isLinkLocalUnicast",
        "isGlobalUnicast",
        "format.named",
        "sign",
        "asInteger",
        "isInteger",
        "asApproximateFloat",
        "isGreaterThan",
        "isLessThan",
        "compareTo",
        "add",
        "sub",
        "major",
        "minor",
        "patch",
        "getScheme",
        "getHostname",
        "getHost",
        "getPort",
        "getEscapedPath",
        "getQuery",
    ]
)
_FIRST_TRAVERSED: Final = frozenset(
    [
        "url",
        "lowerAscii",
        "upperAscii",
        "substring",
        "trim",
        "jsonpatch.escapeKey",
        "cidr",
        "isIP",
        "isCIDR",
        "quantity",
        "isQuantity",
        "semver",
        "isSemver",
    ]
)
_EQUALITIES: Final = frozenset(
    f"{order}_{kind}" for order in ("less", "greater", "less_equals", "greater_equals") for kind in ("string", "bytes")
) | {"equals", "not_equals"}
_TRAVERSING: Final = frozenset(
    ["starts_with_string", "ends_with_string", "string_to_bytes", "bytes_to_string", "strings_quote", "string_format"]
)


def sized(value: Any) -> int:
    """Return how many elements, characters or bytes a value has; 1 for what has no size."""
    if isinstance(value, str | bytes | list | dict | ListView | MapView):
        return len(value)
    if isinstance(value, Optional) and value.has_value:
        return sized(value.value)
    return getattr(value, "size", 1) if isinstance(value, Opaque) else 1


def traversed(size: float, factor: float = STRING_FACTOR) -> int:
    return math.ceil(size * factor)


def _compared(args: Sequence[Any], _: Any) -> int:
    return traversed(min(sized(args[0]), sized(args[1])))


def _equals(args: Sequence[Any], result: Any) -> int:
    return 1 if isinstance(args[0], Opaque) else _compared(args, result)


def _matched(text: int, pattern: int) -> int:
    return traversed(1.0 + text) * traversed(pattern, REGEX_FACTOR)


def _walked(value: Any) -> int:
    """The cost of looking at everything in a value once."""
    if isinstance(value, str):
        return int(len(value.encode("utf-8", "surrogatepass")) * STRING_FACTOR)
    if isinstance(value, bytes):
        return int(len(value) * STRING_FACTOR)
    if is_list(value):
        return sum(_walked(item) for item in value)
    if is_map(value):
        return sum(_walked(key) + _walked(item) for key, item in entries(value))
    return 1


def _first_walked(args: Sequence[Any], _: Any) -> int:
    return _walked(args[0])


def _first_traversed(args: Sequence[Any], _: Any) -> int:
    return traversed(sized(args[0]))


def _first_traversed_twice(args: Sequence[Any], _: Any) -> int:
    return traversed(sized(args[0]) * 2)


def _allocated(factor: float, size: int) -> int:
    return int(size * factor) + 1 + LIST_COST


def _self_compared(items: Any) -> int:
    size = sized(items)
    first = next(iter(items), None)
    return _allocated(2.0 + (STRING_FACTOR if isinstance(first, str | bytes) else 0), size * size)


def _contains_ip(args: Sequence[Any], *, text: bool) -> int:
    size = sized(args[0])
    return traversed(size + size) + (traversed(sized(args[1])) if text else 0)


def _contains_cidr(args: Sequence[Any], *, text: bool) -> int:
    size = sized(args[0])
    return traversed(size + size) + traversed(size) + 1 + (traversed(sized(args[1])) if text else 0)


def _validated(args: Sequence[Any], _: Any) -> int:
    return traversed(1.0 + sized(args[1])) * traversed(getattr(args[0], "regex_size", 1), REGEX_FACTOR)


def _selector(args: Sequence[Any], _: Any) -> int:
    return selector_cost(sized(args[1]))


def selector_cost(size: int) -> int:
    """The cost of parsing a selector of so many characters."""
    requirements = math.ceil(size * SELECTOR_REQUIREMENTS)
    return LIST_COST + traversed(size) + math.ceil(requirements * REQUIREMENT_COST)


_BY_OVERLOAD: Final[dict[str, CallCost]] = {
    "list_slice": lambda args, result: _allocated(1, sized(result)),
    "lists_range": lambda args, result: _allocated(1, sized(result)),
    "list_reverse": lambda args, result: _allocated(1, sized(result)),
    "list_flatten": lambda args, result: _allocated(1, sized(args[0])),
    "list_flatten_int": lambda args, result: _allocated(args[1], sized(args[0])),
    "list_distinct": lambda args, result: _self_compared(args[0]),
    "list_sets_contains_list": lambda args, result: 1 + sized(args[0]) * sized(args[1]),
    "list_sets_intersects_list": lambda args, result: 1 + sized(args[0]) * sized(args[1]),
    "list_sets_equivalent_list": lambda args, result: 1 + sized(args[0]) * sized(args[1]) * 2,
    "contains_string": lambda args, result: traversed(sized(args[0])) * traversed(sized(args[1])),
    "matches_string": lambda args, result: _matched(sized(args[0]), sized(args[1])),
    "in_list": lambda args, result: sized(args[1]),
    "add_string": lambda args, result: traversed(sized(args[0]) + sized(args[1])),
    "add_bytes": lambda args, result: traversed(sized(args[0]) + sized(args[1])),
}
_BY_FUNCTION: Final[dict[str, CallCost]] = {
    "fieldSelector": _selector,
    "labelSelector": _selector,
    "isSorted": _first_walked,
    "sum": _first_walked,
    "max": _first_walked,
    "min": _first_walked,
    "indexOf": _first_walked,
    "lastIndexOf": _first_walked,
    "replace": _first_traversed_twice,
    "split": _first_traversed_twice,
    "join": lambda args, result: traversed(sized(result) * 2),
    "find": lambda args, result: _matched(sized(args[0]), sized(args[1])),
    "findAll": lambda args, result: _matched(sized(args[0]), sized(args[1])),
    "ip.isCanonical": _first_traversed_twice,
    "validate": _validated,
    "_==_": _equals,
}


def call_cost(function: str, overload: str) -> int | CallCost:
    """Return what a call costs, or what works it out; an overload not known in advance is ""."""
    if overload.endswith("_sort") and function == "sort":
        return lambda args, result: _self_compared(args[0])
    if overload.endswith("_sortByAssociatedKeys"):
        return lambda args, result: _self_compared(args[1])
    if overload.startswith(("list_", "lists_")) and overload in _BY_OVERLOAD and function != "indexOf":
        return _BY_OVERLOAD[overload]
    if function == "check":
        return _AUTHORIZATION_CHECK
    if function in _ONE:
        return 1
    if function in _FIRST_TRAVERSED:
        return _first_traversed
    if function == "ip":
        return 1 if overload == "cidr_ip" else _first_traversed
    if function == "containsIP":
        return lambda args, result: _contains_ip(args, text=overload == "cidr_contains_ip_string")
    if function == "containsCIDR":
        return lambda args, result: _contains_cidr(args, text=overload == "cidr_contains_cidr_string")
    if function in _BY_FUNCTION:
        return _BY_FUNCTION[function]
    if overload in _EQUALITIES:
        return _compared
    if overload in _TRAVERSING:
        return _first_traversed
    return _BY_OVERLOAD.get(overload, 1)

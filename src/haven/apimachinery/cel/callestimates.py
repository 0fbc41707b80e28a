"""What calls of library functions cost at least and at most, and how large their results are.

Source: the behaviour of Kubernetes' and cel-go's cost estimators.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from haven.apimachinery.cel import ast
from haven.apimachinery.cel.costranges import ONE, UNLIMITED, ZERO, Argument, CallEstimate, Range, Sizes, fixed
from haven.apimachinery.cel.runtimecosts import (
    LIST_COST,
    REGEX_FACTOR,
    REQUIREMENT_COST,
    SELECTOR_REQUIREMENTS,
    STRING_FACTOR,
)

__all__ = ["BY_FUNCTION", "BY_OVERLOAD", "sort_rule"]

Rule = Callable[[Sizes, str, Argument | None, list[Argument]], CallEstimate | None]


def _int_literal(node: Argument, default: int) -> int:
    expr = node.expr
    if isinstance(expr, ast.Literal) and type(expr.value) is int:
        return max(expr.value, 0)
    return default


def _allocated(factor: float, size: Range) -> CallEstimate:
    return CallEstimate(size.scaled(factor).plus(ONE).plus(fixed(LIST_COST)), size)


def _slice(coster: Sizes, _: str, target: Argument | None, args: list[Argument]) -> CallEstimate | None:
    if target is None or len(args) != 2:
        return None
    start, end = _int_literal(args[0], 0), _int_literal(args[1], coster.size_of(target).high)
    return _allocated(1, fixed((end - start) & UNLIMITED))


def _range(_: Sizes, __: str, ___: Argument | None, args: list[Argument]) -> CallEstimate | None:
    return _allocated(1, fixed(_int_literal(args[0], UNLIMITED)))


def _reverse(coster: Sizes, _: str, target: Argument | None, args: list[Argument]) -> CallEstimate | None:
    return _allocated(1, coster.size_of(target)) if target is not None else None


def _flatten(coster: Sizes, _: str, target: Argument | None, args: list[Argument]) -> CallEstimate | None:
    if target is None:
        return None
    depth = _int_literal(args[0], UNLIMITED) if args else 1
    return _allocated(float(depth), coster.size_of(target))


def _distinct(coster: Sizes, _: str, target: Argument | None, args: list[Argument]) -> CallEstimate | None:
    if target is None:
        return None
    size = coster.size_of(target)
    return _allocated(2.0, size.times(size))


def sort_rule(overload: str) -> Rule | None:
    if not overload.endswith(("_sort", "_sortByAssociatedKeys")):
        return None
    factor = 2.0 + (STRING_FACTOR if overload.startswith(("list_string_", "list_bytes_")) else 0)

    def rule(coster: Sizes, _: str, target: Argument | None, args: list[Argument]) -> CallEstimate | None:
        node = args[0] if args else target
        if node is None:
            return None
        size = coster.size_of(node)
        return _allocated(factor, size.times(size))

    return rule


def _sets(factor: float) -> Rule:
    def rule(coster: Sizes, _: str, __: Argument | None, args: list[Argument]) -> CallEstimate | None:
        return CallEstimate(coster.size_of(args[0]).times(coster.size_of(args[1])).scaled(factor).plus(ONE))

    return rule


BY_OVERLOAD: Final[dict[str, Rule]] = {
    "list_slice": _slice,
    "list_flatten": _flatten,
    "list_flatten_int": _flatten,
    "lists_range": _range,
    "list_reverse": _reverse,
    "list_distinct": _distinct,
    "list_sets_contains_list": _sets(1),
    "list_sets_intersects_list": _sets(1),
    "list_sets_equivalent_list": _sets(2),
}


def _of(cost: Range) -> Rule:
    return lambda coster, overload, target, args: CallEstimate(cost)


def selector_range(size: Range) -> Range:
    """The cost of parsing a selector of so many characters: a base, a traversal, and its requirements."""
    requirements = size.scaled(SELECTOR_REQUIREMENTS).scaled(REQUIREMENT_COST)
    return fixed(LIST_COST).plus(size.scaled(STRING_FACTOR)).plus(requirements)


def _selector(coster: Sizes, _: str, __: Argument | None, args: list[Argument]) -> CallEstimate | None:
    return CallEstimate(selector_range(coster.size_of(args[0]))) if len(args) == 1 else None


def _walk(coster: Sizes, _: str, target: Argument | None, args: list[Argument]) -> CallEstimate | None:
    if target is None:
        return None
    element = coster.elements_of(target)
    if element is None:
        return CallEstimate(coster.size_of(target).scaled(STRING_FACTOR))
    each = ONE
    if element.type.kind in ("string", "bytes"):
        each = each.plus(coster.size_of(element).scaled(STRING_FACTOR))
    return CallEstimate(coster.size_of(target).times(each))


def _traverse_arg(coster: Sizes, _: str, __: Argument | None, args: list[Argument]) -> CallEstimate | None:
    return CallEstimate(coster.size_of(args[0]).scaled(STRING_FACTOR)) if args else None


def _traverse_arg_sized(coster: Sizes, _: str, __: Argument | None, args: list[Argument]) -> CallEstimate | None:
    if len(args) != 1:
        return None
    size = coster.size_of(args[0])
    return CallEstimate(size.scaled(STRING_FACTOR), size)


def _traverse_target(coster: Sizes, _: str, target: Argument | None, args: list[Argument]) -> CallEstimate | None:
    if target is None:
        return None
    size = coster.size_of(target)
    return CallEstimate(size.scaled(STRING_FACTOR), size)


def _replace(coster: Sizes, _: str, target: Argument | None, args: list[Argument]) -> CallEstimate | None:
    if target is None or len(args) < 2:
        return None
    size, old, new = coster.size_of(target), coster.size_of(args[0]), coster.size_of(args[1])
    if old.low == 0:
        most, kept_high = min(size.high + 1, UNLIMITED), size.high
    elif new.high <= old.low:
        most, kept_high = 0, size.high
    else:
        most, kept_high = math.ceil(float(size.high) / float(old.low)), 0
    if old.high == 0:
        least, kept_low = min(size.low + 1, UNLIMITED), size.low
    elif old.high <= new.low:
        least, kept_low = 0, size.low
    else:
        least, kept_low = math.ceil(float(size.low) / float(old.high)), 0
    result = Range(least, min(most, UNLIMITED)).times(new).plus(Range(kept_low, kept_high))
    return CallEstimate(size.scaled(2 * STRING_FACTOR), result)


def _split(coster: Sizes, _: str, target: Argument | None, args: list[Argument]) -> CallEstimate | None:
    if target is None:
        return None
    size = coster.size_of(target)
    most = size.high
    if len(args) > 1 and isinstance(args[1].expr, ast.Literal) and type(args[1].expr.value) is int:
        most = args[1].expr.value & UNLIMITED
    return CallEstimate(size.scaled(2 * STRING_FACTOR), Range(0, most))


def _join(coster: Sizes, _: str, target: Argument | None, args: list[Argument]) -> CallEstimate | None:
    if target is None:
        return None
    count, size = coster.size_of(target), ZERO
    element = coster.elements_of(target)
    if element is not None:
        size = count.times(coster.size_of(element))
    if args:
        separators = Range(max(count.low - 1, 0), max(count.high - 1, 0))
        size = size.plus(coster.size_of(args[0]).times(separators))
    return CallEstimate(size.scaled(STRING_FACTOR), size)


def _find(coster: Sizes, _: str, target: Argument | None, args: list[Argument]) -> CallEstimate | None:
    if target is None or not args:
        return None
    size = coster.size_of(target)
    text = size.plus(ONE).scaled(STRING_FACTOR)
    return CallEstimate(text.times(coster.size_of(args[0]).scaled(REGEX_FACTOR)), Range(0, size.high))


_ADDRESS: Final = Range(4, 16)


def _ip(coster: Sizes, overload: str, target: Argument | None, args: list[Argument]) -> CallEstimate | None:
    return CallEstimate(ONE) if overload == "cidr_ip" else _traverse_arg(coster, overload, target, args)


def _is_canonical(coster: Sizes, _: str, __: Argument | None, args: list[Argument]) -> CallEstimate | None:
    return CallEstimate(coster.size_of(args[0]).scaled(2 * STRING_FACTOR))


def _contains_ip(coster: Sizes, overload: str, _: Argument | None, args: list[Argument]) -> CallEstimate | None:
    cost = _ADDRESS.plus(_ADDRESS).scaled(STRING_FACTOR)
    if overload == "cidr_contains_ip_string":
        cost = cost.plus(coster.size_of(args[0]).scaled(STRING_FACTOR))
    return CallEstimate(cost)


def _contains_cidr(coster: Sizes, overload: str, _: Argument | None, args: list[Argument]) -> CallEstimate | None:
    cost = _ADDRESS.plus(_ADDRESS).scaled(STRING_FACTOR).plus(_ADDRESS.scaled(STRING_FACTOR)).plus(ONE)
    if overload == "cidr_contains_cidr_string":
        cost = cost.plus(coster.size_of(args[0]).scaled(STRING_FACTOR))
    return CallEstimate(cost)


FORMAT_REGEX_MAX: Final = 128
FORMAT_NAME_MAX: Final = 64


def _validate(coster: Sizes, _: str, __: Argument | None, args: list[Argument]) -> CallEstimate | None:
    return CallEstimate(coster.size_of(args[0]).scaled(STRING_FACTOR).scaled(FORMAT_REGEX_MAX * REGEX_FACTOR))


_UNIT_EQUALITY: Final = frozenset(
    ["net.IP", "net.CIDR", "kubernetes.Quantity", "kubernetes.Semver"]
    + [
        f"kubernetes.authorization.{name}"
        for name in ("Authorizer", "PathCheck", "GroupCheck", "ResourceCheck", "Decision")
    ]
)


def _equality(coster: Sizes, _: str, __: Argument | None, args: list[Argument]) -> CallEstimate | None:
    first, second = args
    if first.type != second.type or first.type.kind not in ("opaque", "struct"):
        return None
    if first.type.name in _UNIT_EQUALITY:
        return CallEstimate(ONE)
    if first.type.name == "kubernetes.NamedFormat":
        return CallEstimate(Range(1, FORMAT_NAME_MAX).scaled(STRING_FACTOR))
    if first.type.name == "kubernetes.URL":
        high = second.size.high if second.size is not None else 1
        return CallEstimate(Range(1, high).scaled(STRING_FACTOR))
    return None


def _rules() -> dict[str, Rule]:
    rules: dict[str, Rule] = {
        "check": _of(fixed(350_000)), "fieldSelector": _selector, "labelSelector": _selector, "replace": _replace,
        "split": _split, "join": _join, "find": _find, "findAll": _find, "ip": _ip, "ip.isCanonical": _is_canonical,
        "containsIP": _contains_ip, "containsCIDR": _contains_cidr, "validate": _validate, "_==_": _equality,
    }  # fmt: skip
    groups: tuple[tuple[Rule, str], ...] = (
        (_walk, "isSorted sum max min indexOf lastIndexOf"),
        (_traverse_arg_sized, "url jsonpatch.escapeKey"),
        (_traverse_target, "lowerAscii upperAscii substring trim"),
        (_traverse_arg, "cidr isIP isCIDR quantity isQuantity semver isSemver"),
        (_of(ONE),
        """serviceAccount path group resource subresource namespace name allowed reason error errored masked
        prefixLength
            family isUnspecified isLoopback isLinkLocalMulticast isLinkLocalUnicast isGlobalUnicast format.named sign
            asInteger isInteger asApproximateFloat isGreaterThan isLessThan compareTo add sub major minor patch
            getScheme getHostname getHost
            getPort getEscapedPath getQuery"""),
    )  # fmt: skip
    for rule, names in groups:
        for name in names.split():
            rules[name] = rule
    return rules


BY_FUNCTION: Final[dict[str, Rule]] = _rules()

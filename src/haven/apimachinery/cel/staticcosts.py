"""The least and the most an expression can cost, from its types and the sizes its schema allows.

Upstream refuses expressions whose estimate is too high, so the estimate follows cel-go's and Kubernetes' rules
exactly, odd ones included. Sizes and costs saturate at 2^64 - 1, which stands for unlimited.

Source:
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#resource-use-by-validation-functions
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from haven.apimachinery.cel import ast
from haven.apimachinery.cel.checker import Checked
from haven.apimachinery.cel.runtimecosts import (
    LIST_COST,
    MAP_COST,
    REGEX_FACTOR,
    REQUIREMENT_COST,
    SELECTOR_REQUIREMENTS,
    STRING_FACTOR,
    STRUCT_COST,
)
from haven.apimachinery.cel.types import Type

__all__ = ["UNLIMITED", "Range", "SizeEstimator", "estimate"]

UNLIMITED: Final = (1 << 64) - 1
_TWO_TO_64: Final = float(1 << 64)


class Range(NamedTuple):
    """At least and at most: a cost or a size."""

    low: int
    high: int

    def plus(self, other: Range) -> Range:
        return Range(min(self.low + other.low, UNLIMITED), min(self.high + other.high, UNLIMITED))

    def times(self, other: Range) -> Range:
        return Range(min(self.low * other.low, UNLIMITED), min(self.high * other.high, UNLIMITED))

    def scaled(self, factor: float) -> Range:
        return Range(_scaled(self.low, factor), _scaled(self.high, factor))

    def union(self, other: Range) -> Range:
        return Range(min(self.low, other.low), max(self.high, other.high))


def _scaled(value: int, factor: float) -> int:
    product = float(value)
    if product > 0 and factor > 0 and product > _TWO_TO_64 / factor:
        return UNLIMITED
    ceiling = math.ceil(product * factor)
    return UNLIMITED if ceiling >= _TWO_TO_64 else ceiling


def fixed(value: int) -> Range:
    return Range(value, value)


UNKNOWN: Final = Range(0, UNLIMITED)
ZERO: Final = fixed(0)
ONE: Final = fixed(1)
_EMPTY_UNION: Final = Range(UNLIMITED, 0)


class SizeEstimator(Protocol):
    """Knows how large what is at a path can be."""

    def size(self, path: Sequence[str]) -> int | None:
        """Return the most elements, characters or bytes at a path (self, spec, items, @items), None if unknown."""
        ...


class _Node(NamedTuple):
    """An argument as the rules of functions see it."""

    path: tuple[str, ...] | None
    type: Type
    expr: ast.Expr | None
    size: Range | None


class _Entries(NamedTuple):
    """Sizes of what is in a list or map."""

    kind: str
    key: Range
    value: Range


class _Local(NamedTuple):
    path: tuple[str, ...]
    size: Range | None
    entries: _Entries | None


class _Cost(NamedTuple):
    cost: Range
    size: Range | None = None


def estimate(checked: Checked, sizes: SizeEstimator | None = None) -> Range:
    """Return the least and the most an evaluation can cost."""
    return _Coster(checked, sizes).cost(checked.expr)


class _Coster:
    def __init__(self, checked: Checked, sizes: SizeEstimator | None) -> None:
        self._checked = checked
        self._sizes = sizes
        self._paths: dict[int, tuple[str, ...]] = {}
        self._locals: dict[str, list[_Local]] = {}
        self._computed: dict[int, Range] = {}
        self._entries: dict[int, _Entries] = {}

    def cost(self, expr: ast.Expr) -> Range:
        match expr:
            case ast.Literal():
                return ZERO
            case ast.Ident():
                local = self._local(expr.name)
                self._paths[expr.id] = local.path if local is not None else (expr.name,)
                return ONE
            case ast.Select():
                return self._select(expr)
            case ast.Call():
                return self._call(expr)
            case ast.ListExpr():
                return self._list(expr)
            case ast.MapExpr():
                return self._map(expr)
            case ast.Struct():
                total = ZERO
                for entry in expr.entries:
                    total = total.plus(self.cost(entry.value))
                return total.plus(fixed(STRUCT_COST))
            case ast.Comprehension():
                return self._bind(expr) if expr.is_bind else self._loop(expr)
        raise AssertionError(expr)

    # --- what is known of parts

    def _type(self, expr: ast.Expr) -> Type:
        return self._checked.types[expr.id]

    def _local(self, name: str) -> _Local | None:
        stack = self._locals.get(name)
        return stack[-1] if stack else None

    def _push(self, name: str, local: _Local) -> None:
        self._locals.setdefault(name, []).append(local)

    def _path(self, expr: ast.Expr) -> tuple[str, ...]:
        if isinstance(expr, ast.Ident):
            local = self._local(expr.name)
            if local is not None:
                return local.path
        return self._paths.get(expr.id, ())

    def _size(self, expr: ast.Expr) -> Range | None:
        known = self._computed.get(expr.id)
        if known is not None:
            return known
        match expr:
            case ast.Literal():
                value = expr.value
                return fixed(len(value)) if isinstance(value, str | bytes) else ONE
            case ast.ListExpr():
                return fixed(len(expr.elements))
            case ast.MapExpr():
                return fixed(len(expr.entries))
        estimated = self._estimated(self._path(expr))
        if estimated is not None:
            self._computed[expr.id] = estimated
            return estimated
        if _is_scalar(self._type(expr)):
            return ONE
        if isinstance(expr, ast.Ident):
            local = self._local(expr.name)
            if local is not None:
                return local.size
        return None

    def _estimated(self, path: tuple[str, ...] | None) -> Range | None:
        if not path or self._sizes is None:
            return None
        size = self._sizes.size(path)
        return None if size is None else Range(0, size)

    def _size_or_unknown(self, expr: ast.Expr) -> Range:
        return self._size(expr) or UNKNOWN

    def _entry_sizes(self, expr: ast.Expr | None) -> _Entries | None:
        if expr is None:
            return None
        known = self._entries.get(expr.id)
        if known is None and isinstance(expr, ast.Ident):
            local = self._local(expr.name)
            known = local.entries if local is not None else None
        return known

    def _set_size(self, expr: ast.Expr, size: Range | None) -> None:
        if size is not None:
            self._computed[expr.id] = size

    def _node(self, expr: ast.Expr) -> _Node:
        path: tuple[str, ...] | None = self._path(expr)
        if path and path[0] in (ast.ACCUMULATOR, "__result__"):
            path = None
        return _Node(path, self._type(expr), expr, self._size(expr))

    # --- parts

    def _select(self, expr: ast.Select) -> Range:
        total = self.cost(expr.operand)
        if expr.test_only:
            return total
        if self._type(expr.operand).kind in ("map", "struct", "param"):
            total = total.plus(ONE)
        self._paths[expr.id] = (*self._path(expr.operand), expr.field)
        return total

    def _list(self, expr: ast.ListExpr) -> Range:
        total, sizes = ZERO, _EMPTY_UNION if expr.elements else ZERO
        for element in expr.elements:
            total = total.plus(self.cost(element))
            sizes = sizes.union(self._size_or_unknown(element))
        self._entries[expr.id] = _Entries("list", ONE, sizes)
        return total.plus(fixed(LIST_COST))

    def _map(self, expr: ast.MapExpr) -> Range:
        total, keys, sizes = ZERO, *((_EMPTY_UNION, _EMPTY_UNION) if expr.entries else (ZERO, ZERO))
        for entry in expr.entries:
            assert not isinstance(entry.key, str)
            total = total.plus(self.cost(entry.key)).plus(self.cost(entry.value))
            keys = keys.union(self._size_or_unknown(entry.key))
            sizes = sizes.union(self._size_or_unknown(entry.value))
        self._entries[expr.id] = _Entries("map", keys, sizes)
        return total.plus(fixed(MAP_COST))

    def _bind(self, expr: ast.Comprehension) -> Range:
        total = self.cost(expr.iter_range).plus(self.cost(expr.accu_init))
        self._push_value(expr.accu_var, expr.accu_init)
        total = total.plus(self.cost(expr.result))
        self._locals[expr.accu_var].pop()
        self._set_size(expr, self._size(expr.result))
        entries = self._entry_sizes(expr.result)
        if entries is not None:
            self._entries[expr.id] = entries
        return total

    def _push_value(self, name: str, expr: ast.Expr) -> None:
        self._push(name, _Local(self._path(expr), self._size(expr), self._entry_sizes(expr)))

    def _loop(self, expr: ast.Comprehension) -> Range:
        ranged = expr.iter_range
        total = self.cost(ranged).plus(self.cost(expr.accu_init))
        self._push_value(expr.accu_var, expr.accu_init)
        entries = self._entry_sizes(ranged)
        is_list = (entries.kind if entries is not None else self._type(ranged).kind) == "list"
        path = self._path(ranged)
        key = entries.key if entries is not None else None
        value = entries.value if entries is not None else None
        if expr.iter_var2:
            self._push(expr.iter_var, _Local((*path, "@indices" if is_list else "@keys"), key, None))
            self._push(expr.iter_var2, _Local((*path, "@items" if is_list else "@values"), value, None))
        else:
            self._push(
                expr.iter_var, _Local((*path, "@items" if is_list else "@keys"), value if is_list else key, None)
            )
        each = self.cost(expr.condition)
        each = self.cost(expr.step).plus(each)
        self._locals[expr.iter_var].pop()
        if expr.iter_var2:
            self._locals[expr.iter_var2].pop()
        total = total.plus(self.cost(expr.result))
        self._locals[expr.accu_var].pop()
        count = self._size_or_unknown(ranged)
        total = total.plus(count.times(each))
        if isinstance(expr.accu_init, ast.Literal):
            self._set_size(expr, self._size(expr.accu_init))
        elif isinstance(expr.accu_init, ast.ListExpr | ast.MapExpr):
            self._computed[expr.id] = count
            stepped = self._entry_sizes(expr.step)
            if stepped is not None:
                self._entries[expr.id] = stepped
        return total

    # --- calls

    def _call(self, expr: ast.Call) -> Range:
        if expr.function == "dyn":
            cost = ONE.plus(self.cost(expr.args[0]))
            self._set_size(expr, self._size(expr.args[0]))
            entries = self._entry_sizes(expr.args[0])
            if entries is not None:
                self._entries[expr.id] = entries
            return cost
        costs, nodes = [], []
        for arg in expr.args:
            costs.append(self.cost(arg))
            nodes.append(self._node(arg))
        total, target = ZERO, None
        if expr.target is not None:
            total = self.cost(expr.target)
            target = self._node(expr.target)
        call, size = _EMPTY_UNION, None
        for overload in self._checked.overloads.get(expr.id, ()):
            found = self._overload(expr, overload, target, nodes, costs)
            call = call.union(found.cost)
            if found.size is not None:
                size = found.size if size is None else size.union(found.size)
            if overload in ("index_list", "index_map") and expr.args:
                entries = self._entry_sizes(expr.args[0])
                size = entries.value if entries is not None else None
                inner = "@items" if overload == "index_list" else "@values"
                self._paths[expr.id] = (*self._path(expr.args[0]), inner)
            if size is None:
                size = self._size(expr)
        self._set_size(expr, size)
        return total.plus(call)

    def _overload(
        self, expr: ast.Call, overload: str, target: _Node | None, args: list[_Node], costs: list[Range]
    ) -> _Cost:
        given = ZERO
        for cost in costs:
            given = given.plus(cost)
        rule = _BY_OVERLOAD.get(overload) or (_sort_rule(overload) if "_sort" in overload else None)
        found = rule(self, overload, target, args) if rule is not None else None
        if found is None:
            by_function = _BY_FUNCTION.get(expr.function)
            found = by_function(self, overload, target, args) if by_function is not None else None
        if found is not None:
            return _Cost(found.cost.plus(given), found.size)
        return self._standard(expr, overload, target, args, costs, given)

    def _standard(
        self, expr: ast.Call, overload: str, target: _Node | None, args: list[_Node], costs: list[Range], given: Range
    ) -> _Cost:
        sizes = [arg.size or UNKNOWN for arg in args]
        own = (target.size or UNKNOWN) if target is not None else UNKNOWN
        match overload:
            case "string_format" if target is not None:
                return _Cost(own.scaled(STRING_FACTOR).plus(given))
            case "string_to_bytes" if len(args) == 1:
                return _Cost(
                    sizes[0].scaled(STRING_FACTOR).plus(given), Range(sizes[0].low, sizes[0].high * 4 & UNLIMITED)
                )
            case "bytes_to_string" if len(args) == 1:
                return _Cost(sizes[0].scaled(STRING_FACTOR).plus(given), Range(sizes[0].low // 4, sizes[0].high))
            case "strings_quote" if len(args) == 1:
                return _Cost(
                    sizes[0].scaled(STRING_FACTOR).plus(given),
                    Range(sizes[0].low + 2, sizes[0].high * 2 + 2 & UNLIMITED),
                )
            case "starts_with_string" | "ends_with_string" if len(args) == 1:
                return _Cost(sizes[0].scaled(STRING_FACTOR).plus(given))
            case "in_list" if len(args) == 2:
                return _Cost(sizes[1].scaled(1).plus(given))
            case "matches_string" if target is not None and len(args) == 1:
                text = own.plus(ONE).scaled(STRING_FACTOR)
                return _Cost(text.times(sizes[0].scaled(REGEX_FACTOR)).plus(given))
            case "contains_string" if target is not None and len(args) == 1:
                return _Cost(own.scaled(STRING_FACTOR).times(sizes[0].scaled(STRING_FACTOR)).plus(given))
            case "logical_and" | "logical_or":
                return _Cost(Range(costs[0].low, costs[0].plus(costs[1]).high))
            case "conditional":
                self._join_entries(expr, args[1].expr, args[2].expr)
                return _Cost(costs[0].plus(costs[1].union(costs[2])), sizes[1].union(sizes[2]))
            case "add_string" | "add_bytes" | "add_list" if len(args) == 2:
                size = sizes[0].plus(sizes[1])
                self._join_entries(expr, args[0].expr, args[1].expr)
                cost = ONE if overload == "add_list" else size.scaled(STRING_FACTOR)
                return _Cost(cost.plus(given), size)
        if overload in _COMPARING:
            smallest = min(sizes[0].high, sizes[1].high)
            return _Cost(Range(1 if smallest > 0 else 0, smallest).scaled(STRING_FACTOR).plus(given))
        return _Cost(ONE.plus(given))

    def _join_entries(self, expr: ast.Expr, first: ast.Expr | None, second: ast.Expr | None) -> None:
        one, other = self._entry_sizes(first), self._entry_sizes(second)
        if one is not None and other is not None:
            self._entries[expr.id] = _Entries(one.kind, one.key.union(other.key), one.value.union(other.value))

    def size_of(self, node: _Node) -> Range:
        return node.size or self._estimated(node.path) or UNKNOWN

    def elements_of(self, node: _Node) -> _Node | None:
        if not node.type.params:
            return None
        return _Node((*node.path, "@items") if node.path is not None else None, node.type.params[0], None, None)


_COMPARING: Final = frozenset(
    f"{order}_{kind}" for order in ("less", "greater", "less_equals", "greater_equals") for kind in ("string", "bytes")
) | {"equals", "not_equals"}


def _is_scalar(type_: Type) -> bool:
    if type_.is_optional:
        return _is_scalar(type_.params[0])
    return type_.kind in ("bool", "double", "duration", "int", "timestamp", "uint")


_Rule = Callable[[_Coster, str, _Node | None, list[_Node]], _Cost | None]


def _int_literal(node: _Node, default: int) -> int:
    expr = node.expr
    if isinstance(expr, ast.Literal) and type(expr.value) is int:
        return max(expr.value, 0)
    return default


def _allocated(factor: float, size: Range) -> _Cost:
    return _Cost(size.scaled(factor).plus(ONE).plus(fixed(LIST_COST)), size)


def _slice(coster: _Coster, _: str, target: _Node | None, args: list[_Node]) -> _Cost | None:
    if target is None or len(args) != 2:
        return None
    start, end = _int_literal(args[0], 0), _int_literal(args[1], coster.size_of(target).high)
    return _allocated(1, fixed((end - start) & UNLIMITED))


def _range(_: _Coster, __: str, ___: _Node | None, args: list[_Node]) -> _Cost | None:
    return _allocated(1, fixed(_int_literal(args[0], UNLIMITED)))


def _reverse(coster: _Coster, _: str, target: _Node | None, args: list[_Node]) -> _Cost | None:
    return _allocated(1, coster.size_of(target)) if target is not None else None


def _flatten(coster: _Coster, _: str, target: _Node | None, args: list[_Node]) -> _Cost | None:
    if target is None:
        return None
    depth = _int_literal(args[0], UNLIMITED) if args else 1
    return _allocated(float(depth), coster.size_of(target))


def _distinct(coster: _Coster, _: str, target: _Node | None, args: list[_Node]) -> _Cost | None:
    if target is None:
        return None
    size = coster.size_of(target)
    return _allocated(2.0, size.times(size))


def _sort_rule(overload: str) -> _Rule | None:
    if not overload.startswith("list_"):
        return None
    factor = 2.0 + (STRING_FACTOR if overload.startswith(("list_string_", "list_bytes_")) else 0)

    def rule(coster: _Coster, _: str, target: _Node | None, args: list[_Node]) -> _Cost | None:
        node = args[0] if args else target
        if node is None:
            return None
        size = coster.size_of(node)
        return _allocated(factor, size.times(size))

    return rule


def _sets(factor: float) -> _Rule:
    def rule(coster: _Coster, _: str, __: _Node | None, args: list[_Node]) -> _Cost | None:
        return _Cost(coster.size_of(args[0]).times(coster.size_of(args[1])).scaled(factor).plus(ONE))

    return rule


_BY_OVERLOAD: Final[dict[str, _Rule]] = {
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


def _of(cost: Range) -> _Rule:
    return lambda coster, overload, target, args: _Cost(cost)


def selector_range(size: Range) -> Range:
    """The cost of parsing a selector of so many characters: a base, a traversal, and its requirements."""
    requirements = size.scaled(SELECTOR_REQUIREMENTS).scaled(REQUIREMENT_COST)
    return fixed(LIST_COST).plus(size.scaled(STRING_FACTOR)).plus(requirements)


def _selector(coster: _Coster, _: str, __: _Node | None, args: list[_Node]) -> _Cost | None:
    return _Cost(selector_range(coster.size_of(args[0]))) if len(args) == 1 else None


def _walk(coster: _Coster, _: str, target: _Node | None, args: list[_Node]) -> _Cost | None:
    if target is None:
        return None
    element = coster.elements_of(target)
    if element is None:
        return _Cost(coster.size_of(target).scaled(STRING_FACTOR))
    each = ONE
    if element.type.kind in ("string", "bytes"):
        each = each.plus(coster.size_of(element).scaled(STRING_FACTOR))
    return _Cost(coster.size_of(target).times(each))


def _traverse_arg(coster: _Coster, _: str, __: _Node | None, args: list[_Node]) -> _Cost | None:
    return _Cost(coster.size_of(args[0]).scaled(STRING_FACTOR)) if args else None


def _traverse_arg_sized(coster: _Coster, _: str, __: _Node | None, args: list[_Node]) -> _Cost | None:
    if len(args) != 1:
        return None
    size = coster.size_of(args[0])
    return _Cost(size.scaled(STRING_FACTOR), size)


def _traverse_target(coster: _Coster, _: str, target: _Node | None, args: list[_Node]) -> _Cost | None:
    if target is None:
        return None
    size = coster.size_of(target)
    return _Cost(size.scaled(STRING_FACTOR), size)


def _replace(coster: _Coster, _: str, target: _Node | None, args: list[_Node]) -> _Cost | None:
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
    return _Cost(size.scaled(2 * STRING_FACTOR), result)


def _split(coster: _Coster, _: str, target: _Node | None, args: list[_Node]) -> _Cost | None:
    if target is None:
        return None
    size = coster.size_of(target)
    most = size.high
    if len(args) > 1 and isinstance(args[1].expr, ast.Literal) and type(args[1].expr.value) is int:
        most = args[1].expr.value & UNLIMITED
    return _Cost(size.scaled(2 * STRING_FACTOR), Range(0, most))


def _join(coster: _Coster, _: str, target: _Node | None, args: list[_Node]) -> _Cost | None:
    if target is None:
        return None
    count, size = coster.size_of(target), ZERO
    element = coster.elements_of(target)
    if element is not None:
        size = count.times(coster.size_of(element))
    if args:
        separators = Range(max(count.low - 1, 0), max(count.high - 1, 0))
        size = size.plus(coster.size_of(args[0]).times(separators))
    return _Cost(size.scaled(STRING_FACTOR), size)


def _find(coster: _Coster, _: str, target: _Node | None, args: list[_Node]) -> _Cost | None:
    if target is None or not args:
        return None
    size = coster.size_of(target)
    text = size.plus(ONE).scaled(STRING_FACTOR)
    return _Cost(text.times(coster.size_of(args[0]).scaled(REGEX_FACTOR)), Range(0, size.high))


_ADDRESS: Final = Range(4, 16)


def _ip(coster: _Coster, overload: str, target: _Node | None, args: list[_Node]) -> _Cost | None:
    return _Cost(ONE) if overload == "cidr_ip" else _traverse_arg(coster, overload, target, args)


def _is_canonical(coster: _Coster, _: str, __: _Node | None, args: list[_Node]) -> _Cost | None:
    return _Cost(coster.size_of(args[0]).scaled(2 * STRING_FACTOR))


def _contains_ip(coster: _Coster, overload: str, _: _Node | None, args: list[_Node]) -> _Cost | None:
    cost = _ADDRESS.plus(_ADDRESS).scaled(STRING_FACTOR)
    if overload == "cidr_contains_ip_string":
        cost = cost.plus(coster.size_of(args[0]).scaled(STRING_FACTOR))
    return _Cost(cost)


def _contains_cidr(coster: _Coster, overload: str, _: _Node | None, args: list[_Node]) -> _Cost | None:
    cost = _ADDRESS.plus(_ADDRESS).scaled(STRING_FACTOR).plus(_ADDRESS.scaled(STRING_FACTOR)).plus(ONE)
    if overload == "cidr_contains_cidr_string":
        cost = cost.plus(coster.size_of(args[0]).scaled(STRING_FACTOR))
    return _Cost(cost)


FORMAT_REGEX_MAX: Final = 128
FORMAT_NAME_MAX: Final = 64


def _validate(coster: _Coster, _: str, __: _Node | None, args: list[_Node]) -> _Cost | None:
    return _Cost(coster.size_of(args[0]).scaled(STRING_FACTOR).scaled(FORMAT_REGEX_MAX * REGEX_FACTOR))


_UNIT_EQUALITY: Final = frozenset(
    ["net.IP", "net.CIDR", "kubernetes.Quantity", "kubernetes.Semver"]
    + [
        f"kubernetes.authorization.{name}"
        for name in ("Authorizer", "PathCheck", "GroupCheck", "ResourceCheck", "Decision")
    ]
)


def _equality(coster: _Coster, _: str, __: _Node | None, args: list[_Node]) -> _Cost | None:
    first, second = args
    if first.type != second.type or first.type.kind not in ("opaque", "struct"):
        return None
    if first.type.name in _UNIT_EQUALITY:
        return _Cost(ONE)
    if first.type.name == "kubernetes.NamedFormat":
        return _Cost(Range(1, FORMAT_NAME_MAX).scaled(STRING_FACTOR))
    if first.type.name == "kubernetes.URL":
        high = second.size.high if second.size is not None else 1
        return _Cost(Range(1, high).scaled(STRING_FACTOR))
    return None


def _rules() -> dict[str, _Rule]:
    rules: dict[str, _Rule] = {
        "check": _of(fixed(350_000)), "fieldSelector": _selector, "labelSelector": _selector, "replace": _replace,
        "split": _split, "join": _join, "find": _find, "findAll": _find, "ip": _ip, "ip.isCanonical": _is_canonical,
        "containsIP": _contains_ip, "containsCIDR": _contains_cidr, "validate": _validate, "_==_": _equality,
    }  # fmt: skip
    groups: tuple[tuple[_Rule, str], ...] = (
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


_BY_FUNCTION: Final[dict[str, Any]] = _rules()

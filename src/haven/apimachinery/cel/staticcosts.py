"""The least and the most an expression can cost, from its types and the sizes its schema allows.

Upstream refuses expressions whose estimate is too high, so the estimate follows cel-go's and Kubernetes' rules
exactly, odd ones included. Sizes and costs saturate at 2^64 - 1, which stands for unlimited.

Source:
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#resource-use-by-validation-functions
"""

from __future__ import annotations

from typing import Final, NamedTuple

from haven.apimachinery.cel import ast
from haven.apimachinery.cel.callestimates import BY_FUNCTION, BY_OVERLOAD, sort_rule
from haven.apimachinery.cel.checker import Checked
from haven.apimachinery.cel.costranges import (
    EMPTY_UNION,
    ONE,
    UNKNOWN,
    UNLIMITED,
    ZERO,
    Argument,
    CallEstimate,
    Entries,
    Range,
    SizeEstimator,
    fixed,
)
from haven.apimachinery.cel.runtimecosts import LIST_COST, MAP_COST, REGEX_FACTOR, STRING_FACTOR, STRUCT_COST
from haven.apimachinery.cel.types import Type

__all__ = ["UNLIMITED", "Range", "SizeEstimator", "estimate"]


class _Local(NamedTuple):
    path: tuple[str, ...]
    size: Range | None
    entries: Entries | None


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
        self._entries: dict[int, Entries] = {}

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

    def _entry_sizes(self, expr: ast.Expr | None) -> Entries | None:
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

    def _node(self, expr: ast.Expr) -> Argument:
        path = self._path(expr) or None
        if path is not None and path[0] in (ast.ACCUMULATOR, "__result__"):
            path = None
        return Argument(path, self._type(expr), expr, self._size(expr))

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
        total, sizes = ZERO, EMPTY_UNION if expr.elements else ZERO
        for element in expr.elements:
            total = total.plus(self.cost(element))
            sizes = sizes.union(self._size_or_unknown(element))
        self._entries[expr.id] = Entries("list", ONE, sizes)
        return total.plus(fixed(LIST_COST))

    def _map(self, expr: ast.MapExpr) -> Range:
        total, keys, sizes = ZERO, *((EMPTY_UNION, EMPTY_UNION) if expr.entries else (ZERO, ZERO))
        for entry in expr.entries:
            assert not isinstance(entry.key, str)
            total = total.plus(self.cost(entry.key)).plus(self.cost(entry.value))
            keys = keys.union(self._size_or_unknown(entry.key))
            sizes = sizes.union(self._size_or_unknown(entry.value))
        self._entries[expr.id] = Entries("map", keys, sizes)
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
        call, size = EMPTY_UNION, None
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
        self, expr: ast.Call, overload: str, target: Argument | None, args: list[Argument], costs: list[Range]
    ) -> CallEstimate:
        given = ZERO
        for cost in costs:
            given = given.plus(cost)
        rule = BY_OVERLOAD.get(overload) or sort_rule(overload)
        found = rule(self, overload, target, args) if rule is not None else None
        if found is None:
            by_function = BY_FUNCTION.get(expr.function)
            found = by_function(self, overload, target, args) if by_function is not None else None
        if found is not None:
            return CallEstimate(found.cost.plus(given), found.size)
        return self._standard(expr, overload, target, args, costs, given)

    def _standard(
        self,
        expr: ast.Call,
        overload: str,
        target: Argument | None,
        args: list[Argument],
        costs: list[Range],
        given: Range,
    ) -> CallEstimate:
        sizes = [arg.size or UNKNOWN for arg in args]
        own = (target.size or UNKNOWN) if target is not None else UNKNOWN
        match overload:
            case "string_format" if target is not None:
                return CallEstimate(own.scaled(STRING_FACTOR).plus(given))
            case "string_to_bytes" if len(args) == 1:
                return CallEstimate(
                    sizes[0].scaled(STRING_FACTOR).plus(given), Range(sizes[0].low, sizes[0].high * 4 & UNLIMITED)
                )
            case "bytes_to_string" if len(args) == 1:
                return CallEstimate(sizes[0].scaled(STRING_FACTOR).plus(given), Range(sizes[0].low // 4, sizes[0].high))
            case "strings_quote" if len(args) == 1:
                return CallEstimate(
                    sizes[0].scaled(STRING_FACTOR).plus(given),
                    Range(sizes[0].low + 2, sizes[0].high * 2 + 2 & UNLIMITED),
                )
            case "starts_with_string" | "ends_with_string" if len(args) == 1:
                return CallEstimate(sizes[0].scaled(STRING_FACTOR).plus(given))
            case "in_list" if len(args) == 2:
                return CallEstimate(sizes[1].scaled(1).plus(given))
            case "matches_string" if target is not None and len(args) == 1:
                text = own.plus(ONE).scaled(STRING_FACTOR)
                return CallEstimate(text.times(sizes[0].scaled(REGEX_FACTOR)).plus(given))
            case "contains_string" if target is not None and len(args) == 1:
                return CallEstimate(own.scaled(STRING_FACTOR).times(sizes[0].scaled(STRING_FACTOR)).plus(given))
            case "logical_and" | "logical_or":
                return CallEstimate(Range(costs[0].low, costs[0].plus(costs[1]).high))
            case "conditional":
                self._join_entries(expr, args[1].expr, args[2].expr)
                return CallEstimate(costs[0].plus(costs[1].union(costs[2])), sizes[1].union(sizes[2]))
            case "add_string" | "add_bytes" | "add_list" if len(args) == 2:
                size = sizes[0].plus(sizes[1])
                self._join_entries(expr, args[0].expr, args[1].expr)
                cost = ONE if overload == "add_list" else size.scaled(STRING_FACTOR)
                return CallEstimate(cost.plus(given), size)
        if overload in _COMPARING:
            smallest = min(sizes[0].high, sizes[1].high)
            return CallEstimate(Range(1 if smallest > 0 else 0, smallest).scaled(STRING_FACTOR).plus(given))
        return CallEstimate(ONE.plus(given))

    def _join_entries(self, expr: ast.Expr, first: ast.Expr | None, second: ast.Expr | None) -> None:
        one, other = self._entry_sizes(first), self._entry_sizes(second)
        if one is not None and other is not None:
            self._entries[expr.id] = Entries(one.kind, one.key.union(other.key), one.value.union(other.value))

    def size_of(self, node: Argument) -> Range:
        return node.size or self._estimated(node.path) or UNKNOWN

    def elements_of(self, node: Argument) -> Argument | None:
        if not node.type.params:
            return None
        return Argument((*node.path, "@items") if node.path is not None else None, node.type.params[0], None, None)


_COMPARING: Final = frozenset(
    f"{order}_{kind}" for order in ("less", "greater", "less_equals", "greater_equals") for kind in ("string", "bytes")
) | {"equals", "not_equals"}


def _is_scalar(type_: Type) -> bool:
    if type_.is_optional:
        return _is_scalar(type_.params[0])
    return type_.kind in ("bool", "double", "duration", "int", "timestamp", "uint")

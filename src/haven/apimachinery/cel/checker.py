"""Find out the type of every part of an expression, and which overloads its calls can mean.

Complaints are collected rather than raised: one compile error lists all of them, in cel-go's words.

Source: https://github.com/google/cel-spec/blob/master/doc/langdef.md#gradual-type-checking.
"""

from __future__ import annotations

from collections.abc import Mapping as Map
from typing import Protocol

from haven.apimachinery.cel import ast
from haven.apimachinery.cel.declarations import Function, Library
from haven.apimachinery.cel.errors import Issue, line_and_column
from haven.apimachinery.cel.parser import Parsed, names_of
from haven.apimachinery.cel.types import (
    BOOL,
    BYTES,
    DOUBLE,
    DYN,
    ERROR,
    INT,
    NULL,
    STRING,
    UINT,
    Mapping,
    Type,
    is_assignable,
    is_assignable_list,
    list_type,
    map_type,
    most_general,
    optional_type,
    substitute,
    type_of_type,
    type_param,
)
from haven.apimachinery.cel.values import Uint

__all__ = ["Checked", "Provider", "check"]

_LITERALS: dict[type, Type] = {
    bool: BOOL, int: INT, Uint: UINT, float: DOUBLE, str: STRING, bytes: BYTES, type(None): NULL,
}  # fmt: skip


class Provider(Protocol):
    """Knows the objects that an expression can meet, by name."""

    def object_type(self, name: str) -> Type | None:
        """Return the object type of this name, None if there is none."""
        ...

    def field_type(self, name: str, field: str) -> Type | None:
        """Return the type of an object's field, None if it has no such field."""
        ...


class Checked:
    """A tree with the type of each node, and by node what names and calls refer to (a name, or overload ids)."""

    __slots__ = ("expr", "issues", "overloads", "references", "source", "types")

    def __init__(self, parsed: Parsed) -> None:
        self.source = parsed.source
        self.expr = parsed.expr
        self.issues: list[Issue] = list(parsed.issues)
        self.types: dict[int, Type] = {}
        self.overloads: dict[int, list[str]] = {}
        self.references: dict[int, str] = {}

    @property
    def output_type(self) -> Type:
        return self.types[self.expr.id]

    def complain(self, expr: ast.Expr, message: str) -> None:
        self.issues.append(Issue(*line_and_column(self.source, expr.offset), message))


def check(parsed: Parsed, library: Library, variables: Map[str, Type], provider: Provider | None) -> Checked:
    """Return the checked tree; its issues tell whether it may be used."""
    checked = Checked(parsed)
    _Checker(checked, library, variables, provider).run()
    return checked


class _Checker:
    def __init__(
        self, checked: Checked, library: Library, variables: Map[str, Type], provider: Provider | None
    ) -> None:
        self._checked = checked
        self._library = library
        self._provider = provider
        self._scopes: list[Map[str, Type]] = [variables]
        self._mapping = Mapping()
        self._free = 0

    def run(self) -> None:
        self._checked.expr = self._check(self._checked.expr)
        types = self._checked.types
        for id_, type_ in types.items():
            types[id_] = substitute(self._mapping, type_, params_to_dyn=True)

    # --- bookkeeping

    def _set(self, expr: ast.Expr, type_: Type) -> None:
        self._checked.types[expr.id] = type_

    def _type(self, expr: ast.Expr) -> Type:
        return self._checked.types[expr.id]

    def _complain(self, expr: ast.Expr, message: str) -> None:
        self._checked.complain(expr, message)

    def _undeclared(self, expr: ast.Expr, name: str) -> None:
        self._complain(expr, f"undeclared reference to '{name}' (in container '')")

    def _mismatch(self, expr: ast.Expr, expected: Type, actual: Type) -> None:
        self._complain(expr, f"expected type '{expected}' but found '{actual}'")

    def _substituted(self, type_: Type) -> Type:
        return substitute(self._mapping, type_, params_to_dyn=False)

    def _new_var(self) -> Type:
        self._free += 1
        return type_param(f"_var{self._free - 1}")

    def _assignable(self, expected: Type, actual: Type) -> bool:
        after = is_assignable(self._mapping, expected, actual)
        if after is None:
            return False
        self._mapping = after
        return True

    def _ident(self, name: str) -> tuple[str, Type] | None:
        bare = name.removeprefix(".")
        for scope in reversed(self._scopes) if not name.startswith(".") else self._scopes[:1]:
            type_ = scope.get(bare)
            if type_ is not None:
                return bare, type_
        if self._provider is not None:
            found = self._provider.object_type(bare)
            if found is not None:
                return bare, type_of_type(found)
        named = self._library.types.get(bare)
        return None if named is None else (bare, type_of_type(named))

    # --- nodes; each may be replaced, as a dotted name turns out to be one name

    def _check(self, expr: ast.Expr) -> ast.Expr:
        match expr:
            case ast.Literal():
                self._set(expr, _LITERALS[type(expr.value)])
            case ast.Ident():
                return self._check_ident(expr)
            case ast.Select():
                return self._check_select(expr)
            case ast.Call():
                self._check_call(expr)
            case ast.ListExpr():
                self._check_list(expr)
            case ast.MapExpr():
                self._check_map(expr)
            case ast.Struct():
                self._check_struct(expr)
            case ast.Comprehension():
                self._check_comprehension(expr)
        return expr

    def _check_ident(self, expr: ast.Ident) -> ast.Expr:
        found = self._ident(expr.name)
        if found is None:
            self._set(expr, ERROR)
            self._undeclared(expr, expr.name)
            return expr
        expr.name = found[0]
        self._set(expr, found[1])
        self._checked.references[expr.id] = found[0]
        return expr

    def _check_select(self, expr: ast.Select) -> ast.Expr:
        names = None if expr.test_only else names_of(expr)
        if names is not None:
            found = self._ident(".".join(names))
            if found is not None:
                self._set(expr, found[1])
                self._checked.references[expr.id] = found[0]
                return ast.Ident(expr.id, expr.offset, found[0])
        expr.operand = self._check(expr.operand)
        result = self._field(expr, expr.operand, expr.field, optional=False)
        self._set(expr, self._substituted(BOOL if expr.test_only else result))
        return expr

    def _field(self, expr: ast.Expr, operand: ast.Expr, field: str, *, optional: bool) -> Type:
        target = self._substituted(self._type(operand))
        was_optional = target.is_optional
        if was_optional:
            target = target.params[0]
        result = DYN
        if target.kind == "map":
            result = target.params[1]
        elif target.kind == "struct":
            result = self._field_type(expr, target.name, field) or ERROR
        elif target.kind == "param":
            self._assignable(DYN, target)
        elif not target.is_dyn_or_error:
            self._complain(expr, f"type '{target}' does not support field selection")
        return optional_type(result) if was_optional or optional else result

    def _field_type(self, expr: ast.Expr, name: str, field: str) -> Type | None:
        if self._provider is None or self._provider.object_type(name) is None:
            self._complain(expr, f"unexpected failed resolution of '{name}'")
            return None
        found = self._provider.field_type(name, field)
        if found is None:
            self._complain(expr, f"undefined field '{field}'")
        return found

    def _check_call(self, expr: ast.Call) -> None:
        if expr.function == "_?._":
            expr.args[0] = self._check(expr.args[0])
            field = expr.args[1]
            assert isinstance(field, ast.Literal)
            assert isinstance(field.value, str)
            result = self._field(expr, expr.args[0], field.value, optional=True)
            self._set(expr, self._substituted(result))
            self._set(field, STRING)
            self._checked.overloads[expr.id] = ["select_optional_field"]
            return
        expr.args = [self._check(arg) for arg in expr.args]
        if expr.target is None:
            name = expr.function.removeprefix(".")
            found = self._library.functions.get(name)
            if found is None:
                self._undeclared(expr, expr.function)
                self._set(expr, ERROR)
                return
            expr.function = name
            self._resolve(expr, found, None)
            return
        names = names_of(expr.target)
        if names is not None:
            qualified = ".".join(names).removeprefix(".") + "." + expr.function
            found = self._library.functions.get(qualified)
            if found is not None:
                expr.function, expr.target = qualified, None
                self._resolve(expr, found, None)
                return
        expr.target = self._check(expr.target)
        found = self._library.functions.get(expr.function)
        if found is None:
            self._set(expr, ERROR)
            self._undeclared(expr, expr.function)
            return
        self._resolve(expr, found, expr.target)

    def _resolve(self, expr: ast.Call, fn: Function, target: ast.Expr | None) -> None:
        args = ([] if target is None else [target]) + expr.args
        types = [self._type(arg) for arg in args]
        if fn.name in ("_&&_", "_||_"):
            wrong = [(arg, type_) for arg, type_ in zip(args, types, strict=True) if not self._assignable(type_, BOOL)]
            for arg, type_ in wrong:
                self._mismatch(arg, BOOL, type_)
            self._set(expr, ERROR if wrong else BOOL)
            self._checked.overloads[expr.id] = [fn.overloads[0].id]
            return
        result: Type | None = None
        ids: list[str] = []
        for overload in fn.overloads:
            if overload.is_member != (target is not None):
                continue
            expected, returned = overload.args, overload.result
            if overload.params:
                fresh = Mapping({param: self._new_var() for param in sorted(overload.params, key=str)})
                expected = tuple(substitute(fresh, arg, params_to_dyn=False) for arg in expected)
                returned = substitute(fresh, returned, params_to_dyn=False)
            after = is_assignable_list(self._mapping, types, expected)
            if after is None:
                continue
            self._mapping = after
            ids.append(overload.id)
            returned = self._substituted(returned)
            if result is None:
                result = returned
            elif not result.is_dyn and returned != result:
                result = DYN
        if result is None:
            shown = [str(substitute(self._mapping, type_, params_to_dyn=True)) for type_ in types]
            if target is not None:
                signature = f"{shown[0]}.({', '.join(shown[1:])})"
            else:
                signature = f"({', '.join(shown)})"
            self._complain(expr, f"found no matching overload for '{fn.name}' applied to '{signature}'")
            self._set(expr, ERROR)
            return
        self._set(expr, result)
        self._checked.overloads[expr.id] = ids

    def _unwrapped(self, expr: ast.Expr) -> Type:
        type_ = self._type(expr)
        if type_.is_optional:
            return type_.params[0]
        if not type_.is_dyn:
            self._mismatch(expr, optional_type(type_), type_)
        return type_

    def _joined(self, expr: ast.Expr, previous: Type | None, current: Type) -> Type:
        if previous is None:
            return current
        if self._assignable(previous, current):
            return most_general(previous, current)
        return DYN  # astchecks.py complains, except where mixed types are welcome.

    def _check_list(self, expr: ast.ListExpr) -> None:
        joined: Type | None = None
        for index, element in enumerate(expr.elements):
            expr.elements[index] = element = self._check(element)
            type_ = self._unwrapped(element) if index in expr.optional_indices else self._type(element)
            joined = self._joined(element, joined, type_)
        self._set(expr, list_type(joined or self._new_var()))

    def _check_map(self, expr: ast.MapExpr) -> None:
        keys: Type | None = None
        joined: Type | None = None
        for entry in expr.entries:
            assert not isinstance(entry.key, str)
            entry.key = self._check(entry.key)
            keys = self._joined(entry.key, keys, self._type(entry.key))
            entry.value = self._check(entry.value)
            type_ = self._unwrapped(entry.value) if entry.is_optional else self._type(entry.value)
            joined = self._joined(entry.value, joined, type_)
        if keys is None or joined is None:
            keys, joined = self._new_var(), self._new_var()
        self._set(expr, map_type(keys, joined))

    def _check_struct(self, expr: ast.Struct) -> None:
        found = self._ident(expr.type_name)
        if found is None:
            self._undeclared(expr, expr.type_name)
            self._set(expr, ERROR)
            return
        result = ERROR
        if found[1].kind != "type":
            self._complain(expr, f"'{found[1].name}' is not a type")
        elif not found[1].params or found[1].params[0].kind != "struct":
            self._complain(expr, f"'{found[1].params[0].name if found[1].params else 'type'}' is not a message type")
        else:
            result = found[1].params[0]
        expr.type_name = found[0]
        self._set(expr, result)
        self._checked.references[expr.id] = found[0]
        for entry in expr.entries:
            assert isinstance(entry.key, str)
            entry.value = self._check(entry.value)
            expected = self._field_type(entry, result.name, entry.key) or ERROR if result is not ERROR else ERROR
            actual = self._unwrapped(entry.value) if entry.is_optional else self._type(entry.value)
            if not self._assignable(expected, actual):
                self._complain(
                    entry, f"expected type of field '{entry.key}' is '{expected}' but provided type is '{actual}'"
                )

    def _check_comprehension(self, expr: ast.Comprehension) -> None:
        expr.iter_range = self._check(expr.iter_range)
        expr.accu_init = self._check(expr.accu_init)
        ranged = self._substituted(self._type(expr.iter_range))
        accumulated = self._type(expr.accu_init)
        self._scopes.append({expr.accu_var: accumulated})
        first, second = DYN, DYN
        if ranged.kind == "list":
            first, second = (INT, ranged.params[0]) if expr.iter_var2 else (ranged.params[0], DYN)
        elif ranged.kind == "map":
            first, second = ranged.params
        elif ranged.kind in ("dyn", "error", "param"):
            self._assignable(DYN, ranged)
        else:
            message = (
                f"expression of type '{ranged}' cannot be range of a comprehension (must be list, map, or dynamic)"
            )
            self._complain(expr.iter_range, message)
            first = second = ERROR
        self._scopes.append({expr.iter_var: first, **({expr.iter_var2: second} if expr.iter_var2 else {})})
        expr.condition = self._check(expr.condition)
        self._assert(expr.condition, BOOL)
        expr.step = self._check(expr.step)
        self._assert(expr.step, accumulated)
        self._scopes.pop()
        expr.result = self._check(expr.result)
        self._scopes.pop()
        self._set(expr, self._substituted(self._type(expr.result)))

    def _assert(self, expr: ast.Expr, expected: Type) -> None:
        if not self._assignable(expected, self._type(expr)):
            self._mismatch(expr, expected, self._type(expr))

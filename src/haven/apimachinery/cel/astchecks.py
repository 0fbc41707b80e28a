"""Checks of a well-typed expression: literals that can only fail, lists and maps of mixed types, wrong format strings.

Source: https://kubernetes.io/docs/reference/using-api/cel/#type-checking; cel-go's validators that Kubernetes turns on.
"""

from __future__ import annotations

from collections.abc import Iterator

from haven.apimachinery.cel import ast, conversions
from haven.apimachinery.cel.checker import Checked
from haven.apimachinery.cel.declarations import Library
from haven.apimachinery.cel.errors import CelError
from haven.apimachinery.cel.library.formatting import check_format
from haven.apimachinery.cel.regexes import BadPatternError, translate

__all__ = ["run"]


def run(checked: Checked, library: Library) -> None:
    """Add what is wrong to the tree's issues."""
    for expr, within_format in _walk(checked.expr, within_format=False):
        if isinstance(expr, ast.Call):
            _check_call(checked, expr)
        elif isinstance(expr, ast.ListExpr) and not within_format:
            _check_list(checked, expr)
        elif isinstance(expr, ast.MapExpr) and not within_format:
            _check_map(checked, expr)


def _walk(expr: ast.Expr, *, within_format: bool) -> Iterator[tuple[ast.Expr, bool]]:
    yield expr, within_format
    inside = within_format or (isinstance(expr, ast.Call) and expr.function == "format")
    for child in ast.children(expr):
        yield from _walk(child, within_format=inside)


def _check_call(checked: Checked, expr: ast.Call) -> None:
    if expr.function == "format" and isinstance(expr.target, ast.Literal) and isinstance(expr.target.value, str):
        if len(expr.args) == 1 and isinstance(expr.args[0], ast.ListExpr):
            _check_format(checked, expr, expr.target.value, expr.args[0])
        return
    if not expr.args or not isinstance(expr.args[0], ast.Literal):
        return
    argument = expr.args[0].value
    try:
        if expr.function == "duration":
            conversions.to_duration(argument)
        elif expr.function == "timestamp":
            conversions.to_timestamp(argument)
        elif expr.function == "matches" and isinstance(argument, str):
            translate(argument)
    except (CelError, BadPatternError):
        checked.complain(expr.args[0], f"invalid {expr.function} argument")


def _check_format(checked: Checked, expr: ast.Call, text: str, given: ast.ListExpr) -> None:
    failure = check_format(text, [checked.types[element.id] for element in given.elements])
    if failure is not None:
        index, message = failure
        checked.complain(given.elements[index] if index is not None else expr, message)


def _check_list(checked: Checked, expr: ast.ListExpr) -> None:
    first = None
    for index, element in enumerate(expr.elements):
        type_ = checked.types[element.id]
        if index in expr.optional_indices and type_.params:
            type_ = type_.params[0]
        if first is None:
            first = type_
        elif first != type_:
            checked.complain(element, f"expected type '{first}' but found '{type_}'")
            break


def _check_map(checked: Checked, expr: ast.MapExpr) -> None:
    key_type = value_type = None
    for entry in expr.entries:
        assert not isinstance(entry.key, str)
        key, value = checked.types[entry.key.id], checked.types[entry.value.id]
        if entry.is_optional and value.params:
            value = value.params[0]
        if key_type is None or value_type is None:
            key_type, value_type = key, value
            continue
        if key_type != key:
            checked.complain(entry.key, f"expected type '{key_type}' but found '{key}'")
        if value_type != value:
            checked.complain(entry.value, f"expected type '{value_type}' but found '{value}'")

"""Columns of custom resources: those that a CustomResourceDefinition declares with JSONPaths.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#additional-printer-columns
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from haven.api.apiextensions import v1 as apiextensions_v1
from haven.apimachinery import meta, times
from haven.apiserver.printers import Printer, printer_for
from haven.apiserver.printers.format import human_duration

__all__ = ["InvalidPath", "compile_path", "custom_printer"]

Tree = dict[str, Any]
Step = Callable[[Any], Iterable[Any]]

_step = re.compile(
    r"""\.?(?P<name>(?:[^.\[\]'"\\\s]|\\.)+)|\.|\[(?P<index>-?\d+)\]|\[\*\]|\['(?P<quoted>(?:[^'\\]|\\.)*)'\]"""
    r"""|\[\?\(@(?P<path>[^=!<>]*?)\s*(?P<operator>==|!=|<=|>=|<|>)\s*(?P<value>"[^"]*"|'[^']*'|[^)\s]+)\s*\)\]"""
    r"""|\[\?\(@(?P<exists>[^=!<>)]*)\)\]""",
    re.VERBOSE,
)


class InvalidPath(ValueError):
    """The JSONPath is not one that columns may have."""


def compile_path(path: str) -> Callable[[Any], list[Any]]:
    """Return a function that finds the values a simple JSONPath leads to; raise InvalidPath."""
    steps: list[Step] = []
    position = 1 if path.startswith("$") else 0
    while position < len(path):
        found = _step.match(path, position)
        if found is None or found.end() == position:
            raise InvalidPath(path)
        position = found.end()
        if found.group() != ".":
            steps.append(_compile_step(found))

    def find(value: Any) -> list[Any]:
        values = [value]
        for step in steps:
            values = [result for one in values for result in step(one)]
        return values

    return find


def _compile_step(found: re.Match[str]) -> Step:
    name = found.group("name") if found.group("name") is not None else found.group("quoted")
    if name is not None:
        key = re.sub(r"\\(.)", r"\1", name)
        if key == "*":
            return _children
        return lambda value: [value[key]] if isinstance(value, dict) and key in value else []
    if found.group("index") is not None:
        index = int(found.group("index"))
        return lambda value: [value[index]] if isinstance(value, list) and -len(value) <= index < len(value) else []
    if found.group("operator") is not None:
        return _comparison(found.group("path"), found.group("operator"), found.group("value"))
    if found.group("exists") is not None:
        inner = compile_path(found.group("exists"))
        return lambda value: [item for item in _children(value) if inner(item)]
    return _children


def _children(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    return list(value.values()) if isinstance(value, dict) else []


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda left, right: bool(left == right), "!=": lambda left, right: bool(left != right),
    "<": lambda left, right: bool(left < right), "<=": lambda left, right: bool(left <= right),
    ">": lambda left, right: bool(left > right), ">=": lambda left, right: bool(left >= right),
}  # fmt: skip


def _comparison(path: str, operator: str, text: str) -> Step:
    inner, compare = compile_path(path), _COMPARE[operator]
    wanted: Any = text[1:-1]
    if text[:1] not in ("'", '"'):
        try:
            wanted = msgspec.json.decode(text)
        except msgspec.DecodeError:
            raise InvalidPath(text) from None

    def meets(item: Any) -> bool:
        return any(type(value) is type(wanted) and compare(value, wanted) for value in inner(item)[:1])

    return lambda value: [item for item in _children(value) if meets(item)]


def custom_printer(columns: Sequence[apiextensions_v1.CustomResourceColumnDefinition]) -> Printer:
    """Return the printer of a custom resource's version, whose `cells` take plain trees; raise InvalidPath.

    Without declared columns there is the age.
    """
    if not columns:
        age = apiextensions_v1.CustomResourceColumnDefinition(
            name="Age",
            type="date",
            json_path=".metadata.creationTimestamp",
            description=printer_for("", "ServiceAccount").columns[-1].description,
        )
        columns = [age]
    paths = [(column.type, compile_path(column.json_path)) for column in columns]

    def cells(tree: Tree, now: float) -> list[Any]:
        row: list[Any] = [tree["metadata"].get("name", "")]
        for kind, find in paths:
            values = find(tree)
            row.append(_cell(kind, values[0], now) if values else None)
        return row

    name = printer_for("", "ServiceAccount").columns[0]
    return Printer([name, *(_definition(column) for column in columns)], cells)


def _definition(column: apiextensions_v1.CustomResourceColumnDefinition) -> meta.TableColumnDefinition:
    return meta.TableColumnDefinition(
        name=column.name,
        type=column.type,
        format=column.format,
        description=column.description or f"Custom resource definition column (in JSONPath format): {column.json_path}",
        priority=column.priority,
    )


def _cell(kind: str, value: Any, now: float) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    match kind:
        case "string":
            return _text(value)
        case "integer":
            return int(value) if is_number else None
        case "number":
            return float(value) if is_number else None
        case "boolean":
            return value if isinstance(value, bool) else None
        case "date" if isinstance(value, str):
            try:
                return human_duration(now - times.parse(value))
            except ValueError:
                return "<invalid>"
    return None


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "<nil>" if value is None else msgspec.json.encode(value).decode()

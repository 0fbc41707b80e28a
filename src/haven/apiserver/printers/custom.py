"""Columns of custom resources: those that a CustomResourceDefinition declares with JSONPaths.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#additional-printer-columns
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from haven.api.apiextensions import v1 as apiextensions_v1
from haven.apimachinery import meta, times
from haven.apimachinery.fielderrors import go_json
from haven.apimachinery.goformat import show
from haven.apimachinery.jsonpath import InvalidPath, compile_path
from haven.apiserver.printers import Printer, printer_for
from haven.apiserver.printers.format import human_duration

__all__ = ["custom_printer"]

Tree = dict[str, Any]


def custom_printer(columns: Sequence[apiextensions_v1.CustomResourceColumnDefinition]) -> Printer:
    """Return the printer of a custom resource's version, whose `cells` take plain trees.

    Without declared columns there is the age. A column whose path cannot be read is left out with all after it.
    """
    if not columns:
        age = apiextensions_v1.CustomResourceColumnDefinition(
            name="Age",
            type="date",
            json_path=".metadata.creationTimestamp",
            description=printer_for("", "ServiceAccount").columns[-1].description,
        )
        columns = [age]
    paths = []
    for column in columns:
        try:
            paths.append((column.type, compile_path(column.json_path)))
        except InvalidPath:
            break

    def cells(tree: Tree, now: float) -> list[Any]:
        row: list[Any] = [tree["metadata"].get("name", "")]
        for kind, find in paths:
            values = find(tree)
            row.append(_cell(kind, values[0], now) if values else None)
        return row

    name = printer_for("", "ServiceAccount").columns[0]
    return Printer([name, *(_definition(column) for column in columns[: len(paths)])], cells)


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
    return go_json(value) if isinstance(value, dict | list) else show(value)

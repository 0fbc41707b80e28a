"""Tables, as `kubectl get` shows them: the columns and the cells of every kind.

Rows are made of typed objects in the version they are stored in, so that two served versions of a kind look alike, as
upstream's internal version does it. Columns are facts (columns.tsv); there is one module of rows per group.
Source: the behaviour of upstream's pkg/printers/internalversion.
"""

from __future__ import annotations

import importlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from haven.apimachinery import facts, meta
from haven.apiserver.printers.format import default_row

__all__ = ["Printer", "printer_for"]

Cells = list[Any]
_FILE = pathlib.Path(__file__).parent / "columns.tsv"
_OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_DEFAULT_COLUMNS = (
    ("Name", "string", "name", "0", f"@{_OBJECT_META}#name"),
    ("Created At", "date", "", "0", f"@{_OBJECT_META}#creationTimestamp"),
)


@dataclass(frozen=True)
class Printer:
    """How objects of one kind become rows.

    `cells(object, now)` returns a row's cells, in the order of `columns`; `now` is in seconds since 1970.
    `conditions` tells what clients may grey out; `order` sorts the rows of a list, None keeps the list's order.
    """

    columns: Sequence[meta.TableColumnDefinition]
    cells: Callable[[Any, float], Cells]
    conditions: Callable[[Any], list[meta.TableRowCondition]] | None = None
    order: Callable[[Any], Any] | None = None


@cache
def printer_for(group: str, kind: str) -> Printer:
    """Return the printer of a built-in kind; a kind without columns of its own shows its name and when it was made."""
    if (group, kind) == ("events.k8s.io", "Event"):
        group = ""  # Events of both groups are stored as the core group's.
    columns = _columns().get((group, kind))
    if columns is None:
        return Printer(_columns()[("", "")], default_row)
    module_name = {"": "core", "internal": "apiserverinternal"}.get(group.partition(".")[0], group.partition(".")[0])
    module = importlib.import_module(f"haven.apiserver.printers.{module_name}")
    rows: Mapping[str, Callable[[Any, float], Cells]] = module.ROWS
    conditions: Mapping[str, Any] = getattr(module, "CONDITIONS", {})
    orders: Mapping[str, Any] = getattr(module, "ORDERS", {})
    return Printer(columns, rows[kind], conditions.get(kind), orders.get(kind))


@cache
def _columns() -> dict[tuple[str, str], tuple[meta.TableColumnDefinition, ...]]:
    prose = facts.descriptions()

    def describe(text: str) -> str:
        if not text.startswith("@"):
            return text.replace("\\n", "\n")
        definition, _, field = text[1:].partition("#")
        return prose[definition][1][field]

    result: dict[tuple[str, str], tuple[meta.TableColumnDefinition, ...]] = {}
    listed = [("", "", *column) for column in _DEFAULT_COLUMNS]
    for line in _FILE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            group, kind, name, type_, format_, priority, description = line.split("\t")
            listed.append((group, kind, name, type_, format_, priority, description))
    for group, kind, name, type_, format_, priority, description in listed:
        column = meta.TableColumnDefinition(
            name=name, type=type_, format=format_, priority=int(priority), description=describe(description)
        )
        result[(group, kind)] = (*result.get((group, kind), ()), column)
    return result

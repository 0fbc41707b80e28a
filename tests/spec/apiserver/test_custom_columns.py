"""Columns that a custom resource definition declares."""

from __future__ import annotations

from typing import Any

import pytest

from haven.api.apiextensions import v1 as apiextensions_v1
from haven.apimachinery import times
from haven.apimachinery.jsonpath import InvalidPath, compile_path
from haven.apiserver.printers.custom import custom_printer

NOW = 1_800_000_000.0
THING = {
    "metadata": {"name": "t", "creationTimestamp": times.format_time(NOW - 90), "annotations": {"a.b/c": "d"}},
    "spec": {"replicas": 3, "ratio": 1.5, "tags": ["x", "y"], "inner": {"k": "v"}, "on": True},
    "status": {"conditions": [{"type": "Ready", "status": "True", "n": 2}, {"type": "Other", "status": "False"}]},
}


@pytest.mark.parametrize(
    ("path", "values"),
    [
        (".spec.replicas", [3]), (".spec.tags[0]", ["x"]), (".spec.tags[-1]", ["y"]), (".spec.tags[*]", ["x", "y"]),
        (".metadata.annotations.a\\.b/c", ["d"]), (".metadata.annotations['a\\.b/c']", ["d"]),
        (".metadata.annotations['a.b/c']", []), (".spec.none", []),
        ('.status.conditions[?(@.type=="Ready")].status', ["True"]), (".status.conditions[?(@.n>1)].type", ["Ready"]),
        (".status.conditions[?(@.n)].type", ["Ready"]), ("$.spec.on", [True]), ("..k", ["v"]),
        (".spec.tags[0,1]", ["x", "y"]),
        (".spec.tags[1:]", ["y"]), (".spec.tags[::2]", ["x"]), (".spec.tags[5]", []), (".spec.replicas[0]", []),
        (".spec['inner'].k", ["v"]), (".", []), (".spec.tags[?(@=='y')]", ["y"]),
        (".status.conditions[?(@.n==1.5)]", []),
        (".status.conditions[?(@.type==Ready)]", []), (".spec.on}", [True]), ("'abc'", ["abc"]),
    ],
)  # fmt: skip
def test_a_path_leads_to_values(path: str, values: list[Any]) -> None:
    assert compile_path(path)(THING) == values


@pytest.mark.parametrize("path", [".a[", "[?(", ".a[b]", "....a", ".a[?(@.b)", "#a"])
def test_a_malformed_path_is_refused(path: str) -> None:
    with pytest.raises(InvalidPath):
        compile_path(path)


def test_cells_have_the_declared_types_and_what_is_missing_is_null() -> None:
    columns = [
        apiextensions_v1.CustomResourceColumnDefinition(name=kind, type=kind, json_path=path, description="d")
        for kind, path in [
            ("integer", ".spec.replicas"), ("integer", ".spec.inner"), ("number", ".spec.ratio"),
            ("boolean", ".spec.on"), ("string", ".spec.inner"), ("string", ".spec.replicas"), ("string", ".spec.none"),
            ("date", ".metadata.creationTimestamp"), ("date", ".spec.inner.k"),
        ]
    ]  # fmt: skip

    assert custom_printer(columns).cells(THING, NOW) == [
        "t", 3, None, 1.5, True, '{"k":"v"}', "3", None, "90s", "<invalid>",
    ]  # fmt: skip


def test_without_declared_columns_there_is_the_age() -> None:
    printer = custom_printer([])

    assert [column.name for column in printer.columns] == ["Name", "Age"]
    assert printer.cells(THING, NOW) == ["t", "90s"]


def test_columns_end_with_the_first_that_cannot_be_read() -> None:
    columns = [
        apiextensions_v1.CustomResourceColumnDefinition(name=name, type="string", json_path=path)
        for name, path in [("a", ".spec.on"), ("b", ".["), ("c", ".spec.on")]
    ]

    printer = custom_printer(columns)

    assert [column.name for column in printer.columns] == ["Name", "a"]
    assert printer.cells(THING, NOW) == ["t", "true"]


def test_text_cells_are_written_as_go_writes_them() -> None:
    column = apiextensions_v1.CustomResourceColumnDefinition(name="a", type="string", json_path=".spec")

    def cell(value: Any) -> Any:
        return custom_printer([column]).cells({"metadata": {"name": "t"}, "spec": value}, NOW)[1]

    assert cell(123456789.125) == "1.23456789125e+08"
    assert cell({"b": 1e21, "a": "<", "c": [0.00001, 1e-7]}) == '{"a":"\\u003c","b":1e+21,"c":[0.00001,1e-7]}'

from __future__ import annotations

from typing import Any

import pytest

from haven.apimachinery.fielderrors import Path
from haven.apimachinery.schema.correlation import Correlation
from haven.apimachinery.schema.listtypes import validate_lists
from haven.apimachinery.schema.values import validate_values


def complaints(value: Any, **schema: Any) -> list[str]:
    root = {"type": "object", "properties": {"x": schema}}
    return [str(error) for error in validate_values({"x": value}, root)]


@pytest.mark.parametrize(
    ("value", "schema", "said"),
    [
        ("a", {"type": "integer"}, 'x: Invalid value: "string": x in body must be of type integer: "string"'),
        (True, {"type": "integer"}, 'x: Invalid value: "boolean": x in body must be of type integer: "boolean"'),
        (None, {"type": "string"}, 'x: Invalid value: "null": x in body must be of type string: "null"'),
        (11, {"type": "integer", "maximum": 10}, "x: Invalid value: 11: x in body should be less than or equal to 10"),
        (
            1,
            {"type": "integer", "minimum": 1, "exclusiveMinimum": True},
            "x: Invalid value: 1: x in body should be greater than 1",
        ),
        (7, {"type": "integer", "multipleOf": 2}, "x: Invalid value: 7: x in body should be a multiple of 2"),
        ("toolong", {"type": "string", "maxLength": 3}, "x: Too long: may not be more than 3 bytes"),
        ("", {"type": "string", "minLength": 1}, 'x: Invalid value: "": x in body should be at least 1 chars long'),
        ("B", {"type": "string", "pattern": "^[a-z]$"}, "x: Invalid value: \"B\": x in body should match '^[a-z]$'"),
        ("c", {"type": "string", "enum": ["a", "b"]}, 'x: Unsupported value: "c": supported values: "a", "b"'),
        (3, {"type": "integer", "enum": [1, 2]}, 'x: Unsupported value: 3: supported values: "1", "2"'),
        ([], {"type": "array", "minItems": 1}, "x: Invalid value: 0: x in body should have at least 1 items"),
        ([1, 2], {"type": "array", "maxItems": 1}, "x: Too many: 2: must have at most 1 item"),
        ({"a": 1, "b": 2}, {"type": "object", "maxProperties": 1}, "x: Too many: 2: must have at most 1 item"),
        ({}, {"type": "object", "required": ["a"]}, "x.a: Required value"),
        (
            "2020",
            {"type": "string", "format": "date-time"},
            'x: Invalid value: "2020": x in body must be of type date-time: "2020"',
        ),
        (1, {"not": {"type": "integer"}}, '<nil>: Invalid value: "": "x" must not validate the schema (not)'),
        (
            2**31,
            {"type": "integer", "format": "int32"},
            '<nil>: Invalid value: "": Checked value must be of type integer with format int32 in x',
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_in_upstreams_words(value: Any, schema: dict[str, Any], said: str) -> None:
    assert complaints(value, **schema) == [said]


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        (1.0, {"type": "integer"}),
        (1, {"type": "number"}),
        (None, {"type": "string", "nullable": True}),
        ("80", {"x-kubernetes-int-or-string": True}),
        ("whatever", {"type": "string", "format": "no-such-format"}),
        ("2024-01-01T00:00:00Z", {"type": "string", "format": "date-time"}),
        ("10.0.0.1", {"type": "string", "format": "ipv4"}),
        ("fd00::1/64", {"type": "string", "format": "cidr"}),
        ("1h30m", {"type": "string", "format": "duration"}),
        (0.3, {"type": "number", "multipleOf": 0.1}),
    ],
)
def test_what_fits_is_not_complained_of(value: Any, schema: dict[str, Any]) -> None:
    assert complaints(value, **schema) == []


def test_the_alternative_that_agrees_most_tells_what_is_wrong() -> None:
    found = complaints(
        {"a": "x"},
        oneOf=[{"required": ["b"]}, {"required": ["a"], "properties": {"a": {"type": "integer"}}}],
    )

    assert found[0] == '<nil>: Invalid value: "": "x" must validate one and only one schema (oneOf). Found none valid'
    assert found[1:] == ['x.a: Invalid value: "string": x.a in body must be of type integer: "string"']


def test_a_status_is_complained_of_at_its_place() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}

    errors = validate_values({"n": "x"}, schema, prefix=Path("status"))

    assert str(errors[0]).startswith('status.n: Invalid value: "string": n in body must be of type integer')


KEYED = {
    "type": "object",
    "properties": {
        "s": {"type": "string", "maxLength": 1},
        "l": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["k"],
            "items": {
                "type": "object",
                "properties": {"k": {"type": "string"}, "v": {"type": "integer", "maximum": 1}},
            },
        },
        "free": {"type": "array", "items": {"type": "integer", "maximum": 1}},
    },
}  # fmt: skip


def ratcheted(new: Any, old: Any) -> list[str]:
    return [error.field for error in validate_values(new, KEYED, correlation=Correlation(new, old, KEYED))]


def test_what_was_wrong_before_may_stay_while_other_things_change() -> None:
    old = {"s": "long", "l": [{"k": "a", "v": 5}, {"k": "b", "v": 1}]}

    assert ratcheted({"s": "long", "l": [{"k": "b", "v": 0}, {"k": "a", "v": 5}]}, old) == []
    assert ratcheted({"s": "longer", "l": old["l"]}, old) == ["s"]
    assert ratcheted({"s": "long", "l": [{"k": "a", "v": 6}]}, old) == ["l[0].v"]


def test_items_of_other_lists_cannot_be_told_apart() -> None:
    assert ratcheted({"free": [5]}, {"free": [5]}) == []
    assert ratcheted({"free": [5, 1]}, {"free": [5]}) == ["free[0]"]


def test_items_of_sets_and_of_keyed_lists_are_unique() -> None:
    schema = {
        "type": "object",
        "properties": {"l": KEYED["properties"]["l"], "s": {"type": "array", "x-kubernetes-list-type": "set"}},  # type: ignore[index]
    }

    errors = validate_lists({"l": [{"k": "a"}, {"k": "b"}, {"k": "a"}], "s": [1, "1", 1, 1]}, schema)

    assert [str(error) for error in errors] == ['l[2]: Duplicate value: {"k":"a"}', "s[2]: Duplicate value: 1"]


@pytest.mark.parametrize(
    ("value", "schema", "said"),
    [
        (1e6, {"type": "number", "maximum": 1}, "x: Invalid value: 1e+06: x in body should be less than or equal to 1"),
        (
            2**63 - 1,
            {"type": "integer", "multipleOf": 0.5},
            "x: Invalid value: 9.223372036854776e+18: x in body should be a multiple of 0.5",
        ),
        (1.5, {"type": "number", "enum": [1, 3]}, None),
        (3, {"type": "number", "enum": [2.5]}, 'x: Unsupported value: 3: supported values: "2.5"'),
    ],
)
def test_numbers_are_compared_and_shown_as_go_does(value: Any, schema: dict[str, Any], said: str | None) -> None:
    assert said is None or said in complaints(value, **schema)
    assert said is not None or complaints(value, **schema) == []


def changed(new: Any, old: Any, **schema: Any) -> list[str]:
    root = {"type": "object", "properties": {"x": schema}}
    correlation = Correlation({"x": new}, {"x": old}, root)
    return [error.field for error in validate_values({"x": new}, root, correlation=correlation)]


TEXT = {"type": "string"}


def test_what_did_not_change_is_forgiven_as_far_as_the_schema_tells_its_parts() -> None:
    needs = {"type": "object", "required": ["n"], "properties": {"a": TEXT}}

    assert changed({"a": "b"}, {"a": "b"}, **needs) == []
    assert changed({"z": 1}, {"z": 1}, **needs) == ["x.n"]


def test_items_without_their_keys_are_never_the_same() -> None:
    items = {"type": "object", "required": ["k"], "properties": {"k": TEXT}}
    keyed = {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": items}

    assert changed([{}], [{}], **keyed) == ["x[0].k"]
    assert changed([{}], [{}], type="array", items=items) == []


def test_nothing_within_all_of_is_forgiven() -> None:
    narrow = {"properties": {"n": {"enum": ["a"]}}}

    assert changed({"n": "b", "m": 1}, {"n": "b"}, type="object", properties={"n": TEXT}, allOf=[narrow]) == [
        "x.n", "<nil>",
    ]  # fmt: skip

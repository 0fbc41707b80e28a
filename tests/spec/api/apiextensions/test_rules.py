from __future__ import annotations

from typing import Any

import pytest

from haven.api.apiextensions import v1
from haven.api.apiextensions.rulechecks import check_rules
from haven.api.apiextensions.rules import compile_rules
from haven.apimachinery import serialization
from haven.apimachinery.fielderrors import Path
from haven.apimachinery.schema.correlation import Correlation

Tree = dict[str, Any]


def a_schema(*rules: Tree, **properties: Tree) -> Tree:
    spec = {"type": "object", "properties": properties, "x-kubernetes-validations": list(rules)}
    return {"type": "object", "properties": {"spec": spec}}


def thing(**spec: Any) -> Tree:
    return {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": spec}


def complaints(schema: Tree, new: Tree, old: Tree | None = None) -> list[str]:
    rules = compile_rules(schema)
    assert rules is not None
    return [str(error) for error in rules.evaluate(new, old)[0]]


INTEGER = {"type": "integer"}
TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"rule": "self.a < 2"}, "spec: Invalid value: failed rule: self.a < 2"),
        ({"rule": "self.a < 2", "message": "too much"}, "spec: Invalid value: too much"),
        ({"rule": "self.a < 2", "messageExpression": "'got ' + string(self.a)"}, "spec: Invalid value: got 3"),
        (
            {"rule": "self.a < 2", "message": "m", "fieldPath": ".a", "reason": "FieldValueForbidden"},
            "spec.a: Forbidden: m",
        ),
        ({"rule": "self.a < 2", "message": "m", "reason": "FieldValueRequired"}, "spec: Required value: m"),
        ({"rule": "self.b < 2"}, 'spec: Invalid value: "object": no such key: b evaluating rule: self.b < 2'),
    ],
)
def test_a_rule_that_does_not_hold_is_told(rule: Tree, said: str) -> None:
    assert complaints(a_schema(rule, a=INTEGER, b=INTEGER), thing(a=3)) == [said]


def test_rules_look_at_the_old_value_where_there_is_one() -> None:
    schema = a_schema(a={**TEXT, "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "immutable"}]})

    assert complaints(schema, thing(a="x")) == []
    assert complaints(schema, thing(a="x"), thing()) == []
    assert complaints(schema, thing(a="x"), thing(a="x")) == []
    assert complaints(schema, thing(a="y"), thing(a="x")) == ['spec.a: Invalid value: "y": immutable']


def test_an_optional_old_value_makes_the_rule_run_on_creation() -> None:
    rule = {"rule": "oldSelf.hasValue() || self == 'new'", "optionalOldSelf": True}
    schema = a_schema(a={**TEXT, "x-kubernetes-validations": [rule]})

    assert len(complaints(schema, thing(a="old"))) == 1
    assert complaints(schema, thing(a="new")) == []
    assert complaints(schema, thing(a="old"), thing(a="new")) == []


def test_items_of_keyed_lists_are_compared_with_the_item_of_the_same_key() -> None:
    items = {
        "type": "object",
        "properties": {"k": TEXT, "n": INTEGER},
        "x-kubernetes-validations": [{"rule": "self.n >= oldSelf.n", "message": "shrinks"}],
    }
    ports = {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": items}
    old = thing(l=[{"k": "a", "n": 2}, {"k": "b", "n": 2}])

    found = complaints(a_schema(l=ports), thing(l=[{"k": "b", "n": 3}, {"k": "a", "n": 1}]), old)

    assert found == ["spec.l[1]: Invalid value: shrinks"]


def test_what_did_not_change_may_go_on_breaking_rules_with_a_warning() -> None:
    schema = a_schema(a={**INTEGER, "x-kubernetes-validations": [{"rule": "self < 2", "message": "m"}]}, b=INTEGER)
    rules = compile_rules(schema)
    assert rules is not None
    new, old = thing(a=3, b=1), thing(a=3)

    errors, warnings = rules.evaluate(new, old, correlation=Correlation(new, old, schema))

    assert (errors, warnings) == ([], ["spec.a: Invalid value: 3: m"])


def test_rules_together_have_a_budget() -> None:
    rule = {"rule": "self.l.all(x, self.l.all(y, x == y))", "message": "m"}
    schema = a_schema(*[rule] * 30, l={"type": "array", "items": INTEGER})

    found = complaints(schema, thing(l=[1] * 300))

    assert found[-1].endswith("running out of cost budget, no further validation rules will be run")


def checked(schema: Tree) -> list[str]:
    props = serialization.convert(schema, v1.JSONSchemaProps)
    return [f"{error.field}: {error.detail}" for error in check_rules(props, Path("schema"))]


SPEC = "schema.properties[spec].x-kubernetes-validations[0]"


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"rule": "self.c == 1"}, f"{SPEC}.rule: compilation failed: ERROR: <input>:1:5: undefined field 'c'"),
        ({"rule": "self.a"}, f"{SPEC}.rule: cel expression must evaluate to a bool"),
        (
            {"rule": "self.a > 1", "messageExpression": "1"},
            f"{SPEC}.messageExpression: messageExpression must evaluate to a string",
        ),
        (
            {"rule": "self.a > 1", "optionalOldSelf": True},
            f"{SPEC}.optionalOldSelf: may not be set if oldSelf is not used in rule",
        ),
    ],
)
def test_rules_that_make_no_sense_are_refused_with_the_definition(rule: Tree, said: str) -> None:
    assert [text.split("\n")[0] for text in checked(a_schema(rule, a=INTEGER))] == [said]


def test_the_old_value_of_an_item_that_cannot_be_told_apart_may_not_be_used() -> None:
    items = {**TEXT, "maxLength": 5, "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}

    found = checked(a_schema(l={"type": "array", "maxItems": 3, "items": items}))

    assert found == [
        "schema.properties[spec].properties[l].items.x-kubernetes-validations[0].rule: oldSelf cannot be used on the "
        "uncorrelatable portion of the schema within schema.properties[spec].properties[l]"
    ]


def test_limits_in_the_schema_make_expensive_rules_affordable() -> None:
    rule = {"rule": "self.l.all(x, self.l.all(y, x == y))"}
    items = {"type": "array", "items": {**TEXT, "maxLength": 10}}

    costly = checked(a_schema(rule, l={"type": "array", "items": TEXT}))
    cheap = checked(a_schema(rule, l={**items, "maxItems": 20}))

    assert "estimated rule cost exceeds budget by factor of more than 100x" in costly[0]
    assert cheap == []


def test_a_value_of_another_type_fails_the_rules_that_use_it() -> None:
    rules = [{"rule": "true"}, {"rule": "self == 1"}, {"rule": "true || self == 1"}]
    schema = a_schema(a={**INTEGER, "x-kubernetes-validations": rules})

    assert complaints(schema, thing(a=2.0)) == [
        'spec.a: Invalid value: "integer": invalid data, expected int, got float64 evaluating rule: self == 1'
    ]


def test_an_object_cannot_be_compared_with_a_list() -> None:
    rule = {"rule": "dyn(self.a) == dyn(self.b)"}
    schema = a_schema(rule, a={"type": "object", "properties": {"x": TEXT}}, b={"type": "array", "items": TEXT})

    assert "no such overload" in complaints(schema, thing(a={}, b=[]))[0]


def test_sets_are_equal_by_what_is_written() -> None:
    rule = {"rule": "self.s == self.s", "message": "m"}

    def of(kind: str, *items: Any) -> list[str]:
        listed = {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": kind}}
        return complaints(a_schema(rule, s=listed), thing(s=list(items)))

    assert of("string", "a", "b") == []
    assert of("integer", 1, 2) == []
    assert of("number", 1.5) == []
    assert of("number", 1) == ["spec: Invalid value: m"]

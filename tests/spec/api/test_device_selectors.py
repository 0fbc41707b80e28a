"""Expressions that choose devices."""

from __future__ import annotations

import pytest

from haven.api.resource.selectors import validate_expression
from haven.apimachinery.fielderrors import Path

PLACE = Path("expression")


@pytest.mark.parametrize(
    "expression",
    [
        "device.driver == 'gpu.example.com'",
        "device.attributes['a.b'].x == 1 && device.capacity['a.b'].mem.isGreaterThan(quantity('1Gi'))",
        "device.attributes['a.b'].x",
        "'a.b' in device.attributes && device.attributes['a.b'].model.startsWith('A')",
        "device.allowMultipleAllocations",
        "device.attributes['a.b'].x in ['a']",
        "device.attributes['a.b'].x.y == 1 || has(device.attributes['a.b'].x.z)",
        "true ? device.attributes['a.b'].x : 1",
        "device.attributes['a.b'].x == device.attributes['a.b'].y",
    ],
)
def test_attributes_may_be_of_any_type_and_capacities_are_quantities(expression: str) -> None:
    assert validate_expression(expression, PLACE) == []


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("device.nope", "undefined field 'nope'"),
        ("1 + 1", "must evaluate to bool or the unknown type, not int"),
        ("", "Syntax error: mismatched input '<EOF>'"),
        ("device.capacity['a.b'].mem == 1", "no matching overload"),
        ("device.attributes['a.b'].x.exists(a, a == 1)", "expression of type 'any' cannot be range of a comprehension"),
    ],
)
def test_expressions_that_make_no_sense_are_refused(expression: str, complaint: str) -> None:
    (error,) = validate_expression(expression, PLACE)

    assert complaint in error.body

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haven.apimachinery.apply.fieldset import (
    BadFieldSet,
    canonical,
    difference,
    element_of_keys,
    element_of_value,
    element_text,
    intersection,
    members,
    of_elements,
    ordered,
    recursive_difference,
    union,
)

elements = st.sampled_from(["f:a", "f:b", "f:c", 'k:{"port":9}', 'k:{"port":80}', 'v:"x"', "v:1"])
paths = st.lists(elements, min_size=1, max_size=4).map(tuple)
path_sets = st.frozensets(paths, max_size=8)


def made(found: Any) -> Any:
    return of_elements(*found)


@given(one=path_sets, other=path_sets)
def test_sets_of_fields_are_sets_of_paths(one: Any, other: Any) -> None:
    a, b = made(one), made(other)
    assert set(members(a)) == one
    assert set(members(union(a, b))) == one | other
    assert set(members(intersection(a, b))) == one & other
    assert set(members(difference(a, b))) == one - other
    below = {path for path in one if any(path[: len(top)] == top for top in other)}
    assert set(members(recursive_difference(a, b))) == one - below


@given(one=path_sets, other=path_sets)
def test_operations_leave_their_inputs_alone_and_answer_in_order(one: Any, other: Any) -> None:
    a, b = made(one), made(other)
    before = orjson.dumps([a, b])
    for result in (union(a, b), intersection(a, b), difference(a, b), recursive_difference(a, b)):
        assert in_order(result)
        assert canonical(result) == result
    assert orjson.dumps([a, b]) == before


def in_order(fields: Any) -> bool:
    return list(ordered(fields)) == list(fields) and all(in_order(node) for node in fields.values())


@given(found=path_sets)
def test_a_set_survives_its_encoding(found: Any) -> None:
    assert canonical(orjson.loads(orjson.dumps(made(found)))) == made(found)


def test_items_are_ordered_by_number_not_by_text() -> None:
    fields = canonical({'k:{"port":80}': {}, 'k:{"port":9}': {}, "f:z": {}, "v:10": {}, "v:9": {}, "f:a": {}})
    assert list(fields) == ["f:a", "f:z", 'k:{"port":9}', 'k:{"port":80}', "v:9", "v:10"]


def test_elements_from_elsewhere_get_the_canonical_spelling_and_unknown_kinds_go() -> None:
    fields = canonical({"f:l": {'k:{ "b":1, "a":"<" }': {".": {}}, "x:future": {}}})
    assert fields == {"f:l": {'k:{"a":"\\u003c","b":1}': {}}}


@pytest.mark.parametrize("fields", [{"nocolon": {}}, {"f": {}}, [], {"v:{": {}}, {"i:x": {}}, {"f:a": 5}])
def test_what_is_no_set_is_refused(fields: Any) -> None:
    with pytest.raises(BadFieldSet):
        canonical(fields)


def test_elements_are_shown_as_in_conflicts() -> None:
    assert element_text(element_of_keys([("port", 80), ("protocol", "TCP")])) == '[port=80,protocol="TCP"]'
    assert element_text(element_of_value("a")) == '[="a"]'
    assert element_text("f:spec") == ".spec"
    assert element_text("i:3") == "[3]"

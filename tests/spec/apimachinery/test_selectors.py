"""Selectors choose objects and complain as upstream does."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haven.apimachinery import meta
from haven.apimachinery.fielderrors import Path
from haven.apimachinery.selectors import (
    NOTHING,
    FieldRequirement,
    FieldSelector,
    SelectorError,
    format_label_selector,
    from_label_selector,
    parse_fields,
    parse_labels,
    validate_label_selector,
)

WEB, DB, BARE = {"app": "web", "tier": "front"}, {"app": "db"}, {}


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("", [WEB, DB, BARE]),
        ("app=web", [WEB]),
        ("app==web,tier!=back", [WEB]),
        ("app in (web,db)", [WEB, DB]),
        ("app in (web,db),tier", [WEB]),
        ("app,!tier", [DB]),
        ("tier notin (front)", [DB, BARE]),
        ("tier!=front", [DB, BARE]),
        ("!app", [BARE]),
        ("app=", []),
    ],
)
def test_a_label_selector_chooses_the_objects_whose_labels_meet_all_conditions(text, chosen) -> None:
    selector = parse_labels(text)

    assert [labels for labels in (WEB, DB, BARE) if selector.matches(labels)] == chosen


def test_greater_and_less_compare_integers_and_skip_other_values() -> None:
    values = ["5", "50", "text", "99999999999999999999"]

    assert [value for value in values if parse_labels("v>9").matches({"v": value})] == ["50"]
    assert [value for value in values if parse_labels("v<9").matches({"v": value})] == ["5"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("app===x", "unable to parse requirement: found '=', expected: identifier"),
        ("app in web", "unable to parse requirement: found 'web' expected: '('"),
        ("app in (", "unable to parse requirement: found '', expected: ',', ')' or identifier"),
        (",", "found ',', expected: !, identifier, or 'end of string'"),
        ("a,", "found '', expected: identifier after ','"),
        ("bad key=x", "unable to parse requirement: found 'key', expected: in, notin, =, ==, !=, gt, lt"),
        ("app=bad value!", "found 'value', expected: ',' or 'end of string'"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        (
            "v>x",
            "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be "
            "an integer",
        ),
    ],
)
def test_a_bad_label_selector_is_refused_in_upstreams_words(text: str, complaint: str) -> None:
    with pytest.raises(SelectorError) as caught:
        parse_labels(text)

    assert str(caught.value) == complaint


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("x in (foo,,baz),y,z notin ()", "x in (,baz,foo),y,z notin ()"),
        (" b = c , a != d ", "a!=d,b=c"),
        ("in in (in,notin)", "in in (in,notin)"),
        ("n > 1,m<2,!k", "!k,m<2,n>1"),
    ],
)
def test_the_canonical_text_is_sorted_by_key_and_means_the_same(text: str, canonical: str) -> None:
    assert str(parse_labels(text)) == canonical
    assert parse_labels(canonical) == parse_labels(text)


def test_no_struct_selects_nothing_and_an_empty_one_everything() -> None:
    assert not from_label_selector(None).matches({"a": "b"})
    assert from_label_selector(None) is NOTHING
    assert from_label_selector(meta.LabelSelector()).matches({"a": "b"})
    assert format_label_selector(None) == "<none>"


def test_a_struct_combines_labels_and_expressions() -> None:
    selector = meta.LabelSelector(
        match_labels={"app": "web"},
        match_expressions=[
            meta.LabelSelectorRequirement(key="tier", operator="In", values=["front", "back"]),
            meta.LabelSelectorRequirement(key="old", operator="DoesNotExist"),
        ],
    )

    assert format_label_selector(selector) == "app=web,!old,tier in (back,front)"
    assert from_label_selector(selector).matches(WEB)
    assert not from_label_selector(selector).matches({**WEB, "old": ""})


def test_every_fault_of_a_struct_is_named_with_its_field() -> None:
    selector = meta.LabelSelector(
        match_labels={"-a": "ok"},
        match_expressions=[
            meta.LabelSelectorRequirement(key="k", operator="In"),
            meta.LabelSelectorRequirement(key="k", operator="Exists", values=["v"]),
            meta.LabelSelectorRequirement(key="k", operator="Near", values=["bad value"]),
        ],
    )

    errors = validate_label_selector(selector, Path("spec", "selector"))

    assert [(error.field, error.reason) for error in errors] == [
        ("spec.selector.matchLabels", "FieldValueInvalid"),
        ("spec.selector.matchExpressions[0].values", "FieldValueRequired"),
        ("spec.selector.matchExpressions[1].values", "FieldValueForbidden"),
        ("spec.selector.matchExpressions[2].operator", "FieldValueInvalid"),
        ("spec.selector.matchExpressions[2].values[0]", "FieldValueInvalid"),
    ]


def test_field_selectors_read_equality_and_inequality_and_undo_escapes() -> None:
    selector = parse_fields(r"b!=2,a==x\,y\=z\\")

    assert selector.requirements == (FieldRequirement("a", "=", "x,y=z\\"), FieldRequirement("b", "!=", "2"))
    assert selector.matches({"a": "x,y=z\\", "b": "1"})
    assert not selector.matches({"a": "x,y=z\\", "b": "2"})
    assert parse_fields("a=").matches({})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("metadata.name", "invalid selector: 'metadata.name'; can't understand 'metadata.name'"),
        ("a=b,n>1", "invalid selector: 'a=b,n>1'; can't understand 'n>1'"),
        ("metadata.name===a", "invalid field selector: unescaped character in value: 61"),
        ("a=\\x", "invalid field selector: invalid escape sequence: \\x"),
        ("a=\\", "invalid field selector: invalid escape sequence: \\"),
    ],
)
def test_a_bad_field_selector_is_refused_in_upstreams_words(text: str, complaint: str) -> None:
    with pytest.raises(SelectorError) as caught:
        parse_fields(text)

    assert str(caught.value) == complaint


names = st.text(string.ascii_letters, min_size=1, max_size=5)


@given(
    st.lists(
        st.builds(FieldRequirement, names, st.sampled_from(["=", "!="]), st.text("ab\\,=", max_size=6)), max_size=4
    )
)
def test_the_text_of_a_field_selector_reads_back_as_the_same_conditions(items: list[FieldRequirement]) -> None:
    again = parse_fields(str(FieldSelector(items)))

    assert sorted(map(str, again.requirements)) == sorted(map(str, items))


@given(st.text("abin!=(),<>. ", max_size=20))
def test_any_text_is_either_a_selector_with_a_stable_canonical_text_or_refused(text: str) -> None:
    try:
        selector = parse_labels(text)
    except SelectorError:
        return
    assert parse_labels(str(selector)) == selector

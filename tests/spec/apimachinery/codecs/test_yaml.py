"""YAML is read as upstream reads it, which is neither YAML 1.1 nor 1.2."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haven.apimachinery.codecs import yaml
from haven.apimachinery.codecs.yaml import InvalidYAML, parse, write


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True), ("Off", False), ("y", True), ("~", None), ("", None), ("1e3", 1000), ("1.5", 1.5), ("010", 8),
        ("0x1F", 31), ("0b11", 3), ("1_000", 1000), ("08", 8), ("1:30", "1:30"), ("2020-01-01", "2020-01-01"),
        ("'yes'", "yes"), ("!!str 5", "5"), ("1.0", 1), ("-.5", -0.5), ("1.2.3", "1.2.3"), ("=", "="),
    ],
)  # fmt: skip
def test_a_plain_scalar_means_what_upstream_takes_it_for(text: str, value: object) -> None:
    assert parse(b"k: " + text.encode()) == ({"k": value}, [])


def test_keys_become_text() -> None:
    assert parse(b"1: a\ntrue: b\n1.5: c\n")[0] == {"1": "a", "true": "b", "1.5": "c"}


def test_a_key_given_twice_keeps_its_last_value_and_is_reported_with_its_line() -> None:
    assert parse(b"a:\n  k: 1\n  j: 2\n  k: 3\n") == ({"a": {"k": 3, "j": 2}}, ['line 4: key "k" already set in map'])


def test_merge_keys_and_aliases_are_followed() -> None:
    assert parse(b"base: &b {x: 1, z: 2}\nm:\n  <<: *b\n  x: 3\n")[0]["m"] == {"x": 3, "z": 2}


def test_only_the_first_document_counts() -> None:
    assert parse(b"a: 1\n---\nb: 2\n")[0] == {"a": 1}
    assert parse(b"")[0] is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("metadata:\n\tname: b\n", "yaml: line 2: found character that cannot start any token"),
        ("a: *x", "yaml: unknown anchor 'x' referenced"),
        ("a: &x [*x]", "yaml: anchor value contains itself"),
        ("a: !!int x", "yaml: cannot decode !!str `x` as a !!int"),
        ("a: .nan", "json: unsupported value: NaN"),
    ],
)
def test_what_is_not_yaml_is_refused_in_upstreams_words(text: str, complaint: str) -> None:
    with pytest.raises(InvalidYAML) as caught:
        parse(text.encode())

    assert str(caught.value) == complaint


def test_a_document_that_explodes_through_aliases_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]

    with pytest.raises(InvalidYAML, match="excessive aliasing"):
        parse("\n".join(lines).encode())


def test_answers_look_as_upstream_writes_them() -> None:
    tree = {
        "metadata": {}, "kind": "Status", "items": [{"name": "a", "empty": []}],
        "words": ["yes", "1", "2020-01-01T00:00:00Z", "x: y", "a\nb\n", "", "plain"],
        "k10": 1, "k9": True, "none": None,
    }  # fmt: skip

    assert write(msgspec.json.encode(tree)).decode() == (
        "items:\n- empty: []\n  name: a\nk9: true\nk10: 1\nkind: Status\nmetadata: {}\nnone: null\nwords:\n"
        '- "yes"\n- "1"\n- "2020-01-01T00:00:00Z"\n- \'x: y\'\n- |\n  a\n  b\n- ""\n- plain\n'
    )


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n"), max_size=12)
trees = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)


@given(trees)
def test_every_tree_reads_back_as_it_was_written(tree: object) -> None:
    assert parse(write(msgspec.json.encode(tree)))[0] == tree


def test_numbers_beyond_64_bits_are_floats() -> None:
    assert parse(b"a: 1e20\nb: -99999999999999999999\nc: 18446744073709551615")[0] == {
        "a": 1e20,
        "b": -1e20,
        "c": 2**64 - 1,
    }
    assert isinstance(parse(b"1e20")[0], float)


def test_long_text_is_folded_as_go_yaml_folds_it() -> None:
    words = "word " * 40

    assert write(msgspec.json.encode({"k": words.strip()})).decode() == (
        "k: " + "word " * 15 + "word\n  " + "word " * 15 + "word\n  " + "word " * 7 + "word\n"
    )


def test_text_that_ends_with_blank_lines_ends_no_document() -> None:
    assert write(b'{"k":"a\\n\\n"}') == b"k: |+\n  a\n\n"


TEXTS = st.one_of(
    st.text(max_size=8),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=8),
    st.sampled_from(["<<", "yes", "12", "-", "a: b", "#", "x" * 1100, "\u2028", "\x85", "\\", '"', "\n", "\t"]),
)
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**66), 2**66), st.floats(), st.sampled_from([0, -0.0, 1e3, 1.0]), TEXTS
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(
    st.dictionaries(TEXTS, VALUES, max_size=4),
    st.sampled_from([None, 1, "\t"]),
    st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : "), (",\n", "\n:")]),
    st.booleans(),
)
def test_json_is_read_quickly_as_the_yaml_that_it_is(
    tree: dict[str, object], indent: int | str | None, separators: tuple[str, str], ascii_only: bool
) -> None:
    data = json.dumps(tree, indent=indent, separators=separators, ensure_ascii=ascii_only).encode("utf-8", "replace")
    quick = yaml._parse_json(data)
    if quick is not None:
        slow, repeated = yaml._parse_yaml(data)
        assert (repr(quick), []) == (repr(slow), repeated)


def test_configurations_of_clients_are_read_quickly() -> None:
    data = (
        b'{"kind":"ConfigMap","metadata":{"name":"a-1.2","labels":{"x":"y"}},"data":{"k":"1.5: [] {}"},"n":[1,-2,null]}'
    )

    assert yaml._parse_json(data) == parse(data)[0] == json.loads(data)


@pytest.mark.parametrize(
    "text", ['{"a":1,"a":2}', '{"a":1.0}', '{"a":1e3}', '{"a":"\\u00e9"}', '{"<<":{"a":1}}', "[1]", "{a: 1}"]
)
def test_what_yaml_may_read_in_its_own_way_is_left_to_it(text: str) -> None:
    assert yaml._parse_json(text.encode()) is None

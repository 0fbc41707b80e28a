"""JSONPath templates are read, and refused in the words that client-go has for them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haven.apimachinery.jsonpath import InvalidPath, check_template


@pytest.mark.parametrize(
    "text",
    [
        "", "plain", "{.a.b}", "{.spec.validations[0].expression}", "{..a}", "{.a[*]}", "{.a[1:2:3]}", "{.a['b.c']}",
        "{.a[?(@.b=='c')]}", "{.a[?(@.b)]}", "{.a\\.b}", '{range .a[*]}{"x"}{end}', "{.a[0,1]}", "{$}", "{@.a}", "{.}",
        "{1.5}", "{true}", r"{'\n\'\x41'}", "a{.b}c{.d}",
    ],
)  # fmt: skip
def test_a_template_that_makes_sense_is_taken(text: str) -> None:
    check_template(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "unclosed action"),
        ("{.a", "unclosed action"),
        ("{-a_b.}", "cannot parse number -"),
        ("{*}", "unrecognized character in action: U+002A '*'"),
        ("{/a//../b}", "unrecognized character in action: U+002F '/'"),
        ("{10.0.0.1}", "cannot parse number 10.0.0.1"),
        ("{.a[}", "unterminated array"),
        ("{.a[x]}", "invalid array index x"),
        ("{.a[?(@.b]}", "unterminated filter"),
        ("{.a[?(@.b)}", "unclosed array expect ]"),
        ("{'a}", "unterminated quoted string"),
        (r"{'\q'}", r"unquote string '\q' error invalid syntax"),
        (r"""{'\"'}""", r"""unquote string '\"' error invalid syntax"""),
        ("{....a}", "invalid multiple recursive descent"),
    ],
)
def test_a_template_that_makes_none_is_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidPath) as refusal:
        check_template(text)

    assert str(refusal.value) == words


@given(st.text(alphabet="{}[]().,'\"*?@$:=!<>-+\\ab1_ \n~", max_size=30))
def test_any_text_is_taken_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidPath):
        check_template(text)

"""Patterns that Python's engine could not finish are matched in linear time, with the same results."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis.strategies import lists, sampled_from, text

from haven.apimachinery.cel import linearregex
from haven.apimachinery.cel.linearregex import find_spans
from haven.apimachinery.cel.regexes import BadPatternError, translate

PIECES = [
    "a",
    "b",
    "ab",
    ".",
    "[ab]",
    "[^a]",
    "(a|b)",
    "(a|ab)(c|bcd)?",
    "a*",
    "(a+)+",
    "(a|b)*?",
    "a{2,3}",
    "^",
    "$",
    r"\b",
    "a??",
]


@settings(max_examples=300, deadline=None)
@given(pieces=lists(sampled_from(PIECES), min_size=1, max_size=4), subject=text(alphabet="abcd ", max_size=9))
def test_the_machine_finds_what_pythons_engine_finds(pieces: list[str], subject: str) -> None:
    pattern = translate("".join(pieces)) if _is_valid("".join(pieces)) else translate("a")

    first = next(linearregex._machine_spans(linearregex._program(pattern.pattern, pattern.flags), subject), None)
    expected = pattern.search(subject)

    assert (first is None) == (expected is None)
    if expected is not None:
        assert first == expected.span()


def _is_valid(pattern: str) -> bool:
    try:
        translate(pattern)
    except BadPatternError:
        return False
    return True


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|aa)+$", "(a*)*b", "^(([a-z])+.)+[A-Z]([a-z])+$"])
def test_a_pattern_that_backtracks_forever_is_answered_at_once(pattern: str) -> None:
    begin = time.process_time()

    assert next(find_spans(translate(pattern), "a" * 200 + "!"), None) is None

    assert time.process_time() - begin < 2


def test_names_of_dns_stay_with_the_fast_engine() -> None:
    label = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
    pattern = re.compile(rf"^{label}(\.{label})*\Z")

    assert linearregex._danger(pattern.pattern, pattern.flags)[0] is False

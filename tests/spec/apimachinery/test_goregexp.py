from __future__ import annotations

import pytest

from haven.apimachinery.goregexp import InvalidRegexp, compile_go


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("^a$", "a", True),
        ("^a$", "a\n", False),
        (r"\Aa\z", "a", True),
        ("b", "abc", True),
        ("^[[:alpha:]_]+$", "ab_", True),
        ("^[[:alpha:]]+$", "a1", False),
        (r"^\d+$", "١٢", False),
        (r"^[\w-]+$", "a-b", True),
        ("(?i)^ABC$", "abc", True),
        (r"^\pL+$", "äß", True),
        (r"^[\p{L}\d]+$", "ä1", True),
        (r"^\Qa.b\E$", "a.b", True),
        (r"^\Qa.b\E$", "axb", False),
        ("^[]a]$", "]", True),
        ("^[^]]$", "x", True),
    ],
)
def test_expressions_mean_what_go_makes_of_them(pattern: str, text: str, fits: bool) -> None:
    assert bool(compile_go(pattern).search(text)) is fits


def test_bad_expressions_are_refused() -> None:
    with pytest.raises(InvalidRegexp):
        compile_go("(")

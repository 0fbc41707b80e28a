"""Quantities are read, reckoned and written as upstream does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis.strategies import integers, sampled_from

from haven.api.core.resources import round_up_to_milli
from haven.apimachinery.quantity import Format, InvalidQuantity, Quantity


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("100m", "100m"), ("1000m", "1"), ("0.5", "500m"), ("1.5Gi", "1536Mi"), ("1024", "1024"), ("1Ki", "1Ki"),
        ("2e3", "2e3"), ("12E5", "1200e3"), ("0", "0"), ("-1.5", "-1500m"), ("0.1n", "1n"), ("1500k", "1500k"),
        (".5Mi", "512Ki"), ("0.5Ki", "512"), ("1e400", "10e399"), ("1.5e30", "1500e27"),
        ("9999999999999999999e3", "9999999999999999999e3"), ("9999999999999999999Ki", "9223372036854775807"),
        ("-0.1n", "-1n"), ("1000E", "1"), ("+", "0"), ("-T", "0"), ("Ki", "0"), ("e5", "0"),
    ],
)  # fmt: skip
def test_a_quantity_is_written_in_its_canonical_form(text: str, canonical: str) -> None:
    assert str(Quantity.parse(text)) == canonical


@pytest.mark.parametrize("text", ["1.234", "+1", "0012", "12E6", "5.", "+1Gi", "1025Ki", "1e3", "1.500"])
def test_what_looks_canonical_stays_as_it_was_written(text: str) -> None:
    assert str(Quantity.parse(text)) == text
    assert str(Quantity.parse(text) + Quantity.ZERO) != text or text in ("1e3", "1025Ki")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "regular expression"), ("a", "regular expression"), ("1 Gi", "regular expression"),
        ("--1", "suffix"), ("1..2", "regular expression"), ("0x10", "regular expression"),
        ("1gi", "regular expression"), ("1e", "suffix"), ("1mi", "suffix"), ("1+5", "suffix"), ("+Pi", "numeric part"),
    ],
)  # fmt: skip
def test_what_is_not_a_quantity_is_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidQuantity, match=words):
        Quantity.parse(text)


@pytest.mark.parametrize(
    ("text", "rounded"), [("-3.9n", "-1m"), ("0.1m", "1m"), ("1.0005", "1001m"), ("+1.5", "1500m")]
)
def test_amounts_of_resources_are_rounded_away_from_zero(text: str, rounded: str) -> None:
    amounts = {"cpu": Quantity.parse(text)}

    round_up_to_milli(amounts)

    assert str(amounts["cpu"]) == rounded


@given(nano=integers(-(10**27), 10**27), format=sampled_from(Format))
def test_the_canonical_form_means_the_same_amount(nano: int, format: Format) -> None:
    assert Quantity.parse(str(Quantity(nano, format))).nano == nano


@given(nano=integers(-(10**20), 10**20))
def test_whole_units_are_rounded_away_from_zero(nano: int) -> None:
    value = Quantity(nano).value

    assert abs(value) * 10**9 >= abs(nano) > (abs(value) - 1) * 10**9

"""Quantities are read, reckoned and written as upstream does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis.strategies import integers, sampled_from

from haven.apimachinery.quantity import Format, InvalidQuantity, Quantity


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("100m", "100m"), ("1000m", "1"), ("0.5", "500m"), ("1.5Gi", "1536Mi"), ("1024", "1024"), ("1Ki", "1Ki"),
        ("2e3", "2e3"), ("12E6", "12e6"), ("0", "0"), ("-1.5", "-1500m"), ("0.1n", "1n"), ("1500k", "1500k"),
        ("5.", "5"), (".5Mi", "512Ki"), ("0.5Ki", "512"), ("1e400", "10e399"), ("1.5e30", "1500e27"),
        ("9999999999999999999e3", "9223372036854775807"),
    ],
)  # fmt: skip
def test_a_quantity_is_written_in_its_canonical_form(text: str, canonical: str) -> None:
    assert str(Quantity.parse(text)) == canonical


@pytest.mark.parametrize("text", ["", "a", "1 Gi", "1gi", "--1", "1..2", "0x10", "1e", "Ki"])
def test_what_is_not_a_quantity_is_refused(text: str) -> None:
    with pytest.raises(InvalidQuantity):
        Quantity.parse(text)


@given(nano=integers(-(10**27), 10**27), format=sampled_from(Format))
def test_the_canonical_form_means_the_same_amount(nano: int, format: Format) -> None:
    assert Quantity.parse(str(Quantity(nano, format))).nano == nano


@given(nano=integers(-(10**20), 10**20))
def test_whole_units_are_rounded_away_from_zero(nano: int) -> None:
    value = Quantity(nano).value

    assert abs(value) * 10**9 >= abs(nano) > (abs(value) - 1) * 10**9

"""Quantities (100m, 1.5Gi).

Source: https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-quantity-library.
"""

from __future__ import annotations

from typing import Any

from haven.apimachinery.cel import values
from haven.apimachinery.cel.declarations import Library
from haven.apimachinery.cel.errors import CelError
from haven.apimachinery.cel.types import BOOL, DOUBLE, INT, STRING, object_type
from haven.apimachinery.quantity import Format, InvalidQuantity, Quantity

__all__ = ["QUANTITY", "QuantityValue", "library"]

QUANTITY = object_type("kubernetes.Quantity")
_NANO = 10**9


class QuantityValue(values.Opaque):
    """An exact amount."""

    __slots__ = ("amount",)
    type = QUANTITY

    def __init__(self, amount: Quantity) -> None:
        self.amount = amount

    def equals(self, other: Any) -> bool:
        return bool(self.amount.nano == other.amount.nano)

    def __str__(self) -> str:
        return str(self.amount)


def _parse(text: str) -> QuantityValue:
    try:
        return QuantityValue(Quantity.parse(text))
    except InvalidQuantity as error:
        raise CelError(str(error)) from None


def _is_quantity(text: str) -> bool:
    try:
        Quantity.parse(text)
    except InvalidQuantity:
        return False
    return True


def _is_integer(quantity: QuantityValue) -> bool:
    nano = quantity.amount.nano
    return nano % _NANO == 0 and values.INT_MIN <= nano // _NANO <= values.INT_MAX


def _as_integer(quantity: QuantityValue) -> int:
    if not _is_integer(quantity):
        raise CelError("cannot convert value to integer")
    return quantity.amount.nano // _NANO


def _as_float(quantity: QuantityValue) -> float:
    """Return the digits times a power of ten, as upstream does: a division may differ in the last bit."""
    digits, exponent = quantity.amount.nano, -9
    while digits and digits % 10 == 0 and exponent < 0:
        digits, exponent = digits // 10, exponent + 1
    return float(digits) * float(f"1e{exponent}")


def _compare(one: QuantityValue, other: QuantityValue) -> int:
    return (one.amount > other.amount) - (one.amount < other.amount)


def _whole(number: int) -> Quantity:
    return Quantity(number * _NANO, Format.DECIMAL_EXPONENT)


def library() -> Library:
    lib = Library()
    declare = lib.declare
    q = QUANTITY
    declare("quantity", ("string_to_quantity", (STRING,), q, _parse))
    declare("isQuantity", ("is_quantity_string", (STRING,), BOOL, _is_quantity))
    declare("sign", ("quantity_sign", (q,), INT, lambda one: (one.amount.nano > 0) - (one.amount.nano < 0)))
    declare(
        "isGreaterThan",
        ("quantity_is_greater_than", (q, q), BOOL, lambda one, other: _compare(one, other) == 1),
        member=True,
    )
    declare(
        "isLessThan",
        ("quantity_is_less_than", (q, q), BOOL, lambda one, other: _compare(one, other) == -1),
        member=True,
    )
    declare("compareTo", ("quantity_compare_to", (q, q), INT, _compare), member=True)
    declare("asApproximateFloat", ("quantity_get_float", (q,), DOUBLE, _as_float), member=True)
    declare("asInteger", ("quantity_get_int", (q,), INT, _as_integer), member=True)
    declare("isInteger", ("quantity_is_integer", (q,), BOOL, _is_integer), member=True)
    declare(
        "add", ("quantity_add", (q, q), q, lambda one, other: QuantityValue(one.amount + other.amount)),
        ("quantity_add_int", (q, INT), q, lambda one, number: QuantityValue(one.amount + _whole(number))), member=True,
    )  # fmt: skip
    declare(
        "sub", ("quantity_sub", (q, q), q, lambda one, other: QuantityValue(one.amount - other.amount)),
        ("quantity_sub_int", (q, INT), q, lambda one, number: QuantityValue(one.amount - _whole(number))), member=True,
    )  # fmt: skip
    return lib

"""Quantities: fixed-point numbers with a suffix, such as 100m, 1.5Gi or 2e3.

A quantity keeps its format (binary, decimal or exponent) and is always written in its canonical form: no fraction,
the largest suffix that allows it. Values below 1n are rounded up, as upstream does.
Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import re
from enum import Enum
from fractions import Fraction
from functools import lru_cache
from typing import ClassVar

__all__ = ["Format", "InvalidQuantity", "Quantity"]

_NANO = 10**9
_MAX = (2**63 - 1) * _NANO
_SYNTAX = re.compile(r"([+-]?)(\d+\.?\d*|\.\d+)(?:([KMGTPE]i)|([numkMGTPE])|[eE]([+-]?\d+))?", re.ASCII)
_INT64_DIGITS = 18
_NO_MATCH = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
_DECIMAL_EXPONENTS = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL_SUFFIXES = {exponent: suffix for suffix, exponent in _DECIMAL_EXPONENTS.items()}


class Format(Enum):
    """Which suffixes a quantity is written with."""

    DECIMAL_SI = "DecimalSI"
    BINARY_SI = "BinarySI"
    DECIMAL_EXPONENT = "DecimalExponent"


class InvalidQuantity(ValueError):
    """The text is not a quantity; the message is upstream's."""


class Quantity:
    """An exact amount in units of 10^-9; immutable, ordered and hashable by amount."""

    __slots__ = ("_text", "format", "nano")

    ZERO: ClassVar[Quantity]
    nano: int
    format: Format

    def __init__(self, nano: int, format: Format = Format.DECIMAL_SI) -> None:
        self.nano = nano
        self.format = format
        self._text: str | None = None

    @classmethod
    def parse(cls, text: str) -> Quantity:
        """Return the quantity that a text such as "100m" means; raise InvalidQuantity."""
        return _parse(text)

    @classmethod
    def of(cls, value: int | str, format: Format = Format.DECIMAL_SI) -> Quantity:
        """Return a quantity from whole units, or from text."""
        return cls(value * _NANO, format) if isinstance(value, int) else cls.parse(value)

    @classmethod
    def of_milli(cls, value: int, format: Format = Format.DECIMAL_SI) -> Quantity:
        """Return a quantity from thousandths."""
        return cls(value * 10**6, format)

    @property
    def value(self) -> int:
        """Whole units, rounded up (away from zero)."""
        return _divide_away_from_zero(self.nano, _NANO)

    @property
    def milli_value(self) -> int:
        """Thousandths, rounded up (away from zero)."""
        return _divide_away_from_zero(self.nano, 10**6)

    def __str__(self) -> str:
        if self._text is None:
            self._text = _canonical(self.nano, self.format)
        return self._text

    def __repr__(self) -> str:
        return f"Quantity({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.nano == other.nano

    def __hash__(self) -> int:
        return hash(self.nano)

    def __lt__(self, other: Quantity) -> bool:
        return self.nano < other.nano

    def __le__(self, other: Quantity) -> bool:
        return self.nano <= other.nano

    def __gt__(self, other: Quantity) -> bool:
        return self.nano > other.nano

    def __ge__(self, other: Quantity) -> bool:
        return self.nano >= other.nano

    def __bool__(self) -> bool:
        return self.nano != 0

    def __add__(self, other: Quantity) -> Quantity:
        """Sum; the format is the left one's unless that is zero, as in upstream's Add."""
        return Quantity(self.nano + other.nano, self.format if self.nano else other.format)

    def __sub__(self, other: Quantity) -> Quantity:
        return Quantity(self.nano - other.nano, self.format if self.nano else other.format)

    def __neg__(self) -> Quantity:
        return Quantity(-self.nano, self.format)


@lru_cache(maxsize=4096)
def _parse(text: str) -> Quantity:
    if not text:
        raise InvalidQuantity(_NO_MATCH)
    match = _SYNTAX.fullmatch(text)
    if match is None:
        if re.fullmatch(r"[+-]?[0-9.]+[eEinumkKMGTP]*[-+]?[0-9]*", text, re.ASCII):
            raise InvalidQuantity("unable to parse quantity's suffix")
        raise InvalidQuantity(_NO_MATCH)
    sign, number, binary, decimal, exponent = match.groups()
    amount = Fraction(number) * _NANO
    if binary:
        amount *= _BINARY[binary]
        format = Format.BINARY_SI
    elif exponent is not None:
        if abs(int(exponent)) > 1000:
            raise InvalidQuantity("unable to parse quantity's suffix")
        amount *= Fraction(10) ** int(exponent)
        format = Format.DECIMAL_EXPONENT
    else:
        amount *= Fraction(10) ** _DECIMAL_EXPONENTS[decimal or ""]
        format = Format.DECIMAL_SI
    nano = -((-amount.numerator) // amount.denominator)
    if not _exact(number, binary, decimal, exponent):
        nano = min(nano, _MAX)
    if format is Format.BINARY_SI and nano < 1024 * _NANO:
        format = Format.DECIMAL_SI
    return Quantity(-nano if sign == "-" else nano, format)


def _exact(number: str, binary: str, decimal: str | None, exponent: str | None) -> bool:
    """Tell whether upstream keeps a decimal number as an int64 and a scale, which has no upper bound."""
    whole, _, fraction = number.partition(".")
    if binary or len(whole.lstrip("0")) + len(fraction) > _INT64_DIGITS:
        return False
    scale = int(exponent) if exponent is not None else _DECIMAL_EXPONENTS[decimal or ""]
    return scale - len(fraction) >= -9


def _canonical(nano: int, format: Format) -> str:
    if nano == 0:
        return "0"
    sign, amount = ("-", -nano) if nano < 0 else ("", nano)
    if format is Format.BINARY_SI:
        if amount < 1024 * _NANO or amount % _NANO:
            format = Format.DECIMAL_SI
        else:
            whole, suffix = amount // _NANO, ""
            for name in _BINARY:
                if whole % 1024:
                    break
                whole, suffix = whole // 1024, name
            return f"{sign}{whole}{suffix}"
    exponent = -9
    while amount % 1000 == 0 and (exponent < 18 or format is Format.DECIMAL_EXPONENT):
        amount, exponent = amount // 1000, exponent + 3
    if format is Format.DECIMAL_EXPONENT:
        return f"{sign}{amount}" + (f"e{exponent}" if exponent else "")
    return f"{sign}{amount}{_DECIMAL_SUFFIXES[exponent]}"


def _divide_away_from_zero(amount: int, unit: int) -> int:
    return -((-amount) // unit) if amount >= 0 else -((amount * -1 + unit - 1) // unit)


Quantity.ZERO = Quantity(0)

"""Quantities: fixed-point numbers with a suffix, such as 100m, 1.5Gi or 2e3.

A quantity keeps its format (binary, decimal or exponent) and is written in its canonical form: no fraction, the largest
suffix that allows it. Upstream takes a shortcut that clients can see: text that looks canonical (whole thousands of a
number without trailing zeros) is kept as it was written, be it 1.234 or +1. Values below 1n are rounded up.
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
_SYNTAX = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?([eEinumkKMGTP]*[-+]?[0-9]*)")
_EXPONENT = re.compile(r"[eE]([+-]?[0-9]+)")
_EXPONENT_MAX = 1000
"""How far an exponent may go; upstream takes any, and works on the digits for as long as it takes."""
_INT64_DIGITS = 18
_DIGITS_MAX = 3000
_NO_MATCH = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
_BAD_SUFFIX = "unable to parse quantity's suffix"
_BAD_NUMBER = "unable to parse numeric part of quantity"
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
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

    @property
    def is_whole(self) -> bool:
        """Whether these are whole units as upstream tells, which reckons in thousandths.

        Where those exceed 64 bits it says no, but for billions (it gives up on them) and the largest amount there is.
        """
        fits = abs(self.nano) < 2**63 * 10**6 or self.nano % (10**9 * _NANO) == 0 or abs(self.nano) == _MAX
        return fits and self.nano % _NANO == 0

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
    match = _SYNTAX.fullmatch(text) if text else None
    if match is None:
        raise InvalidQuantity(_NO_MATCH)
    sign, whole, fraction, suffix = match.groups(default="")
    exponent, format = _meaning(suffix)
    digits = (whole.lstrip("0") or "0") + fraction
    if (amount := _small(digits, len(fraction), exponent, format)) is None:
        if not (whole or fraction) or len(digits) > _DIGITS_MAX:
            raise InvalidQuantity(_BAD_NUMBER)
        nano, format = _large(Fraction(int(digits), 10 ** len(fraction)), exponent, format)
        return Quantity(-nano if sign == "-" else nano, format)
    found = Quantity(-amount if sign == "-" else amount, format)
    if format is Format.BINARY_SI:
        looks_canonical = int(digits) & 7 != 0
    else:
        looks_canonical = (exponent - len(fraction)) % 3 == 0 and digits[-3:] != "000" and digits[0] != "0"
    if looks_canonical:
        found._text = text
    return found


def _meaning(suffix: str) -> tuple[int, Format]:
    """Return the exponent (of 2 in the binary format, else of 10) and the format that a suffix stands for."""
    if (exponent := _DECIMAL_EXPONENTS.get(suffix)) is not None:
        return exponent, Format.DECIMAL_SI
    if (exponent := _BINARY.get(suffix)) is not None:
        return exponent, Format.BINARY_SI
    match = _EXPONENT.fullmatch(suffix)
    if match is None or len(suffix) > _INT64_DIGITS or abs(int(match[1])) > _EXPONENT_MAX:
        raise InvalidQuantity(_BAD_SUFFIX)
    return int(match[1]), Format.DECIMAL_EXPONENT


def _small(digits: str, places: int, exponent: int, format: Format) -> int | None:
    """Return the amount if upstream keeps such a number as an int64 and a power of ten: then it is not rounded."""
    if format is not Format.BINARY_SI:
        power = exponent - places + 9
        return int(digits) * 10**power if len(digits) <= _INT64_DIGITS and power >= 0 else None
    if places or len(digits) + exponent * 3 // 10 > 14 or int(digits) << exponent >= 2**63:
        return None
    return (int(digits) << exponent) * _NANO


def _large(number: Fraction, exponent: int, format: Format) -> tuple[int, Format]:
    """Return the rounded amount, and the format."""
    if format is not Format.BINARY_SI:
        return _up(number * _NANO * Fraction(10) ** exponent), format
    nano = min(_up(number * _NANO * 2**exponent), _MAX)
    return nano, Format.DECIMAL_SI if nano < _NANO else format


def _up(amount: Fraction) -> int:
    return -(-amount.numerator // amount.denominator)


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
    while amount % 1000 == 0:
        amount, exponent = amount // 1000, exponent + 3
    if format is Format.DECIMAL_EXPONENT:
        return f"{sign}{amount}" + (f"e{exponent}" if exponent else "")
    return f"{sign}{amount}{_DECIMAL_SUFFIXES.get(exponent, '')}"  # Beyond E upstream has no suffix, and writes none.


def _divide_away_from_zero(amount: int, unit: int) -> int:
    return -(-amount // unit) if amount >= 0 else amount // unit


Quantity.ZERO = Quantity(0)

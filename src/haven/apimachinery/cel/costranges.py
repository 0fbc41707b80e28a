"""Ranges of costs and sizes, and what the rules of functions see of arguments.

Sizes and costs saturate at 2^64 - 1, which stands for unlimited.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from haven.apimachinery.cel import ast
from haven.apimachinery.cel.types import Type

__all__ = [
    "EMPTY_UNION",
    "ONE",
    "UNKNOWN",
    "UNLIMITED",
    "ZERO",
    "Argument",
    "CallEstimate",
    "Entries",
    "Range",
    "SizeEstimator",
    "Sizes",
    "fixed",
]

UNLIMITED: Final = (1 << 64) - 1
_TWO_TO_64: Final = float(1 << 64)


class Range(NamedTuple):
    """At least and at most: a cost or a size."""

    low: int
    high: int

    def plus(self, other: Range) -> Range:
        return Range(min(self.low + other.low, UNLIMITED), min(self.high + other.high, UNLIMITED))

    def times(self, other: Range) -> Range:
        return Range(min(self.low * other.low, UNLIMITED), min(self.high * other.high, UNLIMITED))

    def scaled(self, factor: float) -> Range:
        return Range(_scaled(self.low, factor), _scaled(self.high, factor))

    def union(self, other: Range) -> Range:
        return Range(min(self.low, other.low), max(self.high, other.high))


def _scaled(value: int, factor: float) -> int:
    product = float(value)
    if product > 0 and factor > 0 and product > _TWO_TO_64 / factor:
        return UNLIMITED
    ceiling = math.ceil(product * factor)
    return UNLIMITED if ceiling >= _TWO_TO_64 else ceiling


def fixed(value: int) -> Range:
    return Range(value, value)


UNKNOWN: Final = Range(0, UNLIMITED)
ZERO: Final = fixed(0)
ONE: Final = fixed(1)
EMPTY_UNION: Final = Range(UNLIMITED, 0)


class SizeEstimator(Protocol):
    """Knows how large what is at a path can be."""

    def size(self, path: Sequence[str]) -> int | None:
        """Return the most elements, characters or bytes at a path (self, spec, items, @items), None if unknown."""
        ...


class Argument(NamedTuple):
    """An argument as the rules of functions see it."""

    path: tuple[str, ...] | None
    type: Type
    expr: ast.Expr | None
    size: Range | None


class Entries(NamedTuple):
    """Sizes of what is in a list or map."""

    kind: str
    key: Range
    value: Range


class CallEstimate(NamedTuple):
    """What a call costs, and the size of its result if that is known."""

    cost: Range
    size: Range | None = None


class Sizes(Protocol):
    """What the rules of functions may ask for."""

    def size_of(self, node: Argument) -> Range:
        """Return the size of an argument."""
        ...

    def elements_of(self, node: Argument) -> Argument | None:
        """Return the elements of an argument that is a list."""
        ...

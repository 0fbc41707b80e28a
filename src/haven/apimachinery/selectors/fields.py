"""Field selectors: from text to conditions on named fields.

Source: the grammar and complaints of k8s.io/apimachinery/pkg/fields.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from haven.apimachinery.selectors.errors import SelectorError

__all__ = [
    "FIELDS_EVERYTHING",
    "FieldRequirement",
    "FieldSelector",
    "escape_field_value",
    "parse_fields",
]


@dataclass(frozen=True, slots=True)
class FieldRequirement:
    """One condition on one field. `operator` is = or != (== is read as =)."""

    field: str
    operator: str
    value: str

    def __str__(self) -> str:
        return f"{self.field}{self.operator}{escape_field_value(self.value)}"


class FieldSelector:
    """A conjunction of conditions on named fields; a field that an object lacks is ""."""

    __slots__ = ("requirements",)

    def __init__(self, requirements: Iterable[FieldRequirement] = ()) -> None:
        self.requirements = tuple(requirements)

    @property
    def is_empty(self) -> bool:
        """Whether it matches everything."""
        return not self.requirements

    def matches(self, fields: Mapping[str, str]) -> bool:
        """Tell whether an object with these fields is selected."""
        return all((fields.get(item.field, "") == item.value) == (item.operator == "=") for item in self.requirements)

    def exact(self, field: str) -> str | None:
        """Return the only value of a field that can match, or None if others can."""
        for item in self.requirements:
            if item.field == field and item.operator == "=":
                return item.value
        return None

    def transform(self, change: Callable[[str, str], tuple[str, str]]) -> FieldSelector:
        """Return the selector with each (field, value) replaced; ("", "") drops the condition.

        `change` raises SelectorError for a field that cannot be selected by.
        """
        result: list[FieldRequirement] = []
        for item in self.requirements:
            field, value = change(item.field, item.value)
            if field or value:
                result.append(FieldRequirement(field, item.operator, value))
        return FieldSelector(result)

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))

    def __repr__(self) -> str:
        return f"FieldSelector({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FieldSelector) and self.requirements == other.requirements

    def __hash__(self) -> int:
        return hash(self.requirements)


FIELDS_EVERYTHING = FieldSelector()

_term = re.compile(r"(?:[^\\,]|\\.)*(?:\\\Z)?", re.DOTALL)
_operator = re.compile("!=|==|=")


def escape_field_value(value: str) -> str:
    """Return a value as it has to be written in a field selector."""
    return value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")


def _unescape(text: str) -> str:
    if not any(char in text for char in "\\,="):
        return text
    result: list[str] = []
    chars = iter(text)
    for char in chars:
        if char == "\\":
            escaped = next(chars, "")
            if escaped not in ("\\", ",", "="):
                raise SelectorError(f"invalid field selector: invalid escape sequence: \\{escaped}")
            result.append(escaped)
        elif char in ",=":
            raise SelectorError(f"invalid field selector: unescaped character in value: {ord(char)}")
        else:
            result.append(char)
    return "".join(result)


def _terms(text: str) -> list[str]:
    terms: list[str] = []
    position = 0
    while True:
        found = _term.match(text, position)
        assert found is not None, (text, position)
        terms.append(found.group())
        position = found.end() + 1
        if position > len(text):
            return terms


def parse_fields(text: str) -> FieldSelector:
    """Return the field selector that text describes; raise SelectorError."""
    if not text:
        return FIELDS_EVERYTHING
    items: list[FieldRequirement] = []
    for term in sorted(_terms(text)):
        if not term:
            continue
        found = _operator.search(term)
        if found is None:
            raise SelectorError(f"invalid selector: '{text}'; can't understand '{term}'")
        sign = "!=" if found.group() == "!=" else "="
        name, value = term[: found.start()], _unescape(term[found.end() :])
        if name or value:  # A sign alone selects nothing, and refuses nothing.
            items.append(FieldRequirement(name, sign, value))
    return FieldSelector(items)

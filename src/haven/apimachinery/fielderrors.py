"""What is wrong with one field of an object, as data; rendered as upstream renders it.

Source: the behaviour of k8s.io/apimachinery/pkg/util/validation/field.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any

import msgspec

from haven.apimachinery.goformat import quote, show
from haven.apimachinery.quantity import Quantity

__all__ = [
    "HTML_ESCAPES",
    "OMIT",
    "ErrorList",
    "ErrorType",
    "FieldError",
    "Path",
    "aggregate",
    "duplicate",
    "forbidden",
    "go_json",
    "internal",
    "invalid",
    "not_found",
    "not_supported",
    "render",
    "required",
    "too_few",
    "too_long",
    "too_long_max_length",
    "too_many",
    "too_short",
    "type_invalid",
]


class ErrorType(Enum):
    """(reason in a Status cause, words that open the message)."""

    NOT_FOUND = ("FieldValueNotFound", "Not found")
    REQUIRED = ("FieldValueRequired", "Required value")
    DUPLICATE = ("FieldValueDuplicate", "Duplicate value")
    INVALID = ("FieldValueInvalid", "Invalid value")
    NOT_SUPPORTED = ("FieldValueNotSupported", "Unsupported value")
    FORBIDDEN = ("FieldValueForbidden", "Forbidden")
    TOO_LONG = ("FieldValueTooLong", "Too long")
    TOO_SHORT = ("FieldValueTooShort", "Too short")
    TOO_MANY = ("FieldValueTooMany", "Too many")
    TOO_FEW = ("FieldValueTooFew", "Too few")
    INTERNAL = ("InternalError", "Internal error")
    TYPE_INVALID = ("FieldValueTypeInvalid", "Invalid value")


class Path(tuple[Any, ...]):
    """The place of a field: Path("spec").child("containers").index(0) is spec.containers[0].

    Cheap to extend, because validation makes hundreds of them for a good object: a path is (its parent, what was
    added), and the text is only made when an error is reported.
    """

    __slots__ = ()

    def __new__(cls, *names: str) -> Path:
        return _new(cls, (None, names))

    def child(self, *names: str) -> Path:
        """Return the path of a field of this one."""
        return _new(Path, (self, names))

    def index(self, index: int) -> Path:  # type: ignore[override]
        """Return the path of a list's item."""
        return _new(Path, (self, index))

    def key(self, key: str) -> Path:
        """Return the path of a map's value."""
        return _new(Path, (self, key))

    def __str__(self) -> str:
        parts: list[str] = []
        path: Path | None = self
        while path is not None:
            path, added = path[0], path[1]
            if isinstance(added, tuple):
                parts.append("".join(f".{name}" if name else "[]" for name in added))
            else:
                parts.append(f"[{added}]")
        text = "".join(reversed(parts)).removeprefix(".")
        return text or ("<nil>" if self == (None, ()) else "")

    def __repr__(self) -> str:
        return f"Path({str(self)!r})"


_new = tuple.__new__


class _Omit:
    def __repr__(self) -> str:
        return "OMIT"


OMIT = _Omit()
"""A bad value that is not to be shown."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One complaint. `field` is the rendered path; `value` the offending value (any API value, OMIT hides it)."""

    type: ErrorType
    field: str
    value: Any
    detail: str

    @property
    def reason(self) -> str:
        """The cause's reason in a Status."""
        return self.type.value[0]

    @property
    def body(self) -> str:
        """The message without the field's name."""
        words = self.type.value[1]
        if self.type in _WITH_VALUE and self.value is not OMIT:
            words = f"{words}: {render(self.value)}"
        return f"{words}: {self.detail}" if self.detail else words

    def __str__(self) -> str:
        return f"{self.field}: {self.body}"


ErrorList = list[FieldError]

_WITH_VALUE = {
    ErrorType.INVALID,
    ErrorType.TYPE_INVALID,
    ErrorType.NOT_SUPPORTED,
    ErrorType.NOT_FOUND,
    ErrorType.DUPLICATE,
    ErrorType.TOO_MANY,
    ErrorType.TOO_FEW,
}


_encoder = msgspec.json.Encoder(enc_hook=str, order="deterministic")
HTML_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


def go_json(value: Any) -> str:
    """Write a value as Go's encoding/json does: keys sorted, <, > and & escaped, whole numbers without a fraction."""
    if isinstance(value, dict | list | float):
        value = _with_plain_numbers(value)
    return _encoder.encode(value).decode().translate(HTML_ESCAPES)


def _with_plain_numbers(value: Any) -> Any:
    if isinstance(value, float):
        if value.is_integer() and abs(value) < 1e21:
            return int(value)
        mantissa, mark, exponent = repr(value).partition("e")
        if not mark:
            return value
        if 1e-6 <= abs(value) < 1e21:
            return msgspec.Raw(format(Decimal(repr(value)), "f").encode())
        return msgspec.Raw(f"{mantissa.removesuffix('.0')}e{int(exponent):+d}".encode())
    if isinstance(value, dict):
        return {key: _with_plain_numbers(item) for key, item in value.items()}
    return [_with_plain_numbers(item) for item in value] if isinstance(value, list) else value


def render(value: Any) -> str:
    """Write a bad value as upstream does: text quoted, numbers plain, everything else as JSON."""
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return show(value)
    if isinstance(value, Quantity):
        return quote(str(value))
    if isinstance(value, msgspec.Raw):
        return bytes(value).decode()
    return go_json(value)


def _text(path: Path | None) -> str:
    return "<nil>" if path is None else str(path)


def invalid(path: Path | None, value: Any, detail: str) -> FieldError:
    """The value is malformed or out of bounds."""
    return FieldError(ErrorType.INVALID, _text(path), value, detail)


def type_invalid(path: Path | None, value: Any, detail: str) -> FieldError:
    """The value has the wrong JSON type."""
    return FieldError(ErrorType.TYPE_INVALID, _text(path), value, detail)


def required(path: Path | None, detail: str = "") -> FieldError:
    """A value must be given."""
    return FieldError(ErrorType.REQUIRED, _text(path), "", detail)


def forbidden(path: Path | None, detail: str) -> FieldError:
    """The value may not be given, or not be changed, here."""
    return FieldError(ErrorType.FORBIDDEN, _text(path), "", detail)


def not_found(path: Path | None, value: Any) -> FieldError:
    """The value names something that does not exist."""
    return FieldError(ErrorType.NOT_FOUND, _text(path), value, "")


def duplicate(path: Path | None, value: Any) -> FieldError:
    """The value must be unique and is not."""
    return FieldError(ErrorType.DUPLICATE, _text(path), value, "")


def not_supported(path: Path | None, value: Any, valid_values: Iterable[str]) -> FieldError:
    """The value is not one of an enumeration; name the valid values in the order upstream does (mostly sorted)."""
    quoted = ", ".join(quote(item) for item in valid_values)
    detail = f"supported values: {quoted}" if quoted else ""
    return FieldError(ErrorType.NOT_SUPPORTED, _text(path), value, detail)


def too_long(path: Path | None, value: Any, bytes_max: int) -> FieldError:
    """The text has more bytes than allowed; the value itself is not shown."""
    detail = (
        f"may not be more than {bytes_max} byte{'' if bytes_max == 1 else 's'}"
        if bytes_max >= 0
        else "value is too long"
    )
    return FieldError(ErrorType.TOO_LONG, _text(path), value, detail)


def too_long_max_length(path: Path | None, value: Any, bytes_max: int) -> FieldError:
    """Alias of `too_long`, as upstream keeps one."""
    return too_long(path, "", bytes_max)


def too_short(path: Path | None, value: Any, length_min: int) -> FieldError:
    """The text has fewer characters than required."""
    unit = "character" if length_min == 1 else "characters"
    return FieldError(ErrorType.TOO_SHORT, _text(path), value, f"must be at least {length_min} {unit}")


def too_many(path: Path | None, actual: int, items_max: int) -> FieldError:
    """The list has more items than allowed; a negative `actual` hides the number."""
    if items_max >= 0:
        detail = f"must have at most {items_max} {'item' if items_max == 1 else 'items'}"
    else:
        detail = "has too many items"
    return FieldError(ErrorType.TOO_MANY, _text(path), actual if actual >= 0 else OMIT, detail)


def too_few(path: Path | None, actual: int, items_min: int) -> FieldError:
    """The list has fewer items than required."""
    if items_min >= 0:
        detail = f"must have at least {items_min} {'item' if items_min == 1 else 'items'}"
    else:
        detail = "has too few items"
    return FieldError(ErrorType.TOO_FEW, _text(path), actual if actual >= 0 else OMIT, detail)


def internal(path: Path | None, error: Exception | str) -> FieldError:
    """The server failed to judge the field."""
    return FieldError(ErrorType.INTERNAL, _text(path), None, str(error))


def aggregate(errors: Sequence[FieldError]) -> str:
    """Join complaints as upstream's aggregate does: one plain, several in brackets, equal ones once."""
    texts = list(dict.fromkeys(str(error) for error in errors))
    return texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"

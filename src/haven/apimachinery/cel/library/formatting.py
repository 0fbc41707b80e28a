"""string.format: texts with %s, %d, %f, %e, %b, %x, %o clauses.

The same walk over the format string serves evaluation and the check of constant formats at compile time.

Source: https://pkg.go.dev/github.com/google/cel-go/ext#Strings (version 2, locale en_US).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from haven.apimachinery.cel import conversions, values
from haven.apimachinery.cel.errors import CelError
from haven.apimachinery.cel.types import Type
from haven.apimachinery.goformat import quote

__all__ = ["check_format", "format_text"]

_DEFAULT_PRECISION: Final = 6
_PRECISION_ERROR: Final = "could not parse formatting clause: error while parsing precision: "
_NUMBERS_AS_TEXT: Final = ("NaN", "Infinity", "-Infinity")


class _Clause(NamedTuple):
    literal: str
    kind: str
    precision: int
    failure: str


def _clauses(text: str) -> Iterator[_Clause]:
    """Iterate over (text before, the clause's letter, precision, what is wrong with it); the last has no letter."""
    literal: list[str] = []
    index = 0
    while index < len(text):
        if text[index] != "%":
            literal.append(text[index])
            index += 1
            continue
        if text.startswith("%%", index):
            literal.append("%")
            index += 2
            continue
        index += 1
        precision, failure = _DEFAULT_PRECISION, ""
        if index >= len(text):
            yield _Clause("", "?", precision, "unexpected end of string")
            return
        if text[index] == ".":
            end = index + 1
            while end < len(text) and text[end].isascii() and text[end].isdigit():
                end += 1
            if end >= len(text):
                failure = f"{_PRECISION_ERROR}could not find end of precision specifier"
            elif end == index + 1:
                failure = (
                    f"{_PRECISION_ERROR}error while converting precision to integer: "
                    'strconv.Atoi: parsing "": invalid syntax'
                )
            else:
                precision = int(text[index + 1 : end])
            index = end
        kind = text[index] if index < len(text) else "?"
        if not failure and kind not in "sdfebxXo":
            failure = f'could not parse formatting clause: unrecognized formatting clause "{kind}"'
        yield _Clause("".join(literal), kind, precision, failure)
        if failure:
            return
        literal = []
        index += 1
    yield _Clause("".join(literal), "", 0, "")


_ALLOWED: Final[dict[str, tuple[frozenset[str], str]]] = {
    "d": (frozenset(("int", "uint")), "decimal clause can only be used on integers"),
    "f": (frozenset(("double", "string")), "fixed-point clause can only be used on doubles"),
    "e": (frozenset(("double", "string")), "scientific clause can only be used on doubles"),
    "b": (frozenset(("int", "uint", "bool")), "only integers and bools can be formatted as binary"),
    "x": (
        frozenset(("int", "uint", "string", "bytes")),
        "only integers, byte buffers, and strings can be formatted as hex",
    ),
    "o": (frozenset(("int", "uint")), "octal clause can only be used on integers"),
}
_SHOWABLE: Final = frozenset(
    ("list", "map", "int", "uint", "double", "bool", "string", "timestamp", "bytes", "duration", "type", "null")
)
_NOT_SHOWABLE: Final = (
    "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and "
    "timestamps"
)


def check_format(text: str, types: list[Type]) -> tuple[int | None, str] | None:
    """Return (index of the argument that is wrong or None, complaint) of a constant format, None if it is right."""
    seen = 0
    for clause in _clauses(text):
        if not clause.kind:
            break
        if clause.failure == "unexpected end of string":
            return None, clause.failure
        if seen >= len(types):
            return None, f"index {seen} out of range"
        if clause.failure:
            return None, clause.failure
        given = types[seen]
        kind = "x" if clause.kind == "X" else clause.kind
        allowed, complaint = (_SHOWABLE, _NOT_SHOWABLE) if kind == "s" else _ALLOWED[kind]
        if given.kind not in allowed and given.kind not in ("dyn", "error", "param"):
            return seen, f"error during formatting: {complaint}, was given {given.name}"
        seen += 1
    if len(types) > seen:
        return None, f"too many arguments supplied to string.format (expected {seen}, got {len(types)})"
    return None


def format_text(text: Any, args: Any) -> str:
    if not isinstance(text, str):
        raise values.no_overload(text)
    items = values.list_items(args)
    out: list[str] = []
    for index, clause in enumerate(_clauses(text)):
        out.append(clause.literal)
        if not clause.kind:
            break
        if index >= len(items):
            raise CelError(f"index {index} out of range")
        if clause.failure:
            raise CelError(clause.failure)
        try:
            out.append(_CLAUSES[clause.kind](values.get(items, index), clause.precision))
        except _WrongKindError as error:
            raise CelError(f"error during formatting: {error}") from None
    return "".join(out)


class _WrongKindError(Exception):
    """The value is not one that the clause can show."""


def _wrong(kind: str, value: Any) -> _WrongKindError:
    return _WrongKindError(f"{_ALLOWED[kind][1]}, was given {values.type_of(value).name}")


def _text(value: Any, _: int) -> str:
    if values.is_list(value):
        return "[" + ", ".join(_quoted(item, _member(item)) for item in value) + "]"
    if values.is_map(value):
        return _map(value)
    if value is None:
        return "null"
    if values.type_of(value).kind not in _SHOWABLE:
        raise _WrongKindError(f"{_NOT_SHOWABLE}, was given {values.type_of(value).name}")
    return conversions.to_string(value)


def _map(value: Any) -> str:
    pairs = []
    for key, item in values.entries(value):
        if not isinstance(key, str | bool | int):
            raise _WrongKindError(f"no formatting function for map key of type {values.type_of(key).name}")
        pairs.append((_quoted(key, conversions.to_string(key)), _quoted(item, _member(item))))
    return "{" + ", ".join(f"{key}:{item}" for key, item in sorted(pairs, key=lambda pair: pair[0])) + "}"


def _member(value: Any) -> str:
    """A value within a list or map."""
    kind = values.type_of(value).kind
    if kind == "timestamp":
        return f'timestamp("{conversions.to_string(value)}")'
    if kind == "duration":
        return f'duration("{conversions.to_string(value)}")'
    if kind == "double":
        return _fixed_digits(value, _DEFAULT_PRECISION)
    if kind not in _SHOWABLE:
        raise _WrongKindError(f"no formatting function for {values.type_of(value).name}")
    return _text(value, 0)


def _quoted(value: Any, shown: str) -> str:
    if isinstance(value, str):
        return quote(shown)
    if isinstance(value, bytes):
        return f"b{quote(shown)}"
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return quote(shown)
    return shown


def _decimal(value: Any, _: int) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(int(value))
    raise _wrong("d", value)


def _fixed_digits(value: float, precision: int) -> str:
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return f"{value:.{precision}f}"


def _number(kind: str, value: Any) -> float:
    if isinstance(value, float):
        return value
    if isinstance(value, str) and value in _NUMBERS_AS_TEXT:
        return float(value.replace("Infinity", "inf"))
    raise _wrong(kind, value)


def _special(number: float) -> str | None:
    if number != number:
        return "NaN"
    if number in (float("inf"), float("-inf")):
        return "∞" if number > 0 else "-∞"
    return None


def _fixed(value: Any, precision: int) -> str:
    number = _number("f", value)
    return _special(number) or f"{number:,.{precision}f}"


_SUPERSCRIPTS: Final = str.maketrans("0123456789-+", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺")


def _scientific(value: Any, width: int) -> str:
    number = _number("e", value)
    special = _special(number)
    if special is not None:
        return special
    # Upstream prints in the en_US locale, which writes powers of ten out, and takes the precision for a width.
    mantissa, _, exponent = f"{number:.{_DEFAULT_PRECISION}e}".partition("e")
    sign = "⁻" if exponent.startswith("-") else ""
    return f"{mantissa}×10{sign}{exponent.lstrip('+-').zfill(2).translate(_SUPERSCRIPTS)}".rjust(width)


def _binary(value: Any, _: int) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, int):
        return f"{int(value):b}"
    raise _wrong("b", value)


def _hexadecimal(value: Any, _: int) -> str:
    if isinstance(value, str):
        return value.encode().hex()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{int(value):x}"
    raise _wrong("x", value)


def _octal(value: Any, _: int) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{int(value):o}"
    raise _wrong("o", value)


_CLAUSES: Final[dict[str, Callable[[Any, int], str]]] = {
    "s": _text,
    "d": _decimal,
    "f": _fixed,
    "e": _scientific,
    "b": _binary,
    "x": _hexadecimal,
    "X": lambda value, precision: _hexadecimal(value, precision).upper(),
    "o": _octal,
}

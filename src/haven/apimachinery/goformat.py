"""Text as Go's fmt package writes it, which upstream's messages contain and clients compare."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

__all__ = ["aggregate", "quote", "show", "show_text"]

_NUMBERS = {bool: "bool", int: "int64", float: "float64"}
_ESCAPES = {
    "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\", '"': '\\"',
}  # fmt: skip


def aggregate(errors: Iterable[object]) -> str:
    """Return errors as Go joins them: each once, in brackets if there are several."""
    texts = list(dict.fromkeys(map(str, errors)))
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


def quote(text: str) -> str:
    """Return the text as Go's %q prints it: double-quoted, with escapes for what is not printable."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(_escape(char) for char in text) + '"'


def show(value: Any) -> str:
    """Return a tree as Go's %v prints it: map[a:1 b:[x y]], keys sorted."""
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{show(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(show(item) for item in value) + "]"
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return _float(float(value))  # As JSON's numbers that fit no integer are read.
    return str(value)


def show_text(value: Any) -> str:
    """Return a tree as Go's %s prints it: texts as they are, other values with a complaint about their type."""
    return "%!s(<nil>)" if value is None else _text(value)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{_text(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(map(_text, value)) + "]"
    if isinstance(value, str):
        return value
    return "<nil>" if value is None else f"%!s({_NUMBERS[type(value)]}={show(value)})"


def _float(value: float) -> str:
    """The shortest digits that read back as the value; with an exponent below 1e-4 and from 1e6 on."""
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    scale = len(digits) + int(exponent) - 1
    if -4 <= scale < 6:
        return repr(value).removesuffix(".0")
    first, rest = str(digits[0]), "".join(map(str, digits[1:]))
    return f"{'-' * sign}{first}{'.' * bool(rest)}{rest}e{scale:+03}"


def _escape(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

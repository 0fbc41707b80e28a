"""Text as Go's fmt package writes it, which upstream's messages contain and clients compare."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["aggregate", "quote", "show"]

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
    return str(value)


def _float(value: float) -> str:
    """The shortest digits that read back as the value; an exponent below 1e-4 and from 1e21 on."""
    mantissa, _, exponent = f"{value!r}".partition("e")
    if not exponent:
        return mantissa.removesuffix(".0")
    if -4 <= int(exponent) < 21:
        return f"{value:.0f}"
    return f"{mantissa.removesuffix('.0')}e{exponent[0] if exponent[0] == '-' else '+'}{abs(int(exponent)):02}"


def _escape(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

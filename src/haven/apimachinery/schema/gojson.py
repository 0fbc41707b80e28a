"""JSON read as Go reads it, for complaints: Go's syntax errors, repeated keys, numbers as they were written.

Nothing here is on the way of a good request; orjson and msgspec read those.
"""

from __future__ import annotations

import json
import re
from typing import Any

from haven.apimachinery.goformat import quote

__all__ = ["Number", "Pairs", "lost_keys", "parse", "readable", "syntax_error"]

DEPTH_MAX = 10_000
_SPACE = b" \t\r\n"
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_PLAIN_STRING = re.compile(rb'"[^"\\\x00-\x1f]*"')


class Number(str):
    """A number, as it was written."""

    __slots__ = ()


class Pairs(list[tuple[str, Any]]):
    """An object's members in the order of the text, repeated keys included."""

    __slots__ = ()


def parse(data: bytes) -> Any:
    """Return well-formed JSON as nested Pairs, lists, strings, Numbers, booleans and None."""
    return json.loads(
        data.decode("utf-8", "replace"), object_pairs_hook=Pairs, parse_int=Number, parse_float=Number, strict=False
    )


def readable(data: bytes) -> bytes:
    """Return JSON with everything replaced by U+FFFD that Go reads as such and strict decoders refuse.

    That is every byte that is no UTF-8, and every half of a surrogate pair.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "".join("\ufffd" if "\udc80" <= char <= "\udcff" else char for char in data.decode("utf-8", _EACH_BYTE))
    if "\\u" in text:
        text = _ESCAPE.sub(lambda found: "\\ufffd" if found.group(1) else found.group(), text)
    return text.encode()


_EACH_BYTE = "surrogateescape"
_ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.", re.DOTALL
)


def lost_keys(data: bytes, encoded: bytes) -> bool:
    """Tell whether a tree may have lost repeated keys; `encoded` is the tree as compact JSON.

    Cheap, and never wrong when it says no: every member costs one colon, and colons in strings are never escaped by
    our encoders. Escaped colons in `data` (\\u003a) can only raise a false alarm.
    """
    return data.count(b":") != encoded.count(b":")


def syntax_error(data: bytes) -> str | None:
    """Return what Go says about malformed JSON, None if it is well-formed."""
    try:
        end = _Scanner(data).value_from(0, 0)
    except _Malformed as error:
        return str(error)
    end = _skip_space(data, end)
    if end < len(data):
        return _invalid(data[end], "after top-level value")
    return None


class _Malformed(Exception):
    pass


def _skip_space(data: bytes, i: int) -> int:
    while i < len(data) and data[i] in _SPACE:
        i += 1
    return i


def _invalid(char: int, context: str) -> str:
    if char == 0x27:
        shown = "'\\''"
    elif char == 0x22:
        shown = "'\"'"
    else:
        shown = "'" + quote(chr(char))[1:-1] + "'"
    return f"invalid character {shown} {context}"


class _Scanner:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def at(self, i: int) -> int:
        if i >= len(self.data):
            raise _Malformed("unexpected end of JSON input")
        return self.data[i]

    def fail(self, i: int, context: str) -> _Malformed:
        return _Malformed(_invalid(self.at(i), context))

    def next(self, i: int) -> tuple[int, int]:
        i = _skip_space(self.data, i)
        return i, self.at(i)

    def value_from(self, i: int, depth: int) -> int:
        i, char = self.next(i)
        if depth > DEPTH_MAX:
            raise _Malformed("exceeded max depth")
        if char == 0x7B:
            return self.object_from(i + 1, depth + 1)
        if char == 0x5B:
            return self.array_from(i + 1, depth + 1)
        if char == 0x22:
            return self.string_from(i)
        if char == 0x2D or 0x30 <= char <= 0x39:
            return self.number_from(i)
        for word in (b"true", b"false", b"null"):
            if char == word[0]:
                for offset in range(1, len(word)):
                    if self.at(i + offset) != word[offset]:
                        raise self.fail(i + offset, f"in literal {word.decode()} (expecting '{chr(word[offset])}')")
                return i + len(word)
        raise self.fail(i, "looking for beginning of value")

    def object_from(self, i: int, depth: int) -> int:
        i, char = self.next(i)
        if char == 0x7D:
            return i + 1
        while True:
            if char != 0x22:
                raise self.fail(i, "looking for beginning of object key string")
            i, char = self.next(self.string_from(i))
            if char != 0x3A:
                raise self.fail(i, "after object key")
            i, char = self.next(self.value_from(i + 1, depth))
            if char == 0x7D:
                return i + 1
            if char != 0x2C:
                raise self.fail(i, "after object key:value pair")
            i, char = self.next(i + 1)

    def array_from(self, i: int, depth: int) -> int:
        i, char = self.next(i)
        if char == 0x5D:
            return i + 1
        while True:
            i, char = self.next(self.value_from(i, depth))
            if char == 0x5D:
                return i + 1
            if char != 0x2C:
                raise self.fail(i, "after array element")
            i += 1

    def string_from(self, i: int) -> int:
        plain = _PLAIN_STRING.match(self.data, i)
        if plain:
            return plain.end()
        i += 1
        while (char := self.at(i)) != 0x22:
            if char < 0x20:
                raise self.fail(i, "in string literal")
            if char == 0x5C:
                i += 1
                escape = self.at(i)
                if escape == 0x75:
                    for _ in range(4):
                        i += 1
                        if chr(self.at(i)) not in "0123456789abcdefABCDEF":
                            raise self.fail(i, "in \\u hexadecimal character escape")
                elif chr(escape) not in 'bfnrt\\/"':
                    raise self.fail(i, "in string escape code")
            i += 1
        return i + 1

    def number_from(self, i: int) -> int:
        match = _NUMBER.match(self.data, i)
        end = match.end() if match else i
        if match is None:  # Only a lone minus sign fails to match.
            self.at(i + 1)
            raise self.fail(i + 1, "in numeric literal")
        following = self.data[end : end + 1]
        text = match.group()
        if following == b"." and b"." not in text and b"e" not in text.lower():
            self.at(end + 1)
            raise self.fail(end + 1, "after decimal point in numeric literal")
        if following in (b"e", b"E") and b"e" not in text.lower():
            at = end + 1
            if self.at(at) in b"+-":
                at += 1
            self.at(at)
            raise self.fail(at, "in exponent of numeric literal")
        return end

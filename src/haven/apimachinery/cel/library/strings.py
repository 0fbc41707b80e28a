"""Functions on strings: parts, search, split and join, format, regular expressions, and keys of JSON patches.

Source: https://pkg.go.dev/github.com/google/cel-go/ext#Strings (version 2),
https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-regex-library.
"""

from __future__ import annotations

from typing import Any

from haven.apimachinery.cel import values
from haven.apimachinery.cel.declarations import Library
from haven.apimachinery.cel.errors import CelError
from haven.apimachinery.cel.library.formatting import format_text
from haven.apimachinery.cel.linearregex import find_spans
from haven.apimachinery.cel.regexes import compiled
from haven.apimachinery.cel.types import DYN, INT, STRING, list_type

__all__ = ["library"]

_TO_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
_TO_UPPER = {code: code - 32 for code in range(ord("a"), ord("z") + 1)}
_GO_SPACE = "".join(char for char in map(chr, range(0x3001)) if char.isspace() and not "\x1c" <= char <= "\x1f")


def _char_at(text: str, index: int) -> str:
    if not 0 <= index <= len(text):
        raise CelError(f"index out of range: {index}")
    return text[index : index + 1]


def _index_of(text: str, part: str, start: int = 0) -> int:
    if not part:
        return start
    if start < 0:
        raise CelError(f"index out of range: {start}")
    return text.find(part, start) if start < len(text) else -1


def _last_index_of(text: str, part: str, start: int | None = None) -> int:
    if not part:
        return len(text) if start is None else start
    if start is None:
        return text.rfind(part)
    if start < 0:
        raise CelError(f"index out of range: {start}")
    if start >= len(text):
        return -1
    return text.rfind(part, 0, start + len(part))


def _replace(text: str, old: str, new: str, count: int = -1) -> str:
    return text.replace(old, new, -1 if count < 0 else count)


def _split(text: str, separator: str, count: int = -1) -> list[str]:
    if count == 0:
        return []
    if separator:
        return text.split(separator, -1 if count < 0 else count - 1)
    if count < 0 or count >= len(text):
        return list(text)
    return [*text[: count - 1], text[count - 1 :]]


def _substring(text: str, start: int, end: int | None = None) -> str:
    if end is not None and start > end:
        raise CelError(f"invalid substring range. start: {start}, end: {end}")
    if not 0 <= start <= len(text):
        raise CelError(f"index out of range: {start}")
    if end is not None and not 0 <= end <= len(text):
        raise CelError(f"index out of range: {end}")
    return text[start:end]


def _join(items: Any, separator: str = "") -> str:
    for item in items:
        if not isinstance(item, str):
            raise CelError(f"join: invalid input: {values.show(item)}")
    return separator.join(items)


_QUOTED = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
    '"': '\\"',
}


def _quote(text: str) -> str:
    return '"' + "".join(_QUOTED.get(char, char) for char in text) + '"'


def _find(text: str, pattern: str) -> str:
    span = next(find_spans(compiled(pattern), text), None)
    return text[span.start : span.end] if span is not None else ""


def _find_all(text: str, pattern: str, count: int = -1) -> list[str]:
    found: list[str] = []
    last_end = -1
    for span in find_spans(compiled(pattern), text):
        # Go does not find an empty match right behind another match.
        if span.start == span.end == last_end:
            continue
        if 0 <= count <= len(found):
            break
        found.append(text[span.start : span.end])
        last_end = span.end
    return found


def _escape_key(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def library() -> Library:
    lib = Library()
    strings = list_type(STRING)
    declare = lib.declare
    declare("charAt", ("string_char_at_int", (STRING, INT), STRING, _char_at), member=True)
    declare(
        "indexOf", ("string_index_of_string", (STRING, STRING), INT, _index_of),
        ("string_index_of_string_int", (STRING, STRING, INT), INT, _index_of), member=True,
    )  # fmt: skip
    declare(
        "lastIndexOf", ("string_last_index_of_string", (STRING, STRING), INT, _last_index_of),
        ("string_last_index_of_string_int", (STRING, STRING, INT), INT, _last_index_of), member=True,
    )  # fmt: skip
    declare(
        "lowerAscii", ("string_lower_ascii", (STRING,), STRING, lambda text: text.translate(_TO_LOWER)), member=True
    )
    declare(
        "upperAscii", ("string_upper_ascii", (STRING,), STRING, lambda text: text.translate(_TO_UPPER)), member=True
    )
    declare(
        "replace", ("string_replace_string_string", (STRING, STRING, STRING), STRING, _replace),
        ("string_replace_string_string_int", (STRING, STRING, STRING, INT), STRING, _replace), member=True,
    )  # fmt: skip
    declare(
        "split", ("string_split_string", (STRING, STRING), strings, _split),
        ("string_split_string_int", (STRING, STRING, INT), strings, _split), member=True,
    )  # fmt: skip
    declare(
        "substring", ("string_substring_int", (STRING, INT), STRING, _substring),
        ("string_substring_int_int", (STRING, INT, INT), STRING, _substring), member=True,
    )  # fmt: skip
    declare("trim", ("string_trim", (STRING,), STRING, lambda text: text.strip(_GO_SPACE)), member=True)
    declare("format", ("string_format", (STRING, list_type(DYN)), STRING, format_text), member=True)
    declare("strings.quote", ("strings_quote", (STRING,), STRING, _quote))
    declare(
        "join",
        ("list_join", (strings,), STRING, _join),
        ("list_join_string", (strings, STRING), STRING, _join),
        member=True,
    )
    declare("find", ("string_find_string", (STRING, STRING), STRING, _find), member=True)
    declare(
        "findAll", ("string_find_all_string", (STRING, STRING), strings, _find_all),
        ("string_find_all_string_int", (STRING, STRING, INT), strings, _find_all), member=True,
    )  # fmt: skip
    return lib


def json_patch_library() -> Library:
    """Return what only expressions that write JSON patches may use."""
    lib = Library()
    lib.declare("jsonpatch.escapeKey", ("string_jsonpatch_escapeKey_string", (STRING,), STRING, _escape_key))
    return lib

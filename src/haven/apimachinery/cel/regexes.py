"""Regular expressions in the syntax of Go (RE2), run by Python's engine.

What both engines write differently is translated; what Go does not have (look-around, back references) is refused, so
that nobody comes to depend on it.

Source: https://github.com/google/re2/wiki/Syntax.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from haven.apimachinery.cel.errors import CelError

__all__ = ["BadPatternError", "compiled", "translate"]

_REPEAT_MAX: Final = 1000
_POSIX: Final = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "ascii": r"\x00-\x7F", "blank": r"\t ", "cntrl": r"\x00-\x1F\x7F",
    "digit": "0-9",
    "graph": "!-~", "lower": "a-z", "print": " -~", "punct": r"!-/:-@\[-`{-~", "space": r"\t\n\v\f\r ", "upper": "A-Z",
    "word": "0-9A-Za-z_", "xdigit": "0-9A-Fa-f",
}  # fmt: skip


class BadPatternError(ValueError):
    """The pattern is not one that Go compiles; str() is Go's complaint."""


def compiled(pattern: str, failure: str = "Illegal regex: ") -> re.Pattern[str]:
    """Return the compiled pattern; raise CelError with Go's complaint behind `failure`."""
    try:
        return translate(pattern)
    except BadPatternError as error:
        raise CelError(f"{failure}{error}") from None


@lru_cache(maxsize=512)
def translate(pattern: str) -> re.Pattern[str]:
    """Return a Python pattern that matches what Go's does; raise BadPatternError."""
    return _Translator(pattern).pattern()


def _bad(reason: str, what: str) -> BadPatternError:
    return BadPatternError(f"error parsing regexp: {reason}: `{what}`")


class _Translator:
    def __init__(self, pattern: str, *, multiline: bool = False) -> None:
        self._text = pattern
        self._at = 0
        self._depth = 0
        self._multiline = multiline

    def pattern(self) -> re.Pattern[str]:
        out: list[str] = []
        text = self._text
        repeatable = False
        while self._at < len(text):
            char = text[self._at]
            if char == "\\":
                out.append(self._escape(in_class=False))
                repeatable = True
            elif char == "[":
                out.append(self._class())
                repeatable = True
            elif char == "(":
                out.append(self._group())
                repeatable = False
            elif char == ")":
                if self._depth == 0:
                    raise _bad("unexpected )", text)
                self._depth -= 1
                self._at += 1
                out.append(")")
                repeatable = True
            elif char in "*+?" or (char == "{" and self._counted()):
                out.append(self._repeat(repeatable=repeatable))
                repeatable = False
            elif char == "{":
                self._at += 1
                out.append(r"\{")
                repeatable = True
            elif char == "$":
                self._at += 1
                out.append("$" if self._multiline else r"\Z")
                repeatable = True
            else:
                self._at += 1
                out.append(char)
                repeatable = char != "|"
        if self._depth:
            raise _bad("missing closing )", text)
        try:
            return re.compile("".join(out))
        except (re.error, OverflowError, RecursionError):
            raise _bad("invalid or unsupported Perl syntax", text) from None

    def _counted(self) -> re.Match[str] | None:
        return re.compile(r"\{(\d+)(,(\d*))?\}", re.ASCII).match(self._text, self._at)

    def _repeat(self, *, repeatable: bool) -> str:
        text, start = self._text, self._at
        if text[start] == "{":
            match = self._counted()
            assert match is not None
            self._at = match.end()
            low, high = int(match.group(1)), int(match.group(3) or match.group(1))
            if low > _REPEAT_MAX or high > _REPEAT_MAX or low > high:
                raise _bad("invalid repeat count", match.group())
        else:
            self._at += 1
        lazy = self._at < len(text) and text[self._at] == "?"
        if lazy:
            self._at += 1
        operator = text[start : self._at]
        if not repeatable:
            before = re.search(r"(?:[*+?]|\{\d+(?:,\d*)?\})\??$", text[:start])
            if before is not None and not text[:start].endswith("\\" + before.group()):
                raise _bad("invalid nested repetition operator", before.group() + operator)
            raise _bad("missing argument to repetition operator", operator)
        return operator

    def _group(self) -> str:
        text = self._text
        self._depth += 1
        if not text.startswith("(?", self._at):
            self._at += 1
            return "("
        named = re.compile(r"\(\?P?<([A-Za-z_][A-Za-z0-9_]*)>", re.ASCII).match(text, self._at)
        if named is not None:
            self._at = named.end()
            return f"(?P<{named.group(1)}>"
        if text.startswith(("(?P", "(?<"), self._at):
            raise _bad(
                "invalid or unsupported Perl syntax"
                if text.startswith(("(?<=", "(?<!"), self._at)
                else "invalid named capture",
                text[self._at : self._at + 4],
            )
        flags = re.compile(r"\(\?([imsU]*)(?:-([imsU]+))?([:)])").match(text, self._at)
        if flags is None:
            raise _bad("invalid or unsupported Perl syntax", text[self._at : self._at + 3])
        self._at = flags.end()
        on, off, end = flags.groups()
        if "U" in on or "U" in (off or ""):
            raise _bad("invalid or unsupported Perl syntax", flags.group())
        # Translated apart, as `$` depends on the flags. Flags without a colon hold up to the end of the group around.
        self._depth -= 1
        multiline = "m" in on or (self._multiline and "m" not in (off or ""))
        inner = _Translator(self._rest_of_group(), multiline=multiline).pattern().pattern
        if end == ":":
            if not self._text.startswith(")", self._at):
                raise _bad("missing closing )", text)
            self._at += 1
        inside = on + (f"-{off}" if off else "")
        return f"(?{inside}:{inner})"

    def _rest_of_group(self) -> str:
        text, depth, in_class = self._text, 0, False
        index = self._at
        while index < len(text):
            char = text[index]
            if char == "\\":
                index += 1
            elif in_class:
                in_class = char != "]"
            elif char == "[":
                in_class = True
            elif char == "(":
                depth += 1
            elif char == ")":
                if depth == 0:
                    break
                depth -= 1
            index += 1
        rest = text[self._at : index]
        self._at = index
        return rest

    def _class(self) -> str:
        text = self._text
        start = self._at
        self._at += 1
        out = "["
        if text.startswith("^", self._at):
            out += "^"
            self._at += 1
        first = True
        while True:
            if self._at >= len(text):
                raise _bad("missing closing ]", text[start:])
            char = text[self._at]
            if char == "]" and not first:
                self._at += 1
                return out + "]"
            first = False
            if text.startswith("[:", self._at) and (end := text.find(":]", self._at)) > 0:
                name = text[self._at + 2 : end]
                if name.lstrip("^") not in _POSIX or name.startswith("^"):
                    raise _bad("invalid character class range", text[self._at : end + 2])
                out += _POSIX[name]
                self._at = end + 2
            elif char == "\\":
                out += self._escape(in_class=True)
            else:
                out += "\\" + char if char in "[]&~|" else char
                self._at += 1
            if text.startswith("-", self._at) and not text.startswith("-]", self._at) and self._at + 1 < len(text):
                self._at += 1
                out += "-"

    def _escape(self, *, in_class: bool) -> str:
        text = self._text
        if self._at + 1 >= len(text):
            raise _bad("trailing backslash at end of expression", "")
        char = text[self._at + 1]
        self._at += 2
        plain = {"d": "0-9", "w": "0-9A-Za-z_", "s": r"\t\n\f\r "}
        if char in plain:
            return plain[char] if in_class else f"[{plain[char]}]"
        if char.lower() in plain and not in_class:
            return f"[^{plain[char.lower()]}]"
        if char in "DWS":
            return "\\" + char
        if char in "pP":
            return self._unicode_class(char, in_class=in_class)
        if char in "aftnrv":
            return "\\" + char
        if char == "x":
            match = re.compile(r"\{([0-9A-Fa-f]{1,6})\}|([0-9A-Fa-f]{2})").match(text, self._at)
            if match is None:
                raise _bad("invalid escape sequence", text[self._at - 2 : self._at])
            self._at = match.end()
            return re.escape(chr(int(match.group(1) or match.group(2), 16)))
        if char in "01234567":
            match = re.compile(r"[0-7]{1,3}").match(text, self._at - 1)
            assert match is not None
            if char != "0" and len(match.group()) == 1:
                raise _bad("invalid escape sequence", "\\" + char)
            self._at = match.end()
            return re.escape(chr(int(match.group(), 8)))
        if not in_class:
            if char == "A":
                return r"\A"
            if char == "z":
                return r"\Z"
            if char in "bB":
                return rf"(?a:\{char})"
            if char == "Q":
                end = text.find(r"\E", self._at)
                quoted = text[self._at : end if end >= 0 else len(text)]
                self._at = end + 2 if end >= 0 else len(text)
                return re.escape(quoted)
            if char == "C":
                raise _bad("invalid escape sequence", r"\C")
        if char.isascii() and not char.isalnum():
            return "\\" + char
        raise _bad("invalid escape sequence", "\\" + char)

    def _unicode_class(self, char: str, *, in_class: bool) -> str:
        match = re.compile(r"\{(\^?)([A-Za-z_]+)\}|([A-Z])").match(self._text, self._at)
        if match is None:
            raise _bad("invalid character class range", "\\" + char)
        self._at = match.end()
        name = match.group(2) or match.group(3)
        negated = (char == "P") != (match.group(1) == "^")
        members = _category(name)
        if members is None:
            raise _bad("invalid character class range", f"\\{char}{match.group()}")
        if in_class:
            if negated:
                raise _bad("invalid character class range", f"\\{char}{match.group()}")
            return members
        return f"[{'^' if negated else ''}{members}]"


@lru_cache(maxsize=64)
def _category(name: str) -> str | None:
    """Return the members of a Unicode category as ranges of a character class, None for what is no category."""
    import sys
    import unicodedata

    ranges: list[tuple[int, int]] = []
    if not 1 <= len(name) <= 2:
        return None
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code)).startswith(name):
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1] = (ranges[-1][0], code)
            else:
                ranges.append((code, code))
    if not ranges:
        return None
    return "".join(f"\\U{low:08x}" if low == high else f"\\U{low:08x}-\\U{high:08x}" for low, high in ranges)

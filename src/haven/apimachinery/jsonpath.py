"""The syntax of JSONPath templates as client-go reads them: text, and actions in braces.

Source: https://kubernetes.io/docs/reference/kubectl/jsonpath/
"""

from __future__ import annotations

import re

__all__ = ["InvalidPath", "check_template"]

_EOF = ""
_TERMINATORS = frozenset(" \t\r\n.,[]$@{}") | {_EOF}
_COMPARISON = re.compile(r"([^!<>=]+)([!<>=]+)(.+?)", re.DOTALL)
_KEY = re.compile(r"'([^']*)'")
_SLICE = re.compile(r"(-?[0-9]*)(:-?[0-9]*)?(:-?[0-9]*)?")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)")
_ESCAPED = {
    quote: re.compile(
        rf"{quote}(?:[^\\]|\\(?:[abfnrtv\\{quote}]|x[0-9a-fA-F]{{2}}|u[0-9a-fA-F]{{4}}|U[0-9a-fA-F]{{8}}|[0-7]{{3}}))*{quote}",
        re.DOTALL,
    )
    for quote in "\"'"
}
_DIGITS_MAX = 18


class InvalidPath(ValueError):
    """The template cannot be read; the message is client-go's."""


def check_template(text: str) -> None:
    """Return if the template can be read; raise InvalidPath."""
    position = 0
    while (start := text.find("{", position)) >= 0:
        position = _Action(text, start + 1).end()


class _Action:
    """One action, from behind its left brace to behind its right one."""

    def __init__(self, text: str, position: int) -> None:
        self._text = text
        self._at = position
        self._descended = False

    def end(self) -> int:
        """Read the action; return where it ends."""
        while not self._text.startswith("}", self._at):
            self._step()
        return self._at + 1

    def _step(self) -> None:
        text = self._text
        if text.startswith("[?(", self._at):
            self._filter()
        elif text.startswith("..", self._at):
            if self._descended:
                raise InvalidPath("invalid multiple recursive descent")
            self._at += 2
            if (char := text[self._at : self._at + 1]) == "_" or char.isalnum():
                self._word()
            else:
                self._descended = True
            return
        else:
            self._simple(text[self._at : self._at + 1])
            return
        self._descended = False

    def _simple(self, char: str) -> None:
        if char in (_EOF, "\r", "\n"):
            raise InvalidPath("unclosed action")
        if char in " @$":
            self._at += 1
            return
        self._descended = False
        if char == "[":
            self._array()
        elif char in "\"'":
            start, self._at = self._at, self._quoted_end(self._at + 1, char)
            if not _ESCAPED[char].fullmatch(text := self._text[start : self._at]):
                raise InvalidPath(f"unquote string {text} error invalid syntax")
        elif char == ".":
            self._at += 1
            self._word()
        elif char in "+-" or char.isdigit():
            self._number()
        elif char == "_" or char.isalpha():
            self._word(escapes=False)
        else:
            raise InvalidPath(f"unrecognized character in action: U+{ord(char):04X} '{char}'")

    def _word(self, *, escapes: bool = True) -> None:
        text = self._text
        while (char := text[self._at : self._at + 1]) not in _TERMINATORS:
            self._at += 2 if escapes and char == "\\" else 1
        self._at = min(self._at, len(text))

    def _number(self) -> None:
        start = self._at
        self._at += self._text[start] in "+-"
        while (char := self._text[self._at : self._at + 1]) == "." or char.isdigit():
            self._at += 1
        if not _NUMBER.fullmatch(number := self._text[start : self._at]):
            raise InvalidPath(f"cannot parse number {number}")

    def _quoted_end(self, position: int, quote: str) -> int:
        while (char := self._text[position : position + 1]) != quote or self._text[position - 1] == "\\":
            if char in (_EOF, "\n"):
                raise InvalidPath("unterminated quoted string")
            position += 1
        return position + 1

    def _array(self) -> None:
        start = self._at + 1
        while (char := self._text[self._at : self._at + 1]) != "]":
            if char in (_EOF, "\n"):
                raise InvalidPath("unterminated array")
            self._at += 1
        inside = self._text[start : self._at]
        self._at += 1
        parts = inside.split(",")
        if len(parts) > 1:
            for part in parts:
                check_template("{[" + part.strip(" ") + "]}")
        elif key := _KEY.fullmatch(inside):
            check_template("{." + key[1] + "}")
        elif inside != "*":
            found = _SLICE.fullmatch(inside)
            if found is None:
                raise InvalidPath(f"invalid array index {inside}")
            for part in found.groups(default=""):
                if (digits := part.removeprefix(":")) and (digits == "-" or len(digits) > _DIGITS_MAX):
                    raise InvalidPath(f"array index {digits} is not a number")

    def _filter(self) -> None:
        text, start = self._text, self._at + 3
        position, quote, is_closed = start, "", False
        while (char := text[position : position + 1]) != ")" or bool(quote) != is_closed:
            if char in (_EOF, "\n"):
                raise InvalidPath("unterminated filter")
            if char in "\"'":
                if not quote:
                    quote = char
                elif char == quote and text[position - 1] != "\\":
                    is_closed = True
            position += 1
        if text[position + 1 : position + 2] != "]":
            raise InvalidPath("unclosed array expect ]")
        inside = text[start:position]
        self._at = position + 2
        found = _COMPARISON.fullmatch(inside)
        for part in (found[1], found[3]) if found else (inside,):
            check_template("{" + part + "}")

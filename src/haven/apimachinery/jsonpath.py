"""JSONPath templates as client-go reads them: text, and actions in braces, whose steps lead to values.

Fields, ['quoted'] ones, slices, unions, wildcards, recursive descent and filters; what is an error when read and what
when looked up are client-go's.
Source: https://kubernetes.io/docs/reference/kubectl/jsonpath/
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

__all__ = ["InvalidPath", "check_template", "compile_path"]

Values = list[Any]
Step = Callable[[Values], Values]

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
_escape = re.compile(r"\\(x..|u.{4}|U.{8}|[0-7]{3}|.)", re.DOTALL)
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_DIGITS_MAX = 18
_KINDS = {bool: "bool", int: "int", float: "float", str: "string"}


class InvalidPath(ValueError):
    """The template cannot be read; the message is client-go's."""


class _Nothing(Exception):
    """The path leads to an error in this object."""


def check_template(text: str) -> None:
    """Return if a template can be read; raise InvalidPath."""
    _actions(text)


def compile_path(path: str) -> Callable[[Any], Values]:
    """Return a function that finds the values a path leads to, none if looking failed; raise InvalidPath.

    A path is what stands between the braces of a template.
    """
    steps = _actions("{" + path + "}")[0]

    def find(value: Any) -> Values:
        try:
            return _run(steps, [value])
        except _Nothing:
            return []

    return find


def _actions(text: str) -> list[list[Step]]:
    """Return the steps of each action; what stands between them is text."""
    found: list[list[Step]] = []
    position = 0
    while (start := text.find("{", position)) >= 0:
        action = _Action(text, start + 1)
        position = action.end()
        found.append(action.steps)
    return found


def _run(steps: list[Step], values: Values) -> Values:
    for step in steps:
        values = step(values)
    return values


class _Action:
    """One action, from behind its left brace to behind its right one."""

    def __init__(self, text: str, position: int) -> None:
        self._text = text
        self._at = position
        self._descended = False
        self.steps: list[Step] = []

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
            self.steps.append(_descendants)
            if (char := text[self._at : self._at + 1]) == "_" or char.isalnum():
                self._field()
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
            self._constant(_escape.sub(_unescaped, text[1:-1]))
        elif char == ".":
            self._at += 1
            self._field()
        elif char in "+-" or char.isdigit():
            self._number()
        elif char == "_" or char.isalpha():
            word = self._word(escapes=False)
            if word in ("true", "false"):
                self._constant(word == "true")
            else:
                self.steps.append(_fail)  # Words belong to templates.
        else:
            raise InvalidPath(f"unrecognized character in action: U+{ord(char):04X} '{char}'")

    def _constant(self, value: Any) -> None:
        self.steps.append(lambda values: [value for _ in values])

    def _field(self) -> None:
        name = self._word()
        self.steps.append(_children if name == "*" else _member(name.replace("\\", "")))

    def _word(self, *, escapes: bool = True) -> str:
        text, start = self._text, self._at
        while (char := text[self._at : self._at + 1]) not in _TERMINATORS:
            self._at += 2 if escapes and char == "\\" else 1
        self._at = min(self._at, len(text))
        return text[start : self._at]

    def _number(self) -> None:
        start = self._at
        self._at += self._text[start] in "+-"
        while (char := self._text[self._at : self._at + 1]) == "." or char.isdigit():
            self._at += 1
        if not _NUMBER.fullmatch(number := self._text[start : self._at]):
            raise InvalidPath(f"cannot parse number {number}")
        self._constant(float(number) if "." in number else int(number))

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
            several = [_actions("{[" + part.strip(" ") + "]}")[0] for part in parts]
            self.steps.append(lambda values: [found for steps in several for found in _run(steps, values)])
        elif key := _KEY.fullmatch(inside):
            self.steps += _actions("{." + key[1] + "}")[0]
        elif inside == "*":
            self.steps.append(_cut(None, None, None, is_single=False))
        else:
            self._slice(inside)

    def _slice(self, text: str) -> None:
        found = _SLICE.fullmatch(text)
        if found is None:
            raise InvalidPath(f"invalid array index {text}")
        numbers: list[int | None] = []
        for part in found.groups(default=""):
            digits = part.removeprefix(":")
            if digits == "-" or len(digits) > _DIGITS_MAX:
                raise InvalidPath(f"array index {digits} is not a number")
            numbers.append(int(digits) if digits else None)
        self.steps.append(_cut(numbers[0], numbers[1], numbers[2], is_single=found[2] is None))

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
        if found is None:
            self.steps.append(_having(_actions("{" + inside + "}")[0]))
        else:
            left, right = (_actions("{" + part + "}")[0] for part in (found[1], found[3]))
            self.steps.append(_comparing(left, found[2], right))


def _unescaped(found: re.Match[str]) -> str:
    text = found[1]
    if text[0] in "xuU":
        return chr(int(text[1:], 16))
    if len(text) == 3:
        return chr(int(text, 8))
    return _SIMPLE.get(text, text)


# ---- what the steps do


def _fail(_values: Values) -> Values:
    raise _Nothing


def _member(name: str) -> Step:
    return lambda values: [value[name] for value in values if isinstance(value, dict) and name in value]


def _children(values: Values) -> Values:
    found: Values = []
    for value in values:
        if isinstance(value, list):
            found += value
        elif isinstance(value, dict):
            found += value.values()
    return found


def _descendants(values: Values) -> Values:
    found: Values = []
    for value in values:
        inner = _children([value])
        if inner:
            found += [value, *_descendants(inner)]
    return found


def _cut(first: int | None, last: int | None, step: int | None, *, is_single: bool) -> Step:
    def cut(values: Values) -> Values:
        result: Values = []
        for value in values:
            if value is None:
                continue
            if not isinstance(value, list):
                raise _Nothing
            size = len(value)
            begin = first or 0
            end = begin + 1 if is_single else size if last is None else last
            begin = begin + size if begin < 0 else begin
            end = end + size if end < 0 or (end == 0 and is_single) else end
            if begin == end:
                return result
            if not (0 <= begin < size and 0 <= end <= size and begin <= end) or (step is not None and step <= 0):
                raise _Nothing
            result += value[begin : end : step or 1]
        return result

    return cut


def _listed(values: Values) -> Values:
    found: Values = []
    for value in values:
        if value is None:
            continue
        if not isinstance(value, list):
            raise _Nothing
        found += value
    return found


def _having(steps: list[Step]) -> Step:
    def keep(values: Values) -> Values:
        found = []
        for item in _listed(values):
            try:
                if _run(steps, [item]):
                    found.append(item)
            except _Nothing:
                continue
        return found

    return keep


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda left, right: bool(left == right), "!=": lambda left, right: bool(left != right),
    "<": lambda left, right: bool(left < right), "<=": lambda left, right: bool(left <= right),
    ">": lambda left, right: bool(left > right), ">=": lambda left, right: bool(left >= right),
}  # fmt: skip


def _comparing(left: list[Step], operator: str, right: list[Step]) -> Step:
    def keep(values: Values) -> Values:
        found = []
        for item in _listed(values):
            ours = _run(left, [item])
            theirs = _run(right, [item]) if ours else []
            if not ours or not theirs:
                continue
            if len(ours) > 1 or len(theirs) > 1 or operator not in _OPERATORS:
                raise _Nothing
            kind = _KINDS.get(type(ours[0]))
            if kind is None or kind != _KINDS.get(type(theirs[0])):
                raise _Nothing
            if _OPERATORS[operator](ours[0], theirs[0]):
                found.append(item)
        return found

    return keep

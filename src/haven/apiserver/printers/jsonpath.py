"""JSONPath as the columns of custom resources write it: what stands between the braces of a kubectl template.

Fields, ['quoted'] ones, slices, unions, wildcards, recursive descent and filters; the grammar, what is an error when
read and what when looked up, are those of client-go.
Source: https://kubernetes.io/docs/reference/kubectl/jsonpath/
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

__all__ = ["InvalidPath", "compile_path"]

Values = list[Any]
Step = Callable[[Values], Values]

_ENDS = set(" \t\r\n.,[]$@{}")
_slice = re.compile(r"(-?\d*)(:-?\d*)?(:-?\d*)?")
_quoted = re.compile(r"'([^']*)'")
_comparison = re.compile(r"([^!<>=]+)([!<>=]+)(.+)", re.DOTALL)
_KINDS = {bool: "bool", int: "int", float: "float", str: "string"}


class InvalidPath(ValueError):
    """The path cannot be read."""


class _Nothing(Exception):
    """The path leads to an error in this object."""


def compile_path(path: str) -> Callable[[Any], Values]:
    """Return a function that finds the values a path leads to, none if looking failed; raise InvalidPath."""
    steps = _Parser(path).steps()

    def find(value: Any) -> Values:
        try:
            return _run(steps, [value])
        except _Nothing:
            return []

    return find


def _run(steps: list[Step], values: Values) -> Values:
    for step in steps:
        values = step(values)
    return values


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._steps: list[Step] = []
        self._after_descent = False

    def steps(self) -> list[Step]:
        while self._at < len(self._text):
            rest = self._text[self._at :]
            letter = rest[0]
            if letter == "}":
                break  # Upstream puts braces around the path; what is behind them is text.
            if rest.startswith("[?("):
                self._filter()
            elif rest.startswith(".."):
                self._descent()
                continue
            elif letter in " @$":
                self._at += 1
                continue
            elif letter == "[":
                self._brackets()
            elif letter == ".":
                self._at += 1
                self._field()
            elif letter in "\"'":
                self._constant(self._quote())
            elif letter in "+-" or letter.isdigit():
                self._number()
            elif letter.isalnum() or letter == "_":
                self._identifier()
            else:
                raise InvalidPath(f"unrecognized character in action: {letter}")
            self._after_descent = False
        return self._steps

    def _until_end(self) -> str:
        start = self._at
        while self._at < len(self._text) and self._text[self._at] not in _ENDS:
            self._at += 2 if self._text[self._at] == "\\" else 1
        return self._text[start : self._at]

    def _field(self) -> None:
        name = self._until_end()
        self._steps.append(_children if name == "*" else _member(name.replace("\\", "")))

    def _descent(self) -> None:
        if self._after_descent:
            raise InvalidPath("invalid multiple recursive descent")
        self._at += 2
        self._steps.append(_descendants)
        self._after_descent = True
        if self._text[self._at : self._at + 1].isalnum():
            self._field()
            self._after_descent = False

    def _quote(self) -> str:
        mark, start = self._text[self._at], self._at + 1
        end = start
        while (end := self._text.find(mark, end)) >= 0 and self._text[end - 1] == "\\":
            end += 1
        if end < 0:
            raise InvalidPath("unterminated quoted string")
        self._at = end + 1
        return re.sub(r"\\(.)", r"\1", self._text[start:end])

    def _number(self) -> None:
        found = re.compile(r"[+-]?[\d.]*").match(self._text, self._at)
        assert found is not None
        self._at = found.end()
        for kind in (int, float):
            try:
                return self._constant(kind(found.group()))
            except ValueError:
                continue
        raise InvalidPath(f"cannot parse number {found.group()}")

    def _identifier(self) -> None:
        name = self._until_end()
        if name in ("true", "false"):
            return self._constant(name == "true")
        self._steps.append(_fail)
        return None

    def _constant(self, value: Any) -> None:
        self._steps.append(lambda values: [value for _ in values])

    def _brackets(self) -> None:
        end = self._text.find("]", self._at)
        if end < 0:
            raise InvalidPath("unterminated array")
        text = self._text[self._at + 1 : end]
        self._at = end + 1
        if text == "*":
            text = ":"
        parts = text.split(",")
        if len(parts) > 1:
            several = [_Parser(f"[{part.strip(' ')}]").steps() for part in parts]
            self._steps.append(lambda values: [found for steps in several for found in _run(steps, values)])
        elif quoted := _quoted.fullmatch(text):
            self._steps += _Parser(f".{quoted[1]}").steps()
        else:
            self._steps.append(_slicer(text))

    def _filter(self) -> None:
        start, mark = self._at + 3, ""
        at = start
        while True:
            if at >= len(self._text):
                raise InvalidPath("unterminated filter")
            letter = self._text[at]
            if letter in "\"'" and (not mark or (letter == mark and self._text[at - 1] != "\\")):
                mark = "" if mark else letter
            elif letter == ")" and not mark:
                break
            at += 1
        if self._text[at + 1 : at + 2] != "]":
            raise InvalidPath("unclosed array expect ]")
        self._at = at + 2
        text = self._text[start:at]
        found = _comparison.fullmatch(text)
        if found is None:
            self._steps.append(_having(_Parser(text).steps()))
        else:
            self._steps.append(_comparing(_Parser(found[1]).steps(), found[2], _Parser(found[3]).steps()))


# ---- what the parts of a path do


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


def _slicer(text: str) -> Step:
    found = _slice.fullmatch(text)
    if found is None:
        raise InvalidPath(f"invalid array index {text}")
    numbers = [part.removeprefix(":") if part else None for part in found.groups()]
    try:
        first, last, step = (int(part) if part else None for part in numbers)
    except ValueError:
        raise InvalidPath(f"array index {text} is not a number") from None
    is_single = found[2] is None and found[3] is None

    def cut(values: Values) -> Values:
        result: Values = []
        for value in values:
            if value is None:
                continue
            if not isinstance(value, list):
                raise _Nothing
            size = len(value)
            begin = first or 0
            end = begin + 1 if is_single or found[2] is None else size if last is None else last
            begin = begin + size if begin < 0 else begin
            end = end + size if end < 0 or (end == 0 and found[2] is None) else end
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

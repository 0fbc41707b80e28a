"""The text form of label selectors.

Source: the grammar and complaints of k8s.io/apimachinery/pkg/labels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from haven.apimachinery.fielderrors import Path, invalid
from haven.apimachinery.selectors.errors import SelectorError
from haven.apimachinery.selectors.labels import BINARY_OPERATORS, EVERYTHING, LabelSelector, Requirement, requirement
from haven.apimachinery.selectors.names import label_key_errors

__all__ = ["parse_labels"]

_token = re.compile(r"[ \t\r\n]*(?:(?P<end>\Z|\0)|(?P<symbol>[=!(),<>]+)|(?P<word>[^ \t\r\n=!(),<>\0]+))", re.ASCII)
_SYMBOLS = frozenset({")", ",", "!", "==", "=", ">", "<", "!=", "("})
_END, _WORD, _IN, _NOTIN = "end", "word", "in", "notin"
_COMPARISONS = {"in": "in", "=": "=", "==": "==", ">": "gt", "<": "lt", "notin": "notin", "!=": "!="}


def _scan(text: str) -> Iterator[tuple[str, str]]:
    """Yield (token, its text), an end token last. A symbol is the longest known beginning of a run of symbol signs."""
    position = 0
    while True:
        found = _token.match(text, position)
        assert found is not None, (text, position)
        if found.group("end") is not None:
            yield _END, ""
            return
        if (word := found.group("word")) is not None:
            yield (word if word in (_IN, _NOTIN) else _WORD), word
            position = found.end()
            continue
        run = found.group("symbol")
        symbol = run[:2] if run[:2] in _SYMBOLS else run[0]
        yield symbol, symbol
        position = found.end() - len(run) + len(symbol)


class _Parser:
    """A recursive descent over the tokens; in and notin are words except right after a key."""

    def __init__(self, text: str, path: Path | None) -> None:
        self._tokens = list(_scan(text))
        self._position = 0
        self._path = path

    def _peek(self) -> tuple[str, str]:
        token, text = self._tokens[min(self._position, len(self._tokens) - 1)]
        return (_WORD if token in (_IN, _NOTIN) else token), text

    def _take(self) -> tuple[str, str]:
        result = self._peek()
        self._position += 1
        return result

    def parse(self) -> list[Requirement]:
        result: list[Requirement] = []
        while True:
            token, text = self._peek()
            if token == _END:
                return result
            if token not in (_WORD, "!"):
                raise SelectorError(f"found '{text}', expected: !, identifier, or 'end of string'")
            try:
                result.append(self._requirement())
            except SelectorError as error:
                raise SelectorError(f"unable to parse requirement: {error}") from None
            token, text = self._take()
            if token == _END:
                return result
            if token != ",":
                raise SelectorError(f"found '{text}', expected: ',' or 'end of string'")
            token, text = self._peek()
            if token not in (_WORD, "!"):
                raise SelectorError(f"found '{text}', expected: identifier after ','")

    def _requirement(self) -> Requirement:
        token, key = self._take()
        absent = token == "!"
        if absent:
            token, key = self._take()
        if token != _WORD:
            raise SelectorError(f"found '{key}', expected: identifier")
        if complaints := label_key_errors(key):
            raise SelectorError(str(invalid(self._path, key, "; ".join(complaints))))
        if absent:
            return requirement(key, "!", [], self._path)
        if self._peek()[0] in (_END, ","):
            return requirement(key, "exists", [], self._path)
        operator = self._operator()
        values = self._values() if operator in ("in", "notin") else self._value()
        return requirement(key, operator, sorted(values), self._path)

    def _operator(self) -> str:
        token, text = self._tokens[min(self._position, len(self._tokens) - 1)]
        self._position += 1
        operator = _COMPARISONS.get(token)
        if operator is None:
            raise SelectorError(f"found '{text}', expected: {', '.join(BINARY_OPERATORS)}")
        return operator

    def _value(self) -> set[str]:
        if self._peek()[0] in (_END, ","):
            return {""}
        token, text = self._take()
        if token != _WORD:
            raise SelectorError(f"found '{text}', expected: identifier")
        return {text}

    def _values(self) -> set[str]:
        token, text = self._take()
        if token != "(":
            raise SelectorError(f"found '{text}' expected: '('")
        token, text = self._peek()
        if token == ")":
            self._take()
            return {""}
        if token not in (_WORD, ","):
            raise SelectorError(f"found '{text}', expected: ',', ')' or identifier")
        values = self._list()
        assert self._peek()[0] == ")", self._tokens
        self._take()
        return values

    def _list(self) -> set[str]:
        values: set[str] = set()
        while True:
            token, text = self._take()
            if token == _WORD:
                values.add(text)
                token, text = self._peek()
                if token == ")":
                    return values
                if token != ",":
                    raise SelectorError(f"found '{text}', expected: ',' or ')'")
            elif token == ",":
                if not values:
                    values.add("")
                token, _ = self._peek()
                if token in (")", ","):
                    values.add("")
                if token == ")":
                    return values
            else:
                raise SelectorError(f"found '{text}', expected: ',', or identifier")


def parse_labels(text: str, path: Path | None = None) -> LabelSelector:
    """Return the label selector that text describes; raise SelectorError."""
    if not text:
        return EVERYTHING
    return LabelSelector(_Parser(text, path).parse())

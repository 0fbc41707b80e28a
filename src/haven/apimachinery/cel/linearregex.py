"""Match in linear time what Python's engine might need exponential time for.

Python backtracks: `(a+)+$` takes 2^n steps on n letters, and nobody may stop the server with a pattern. Such
patterns, and those with several repetitions on long texts, are run as a set of threads that advance together (Pike's
machine), which takes at most pattern times text steps. Leftmost, first alternative wins, as in Go.

Source: https://swtch.com/~rsc/regexp/regexp2.html.
"""

from __future__ import annotations

import re
import re._constants as sre  # type: ignore[import-not-found, unused-ignore]
import re._parser as sre_parser  # type: ignore[import-not-found, unused-ignore]
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final, NamedTuple

__all__ = ["Span", "find_spans"]

_LONG_TEXT: Final = 2000
_STATES_MAX: Final = 20_000
_UNBOUNDED: Final = 16  # From so many repetitions on, the shape of what is repeated matters.
Test = Callable[[str], bool]


class Span(NamedTuple):
    """Where a match lies."""

    start: int
    end: int


def find_spans(pattern: re.Pattern[str], text: str) -> Iterator[Span]:
    """Iterate over the matches that do not overlap, from left to right."""
    nested, repeats = _danger(pattern.pattern, pattern.flags)
    if nested or (repeats > 1 and len(text) > _LONG_TEXT):
        yield from _machine_spans(_program(pattern.pattern, pattern.flags), text)
    else:
        for match in pattern.finditer(text):
            yield Span(match.start(), match.end())


@lru_cache(maxsize=512)
def _danger(pattern: str, flags: int) -> tuple[bool, int]:
    """Return (whether repetitions are nested such that one text can be split in many ways, how many there are)."""
    count = 0

    def walk(items: Any, within: bool) -> bool:
        nonlocal count
        nested = False
        for op, argument in items:
            if op in (sre.MAX_REPEAT, sre.MIN_REPEAT):
                least, most, body = argument
                repeated = most >= _UNBOUNDED
                count += repeated
                nested = nested or (within and most > least)
                inner = within or (repeated and not _is_separated(body, flags))
                nested = walk(body, inner) or nested
            elif op is sre.SUBPATTERN:
                nested = walk(argument[3], within) or nested
            elif op is sre.BRANCH:
                nested = nested or (within and not _are_distinct(argument[1]))
                for branch in argument[1]:
                    nested = walk(branch, within) or nested
        return nested

    return walk(sre_parser.parse(pattern, flags), False), count


def _are_distinct(branches: list[Any]) -> bool:
    """Tell whether the first character decides which alternative is meant."""
    first = [branch[0][1] if len(branch) and branch[0][0] is sre.LITERAL else None for branch in branches]
    return None not in first and len(set(first)) == len(first)


def _is_separated(body: Any, flags: int) -> bool:
    """Tell whether rounds begin with a character that nothing else within takes: there is one way only."""
    items = list(body)
    while len(items) == 1 and items[0][0] is sre.SUBPATTERN:
        items = list(items[0][1][3])
    if not items or items[0][0] is not sre.LITERAL:
        return False
    char = chr(items[0][1])

    def taken(inner: Any) -> bool:
        for op, argument in inner:
            if op in _SINGLE:
                if _test((op, argument), flags)(char):
                    return True
            elif op in (sre.MAX_REPEAT, sre.MIN_REPEAT):
                if taken(argument[2]):
                    return True
            elif op is sre.SUBPATTERN:
                if taken(argument[3]):
                    return True
            elif op is sre.BRANCH and any(taken(branch) for branch in argument[1]):
                return True
        return False

    return not taken(items[1:])


_SINGLE: Final = (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN)
_CATEGORIES: Final[dict[Any, Test]] = {
    sre.CATEGORY_DIGIT: lambda char: "0" <= char <= "9",
    sre.CATEGORY_NOT_DIGIT: lambda char: not "0" <= char <= "9",
    sre.CATEGORY_SPACE: lambda char: char in "\t\n\f\r ",
    sre.CATEGORY_NOT_SPACE: lambda char: char not in "\t\n\f\r ",
    sre.CATEGORY_WORD: lambda char: char.isascii() and (char.isalnum() or char == "_"),
    sre.CATEGORY_NOT_WORD: lambda char: not (char.isascii() and (char.isalnum() or char == "_")),
}


def _test(item: tuple[Any, Any], flags: int) -> Test:
    """Return what tells whether one character fits."""
    op, argument = item
    plain: Test
    if op in (sre.LITERAL, sre.NOT_LITERAL):
        plain = _char_test(chr(argument), negated=op is sre.NOT_LITERAL)
    elif op is sre.ANY:
        return lambda char: bool(flags & re.DOTALL) or char != "\n"
    else:
        plain = _class_test(argument)
    if not flags & re.IGNORECASE:
        return plain
    if op is sre.NOT_LITERAL or (op is sre.IN and argument[0][0] is sre.NEGATE):
        return lambda char: plain(char) and plain(char.lower()) and plain(char.upper())
    return lambda char: plain(char) or plain(char.lower()) or plain(char.upper())


def _char_test(wanted: str, *, negated: bool) -> Test:
    return lambda char: (char == wanted) != negated


def _class_test(members: list[tuple[Any, Any]]) -> Test:
    negated = members[0][0] is sre.NEGATE
    singles = {chr(argument) for op, argument in members if op is sre.LITERAL}
    ranges = [(chr(argument[0]), chr(argument[1])) for op, argument in members if op is sre.RANGE]
    categories = [_CATEGORIES[argument] for op, argument in members if op is sre.CATEGORY]

    def test(char: str) -> bool:
        found = (
            char in singles
            or any(low <= char <= high for low, high in ranges)
            or any(category(char) for category in categories)
        )
        return found != negated

    return test


def _is_word(text: str, index: int) -> bool:
    return 0 <= index < len(text) and text[index].isascii() and (text[index].isalnum() or text[index] == "_")


def _at(where: Any, flags: int) -> Callable[[str, int], bool]:
    if where is sre.AT_BEGINNING and flags & re.MULTILINE:
        return lambda text, index: index == 0 or text[index - 1] == "\n"
    if where in (sre.AT_BEGINNING, sre.AT_BEGINNING_STRING):
        return lambda text, index: index == 0
    if where is sre.AT_END and flags & re.MULTILINE:
        return lambda text, index: index == len(text) or text[index] == "\n"
    if where in (sre.AT_END, sre.AT_END_STRING):
        return lambda text, index: index == len(text)
    if where is sre.AT_BOUNDARY:
        return lambda text, index: _is_word(text, index - 1) != _is_word(text, index)
    return lambda text, index: _is_word(text, index - 1) == _is_word(text, index)


class _Code(NamedTuple):
    """One state: a test of a character or place and what comes next, or several states to try in order."""

    test: Test | None
    at: Callable[[str, int], bool] | None
    next: tuple[int, ...]


_MATCH: Final = -1


class _Program:
    """A pattern as numbered states, made from its end to its beginning."""

    def __init__(self, pattern: str, flags: int) -> None:
        self.codes: list[_Code] = []
        self.start = self._sequence(sre_parser.parse(pattern, flags), _MATCH, flags)

    def _add(self, test: Test | None, at: Callable[[str, int], bool] | None, *following: int) -> int:
        if len(self.codes) >= _STATES_MAX:
            raise OverflowError("the pattern is too large")
        self.codes.append(_Code(test, at, following))
        return len(self.codes) - 1

    def _sequence(self, items: Any, following: int, flags: int) -> int:
        for item in reversed(list(items)):
            following = self._item(item, following, flags)
        return following

    def _item(self, item: tuple[Any, Any], following: int, flags: int) -> int:
        op, argument = item
        if op in _SINGLE:
            return self._add(_test(item, flags), None, following)
        if op is sre.AT:
            return self._add(None, _at(argument, flags), following)
        if op is sre.SUBPATTERN:
            _, added, removed, body = argument
            return self._sequence(body, following, (flags | added) & ~removed)
        if op is sre.BRANCH:
            return self._add(None, None, *(self._sequence(one, following, flags) for one in argument[1]))
        least, most, body = argument
        lazy = op is sre.MIN_REPEAT
        if most == sre.MAXREPEAT:
            loop = self._add(None, None)
            inside = self._sequence(body, loop, flags)
            self.codes[loop] = _Code(None, None, (following, inside) if lazy else (inside, following))
            following = loop
        else:
            for _ in range(most - least):
                # Leaving early and going on with fewer rounds come to the same.
                inside = self._sequence(body, following, flags)
                following = self._add(None, None, *((following, inside) if lazy else (inside, following)))
        for _ in range(least):
            following = self._sequence(body, following, flags)
        return following


@lru_cache(maxsize=64)
def _program(pattern: str, flags: int) -> _Program:
    return _Program(pattern, flags)


def _machine_spans(program: _Program, text: str) -> Iterator[Span]:
    index, last_end = 0, -1
    while index <= len(text):
        found = _first(program, text, index)
        if found is None:
            return
        if found.start == found.end == last_end:
            index = found.end + 1
            continue
        yield found
        last_end = found.end
        index = found.end if found.end > found.start else found.end + 1


def _first(program: _Program, text: str, begin: int) -> Span | None:
    """Return the leftmost match from an index on; of those, the one that the pattern prefers."""
    threads: list[tuple[int, int]] = []  # (state, where the match began), best first
    best: Span | None = None
    for index in range(begin, len(text) + 1):
        if best is None:
            threads.append((program.start, index))
        elif not threads:
            break
        seen: set[int] = set()
        following: list[tuple[int, int]] = []
        for state, start in threads:
            if _advance(program, text, index, state, start, seen, following):
                best = Span(start, index)
                break
        threads = following
    return best


def _advance(
    program: _Program, text: str, index: int, state: int, start: int, seen: set[int], following: list[tuple[int, int]]
) -> bool:
    """Follow a thread over one character; tell whether it matches here, which cuts off all that are less preferred."""
    stack = [state]
    while stack:
        state = stack.pop()
        if state == _MATCH:
            return True
        if state in seen:
            continue
        seen.add(state)
        code = program.codes[state]
        if code.test is not None:
            if index < len(text) and code.test(text[index]):
                following.append((code.next[0], start))
        elif code.at is None or code.at(text, index):
            stack.extend(reversed(code.next))
    return False

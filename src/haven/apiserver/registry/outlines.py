"""The outline of a JSON body: everything but its strings; then which strings are names of fields, and which are free.

A body is taken apart at its strings. Bodies with the same outline and the same field names have the same structure, so
that where the free values stand is worked out once for all of them. Putting the strings back gives the body, byte by
byte: two bodies whose outlines and strings are equal but for some values are equal but for these values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Final, TypeAlias

import orjson

from haven.api.likeness import Free, Likeness

__all__ = ["Outline", "Plan", "take_apart"]

PLANS_MAX: Final = 32
"""How many sets of field names are known of one outline."""

Path: TypeAlias = tuple[str | int, ...]
Strings: TypeAlias = list[bytes]
_Pick: TypeAlias = Callable[[Strings], tuple[bytes, ...]]

_STRING = re.compile(rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)"', re.DOTALL)


def take_apart(body: bytes) -> tuple[bytes, Strings]:
    """Return the outline of a body and the insides of its strings, in order."""
    # Without escapes every quote begins or ends a string, and plain splitting is ten times as fast.
    parts = _STRING.split(body) if b"\\" in body else body.split(b'"')
    if not len(parts) & 1:  # The last string has no end: this is no JSON.
        return b"", []
    return b'"'.join(parts[::2]), parts[1::2]


class Plan:
    """Bodies of one structure: `paths` has the place of each string that is a value, `free` the rules of free ones."""

    __slots__ = ("_rules", "fixed", "free", "name", "paths")

    def __init__(self, paths: dict[int, Path], free: dict[int, bytes]) -> None:
        self.paths = paths
        self.free = free
        self.name = next((place for place in free if paths[place] == ("metadata", "name")), None)
        """Which string is the object's name; None if there is none."""
        self.fixed: _Pick = _picking([place for place in paths if place not in free])
        by_rule: dict[bytes, list[int]] = {}
        for place, rule in free.items():
            by_rule.setdefault(rule, []).append(place)
        self._rules = [
            (_picking(places), places, re.compile(b"(?:%b\x00)*+" % rule).fullmatch) for rule, places in by_rule.items()
        ]

    def held(self, strings: Strings) -> tuple[tuple[int, bytes], ...]:
        """Return the values in free places that break their rule. No string may have a NUL in it."""
        result: list[tuple[int, bytes]] = []
        for pick, places, fits in self._rules:
            # All values under one rule at once: nearly always all of them are good.
            if not fits(b"\0".join(pick(strings)) + b"\0"):
                result += [(place, strings[place]) for place in places if not fits(strings[place] + b"\0")]
        return tuple(result)


class Outline:
    """What is known of bodies with one outline."""

    __slots__ = ("_names", "_places", "_plans", "_text")

    def __init__(self, text: bytes) -> None:
        self._text = text
        gaps = text.split(b'"')
        self._places = [place for place, gap in enumerate(gaps[1:]) if gap.lstrip()[:1] == b":"]
        self._names = _picking(self._places)
        self._plans: dict[tuple[bytes, ...], Plan | None] = {}

    def plan(self, strings: Strings, likeness: Likeness) -> Plan | None:
        """Return how to read bodies with these field names; None if they are seen first, or never alike."""
        names = self._names(strings)
        try:
            found = self._plans[names]
        except KeyError:
            if len(self._plans) >= PLANS_MAX:
                self._plans.clear()
            self._plans[names] = _SEEN
            return None
        if found is _SEEN:
            found = self._plans[names] = self._make(strings, likeness)
        return found

    def _make(self, strings: Strings, likeness: Likeness) -> Plan | None:
        names = frozenset(_decoded(strings[place]) for place in self._places)
        free = None if "managedFields" in names else likeness.free(names)
        if free is None:
            return None
        paths = self._paths(strings)
        if ("metadata", "resourceVersion") in paths.values():
            return None
        rules = {place: _rule(path, free) for place, path in paths.items()}
        return Plan(paths, {place: rule for place, rule in rules.items() if rule is not None})

    def _paths(self, strings: Strings) -> dict[int, Path]:
        """Return the place in the tree of each string that is a value."""
        result: dict[int, Path] = {}
        steps: list[str | int] = []
        names = frozenset(self._places)
        gaps = self._text.split(b'"')
        for place, gap in enumerate(gaps):
            for sign in gap:
                if sign == 0x7B:  # {
                    steps.append("")
                elif sign == 0x5B:  # [
                    steps.append(0)
                elif sign in (0x7D, 0x5D):  # } ]
                    steps.pop()
                elif sign == 0x2C and steps:  # ,
                    last = steps[-1]
                    if isinstance(last, int):
                        steps[-1] = last + 1
            if place == len(strings):
                break
            if place in names:
                steps[-1] = _decoded(strings[place])
            else:
                result[place] = tuple(steps)
        return result


def _picking(places: Sequence[int]) -> _Pick:
    if len(places) > 1:
        return itemgetter(*places)
    if places:
        only = places[0]
        return lambda strings: (strings[only],)
    return lambda strings: ()


_SEEN: Final = Plan({}, {})
"""Stands for field names that were seen once."""


def _decoded(inside: bytes) -> str:
    text: str = orjson.loads(b'"%b"' % inside)
    return text


def _rule(path: Path, free: Sequence[Free]) -> bytes | None:
    for one in free:
        if len(one.path) == len(path) and all(map(_fits, one.path, path)):
            return one.rule
    return None


def _fits(wanted: Any, step: str | int) -> bool:
    if isinstance(wanted, str):
        return wanted in ("*", step)
    return isinstance(step, str) and wanted.fullmatch(step) is not None

"""Semantic versions.

Source: https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-semver-library, https://semver.org.
"""

from __future__ import annotations

import re
from typing import Any

from haven.apimachinery.cel import values
from haven.apimachinery.cel.declarations import Library
from haven.apimachinery.cel.errors import CelError
from haven.apimachinery.cel.types import BOOL, INT, STRING, object_type
from haven.apimachinery.goformat import quote

__all__ = ["library"]

_SEMVER = object_type("kubernetes.Semver")
_WORD = re.compile(r"[A-Za-z0-9-]+", re.ASCII)
_DIGITS = re.compile(r"[0-9]+", re.ASCII)


class Version(values.Opaque):
    """A version; `order` is what it compares by."""

    __slots__ = ("major", "minor", "order", "patch")
    type = _SEMVER

    def __init__(self, major: int, minor: int, patch: int, prerelease: list[str]) -> None:
        self.major, self.minor, self.patch = major, minor, patch
        parts = [(0, int(part), "") if _DIGITS.fullmatch(part) else (1, 0, part) for part in prerelease]
        # A release comes after its pre-releases.
        self.order: tuple[Any, ...] = (major, minor, patch, not parts, parts)

    def equals(self, other: Any) -> bool:
        return bool(self.order == other.order)


def _number(part: str, name: str) -> int:
    if not _DIGITS.fullmatch(part) and part:
        raise CelError(f"Invalid character(s) found in {name.lower()} number {quote(part)}")
    if len(part) > 1 and part[0] == "0":
        raise CelError(f"{name} number must not contain leading zeroes {quote(part)}")
    if not part:
        raise CelError('strconv.ParseUint: parsing "": invalid syntax')
    if int(part) > values.UINT_MAX:
        raise CelError(f"strconv.ParseUint: parsing {quote(part)}: value out of range")
    return int(part)


def _parse(text: str) -> Version:
    if not text:
        raise CelError("Version string empty")
    parts = text.split(".", 2)
    if len(parts) != 3:
        raise CelError("No Major.Minor.Patch elements found")
    major, minor = _number(parts[0], "Major"), _number(parts[1], "Minor")
    rest, plus, build = parts[2].partition("+")
    patch_text, dash, pre = rest.partition("-")
    patch = _number(patch_text, "Patch")
    prerelease = pre.split(".") if dash else []
    for part in prerelease:
        if not part:
            raise CelError("Prerelease is empty")
        if _DIGITS.fullmatch(part):
            if len(part) > 1 and part[0] == "0":
                raise CelError(f"Numeric PreRelease version must not contain leading zeroes {quote(part)}")
        elif not _WORD.fullmatch(part):
            raise CelError(f"Invalid character(s) found in prerelease {quote(part)}")
    for part in build.split(".") if plus else []:
        if not part:
            raise CelError("Build meta data is empty")
        if not _WORD.fullmatch(part):
            raise CelError(f"Invalid character(s) found in build meta data {quote(part)}")
    return Version(major, minor, patch, prerelease)


def _normalized(text: str) -> str:
    parts = text.removeprefix("v").split(".", 2)
    for index, part in enumerate(parts):
        if len(part) > 1:
            part = part.lstrip("0")
            if not part or not part[0].isdigit():
                part = "0" + part
            parts[index] = part
    if len(parts) < 3:
        if any(char in parts[-1] for char in "+-"):
            raise CelError("short version cannot contain PreRelease/Build meta data")
        parts += ["0"] * (3 - len(parts))
    return ".".join(parts)


def _semver(text: str, normalize: bool = False) -> Version:
    return _parse(_normalized(text) if normalize else text)


def _is_semver(text: str, normalize: bool = False) -> bool:
    try:
        _semver(text, normalize)
    except CelError:
        return False
    return True


def _compare(one: Version, other: Version) -> int:
    return (one.order > other.order) - (one.order < other.order)


def library() -> Library:
    lib = Library()
    declare = lib.declare
    v = _SEMVER
    declare(
        "semver", ("string_to_semver", (STRING,), v, _semver), ("string_bool_to_semver", (STRING, BOOL), v, _semver)
    )
    declare(
        "isSemver",
        ("is_semver_string", (STRING,), BOOL, _is_semver),
        ("is_semver_string_bool", (STRING, BOOL), BOOL, _is_semver),
    )
    declare(
        "isGreaterThan",
        ("semver_is_greater_than", (v, v), BOOL, lambda one, other: _compare(one, other) == 1),
        member=True,
    )
    declare(
        "isLessThan", ("semver_is_less_than", (v, v), BOOL, lambda one, other: _compare(one, other) == -1), member=True
    )
    declare("compareTo", ("semver_compare_to", (v, v), INT, _compare), member=True)
    declare("major", ("semver_major", (v,), INT, lambda one: one.major), member=True)
    declare("minor", ("semver_minor", (v,), INT, lambda one: one.minor), member=True)
    declare("patch", ("semver_patch", (v,), INT, lambda one: one.patch), member=True)
    return lib

"""Levels and versions of the Pod Security Standards, and which of them a namespace's labels ask for. Pure.

Source: https://kubernetes.io/docs/concepts/security/pod-security-admission/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from haven.apimachinery import fielderrors
from haven.apimachinery.fielderrors import FieldError, Path

__all__ = [
    "LATEST",
    "LEVEL_NAMES",
    "PREFIX",
    "Level",
    "LevelVersion",
    "Policy",
    "parse_level",
    "parse_minor",
    "policy_of",
]

PREFIX = "pod-security.kubernetes.io/"
LATEST = 1 << 30
"""The minor version that `latest` stands for: newer than every other."""
_VERSION = re.compile(r"v1\.(0|[1-9][0-9]*)", re.ASCII)


class Level(Enum):
    """How much a pod may do, from all to little. The value orders."""

    PRIVILEGED = 0
    BASELINE = 1
    RESTRICTED = 2

    @property
    def label(self) -> str:
        """The level as labels and messages spell it."""
        return self.name.lower()


_LEVELS = {level.label: level for level in Level}
LEVEL_NAMES = tuple(_LEVELS)


class LevelVersion(NamedTuple):
    """A level as it was at a minor version of Kubernetes."""

    level: Level
    minor: int = LATEST

    def __str__(self) -> str:
        return f"{self.level.label}:{'latest' if self.minor == LATEST else f'v1.{self.minor}'}"


@dataclass(frozen=True, slots=True)
class Policy:
    """What is refused, what is only noted in the audit log, and what the client is only warned of."""

    enforce: LevelVersion = LevelVersion(Level.PRIVILEGED)
    audit: LevelVersion = LevelVersion(Level.PRIVILEGED)
    warn: LevelVersion = LevelVersion(Level.PRIVILEGED)

    @property
    def is_privileged(self) -> bool:
        """Whether nothing is to be checked."""
        return all(part.level is Level.PRIVILEGED for part in (self.enforce, self.audit, self.warn))


def policy_of(labels: Mapping[str, str], defaults: Policy) -> tuple[Policy, tuple[FieldError, ...]]:
    """Return what a namespace's labels ask for, and what is wrong with them.

    A wrong level to enforce counts as the strictest, wrong levels of the other modes as none.
    """
    own = tuple(sorted((key, value) for key, value in labels.items() if key.startswith(PREFIX)))
    return _policy_of(own, defaults) if own else (defaults, ())


@lru_cache(maxsize=1024)
def _policy_of(items: tuple[tuple[str, str], ...], defaults: Policy) -> tuple[Policy, tuple[FieldError, ...]]:
    labels = {key.removeprefix(PREFIX): value for key, value in items}
    errors: list[FieldError] = []

    def chosen(mode: str, default: LevelVersion, wrong: Level) -> LevelVersion:
        level, minor = default
        if mode in labels:
            found = parse_level(labels[mode])
            if found is None:
                names = ", ".join(_LEVELS)
                errors.append(_invalid(mode, labels[mode], f"must be one of {names}"))
            level = found or wrong
        version = labels.get(f"{mode}-version")
        if version is not None:
            parsed = parse_minor(version)
            if parsed is None:
                errors.append(_invalid(f"{mode}-version", version, 'must be "latest" or "v1.x"'))
            minor = LATEST if parsed is None else parsed
        return LevelVersion(level, minor)

    enforce = chosen("enforce", defaults.enforce, Level.RESTRICTED)
    audit = chosen("audit", defaults.audit, Level.PRIVILEGED)
    warn = chosen("warn", defaults.warn, Level.PRIVILEGED)
    # Who sees pods refused is also warned about the workloads that would make them.
    if "warn" not in labels and labels.get("enforce") in _LEVELS and enforce.level.value > warn.level.value:
        warn = LevelVersion(enforce.level, warn.minor if "warn-version" in labels else enforce.minor)
    return Policy(enforce, audit, warn), tuple(errors)


def parse_level(name: str) -> Level | None:
    """Return the level of a name; None if there is none."""
    return _LEVELS.get(name)


def parse_minor(version: str) -> int | None:
    """Return the minor version that a text stands for; None if it is no version."""
    if version == "latest":
        return LATEST
    match = _VERSION.fullmatch(version)
    return None if match is None else int(match[1])


def _invalid(label: str, value: str, text: str) -> FieldError:
    return fielderrors.invalid(Path("metadata", "labels").key(PREFIX + label), value, text)

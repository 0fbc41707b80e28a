"""Checks that the statuses of many workloads share: counters that are not negative and not more than all.

Source: the behaviour of pkg/apis/apps/validation.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from haven.apimachinery.fielderrors import ErrorList, Path, invalid
from haven.apimachinery.validation.objectmeta import validate_not_negative

__all__ = ["validate_collision_count", "validate_counters", "validate_not_more"]

_STATUS = Path("status")


def validate_counters(status: Any, fields: Iterable[tuple[str, str]]) -> ErrorList:
    """Check (attribute, field) pairs; None is no counter at all."""
    errors: ErrorList = []
    for attribute, name in fields:
        value = getattr(status, attribute)
        if value is not None:
            errors += validate_not_negative(value, _STATUS.child(name))
    return errors


def validate_not_more(status: Any, fields: Iterable[tuple[str, str]], than: int, words: str) -> ErrorList:
    """Check that counters do not exceed another."""
    errors: ErrorList = []
    for attribute, name in fields:
        value = getattr(status, attribute)
        if value > than:
            errors.append(invalid(_STATUS.child(name), value, words))
    return errors


def validate_collision_count(new: int | None, old: int | None) -> ErrorList:
    """Check that the count of hash collisions only grows."""
    if old is not None and (new is None or new < old):
        return [invalid(_STATUS.child("collisionCount"), new or 0, "cannot be decremented")]
    return []

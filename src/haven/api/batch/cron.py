"""What is wrong with the schedule of a CronJob, in the words of the parser that upstream uses.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ and the behaviour of
github.com/robfig/cron (v3, standard parser).
"""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Mapping
from typing import NamedTuple

from haven.apimachinery.goformat import quote

__all__ = ["schedule_complaint", "time_zone_complaint"]

_DESCRIPTORS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_DURATION = re.compile(r"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+", re.ASCII)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


class _Bounds(NamedTuple):
    low: int
    high: int
    names: Mapping[str, int] = {}


_FIELDS = (
    _Bounds(0, 59),
    _Bounds(0, 23),
    _Bounds(1, 31),
    _Bounds(1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    _Bounds(0, 6, {name: number for number, name in enumerate(_DAYS)}),
)


class _Malformed(ValueError):
    """The schedule is no schedule; the message is the complaint."""


def schedule_complaint(schedule: str) -> str:
    """Return what is wrong with a schedule, "" for nothing."""
    try:
        _check(schedule)
    except _Malformed as error:
        return str(error)
    return ""


def time_zone_complaint(name: str) -> str:
    """Return why a name is no time zone, "" if it is one."""
    if name in ("", "UTC"):
        return ""
    if ".." in name or name.startswith(("/", "\\")) or "\\" in name:
        return "time: invalid location name"
    try:
        zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        return f"unknown time zone {name}"
    return ""


def _check(schedule: str) -> None:
    if not schedule:
        raise _Malformed("empty spec string")
    if schedule.startswith(("TZ=", "CRON_TZ=")):
        head, space, rest = schedule.partition(" ")
        if not space:
            raise _Malformed("invalid schedule format: runtime error: slice bounds out of range [:-1]")
        zone = head.partition("=")[2]
        if complaint := time_zone_complaint(zone):
            raise _Malformed(f"provided bad location {zone}: {complaint}")
        schedule = rest.strip()
    if schedule.startswith("@"):
        if schedule.startswith("@every "):
            duration = schedule.removeprefix("@every ")
            if duration != "0" and not _DURATION.fullmatch(duration):
                why = f"time: invalid duration {quote(duration)}"
                raise _Malformed(f"failed to parse duration {schedule}: {why}")
        elif schedule not in _DESCRIPTORS:
            raise _Malformed(f"unrecognized descriptor: {schedule}")
        return
    fields = schedule.split()
    if len(fields) != len(_FIELDS):
        raise _Malformed(f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]")
    for text, bounds in zip(fields, _FIELDS, strict=True):
        for expression in text.split(","):
            if expression:
                _check_range(expression, bounds)


def _check_range(expression: str, bounds: _Bounds) -> None:
    parts = expression.split("/")
    limits = parts[0].split("-")
    if limits[0] in ("*", "?"):
        start, end = bounds.low, bounds.high
    else:
        start = _number(limits[0], bounds)
        if len(limits) > 2:
            raise _Malformed(f"too many hyphens: {expression}")
        end = _number(limits[1], bounds) if len(limits) == 2 else start
    if len(parts) > 2:
        raise _Malformed(f"too many slashes: {expression}")
    step = 1
    if len(parts) == 2:
        step = _integer(parts[1])
        if len(limits) == 1:
            end = bounds.high
    if start < bounds.low:
        raise _Malformed(f"beginning of range ({start}) below minimum ({bounds.low}): {expression}")
    if end > bounds.high:
        raise _Malformed(f"end of range ({end}) above maximum ({bounds.high}): {expression}")
    if start > end:
        raise _Malformed(f"beginning of range ({start}) beyond end of range ({end}): {expression}")
    if step == 0:
        raise _Malformed(f"step of range should be a positive number: {expression}")


def _number(text: str, bounds: _Bounds) -> int:
    named = bounds.names.get(text.lower())
    return _integer(text) if named is None else named


def _integer(text: str) -> int:
    digits = text[1:] if text[:1] in ("-", "+") else text
    if not digits.isascii() or not digits.isdigit():
        raise _Malformed(f"failed to parse int from {text}: strconv.Atoi: parsing {quote(text)}: invalid syntax")
    if int(text) < 0:
        raise _Malformed(f"negative number ({int(text)}) not allowed: {text}")
    return int(text)

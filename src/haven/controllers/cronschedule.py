"""Cron schedules: five fields, names, steps, @macros. Pure.

A day matches if both its fields do; but if neither the day of month nor the day of week is a star, one is enough.
Source: https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/#schedule-syntax
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

__all__ = ["InvalidSchedule", "Schedule", "parse"]

YEARS_MAX = 5  # A schedule without a match for so long (30 February) never matches.

_MONTH_NAMES = "jan feb mar apr may jun jul aug sep oct nov dec"
_DAY_NAMES = "sun mon tue wed thu fri sat"
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES.split(), 1)}
_DAYS = {name: number for number, name in enumerate(_DAY_NAMES.split())}
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 6, _DAYS),
)
_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


class InvalidSchedule(ValueError):
    """The text is no schedule."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When to run. `every_seconds` is set for @every, else the fields are."""

    minutes: frozenset[int] = frozenset()
    hours: frozenset[int] = frozenset()
    days: frozenset[int] = frozenset()
    months: frozenset[int] = frozenset()
    weekdays: frozenset[int] = frozenset()
    days_star: bool = True
    weekdays_star: bool = True
    every_seconds: int = 0

    def next_after(self, seconds: float, zone: tzinfo) -> float | None:
        """Return the first time of the schedule after a moment, in seconds since 1970; None if there is none."""
        if self.every_seconds:
            return float(int(seconds) + self.every_seconds)
        moment = datetime.fromtimestamp(int(seconds // 60) * 60 + 60, zone)
        last_year = moment.year + YEARS_MAX
        while moment.year <= last_year:
            if moment.month not in self.months:
                moment = _midnight(moment.replace(day=1) + timedelta(days=32), day=1)
            elif not self._has_day(moment):
                moment = _midnight(moment + timedelta(days=1))
            elif moment.hour not in self.hours:
                moment = _later(moment.replace(minute=0), 3600)
            elif moment.minute not in self.minutes:
                moment = _later(moment, 60)
            else:
                return moment.timestamp()
        return None

    def _has_day(self, moment: datetime) -> bool:
        by_date = moment.day in self.days
        by_weekday = moment.isoweekday() % 7 in self.weekdays
        if self.days_star or self.weekdays_star:
            return by_date and by_weekday
        return by_date or by_weekday


def _midnight(moment: datetime, day: int | None = None) -> datetime:
    """Return the beginning of the day; where clocks jump over midnight, the first moment after it."""
    start = moment.replace(day=day or moment.day, hour=0, minute=0)
    return datetime.fromtimestamp(start.timestamp(), moment.tzinfo)


def _later(moment: datetime, seconds: int) -> datetime:
    """Go on in real time: a local hour may be missing or come twice."""
    return datetime.fromtimestamp(moment.timestamp() + seconds, moment.tzinfo)


def parse(text: str) -> Schedule:
    """Return the schedule that a text means; raise InvalidSchedule."""
    text = text.strip()
    if text.startswith("@every "):
        return Schedule(every_seconds=max(int(_duration_seconds(text[7:].strip())), 1))
    if text.startswith("@"):
        if text not in _MACROS:
            raise InvalidSchedule(f"unrecognized descriptor: {text}")
        text = _MACROS[text]
    parts = text.split()
    if len(parts) != len(_FIELDS):
        raise InvalidSchedule(f"expected exactly 5 fields, found {len(parts)}: {parts}")
    found = [_field(part, *spec) for part, spec in zip(parts, _FIELDS, strict=True)]
    (minutes, _), (hours, _), (days, days_star), (months, _), (weekdays, weekdays_star) = found
    return Schedule(minutes, hours, days, months, weekdays, days_star, weekdays_star)


def _field(text: str, name: str, low: int, high: int, names: dict[str, int]) -> tuple[frozenset[int], bool]:
    values: set[int] = set()
    star = False
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        step = _number(step_text, {}) if slash else 1
        if step < 1:
            raise InvalidSchedule(f"step of range should be a positive number: {part}")
        if span in ("*", "?"):
            first, last = low, high
            star = star or step == 1
        else:
            first_text, dash, last_text = span.partition("-")
            first = _number(first_text, names)
            last = _number(last_text, names) if dash else (high if slash else first)
        if first < low:
            raise InvalidSchedule(f"beginning of range ({first}) below minimum ({low}): {part}")
        if last > high:
            raise InvalidSchedule(f"end of range ({last}) above maximum ({high}): {part}")
        if first > last:
            raise InvalidSchedule(f"beginning of range ({first}) beyond end of range ({last}): {part}")
        values.update(range(first, last + 1, step))
    return frozenset(values), star


def _number(text: str, names: dict[str, int]) -> int:
    if text.lower() in names:
        return names[text.lower()]
    if not text.isdecimal():
        raise InvalidSchedule(f"failed to parse int from {text}")
    return int(text)


def _duration_seconds(text: str) -> float:
    total, rest = 0.0, text
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789."))
        unit = next((each for each in ("ms", "h", "m", "s") if rest[digits:].startswith(each)), None)
        if not digits or unit is None:
            raise InvalidSchedule(f"failed to parse duration @every {text}")
        total += float(rest[:digits]) * _UNITS[unit]
        rest = rest[digits + len(unit) :]
    if total <= 0:
        raise InvalidSchedule(f"failed to parse duration @every {text}")
    return total

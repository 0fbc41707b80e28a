"""Points in time as the API writes them.

API objects keep times as text, exactly as they travel: RFC 3339 in UTC, whole seconds for `Time`, six digits of
fraction for `MicroTime`. Deciding code converts with `parse` where it needs to reckon.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import TypeAlias

__all__ = ["MicroTime", "Time", "format_micro_time", "format_time", "normalize", "parse"]

Time: TypeAlias = str
MicroTime: TypeAlias = str

_RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:[.,](\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def format_time(seconds: float) -> Time:
    """Write seconds since 1970 as `Time`, cutting off the fraction."""
    return _format_second(int(seconds // 1))


@lru_cache(maxsize=64)
def _format_second(second: int) -> Time:
    return _write(_EPOCH + timedelta(seconds=second), "seconds")


def format_micro_time(seconds: float) -> MicroTime:
    """Write seconds since 1970 as `MicroTime`."""
    return _write(_EPOCH + timedelta(microseconds=round(seconds * 1e6)), "microseconds")


def parse(text: str) -> float:
    """Return the seconds since 1970 of an RFC 3339 time; raise ValueError if it is not one."""
    if len(text) == 20 and text[19] == "Z":
        return datetime.fromisoformat(text[:19]).replace(tzinfo=UTC).timestamp()
    return (_moment(text) - _EPOCH).total_seconds()


def normalize(text: str, *, micro: bool = False) -> str:
    """Return the canonical form of any RFC 3339 time; raise ValueError if it is not one."""
    return _write(_moment(text).astimezone(UTC), "microseconds" if micro else "seconds")


def _write(moment: datetime, precision: str) -> str:
    # Not strftime: its %Y writes the year 1 as "1".
    return moment.replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def _moment(text: str) -> datetime:
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"not an RFC 3339 time: {text!r}")
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    offset = UTC
    if zone not in "Zz":
        sign = -1 if zone[0] == "-" else 1
        offset = timezone(sign * timedelta(hours=int(zone[1:3]), minutes=int(zone[4:6])))
    micros = int((fraction or "0")[:6].ljust(6, "0"))
    return datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), micros, tzinfo=offset)

"""Conversions between the language's own types, and reading and writing times and lengths of time.

Source: https://github.com/google/cel-spec/blob/master/doc/langdef.md#list-of-standard-definitions; Go's strconv and
time, whose rules for texts upstream uses.
"""

from __future__ import annotations

import datetime
import re
import zoneinfo
from typing import Any, Final

from haven.apimachinery.cel import types
from haven.apimachinery.cel.errors import CelError
from haven.apimachinery.cel.values import (
    INT_MAX,
    INT_MIN,
    SECOND,
    TIMESTAMP_MAX,
    TIMESTAMP_MIN,
    UINT_MAX,
    Duration,
    Opaque,
    Timestamp,
    Uint,
    type_of,
)

__all__ = [
    "double_text", "duration_text", "local_time", "parse_duration", "parse_timestamp", "timestamp_text", "to_bool",
    "to_bytes",
    "to_double", "to_duration", "to_int", "to_string", "to_timestamp", "to_uint",
]  # fmt: skip

_TIME: Final = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})T(\d{2}):(\d{2}):(\d{2})(?:[.,](\d{1,}))?(Z|[+-]\d{2}:\d{2})", re.ASCII
)
_DURATION_PART: Final = re.compile(r"(\d*)(?:\.(\d*))?(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_UNITS: Final = {
    "ns": 1, "us": 1000, "µs": 1000, "μs": 1000, "ms": 1_000_000, "s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND,
}  # fmt: skip
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_DIGITS_MAX = 4000  # Python converts few more.
_INT_TEXT: Final = re.compile(r"[+-]?[0-9]+", re.ASCII)
_UINT_TEXT: Final = re.compile(r"[0-9]+", re.ASCII)
_FLOAT_TEXT: Final = re.compile(
    r"[+-]?(?:[0-9]+\.?[0-9]*(?:[eE][+-]?[0-9]+)?|\.[0-9]+(?:[eE][+-]?[0-9]+)?|inf(?:inity)?|nan)",
    re.ASCII | re.IGNORECASE,
)


def _failed(value: Any, to: types.Type) -> CelError:
    return CelError(f"type conversion error from '{type_of(value).name}' to '{to.name}'")


def to_int(value: Any) -> int:
    if isinstance(value, bool):
        raise _failed(value, types.INT)
    if isinstance(value, int):
        if value > INT_MAX:
            raise CelError("integer overflow")
        return int(value)
    if isinstance(value, float):
        # Not the whole range: what doubles can not tell apart at the ends is refused.
        if not -(1 << 63) < value < (1 << 63):
            raise CelError("integer overflow")
        return int(value)
    if isinstance(value, str):
        if len(value) <= _DIGITS_MAX and _INT_TEXT.fullmatch(value) and INT_MIN <= int(value) <= INT_MAX:
            return int(value)
        raise _failed(value, types.INT)
    if isinstance(value, Timestamp):
        return value.nanoseconds // SECOND
    if isinstance(value, Duration):
        return value.nanoseconds
    raise _failed(value, types.INT)


def to_uint(value: Any) -> Uint:
    if isinstance(value, bool):
        raise _failed(value, types.UINT)
    if isinstance(value, int):
        if value < 0:
            raise CelError("unsigned integer overflow")
        return Uint(value)
    if isinstance(value, float):
        if not 0 <= value < (1 << 64):
            raise CelError("unsigned integer overflow")
        return Uint(int(value))
    if isinstance(value, str):
        if len(value) <= _DIGITS_MAX and _UINT_TEXT.fullmatch(value) and int(value) <= UINT_MAX:
            return Uint(int(value))
        raise _failed(value, types.UINT)
    raise _failed(value, types.UINT)


def to_double(value: Any) -> float:
    if isinstance(value, bool):
        raise _failed(value, types.DOUBLE)
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str) and _FLOAT_TEXT.fullmatch(value):
        number = float(value)
        if abs(number) != float("inf") or "inf" in value.lower():
            return number
    raise _failed(value, types.DOUBLE)


def to_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        if value in ("1", "t", "T", "true", "TRUE", "True"):
            return True
        if value in ("0", "f", "F", "false", "FALSE", "False"):
            return False
    raise _failed(value, types.BOOL)


def to_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    raise _failed(value, types.BYTES)


def to_string(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return double_text(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise CelError("invalid UTF-8 in bytes, cannot convert to string") from None
    if isinstance(value, Timestamp):
        return timestamp_text(value)
    if isinstance(value, Duration):
        return duration_text(value)
    if isinstance(value, types.Type):
        return value.name
    if isinstance(value, Opaque):
        return str(value)
    raise _failed(value, types.STRING)


def to_timestamp(value: Any) -> Timestamp:
    if isinstance(value, Timestamp):
        return value
    if isinstance(value, bool):
        raise _failed(value, types.TIMESTAMP)
    if isinstance(value, int):
        nanoseconds = int(value) * SECOND
        if not TIMESTAMP_MIN <= nanoseconds <= TIMESTAMP_MAX:
            raise CelError("timestamp overflow")
        return Timestamp(nanoseconds)
    if isinstance(value, str):
        parsed = parse_timestamp(value)
        if parsed is not None:
            return Timestamp(parsed, zone_offset(value))
    raise _failed(value, types.TIMESTAMP)


def to_duration(value: Any) -> Duration:
    if isinstance(value, Duration):
        return value
    if isinstance(value, str):
        nanoseconds = parse_duration(value)
        if nanoseconds is not None:
            return Duration(nanoseconds)
    raise _failed(value, types.DURATION)


def parse_timestamp(text: str) -> int | None:
    """Return the nanoseconds since 1970 of an RFC 3339 time, None if it is none."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction = int(((match.group(7) or "") + "000000000")[:9])
    zone = match.group(8)
    offset = 0
    if zone != "Z":
        hours, minutes = int(zone[1:3]), int(zone[4:6])
        if hours > 24 or minutes > 59:
            return None
        offset = (hours * 3600 + minutes * 60) * (-1 if zone[0] == "-" else 1)
    try:
        moment = datetime.datetime(year, month, day, hour, minute, second, tzinfo=datetime.UTC)
    except ValueError:
        return None
    seconds = (moment - _EPOCH) // datetime.timedelta(seconds=1) - offset
    nanoseconds = seconds * SECOND + fraction
    return nanoseconds if TIMESTAMP_MIN <= nanoseconds <= TIMESTAMP_MAX else None


def zone_offset(text: str) -> int:
    """Return the seconds east of UTC that a valid RFC 3339 time names."""
    if text[-6] not in "+-":
        return 0
    seconds = int(text[-5:-3]) * 3600 + int(text[-2:]) * 60
    return -seconds if text[-6] == "-" else seconds


def parse_duration(text: str) -> int | None:
    """Return the nanoseconds of a length of time as Go writes it (1h2m3.5s), None if it is none."""
    rest = text
    negative = rest[:1] == "-"
    if rest[:1] in ("-", "+"):
        rest = rest[1:]
    if rest == "0":
        return 0
    if not rest:
        return None
    total = 0
    while rest:
        match = _DURATION_PART.match(rest)
        if match is None or (not match.group(1) and not match.group(2)):
            return None
        unit = _UNITS[match.group(3)]
        total += int(match.group(1) or "0") * unit
        fraction = match.group(2)
        if fraction:
            total += int(fraction) * unit // 10 ** len(fraction)
        rest = rest[match.end() :]
    if negative:
        total = -total
    return total if INT_MIN <= total <= INT_MAX else None


def _moment(value: Timestamp) -> datetime.datetime:
    return _EPOCH + datetime.timedelta(seconds=value.nanoseconds // SECOND)


def timestamp_text(value: Timestamp) -> str:
    """Return the time as RFC 3339 in the zone it came in, with as many digits below a second as it has."""
    moment = _moment(value) + datetime.timedelta(seconds=value.offset_seconds)
    text = f"{moment.year:04}-{moment.month:02}-{moment.day:02}T{moment.hour:02}:{moment.minute:02}:{moment.second:02}"
    fraction = value.nanoseconds % SECOND
    if fraction:
        text += f".{fraction:09}".rstrip("0")
    if not value.offset_seconds:
        return text + "Z"
    hours, minutes = divmod(abs(value.offset_seconds) // 60, 60)
    return f"{text}{'-' if value.offset_seconds < 0 else '+'}{hours:02}:{minutes:02}"


def duration_text(value: Duration) -> str:
    """Return the length of time in seconds, with as many digits as it has (3600s, 0.5s)."""
    nanoseconds = abs(value.nanoseconds)
    text = str(nanoseconds // SECOND)
    if nanoseconds % SECOND:
        text += f".{nanoseconds % SECOND:09}".rstrip("0")
    return ("-" if value.nanoseconds < 0 else "") + text + "s"


def double_text(value: float) -> str:
    """Return the shortest digits that read back as the value, as Go's %g writes them."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    mantissa, _, exponent_text = f"{value!r}".partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    if not digits.strip("0"):
        return sign + "0"
    exponent = len(whole.lstrip("0")) - 1 if whole.strip("0") else -(len(fraction) - len(fraction.lstrip("0"))) - 1
    exponent += int(exponent_text or "0")
    digits = digits.rstrip("0")
    if exponent < -4 or exponent >= 6:
        text = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
        return f"{sign}{text}e{'-' if exponent < 0 else '+'}{abs(exponent):02}"
    if exponent < 0:
        return sign + "0." + "0" * (-exponent - 1) + digits
    if len(digits) <= exponent + 1:
        return sign + digits + "0" * (exponent + 1 - len(digits))
    return sign + digits[: exponent + 1] + "." + digits[exponent + 1 :]


def local_time(value: Timestamp, zone: str) -> datetime.datetime:
    """Return the wall clock's time in a zone, which is a name (Europe/Berlin) or an offset (+02:00)."""
    moment = _moment(value)
    if ":" not in zone:
        if zone in ("", "UTC"):
            return moment
        try:
            return moment.astimezone(zoneinfo.ZoneInfo(zone))
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            raise CelError(f"unknown time zone {zone}") from None
    hours, _, minutes = zone.partition(":")
    for part in (hours, minutes):
        if not _INT_TEXT.fullmatch(part):
            raise CelError(f'strconv.Atoi: parsing "{part}": invalid syntax')
    total = int(hours) * 60 + (-int(minutes) if zone[0] == "-" else int(minutes))
    return (moment + datetime.timedelta(minutes=total)).replace(tzinfo=None)

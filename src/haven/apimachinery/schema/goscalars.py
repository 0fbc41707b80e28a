"""Times, durations and bytes as Go's standard library reads them, with its complaints."""

from __future__ import annotations

import calendar
import re
from datetime import UTC, datetime, timedelta

from haven.apimachinery.goformat import quote

__all__ = ["BadScalar", "decode_base64_error", "parse_duration", "parse_micro_time", "parse_time", "write_duration"]

RFC3339 = "2006-01-02T15:04:05Z07:00"
RFC3339_MICRO = "2006-01-02T15:04:05.000000Z07:00"
_BASE64 = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
_USUAL = re.compile(
    r"(?!000)\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{6})?Z", re.ASCII
).fullmatch
_ZONE = re.compile(r"([+-])(\d\d):(\d\d)", re.ASCII)


class BadScalar(ValueError):
    """The text has the wrong form; the message is Go's."""


def parse_time(text: str) -> str:
    """Return the canonical form of an RFC 3339 time; "" for the zero time, which the API writes as null."""
    usual = _USUAL(text)
    if usual is not None and usual[1] is None:
        return text
    return _parse(text, micro=False)


def parse_micro_time(text: str) -> str:
    """Return the canonical form of a time with six digits of fraction; "" for the zero time."""
    usual = _USUAL(text)
    if usual is not None and usual[1] is not None:
        return text
    return _parse(text, micro=True)


def _parse(text: str, *, micro: bool) -> str:
    layout = RFC3339_MICRO if micro else RFC3339
    rest = text

    def cannot(element: str) -> BadScalar:
        return BadScalar(
            f"parsing time {quote(text)} as {quote(layout)}: cannot parse {quote(rest)} as {quote(element)}"
        )

    def out_of_range(what: str) -> BadScalar:
        return BadScalar(f"parsing time {quote(text)}: {what} out of range")

    parts: list[int] = []
    elements = (("", "2006", 4), ("-", "01", 2), ("-", "02", 2), ("T", "15", 2), (":", "04", 2), (":", "05", 2))
    limits = (None, (1, 12, "month"), None, (0, 23, "hour"), (0, 59, "minute"), (0, 59, "second"))
    for (separator, element, width), limit in zip(elements, limits, strict=True):
        if separator:
            if not rest.startswith(separator):
                raise cannot(separator)
            rest = rest[1:]
        digits = rest[:width]
        # Go takes one digit where the layout has two, but only for the hour; a short year never passes.
        if not (len(digits) == width and digits.isascii() and digits.isdigit()):
            if element == "15" and digits[:1].isdigit():
                digits = digits[:1]
            else:
                raise cannot(element)
        value = int(digits)
        if limit and not limit[0] <= value <= limit[1]:
            rest = rest[len(digits) :]
            raise out_of_range(limit[2])
        parts.append(value)
        rest = rest[len(digits) :]
    micros = 0
    if micro:
        fraction = rest[:7]
        if not re.fullmatch(r"\.\d{6}", fraction, re.ASCII):
            raise cannot(".000000")
        micros = int(fraction[1:])
        rest = rest[7:]
    else:
        match = re.match(r"[.,](\d+)", rest, re.ASCII)
        if match:
            micros = int(match.group(1)[:6].ljust(6, "0"))
            rest = rest[match.end() :]
    offset = timedelta(0)
    if rest.startswith("Z"):
        rest = rest[1:]
    else:
        zone = _ZONE.match(rest)
        if zone is None:
            raise cannot("Z07:00")
        hours, minutes = int(zone[2]), int(zone[3])
        if hours > 24:
            raise out_of_range("time zone offset hour")
        if minutes > 60:
            raise out_of_range("time zone offset minute")
        offset = timedelta(hours=hours, minutes=minutes) * (1 if zone[1] == "+" else -1)
        rest = rest[zone.end() :]
    if rest:
        raise BadScalar(f"parsing time {quote(text)}: extra text: {quote(rest)}")
    year, month, day, hour, minute, second = parts
    days = 31 if year == 0 and month != 2 else calendar.monthrange(max(year, 4), month)[1]
    if not 1 <= day <= days:
        raise out_of_range("day")
    if year == 0:
        return f"0000-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
    moment = datetime(year, month, day, hour, minute, second, micros, tzinfo=UTC)
    try:
        moment -= offset
    except OverflowError:
        return f"{text[:19]}Z"
    if moment == datetime(1, 1, 1, tzinfo=UTC):
        return ""
    form = f"{moment.year:04}-{moment.month:02}-{moment.day:02}T{moment.hour:02}:{moment.minute:02}:{moment.second:02}"
    return f"{form}.{moment.microsecond:06}Z" if micro else f"{form}Z"


_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def parse_duration(text: str) -> int:
    """Return the nanoseconds of a duration such as 1h30m; raise BadScalar."""
    rest = text
    sign = 1
    if rest[:1] in ("-", "+"):
        sign = -1 if rest[0] == "-" else 1
        rest = rest[1:]
    if rest == "0":
        return 0
    if not rest:
        raise BadScalar(f"time: invalid duration {quote(text)}")
    total = 0
    while rest:
        match = re.match(r"(\d*)(?:\.(\d*))?", rest, re.ASCII)
        assert match is not None
        whole, fraction = match.group(1), match.group(2) or ""
        if not whole and not fraction:
            raise BadScalar(f"time: invalid duration {quote(text)}")
        rest = rest[match.end() :]
        unit = re.match(r"[^.0-9]*", rest)
        assert unit is not None
        name = unit.group()
        if not name:
            raise BadScalar(f"time: missing unit in duration {quote(text)}")
        if name not in _UNITS:
            raise BadScalar(f"time: unknown unit {quote(name)} in duration {quote(text)}")
        rest = rest[len(name) :]
        scale = _UNITS[name]
        total += int(whole or "0") * scale
        if fraction:
            total += int(fraction) * scale // 10 ** len(fraction)
        if total > 2**63 - (0 if sign < 0 else 1):
            raise BadScalar(f"time: invalid duration {quote(text)}")
    return sign * total


def write_duration(nanoseconds: int) -> str:
    """Return a duration as Go writes it: 1h30m0s, 1.5s, 20ms, 0s."""
    if nanoseconds == 0:
        return "0s"
    sign, amount = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if amount < 10**9:
        for unit, scale in (("ms", 10**6), ("µs", 10**3), ("ns", 1)):
            if amount >= scale:
                return f"{sign}{_decimal(amount, scale)}{unit}"
    minutes, rest = divmod(amount, 60 * 10**9)
    hours, minutes_left = divmod(minutes, 60)
    text = f"{_decimal(rest, 10**9)}s"
    if minutes:
        text = f"{minutes_left}m{text}"
    if hours:
        text = f"{hours}h{text}"
    return sign + text


def _decimal(amount: int, scale: int) -> str:
    whole, rest = divmod(amount, scale)
    if not rest:
        return str(whole)
    return f"{whole}." + str(rest).rjust(len(str(scale)) - 1, "0").rstrip("0")


def decode_base64_error(text: str) -> str | None:
    """Return Go's complaint about base64 text, None if it is good. Line breaks are allowed anywhere."""
    data = text.encode("utf-8", "surrogatepass")
    quantum = 0  # Characters of the current group of four.
    i = 0
    while i < len(data):
        char = data[i]
        if char in b"\r\n":
            i += 1
            continue
        if char in _BASE64:
            quantum = (quantum + 1) % 4
            i += 1
            continue
        if char == 0x3D and quantum >= 2:
            return _padding_error(data, i, quantum)
        return f"illegal base64 data at input byte {i}"
    if quantum:
        # Go names the start of the unfinished group, counted back from the end.
        return f"illegal base64 data at input byte {len(data) - quantum}"
    return None


def _padding_error(data: bytes, i: int, quantum: int) -> str | None:
    i += 1
    if quantum == 2:
        while i < len(data) and data[i] in b"\r\n":
            i += 1
        if i == len(data):
            return f"illegal base64 data at input byte {len(data)}"
        if data[i] != 0x3D:
            return f"illegal base64 data at input byte {i - 1}"
        i += 1
    while i < len(data) and data[i] in b"\r\n":
        i += 1
    return None if i == len(data) else f"illegal base64 data at input byte {i}"

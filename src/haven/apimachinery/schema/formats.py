"""The formats that strings of custom resources may be declared to have, and how each is recognised.

Unknown formats are not checked. Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation
and the behaviour of upstream's strfmt registry. Names are compared without dashes.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Callable
from email.utils import parseaddr
from urllib.parse import urlsplit

from haven.apimachinery.schema.goscalars import BadScalar, parse_duration

__all__ = ["is_known_format", "matches_format", "unrecognized_format"]

_NUMERIC = {"integer": ("int32", "int64"), "number": ("float", "double")}


def _regex(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern, re.ASCII)
    return lambda text: compiled.fullmatch(text) is not None


def _uri(text: str) -> bool:
    if not text or text != text.strip() or re.search(r"[\x00-\x20\x7f]", text):
        return False
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        return False
    if not parts.scheme:
        return text.startswith("/") or text == "*"
    return bool(parts.netloc or parts.path.startswith("/") or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text))


def _email(text: str) -> bool:
    _, address = parseaddr(text)
    local, at, domain = address.rpartition("@")
    return bool(local and at and domain) and " " not in domain and not domain.startswith(".")


def _hostname(text: str) -> bool:
    if len(text.encode()) > 255 or any(len(part.encode()) > 63 for part in text.split(".")):
        return False
    return _hostname_pattern.fullmatch(text) is not None


_letter = r"[a-zA-Z0-9]|[^\x00-\x7f]"
_hostname_pattern = re.compile(
    rf"(?:{_letter})(?:-?(?:{_letter}){{0,62}})?|"
    rf"(?:(?:{_letter})(?:(?:{_letter}|-){{0,61}}(?:{_letter}))?\.)+(?:[a-zA-Z]|[^\x00-\x7f]){{2,63}}"
)


def _sloppy(text: str) -> str:
    """Forgive leading zeros in IPv4, as upstream's parser does."""
    if ":" in text:
        return text
    return ".".join(part.lstrip("0") or "0" if part.isdecimal() else part for part in text.split("."))


def _ipv4(text: str) -> bool:
    try:
        address = ipaddress.ip_address(_sloppy(text))
    except ValueError:
        return False
    return "." in text and (address.version == 4 or "%" not in text)


def _ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return "%" not in text


def _cidr(text: str) -> bool:
    address, slash, length = text.partition("/")
    if not slash or not length.isdecimal() or (len(length) > 1 and length.startswith("0")):
        return False
    try:
        ipaddress.ip_interface(f"{_sloppy(address)}/{length}")
    except ValueError:
        return False
    return "%" not in text


def _isbn10(text: str) -> bool:
    digits = re.sub(r"[\s-]+", "", text)
    if not re.fullmatch(r"[0-9]{9}[0-9X]", digits):
        return False
    total = sum((10 - index) * (10 if digit == "X" else int(digit)) for index, digit in enumerate(digits))
    return total % 11 == 0


def _isbn13(text: str) -> bool:
    digits = re.sub(r"[\s-]+", "", text)
    if not re.fullmatch(r"[0-9]{13}", digits):
        return False
    return sum(int(digit) * (3 if index % 2 else 1) for index, digit in enumerate(digits)) % 10 == 0


_CARD = (
    r"(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])"
    r"[0-9]{11}|(?:2131|1800|35\d{3})\d{11})"
)


def _credit_card(text: str) -> bool:
    digits = re.sub(r"[^0-9]+", "", text)
    if not re.fullmatch(_CARD, digits):
        return False
    doubled = (int(digit) * (2 if index % 2 else 1) for index, digit in enumerate(reversed(digits)))
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def _date(text: str) -> bool:
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII):
        return False
    try:
        datetime.date.fromisoformat(text if not text.startswith("0000") else "2000" + text[4:])
    except ValueError:
        return False
    return True


_clock = re.compile(r"([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))")


def _date_time(text: str) -> bool:
    day, mark, clock = text.lower().partition("t")
    if not mark or not _date(day):
        return False
    found = _clock.fullmatch(clock.split("t")[0])
    return found is not None and found[1] <= "23" and found[2] <= "59" and found[3] <= "59"


_scala = re.compile(r"((-?\d+)\s*([A-Za-zµ]+))")
_UNITS = (
    ("ns", "nano"), ("us", "µs", "micro"), ("ms", "milli"), ("s", "sec"), ("m", "min"), ("h", "hr", "hour"),
    ("d", "day"), ("w", "wk", "week"),
)  # fmt: skip


def _duration(text: str) -> bool:
    try:
        parse_duration(text)
        return True
    except BadScalar:
        pass
    for found in _scala.finditer(text):
        unit = found[3].lower()
        if any(unit == name for names in _UNITS for name in names) or any(unit.startswith(n[-1]) for n in _UNITS):
            return True
    return False


def _short_name(text: str) -> bool:
    return len(text) <= 63 and re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", text) is not None


def _long_name(text: str) -> bool:
    label = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
    return len(text) <= 253 and re.fullmatch(rf"{label}(\.{label})*", text) is not None


_HEX = "[0-9a-fA-F]"


def _uuid(version: str = _HEX, variant: str = _HEX) -> Callable[[str], bool]:
    return _regex(rf"{_HEX}{{8}}-?{_HEX}{{4}}-?{version}{_HEX}{{3}}-?{variant}{_HEX}{{3}}-?{_HEX}{{12}}")


_FORMATS: dict[str, Callable[[str], bool]] = {
    "bsonobjectid": _regex(_HEX + "{24}"),
    "uri": _uri,
    "email": _email,
    "hostname": _hostname,
    "ipv4": _ipv4,
    "ipv6": _ipv6,
    "cidr": _cidr,
    "mac": _regex(
        rf"{_HEX}{{2}}([:-]{_HEX}{{2}}){{5}}(([:-]{_HEX}{{2}}){{2}})?(([:-]{_HEX}{{2}}){{12}})?"
        rf"|{_HEX}{{4}}(\.{_HEX}{{4}}){{2,3}}(\.{_HEX}{{4}}){{0,6}}"
    ),
    "uuid": _uuid(),
    "uuid3": _uuid("3"),
    "uuid4": _uuid("4", "[89abAB]"),
    "uuid5": _uuid("5", "[89abAB]"),
    "isbn": lambda text: _isbn10(text) or _isbn13(text),
    "isbn10": _isbn10,
    "isbn13": _isbn13,
    "creditcard": _credit_card,
    "ssn": _regex(r"\d{3}[- ]?\d{2}[- ]?\d{4}"),
    "hexcolor": _regex(r"#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})"),
    "rgbcolor": _regex(
        r"rgb\(\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*,\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*,\s*"
        r"(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*\)"
    ),
    "byte": _regex(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})"),
    "password": lambda _: True,
    "date": _date,
    "duration": _duration,
    "datetime": _date_time,
    "k8sshortname": _short_name,
    "k8slongname": _long_name,
}


def is_known_format(name: str) -> bool:
    """Tell whether strings of this format are checked."""
    return name.replace("-", "") in _FORMATS


def matches_format(name: str, text: str) -> bool:
    """Tell whether a string has a known format."""
    return _FORMATS[name.replace("-", "")](text)


def unrecognized_format(kind: str, name: str) -> bool:
    """Tell whether a format means nothing for values of a type ("" is any)."""
    if kind in ("", "string"):
        return not is_known_format(name)
    return name not in _NUMERIC.get(kind, ())

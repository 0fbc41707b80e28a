"""Numbers in text as Go's strconv reads them, with the complaints that upstream passes on."""

from __future__ import annotations

import re

from haven.apimachinery.goformat import quote

__all__ = ["NotANumber", "parse_int"]

_INTEGER = re.compile(r"[+-]?[0-9]+")  # int() takes spaces, underscores and foreign digits, too.


class NotANumber(ValueError):
    """The text is no integer, or one that does not fit; the message is Go's."""


def parse_int(text: str, bits: int = 64) -> int:
    """Return the decimal integer; raise NotANumber."""
    if not _INTEGER.fullmatch(text):
        raise NotANumber(f"strconv.ParseInt: parsing {quote(text)}: invalid syntax")
    number = int(text) if len(text) <= 4000 else 1 << bits  # Python converts no longer ones.
    if not -(1 << (bits - 1)) <= number < 1 << (bits - 1):
        raise NotANumber(f"strconv.ParseInt: parsing {quote(text)}: value out of range")
    return number

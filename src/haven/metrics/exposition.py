"""How metrics are written for Prometheus: as text, as Go's client library writes it, or as protobuf.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/ and io.prometheus.client.MetricFamily.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import accumulate

from haven.metrics.families import HISTOGRAM, Family, Histogram, Labels

__all__ = ["DELIMITED", "TEXT", "expose", "go_float"]

TEXT = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
DELIMITED = (
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited; escaping=underscores"
)
_TYPES = {"counter": 0, "gauge": 1, "histogram": 4}
_PLAIN_BELOW = 1e6
_SCIENTIFIC_FROM, _SCIENTIFIC_BELOW = 6, -4
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def expose(families: Iterable[Family], accept: str) -> tuple[str, bytes]:
    """Return (content type, metrics) as a client that accepts this wants them."""
    if _wants_protobuf(accept):
        return DELIMITED, b"".join(_delimited(family) for family in families)
    return TEXT, "".join(line for family in families for line in _lines(family)).encode()


def _wants_protobuf(accept: str) -> bool:
    """Tell whether the form that a client likes best, of those there are, is protobuf."""
    best, wanted = 0.0, False
    for part in accept.split(","):
        media_type, *rest = (item.strip() for item in part.split(";"))
        parameters = dict(item.partition("=")[::2] for item in rest)
        binary = (
            media_type == "application/vnd.google.protobuf"
            and parameters.get("proto") == "io.prometheus.client.MetricFamily"
            and parameters.get("encoding") == "delimited"
        )
        if not binary and media_type not in ("text/plain", "text/*", "*/*"):
            continue
        try:
            quality = float(parameters.get("q", "1"))
        except ValueError:
            continue
        if quality > best:
            best, wanted = quality, binary
    return wanted


def go_float(value: float) -> str:
    """Return a number as Go writes it: shortest, with an exponent from a million on."""
    if -_PLAIN_BELOW < value < _PLAIN_BELOW and value == int(value):
        return str(int(value))
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    sign, numbers, exponent = Decimal(repr(float(value))).as_tuple()
    assert isinstance(exponent, int)
    digits = "".join(map(str, numbers)).rstrip("0")
    exponent += len(numbers) - len(digits)
    place = len(digits) + exponent - 1
    minus = "-" if sign else ""
    if place < _SCIENTIFIC_BELOW or place >= _SCIENTIFIC_FROM:
        tail = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{minus}{digits[0]}{tail}e{'-' if place < 0 else '+'}{abs(place):02}"
    if place < 0:
        return f"{minus}0.{'0' * (-place - 1)}{digits}"
    whole = digits[: place + 1].ljust(place + 1, "0")
    return f"{minus}{whole}.{digits[place + 1 :]}" if len(digits) > place + 1 else minus + whole


def _lines(family: Family) -> Iterator[str]:
    name, kind = family.name, family.kind
    yield f"# HELP {name} {family.help}\n# TYPE {name} {kind}\n"
    if kind != HISTOGRAM:
        for labels, value in sorted(family.values.items(), key=_first):
            yield f"{name}{_braced(_shown(family, labels))} {go_float(value.value)}\n"
        return
    bounds = [go_float(bound) for bound in family.bounds]
    for labels, buckets in sorted(family.histograms.items(), key=_first):
        shown = _shown(family, labels)
        before = f"{shown}," if shown else ""
        total = 0
        for bound, total in zip((*bounds, "+Inf"), accumulate(buckets.counts), strict=True):
            yield f'{name}_bucket{{{before}le="{bound}"}} {total}\n'
        yield f"{name}_sum{_braced(shown)} {go_float(buckets.total)}\n{name}_count{_braced(shown)} {total}\n"


def _first(item: tuple[Labels, object]) -> Labels:
    return item[0]


def _shown(family: Family, labels: Labels) -> str:
    pairs = sorted(zip(family.labels, labels, strict=True))
    return ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in pairs)


def _braced(shown: str) -> str:
    return f"{{{shown}}}" if shown else ""


def _delimited(family: Family) -> bytes:
    body = _text(1, family.name) + _text(2, family.help) + _number(3, _TYPES[family.kind])
    for labels, value in sorted(family.values.items(), key=_first):
        kind = 3 if family.kind == "counter" else 2
        body += _bytes(4, _pairs(family, labels) + _bytes(kind, _double(1, value.value)))
    for labels, buckets in sorted(family.histograms.items(), key=_first):
        body += _bytes(4, _pairs(family, labels) + _bytes(7, _histogram(family, buckets)))
    return _varint(len(body)) + body


def _histogram(family: Family, buckets: Histogram) -> bytes:
    totals = list(accumulate(buckets.counts))
    result = _number(1, totals[-1]) + _double(2, buckets.total)
    for bound, total in zip(family.bounds, totals, strict=False):
        result += _bytes(3, _number(1, total) + _double(2, bound))
    return result


def _pairs(family: Family, labels: Labels) -> bytes:
    pairs = sorted(zip(family.labels, labels, strict=True))
    return b"".join(_bytes(1, _text(1, name) + _text(2, value)) for name, value in pairs)


def _varint(number: int) -> bytes:
    result = bytearray()
    while number > 0x7F:
        result.append(number & 0x7F | 0x80)
        number >>= 7
    result.append(number)
    return bytes(result)


def _bytes(tag: int, data: bytes) -> bytes:
    return _varint(tag << 3 | 2) + _varint(len(data)) + data


def _text(tag: int, text: str) -> bytes:
    return _bytes(tag, text.encode())


def _number(tag: int, number: int) -> bytes:
    return _varint(tag << 3) + _varint(number)


def _double(tag: int, number: float) -> bytes:
    return _varint(tag << 3 | 1) + struct.pack("<d", number)

"""The few protobuf messages of KMS v2: as plain dictionaries by field number. Pure.

Source: https://protobuf.dev/programming-guides/encoding/ and the KMS v2 API's field numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["MalformedMessage", "annotations_of", "decode", "encode", "text_of"]

_BYTES, _VARINT = 2, 0


class MalformedMessage(ValueError):
    """Bytes that are no message."""


Value = bytes | int | Mapping[str, bytes]


def encode(fields: Mapping[int, Value | str]) -> bytes:
    """Return a message. Empty values are left out; a mapping is a map of strings to bytes."""
    parts: list[bytes] = []
    for number in sorted(fields):
        value = fields[number]
        if not value:
            continue
        if isinstance(value, int):
            parts.append(_varint(number << 3 | _VARINT) + _varint(value))
        elif isinstance(value, Mapping):
            for key in sorted(value):
                parts.append(_chunk(number, encode({1: key, 2: value[key]})))
        else:
            parts.append(_chunk(number, value.encode() if isinstance(value, str) else value))
    return b"".join(parts)


def decode(data: bytes) -> dict[int, list[bytes | int]]:
    """Return what each field holds, in order; raise MalformedMessage."""
    found: dict[int, list[bytes | int]] = {}
    place = 0
    while place < len(data):
        tag, place = _read_varint(data, place)
        number, kind = tag >> 3, tag & 7
        value: bytes | int
        if kind == _VARINT:
            value, place = _read_varint(data, place)
        elif kind == _BYTES:
            length, place = _read_varint(data, place)
            if place + length > len(data):
                raise MalformedMessage("unexpected EOF")
            value, place = data[place : place + length], place + length
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
            continue
        else:
            raise MalformedMessage(f"wire type {kind}")
        found.setdefault(number, []).append(value)
    return found


def text_of(fields: Mapping[int, list[bytes | int]], number: int) -> str:
    """Return a string field."""
    return bytes_of(fields, number).decode(errors="replace")


def bytes_of(fields: Mapping[int, list[bytes | int]], number: int) -> bytes:
    """Return a bytes field."""
    values = fields.get(number, [b""])
    last = values[-1]
    return last if isinstance(last, bytes) else b""


def annotations_of(fields: Mapping[int, list[bytes | int]], number: int) -> dict[str, bytes]:
    """Return a map field."""
    found = {}
    for item in fields.get(number, ()):
        if isinstance(item, bytes):
            pair = decode(item)
            found[text_of(pair, 1)] = bytes_of(pair, 2)
    return found


def _chunk(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if place >= len(data) or shift > 63:
            raise MalformedMessage("unexpected EOF")
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            return value, place
        shift += 7

"""The protobuf wire: tags, numbers of variable length, and small messages read field by field.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from typing import Any, Final

__all__ = [
    "BYTES_WIRE",
    "FIXED64_WIRE",
    "SMALL",
    "VARINT_WIRE",
    "InvalidProtobuf",
    "last",
    "read_fields",
    "read_varint",
    "signed",
    "sized",
    "skip",
    "varint",
]

VARINT_WIRE: Final = 0
FIXED64_WIRE: Final = 1
BYTES_WIRE: Final = 2
FIXED32_WIRE: Final = 5


Tree = dict[str, Any]


class InvalidProtobuf(ValueError):
    """The bytes are no object in protobuf form; the message resembles upstream's."""


def read_varint(data: bytes, pos: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, pos
        shift += 7
        if shift > 63:
            raise InvalidProtobuf("proto: integer overflow")


def signed(value: int) -> int:
    value &= 0xFFFFFFFFFFFFFFFF
    return value - 0x10000000000000000 if value >= 0x8000000000000000 else value


def skip(data: bytes, pos: int, tag: int) -> int:
    wire = tag & 7
    if tag >> 3 == 0:
        raise InvalidProtobuf(f"proto: illegal tag 0 (wire type {wire})")
    if wire == VARINT_WIRE:
        return read_varint(data, pos)[1]
    if wire == FIXED64_WIRE:
        return pos + 8
    if wire == BYTES_WIRE:
        size, pos = read_varint(data, pos)
        return pos + size
    if wire == FIXED32_WIRE:
        return pos + 4
    raise InvalidProtobuf(f"proto: illegal wireType {wire}")


def read_fields(data: bytes, numbers: dict[int, str]) -> Tree:
    """Read a small message whose fields are varints and bytes, by number; repeated ones become lists."""
    out: Tree = {}
    pos = 0
    while pos < len(data):
        tag, pos = read_varint(data, pos)
        name = numbers.get(tag >> 3)
        if name is None or tag & 7 not in (VARINT_WIRE, BYTES_WIRE):
            pos = skip(data, pos, tag)
        elif tag & 7 == VARINT_WIRE:
            number, pos = read_varint(data, pos)
            if isinstance(out.get(name), list):
                raise InvalidProtobuf(f"proto: wrong wireType = {VARINT_WIRE} for field {name}")
            out[name] = signed(number)
        else:
            size, pos = read_varint(data, pos)
            if pos + size > len(data):
                raise IndexError
            values = out.setdefault(name, [])
            if not isinstance(values, list):
                raise InvalidProtobuf(f"proto: wrong wireType = {BYTES_WIRE} for field {name}")
            values.append(data[pos : pos + size])
            pos += size
    return out


def last(fields: Tree, name: str) -> bytes:
    values = all_of(fields, name)
    return values[-1] if values else b""


def number_of(fields: Tree, name: str) -> int:
    """Return the last value of a field that is a number, 0 if it is not there; raise InvalidProtobuf."""
    value = fields.get(name, 0)
    if not isinstance(value, int):
        raise InvalidProtobuf(f"proto: wrong wireType = {BYTES_WIRE} for field {name}")
    return value


def all_of(fields: Tree, name: str) -> list[bytes]:
    """Return every value of a field of bytes; raise InvalidProtobuf."""
    values = fields.get(name, [])
    if not isinstance(values, list):
        raise InvalidProtobuf(f"proto: wrong wireType = {VARINT_WIRE} for field {name}")
    return values


SMALL = [bytes([number]) for number in range(0x80)]


def varint(value: int) -> bytes:
    if 0 <= value < 0x80:
        return SMALL[value]
    value &= 0xFFFFFFFFFFFFFFFF  # Negative numbers travel as 64 bits in two's complement.
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def sized(key: bytes, payload: bytes) -> bytes:
    size = len(payload)
    return key + (SMALL[size] if size < 0x80 else varint(size)) + payload

"""Kubernetes' own forms of scalars in protobuf: messages on the wire, plain values in JSON."""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from haven.apimachinery import times
from haven.apimachinery.codecs.wire import InvalidProtobuf, all_of, last, number_of, read_fields, sized, varint
from haven.apimachinery.quantity import InvalidQuantity, Quantity
from haven.apimachinery.schema.goscalars import parse_duration, write_duration

__all__ = ["BYTES", "RAW", "SCALARS", "STRING_LIST", "Scalar"]


class Scalar(NamedTuple):
    """How a value that is a message on the wire, and none in JSON, is read and written."""

    read: Callable[[bytes], Any]
    write: Callable[[Any], bytes]


_json = msgspec.json.Decoder()
_TIMESTAMP = {1: "seconds", 2: "nanos"}


def _read_time(data: bytes) -> str | None:
    return _read_moment(data, micro=False)


def _read_micro_time(data: bytes) -> str | None:
    return _read_moment(data, micro=True)


def _read_moment(data: bytes, *, micro: bool) -> str | None:
    if not data:
        return None  # The zero time.
    moment = read_fields(data, _TIMESTAMP)
    seconds = number_of(moment, "seconds")
    try:
        if micro:
            text = times.format_time(seconds)
            return f"{text[:-1]}.{moment.get('nanos', 0) // 1000:06d}Z"
        return _format_time(seconds)
    except (OverflowError, ValueError):
        raise InvalidProtobuf(f"proto: {seconds} seconds are no time of the calendar") from None


_format_time = lru_cache(maxsize=1024)(times.format_time)


def _write_time(text: str) -> bytes:
    return b"\x08" + varint(int(times.parse(text) // 1)) + b"\x10\x00"


def _write_micro_time(text: str) -> bytes:
    seconds = int(times.parse(text[:19] + "Z"))
    micros = int(text[20:-1].ljust(6, "0")[:6]) if len(text) > 20 and text[19] == "." else 0
    return b"\x08" + varint(seconds) + b"\x10" + varint(micros * 1000)


@lru_cache(maxsize=4096)
def _canonical_quantity(text: str) -> str:
    try:
        return str(Quantity.parse(text))
    except InvalidQuantity as error:
        raise InvalidProtobuf(str(error)) from None


def _read_quantity(data: bytes) -> str:
    text = last(read_fields(data, {1: "string"}), "string").decode("utf-8", "replace")
    return _canonical_quantity(text) if text else "0"


def _write_quantity(value: Any) -> bytes:
    return sized(b"\x0a", str(value).encode())


def _read_int_or_string(data: bytes) -> int | str:
    value = read_fields(data, {1: "type", 2: "int", 3: "string"})
    if number_of(value, "type") == 1:
        return last(value, "string").decode("utf-8", "replace")
    return number_of(value, "int")


def _write_int_or_string(value: int | str) -> bytes:
    if isinstance(value, str):
        return sized(b"\x08\x01\x1a", value.encode("utf-8", "replace"))
    return b"\x08\x00\x10" + varint(value) + b"\x1a\x00"


def _read_raw(data: bytes) -> Any:
    raw = last(read_fields(data, {1: "raw"}), "raw")
    if not raw:
        return None
    try:
        return _json.decode(raw)
    except msgspec.DecodeError as error:
        raise InvalidProtobuf(str(error)) from None


def _write_raw(value: Any) -> bytes:
    return sized(b"\x0a", msgspec.json.encode(value))


def _read_bytes(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _read_strings(data: bytes) -> list[str]:
    return [item.decode("utf-8", "replace") for item in all_of(read_fields(data, {1: "items"}), "items")]


def _write_strings(value: list[str] | None) -> bytes:
    return b"".join(sized(b"\x0a", item.encode("utf-8", "replace")) for item in value or ())


def _read_duration(data: bytes) -> str:
    return write_duration(number_of(read_fields(data, {1: "duration"}), "duration"))


def _write_duration(value: str) -> bytes:
    return b"\x08" + varint(parse_duration(value))


BYTES = Scalar(_read_bytes, lambda value: base64.b64decode(value or ""))
STRING_LIST = Scalar(_read_strings, _write_strings)
RAW = Scalar(_read_raw, _write_raw)
SCALARS: dict[str, Scalar] = {
    "time": Scalar(_read_time, _write_time),
    "micro_time": Scalar(_read_micro_time, _write_micro_time),
    "duration": Scalar(_read_duration, _write_duration),
    "quantity": Scalar(_read_quantity, _write_quantity),
    "int_or_string": Scalar(_read_int_or_string, _write_int_or_string),
}

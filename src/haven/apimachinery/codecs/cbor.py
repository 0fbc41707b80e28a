"""Kubernetes' CBOR: trees to and from it.

Text travels as byte strings, as upstream's encoder writes it; either kind of string is read. What JSON cannot say is
refused: numbers beyond 64 bits, NaN, undefined, keys that are no text or come twice. Libraries return dictionaries, in
which keys that came twice are lost; hence a reader of our own.

Sources: RFC 8949, and the modes of k8s.io/apimachinery's CBOR serializer (KEP-4222).
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from typing import Any, Final

from haven.apimachinery import times
from haven.apimachinery.goformat import quote

__all__ = ["PREFIX", "InvalidCBOR", "decode", "encode"]

PREFIX: Final = b"\xd9\xd9\xf7"
"""The tag that says that CBOR follows; everything that is written begins with it."""

_INT64_MAX = 2**63 - 1
_BREAK = object()
_LATER: dict[int, Callable[[bytes], str]] = {
    21: lambda data: base64.urlsafe_b64encode(data).rstrip(b"=").decode(),
    22: lambda data: base64.b64encode(data).decode(),
    23: bytes.hex,
}
"""Tags of bytes that are to be shown as text in some encoding."""
_HALF, _SINGLE, _DOUBLE = struct.Struct(">e"), struct.Struct(">f"), struct.Struct(">d")
_FLOATS = {25: _HALF, 26: _SINGLE, 27: _DOUBLE}


class InvalidCBOR(ValueError):
    """The bytes are no CBOR, or nothing that JSON can say; the message resembles upstream's."""


# ---- writing


def encode(tree: Any) -> bytes:
    """Return a tree as CBOR."""
    out = [PREFIX]
    _write(tree, out.append)
    return b"".join(out)


def _head(major: int, value: int) -> bytes:
    if value < 24:
        return bytes((major << 5 | value,))
    for code, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if value < 1 << 8 * size:
            return bytes((major << 5 | code,)) + value.to_bytes(size, "big")
    raise OverflowError(value)


def _write(value: Any, put: Callable[[bytes], None]) -> None:
    if isinstance(value, str):
        data = value.encode()
        put(_head(2, len(data)) + data)
    elif isinstance(value, dict):
        put(_head(5, len(value)))
        for key, item in value.items():
            _write(key, put)
            _write(item, put)
    elif isinstance(value, list):
        put(_head(4, len(value)))
        for item in value:
            _write(item, put)
    elif value is None:
        put(b"\xf6")
    elif isinstance(value, bool):
        put(b"\xf5" if value else b"\xf4")
    elif isinstance(value, int):
        put(_head(0, value) if value >= 0 else _head(1, -1 - value))
    else:
        put(_float(value))


def _float(value: float) -> bytes:
    """Return the shortest form that keeps the value."""
    for code, form in _FLOATS.items():
        try:
            data = form.pack(value)
        except OverflowError:
            continue
        if form.unpack(data)[0] == value:
            return bytes((0xE0 | code,)) + data
    raise ValueError(f"{value} has no form in CBOR")


# ---- reading


def decode(data: bytes) -> Any:
    """Return the tree of one item; raise InvalidCBOR."""
    if not data:
        raise InvalidCBOR("EOF")
    reader = _Reader(data)
    try:
        value = reader.item()
    except IndexError:
        raise InvalidCBOR("unexpected EOF") from None
    if value is _BREAK:
        raise InvalidCBOR('cbor: unexpected "break" code')
    rest = len(data) - reader.place
    if rest:
        raise InvalidCBOR(f"cbor: {rest} bytes of extraneous data starting at index {reader.place}")
    return _shown(value)


def _shown(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


class _Reader:
    """Reads items; IndexError means that the data end too early."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.place = 0

    def _take(self, size: int) -> bytes:
        end = self.place + size
        if end > len(self._data):
            raise IndexError
        piece = self._data[self.place : end]
        self.place = end
        return piece

    def item(self) -> Any:
        """Return the next item; bytes stay bytes, so that a tag can tell what they mean."""
        first = self._take(1)[0]
        major, low = first >> 5, first & 0x1F
        if major == 7:
            return self._simple(low)
        if low == 31:
            return self._indefinite(major)
        if low > 27:
            raise InvalidCBOR(f"cbor: invalid additional information {low} for type {_TYPES[major]}")
        value = low if low < 24 else int.from_bytes(self._take(1 << low - 24), "big")
        if major < 2:
            if value > _INT64_MAX:
                what = "positive" if major == 0 else "negative"
                raise InvalidCBOR(f"cbor: cannot unmarshal {what} integer into Go value of type int64")
            return value if major == 0 else -1 - value
        if major == 2:
            return self._take(value)
        if major == 3:
            return _text(self._take(value))
        if major == 4:
            if value > len(self._data):
                raise IndexError
            return [self._part() for _ in range(value)]
        if major == 5:
            return self._map(value)
        return self._tagged(value)

    def _part(self) -> Any:
        value = self.item()
        if value is _BREAK:
            raise InvalidCBOR('cbor: unexpected "break" code')
        return _shown(value)

    def _map(self, count: int | None) -> dict[str, Any]:
        result: dict[str, Any] = {}
        while count is None or len(result) < count:
            key = self.item()
            if key is _BREAK:
                if count is None:
                    return result
                raise InvalidCBOR('cbor: unexpected "break" code')
            name = _shown(key)
            if not isinstance(name, str):
                raise InvalidCBOR(f"cbor: cannot unmarshal {_type_of(name)} into Go value of type string")
            if name in result:
                raise InvalidCBOR(f"cbor: found duplicate map key {quote(name)} at map element index {len(result)}")
            result[name] = self._part()
        return result

    def _indefinite(self, major: int) -> Any:
        if major == 5:
            return self._map(None)
        if major not in (2, 3, 4):
            raise InvalidCBOR(f"cbor: invalid additional information 31 for type {_TYPES[major]}")
        parts: list[Any] = []
        while (part := self.item()) is not _BREAK:
            parts.append(_shown(part) if major == 4 else part)
        if major == 4:
            return parts
        kind: type = bytes if major == 2 else str
        if not all(isinstance(part, kind) for part in parts):
            raise InvalidCBOR(f"cbor: wrong element type for indefinite-length {_TYPES[major]}")
        return b"".join(parts) if major == 2 else "".join(parts)

    def _tagged(self, number: int) -> Any:
        content = self.item()
        if content is _BREAK:
            raise InvalidCBOR('cbor: unexpected "break" code')
        if number in (2, 3):
            raise InvalidCBOR("cbor: cannot unmarshal bignum into Go value of type interface {}")
        if number in _LATER and isinstance(content, bytes):
            return _LATER[number](content)
        if number == 1 and isinstance(content, int | float) and not isinstance(content, bool):
            return str(times.format_time(content))
        return content

    def _simple(self, low: int) -> Any:
        if low == 31:
            return _BREAK
        if low in _FLOATS:
            form = _FLOATS[low]
            value = form.unpack(self._take(form.size))[0]
            if value != value or value in (float("inf"), float("-inf")):
                what = "NaN" if value != value else "infinity"
                text = "cbor: data item of cbor type primitives is not accepted by protocol: floating-point"
                raise InvalidCBOR(f"{text} {what}")
            return value
        if low in _SIMPLE:
            return _SIMPLE[low]
        number = self._take(1)[0] if low == 24 else low
        raise InvalidCBOR(f"cbor: cannot unmarshal primitives into Go value: simple value {number} is not recognized")


_SIMPLE = {20: False, 21: True, 22: None}
_TYPES = ("positive integer", "negative integer", "byte string", "UTF-8 text string", "array", "map", "tag")


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidCBOR("cbor: invalid UTF-8 string") from None


def _type_of(value: Any) -> str:
    if isinstance(value, list | dict):
        return "array" if isinstance(value, list) else "map"
    if isinstance(value, int) and not isinstance(value, bool):
        return "positive integer" if value >= 0 else "negative integer"
    return "primitives"

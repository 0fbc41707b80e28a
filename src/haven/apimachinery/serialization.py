"""Between API objects, plain trees (dicts and lists) and JSON bytes.

Objects are the structs of haven.api and haven.apimachinery.meta; trees are what the schema engine, patches and
apply work on. Decoding here is lenient about unknown fields: the API server checks them first (schema engine).
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from haven.apimachinery.quantity import Quantity
from haven.apimachinery.unstructured import Unstructured

__all__ = ["convert", "copy", "decode", "decode_tree", "encode", "encode_tree", "is_same", "to_tree"]

T = TypeVar("T")
Tree = dict[str, Any]


def _to_wire(value: object) -> object:
    if isinstance(value, Quantity):
        return str(value)
    if isinstance(value, Unstructured):
        return value.to_wire()
    raise TypeError(f"{type(value).__name__} is not part of the API")


def _from_wire(kind: type, value: Any) -> Any:
    if kind is Quantity:
        if isinstance(value, str):
            return Quantity.parse(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return Quantity.parse(str(value))
        raise ValueError("quantities are strings or numbers")
    if kind is Unstructured:
        return Unstructured.from_wire(value)
    raise TypeError(f"{kind.__name__} is not part of the API")


_encoder = msgspec.json.Encoder(enc_hook=_to_wire)
_sorting_encoder = msgspec.json.Encoder(order="sorted")


_decoders: dict[type, msgspec.json.Decoder[Any]] = {}


def _decoder(kind: type) -> msgspec.json.Decoder[Any]:
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind, dec_hook=_from_wire)
    return decoder


def encode(value: object) -> bytes:
    """Return an object, or a tree, as JSON."""
    return _encoder.encode(value)


def decode(data: bytes | str, kind: type[T]) -> T:
    """Return the object that JSON describes; raise msgspec.ValidationError or msgspec.DecodeError."""
    result: T = _decoder(kind).decode(data)
    return result


def decode_tree(data: bytes | str) -> Any:
    """Return JSON as dicts and lists."""
    return msgspec.json.decode(data)


def encode_tree(tree: Any) -> bytes:
    """Return a tree as JSON."""
    return _encoder.encode(tree)


def is_same(one: bytes, other: bytes) -> bool:
    """Tell whether two compact JSON texts say the same: a map has no order."""
    if one == other or len(one) != len(other):
        return one == other
    first, second = (_sorting_encoder.encode(decode_tree(text)) for text in (one, other))
    return first == second


def to_tree(value: object) -> Any:
    """Return an object as a tree that shares nothing with it."""
    return msgspec.to_builtins(value, enc_hook=_to_wire)


def convert(tree: Any, kind: type[T]) -> T:
    """Return a tree as an object; raise msgspec.ValidationError if a field has the wrong type."""
    return msgspec.convert(tree, kind, dec_hook=_from_wire)


def copy(value: T) -> T:
    """Return a deep copy of an object."""
    result: T = _decoder(type(value)).decode(_encoder.encode(value))
    return result

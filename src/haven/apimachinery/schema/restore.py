"""What upstream's converter from maps to structs says, which strategic patches go through instead of the decoder.

It walks the fields in the order of the struct, stops at the first value that does not fit, and gathers unknown fields
sorted by their message. Integers are cut to their width, not refused.
"""

from __future__ import annotations

from typing import Any

from haven.apimachinery.goformat import quote
from haven.apimachinery.quantity import InvalidQuantity, Quantity
from haven.apimachinery.schema.goscalars import (
    BadScalar,
    decode_base64_error,
    parse_duration,
    parse_micro_time,
    parse_time,
)
from haven.apimachinery.schema.model import Schema

__all__ = ["RestoreError", "restore"]


class RestoreError(Exception):
    """A value does not fit its field; the message is upstream's."""


def restore(tree: dict[str, Any], schema: Schema) -> tuple[dict[str, Any], list[str]]:
    """Return (the tree with integers cut to their width, complaints about unknown fields); raise RestoreError."""
    walker = _Walker()
    result = walker.value(tree, schema, "")
    return result, sorted(set(walker.unknown))


_BITS = {"int": 64, "int64": 64, "int32": 32, "int16": 16, "uint8": 8, "uint16": 16, "uint32": 32, "uint64": 64}
_GO_KINDS = {dict: "map", list: "slice", str: "string", int: "int64", float: "float64", bool: "bool"}
_REFLECT_KINDS = {"float64": "float64", "string": "string", "bool": "bool"} | {name: name for name in _BITS}
_TEXT_PARSERS: dict[str, Any] = {"time": parse_time, "micro_time": parse_micro_time, "duration": parse_duration}


class _Walker:
    def __init__(self) -> None:
        self.unknown: list[str] = []

    def value(self, value: Any, schema: Schema, path: str) -> Any:
        kind = schema.kind
        if value is None:
            return None
        if kind == "struct":
            return self.struct(value, schema, path)
        if kind == "map":
            if type(value) is not dict:
                raise RestoreError(f"cannot restore map from {_GO_KINDS[type(value)]}")
            assert schema.element is not None
            return {name: self.value(item, schema.element, path) for name, item in value.items()}
        if kind == "list":
            if type(value) is not list:
                raise RestoreError(f"cannot restore slice from {_GO_KINDS[type(value)]}")
            assert schema.element is not None
            return [self.value(item, schema.element, f"{path}[{i}]") for i, item in enumerate(value)]
        if kind == "bytes":
            return self.bytes_(value)
        if kind in _REFLECT_KINDS:
            return _scalar(value, kind, schema.go)
        _self_decoding(value, kind)
        return value

    def struct(self, value: Any, schema: Schema, path: str) -> Any:
        if type(value) is not dict:
            raise RestoreError(f"cannot restore struct from: {_GO_KINDS[type(value)]}")
        result = {}
        for name, field in schema.fields.items():
            if name in value:
                item = value[name]
                result[name] = self.value(item, field.schema, f"{path}.{name}" if path else name)
        for name in value:
            if name not in schema.fields:
                self.unknown.append(f"unknown field {quote(f'{path}.{name}' if path else name)}")
        return result

    def bytes_(self, value: Any) -> Any:
        if type(value) is str:
            error = decode_base64_error(value)
            if error:
                raise RestoreError(f"error decoding from json: {error}")
            return value
        if type(value) is not list:
            raise RestoreError(f"cannot restore slice from {_GO_KINDS[type(value)]}")
        return [_scalar(item, "uint8", "uint8") for item in value]


def _scalar(value: Any, kind: str, go: str) -> Any:
    have = type(value)
    if (kind == "string" and have is str) or (kind == "bool" and have is bool):
        return value
    if kind == "float64" and have in (int, float):
        return value
    if kind in _BITS:
        if have is int:
            return _cut(value, kind)
        if have is float:
            if value.is_integer():
                # A float beyond int64 becomes its least value, as the processor has it.
                return _cut(int(value) if -(2.0**63) <= value < 2.0**63 else -(2**63), kind)
            raise RestoreError(f"cannot convert float64 to {go}")
    if kind == "string" and have is int:
        raise RestoreError(f"cannot convert int64 to {go}")
    raise RestoreError(f"unrecognized type: {_REFLECT_KINDS[kind]}")


def _cut(value: int, kind: str) -> int:
    bits = _BITS[kind]
    value &= (1 << bits) - 1
    if not kind.startswith("u") and value >> (bits - 1):
        value -= 1 << bits
    return value


def _self_decoding(value: Any, kind: str) -> None:
    named = {dict: "object", list: "array", str: "string", bool: "bool"}.get(type(value), "number")
    if kind == "quantity":
        try:
            if type(value) not in (str, int, float):
                Quantity.parse("{}")
            Quantity.parse(str(value).strip())
        except InvalidQuantity as error:
            raise RestoreError(str(error)) from None
    elif kind == "int_or_string":
        if (type(value) is int and not -(2**31) <= value < 2**31) or type(value) is float:
            raise RestoreError(f"json: cannot unmarshal number {value} into Go value of type int32")
        if type(value) not in (str, int):
            raise RestoreError(f"json: cannot unmarshal {named} into Go value of type int32")
    elif kind in _TEXT_PARSERS:
        if type(value) is not str:
            raise RestoreError(f"json: cannot unmarshal {named} into Go value of type string")
        try:
            _TEXT_PARSERS[kind](value)
        except BadScalar as error:
            raise RestoreError(str(error)) from None
    elif kind == "schema_or_bool" and type(value) not in (bool, dict):
        raise RestoreError("boolean or JSON schema expected")

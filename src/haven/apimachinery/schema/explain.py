"""Every complaint about a body, worded and ordered as upstream's decoder does.

The decoder goes through the text in order. A value of the wrong type is remembered (the first one counts) and the walk
goes on; a type that decodes itself (times, quantities, ports) fails at once and wins. Unknown and repeated fields are
gathered beside, at most STRICT_MAX of them, and matter only when there is no error.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from haven.apimachinery.goformat import quote
from haven.apimachinery.quantity import InvalidQuantity, Quantity
from haven.apimachinery.schema.gojson import Number, Pairs, parse
from haven.apimachinery.schema.goscalars import (
    BadScalar,
    decode_base64_error,
    parse_duration,
    parse_micro_time,
    parse_time,
)
from haven.apimachinery.schema.model import Schema, schema_named

__all__ = ["STRICT_MAX", "explain", "repeated_keys"]

STRICT_MAX = 100
_BITS = {
    "int": (-(2**63), 2**63 - 1), "int64": (-(2**63), 2**63 - 1), "int32": (-(2**31), 2**31 - 1),
    "int16": (-(2**15), 2**15 - 1), "uint8": (0, 255), "uint16": (0, 2**16 - 1), "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
}  # fmt: skip
_JSON_SCHEMA_PROPS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"


def explain(data: bytes, schema: Schema) -> tuple[str | None, list[str]]:
    """Return (decoding error or None, complaints about unknown and repeated fields) of well-formed JSON."""
    reader = _Reader()
    try:
        reader.value(parse(data), schema, _ROOT, "")
    except _HardError as error:
        return str(error), []
    return reader.saved, [] if reader.saved is not None else reader.strict


def repeated_keys(data: bytes) -> list[str]:
    """Return the complaints about repeated keys in JSON of no declared type."""
    reader = _Reader()
    reader.untyped(parse(data), "")
    return reader.strict


class _Context(NamedTuple):
    """The innermost struct and the way of fields from the root, which Go's messages name."""

    struct: str
    trail: tuple[str, ...]


_DIGITS_MAX = 4000  # Of what fits into any integer's bits; Python converts few more.
_ROOT = _Context("", ())


class _HardError(Exception):
    pass


def _kind_of(value: Any) -> str:
    if isinstance(value, Pairs):
        return "object"
    if isinstance(value, Number):
        return "number"
    if isinstance(value, str):
        return "string"
    return "bool" if isinstance(value, bool) else "array"


def _mismatch(described: str, go: str, context: _Context) -> str:
    if context.struct or context.trail:
        where = f"Go struct field {context.struct}.{'.'.join(context.trail)}"
    else:
        where = "Go value"
    return f"json: cannot unmarshal {described} into {where} of type {go}"


class _Reader:
    def __init__(self) -> None:
        self.saved: str | None = None
        self.strict: list[str] = []
        self.seen: set[str] = set()

    def save(self, message: str) -> None:
        if self.saved is None:
            self.saved = message

    def complain(self, what: str, path: str) -> None:
        message = f"{what} field {quote(path)}"
        if len(self.strict) < STRICT_MAX and message not in self.seen:
            self.seen.add(message)
            self.strict.append(message)

    def untyped(self, value: Any, path: str) -> None:
        if isinstance(value, Pairs):
            names: set[str] = set()
            for name, item in value:
                inner = f"{path}.{name}" if path else name
                if name in names:
                    self.complain("duplicate", inner)
                names.add(name)
                self.untyped(item, inner)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                self.untyped(item, f"{path}[{index}]")

    def value(self, value: Any, schema: Schema, context: _Context, path: str) -> None:
        kind = schema.kind
        if kind in _SELF_DECODING:
            self.self_decoding(value, kind, context)
        elif value is None or kind == "raw":
            pass
        elif kind == "any":
            self.untyped(value, path)
        elif kind == "struct" and isinstance(value, Pairs):
            self.struct(value, schema, context, path)
        elif kind == "map" and isinstance(value, Pairs):
            assert schema.element is not None
            names: set[str] = set()
            for name, item in value:
                inner = f"{path}.{name}" if path else name
                if name in names:
                    self.complain("duplicate", inner)
                names.add(name)
                self.value(item, schema.element, context, inner)
        elif kind == "list" and _kind_of(value) == "array":
            assert schema.element is not None
            for index, item in enumerate(value):
                self.value(item, schema.element, context, f"{path}[{index}]")
        elif kind == "bytes" and _kind_of(value) == "string":
            error = decode_base64_error(value)
            if error:
                self.save(error)
        elif kind == "bytes" and _kind_of(value) == "array":
            for item in value:
                self.value(item, _BYTE, context, path)
        elif isinstance(value, Number) and kind in _BITS:
            if not _fits(value, kind):
                self.save(_mismatch(f"number {value}", schema.go, context))
        elif isinstance(value, Number) and kind == "float64":
            if math.isinf(float(value)):
                self.save(_mismatch(f"number {value}", schema.go, context))
        elif _kind_of(value) != kind:
            self.save(_mismatch(_kind_of(value), schema.go, context))

    def struct(self, value: Pairs, schema: Schema, context: _Context, path: str) -> None:
        names: set[str] = set()
        owner = schema.go.rpartition(".")[2]
        for name, item in value:
            inner = f"{path}.{name}" if path else name
            field = schema.fields.get(name)
            if field is None:
                self.complain("unknown", inner)
                continue
            if name in names:
                self.complain("duplicate", inner)
            names.add(name)
            if item is None and field.pointer:
                continue
            steps = (*field.embedded.split("."), name) if field.embedded else (name,)
            self.value(item, field.schema, _Context(owner, context.trail + steps), inner)

    def self_decoding(self, value: Any, kind: str, context: _Context) -> None:
        if value is None and kind not in ("duration", "schema_or_bool"):
            return
        if kind == "quantity":
            self.quantity(value)
        elif kind == "int_or_string":
            if isinstance(value, Number):
                if not _fits(value, "int32"):
                    raise _HardError(_mismatch(f"number {value}", "int32", context))
            elif not isinstance(value, str):
                raise _HardError(_mismatch(_kind_of(value), "int32", context))
        elif kind in _TEXT_PARSERS:
            if value is None:
                value = ""
            if isinstance(value, Number) or not isinstance(value, str):
                raise _HardError(_mismatch(_kind_of(value), "string", context))
            try:
                _TEXT_PARSERS[kind](value)
            except BadScalar as error:
                raise _HardError(str(error)) from None
        else:
            self.json_schema(value, kind, context)

    def quantity(self, value: Any) -> None:
        # Go parses the text between the quotes, or whatever stands there without any.
        text = value.strip() if isinstance(value, str) else "{}"
        try:
            Quantity.parse(text)
        except InvalidQuantity as error:
            raise _HardError(str(error)) from None

    def json_schema(self, value: Any, kind: str, context: _Context) -> None:
        if isinstance(value, Pairs):
            inner = _Reader()
            inner.value(value, schema_named(_JSON_SCHEMA_PROPS), context, "")
            if inner.saved is not None:
                raise _HardError(inner.saved)
        elif kind == "schema_or_bool" and not isinstance(value, bool):
            raise _HardError("boolean or JSON schema expected")
        elif kind == "schema_or_strings" and _kind_of(value) == "array":
            for item in value:
                if item is not None and _kind_of(item) != "string":
                    raise _HardError(_mismatch(_kind_of(item), "string", context))
        elif kind == "schema_or_array" and _kind_of(value) == "array":
            for item in value:
                self.json_schema(item, "schema", context)


def _fits(text: Number, kind: str) -> bool:
    digits = text[1:] if text.startswith("-") else text
    if not digits.isdigit():
        return False
    low, high = _BITS[kind]
    return len(text) <= _DIGITS_MAX and low <= int(text) <= high and not (low == 0 and text.startswith("-"))


_BYTE = Schema("uint8", go="uint8")
_TEXT_PARSERS: dict[str, Any] = {"time": parse_time, "micro_time": parse_micro_time, "duration": parse_duration}
_SELF_DECODING = {
    "quantity", "int_or_string", "time", "micro_time", "duration", "schema_or_bool", "schema_or_array",
    "schema_or_strings",
}  # fmt: skip

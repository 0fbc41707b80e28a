"""Whether a body has the types and fields that its kind declares.

Two speeds. The fast walk runs on the parsed tree, answers yes or no and knows no messages. Only when it says no does
the slow one (explain) read the text again, the way Go's decoder does, to word every complaint as upstream does.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson

from haven.apimachinery.quantity import InvalidQuantity, Quantity
from haven.apimachinery.schema.explain import explain
from haven.apimachinery.schema.gojson import lost_keys
from haven.apimachinery.schema.goscalars import (
    BadScalar,
    parse_duration,
    parse_micro_time,
    parse_time,
    write_duration,
)
from haven.apimachinery.schema.model import Schema, schema_named
from haven.apimachinery.schema.repeated import merge_repeated

__all__ = ["INT_RANGES", "Findings", "check", "fits"]

INT_RANGES = {
    "int": (-(2**63), 2**63 - 1), "int64": (-(2**63), 2**63 - 1), "int32": (-(2**31), 2**31 - 1),
    "int16": (-(2**15), 2**15 - 1), "uint8": (0, 255), "uint16": (0, 2**16 - 1), "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
}  # fmt: skip
_TIME = re.compile(r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\dZ", re.ASCII)
_MICRO_TIME = re.compile(
    r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d\.\d{6}Z", re.ASCII
)


@dataclass(slots=True)
class Findings:
    """What is wrong with a body.

    `error` is Go's decoding error, which no level of field validation forgives. `strict` are the complaints about
    unknown and repeated fields, in upstream's order. `dirty` tells that `normalize` would change the tree.
    """

    error: str | None = None
    strict: list[str] = field(default_factory=list)
    dirty: bool = False
    tree: Any = None
    """What to read instead of the tree that was checked, as keys come twice in its text."""

    @property
    def strict_error(self) -> str | None:
        """The complaints as the error that field validation Strict answers with."""
        return f"strict decoding error: {', '.join(self.strict)}" if self.strict else None


_CLEAN = Findings()
_DIRTY = Findings(dirty=True)


def check(tree: Any, schema: Schema, data: bytes | None = None) -> Findings:
    """Return what is wrong with a tree; `data` is its JSON text, which keeps repeated keys and numbers' spelling.

    Without `data` (after a patch) repeated keys cannot be found and are not looked for.
    """
    dirty = fits(tree, schema)
    if dirty is not None and (data is None or not lost_keys(data, orjson.dumps(tree))):
        return _DIRTY if dirty else _CLEAN
    error, strict = explain(orjson.dumps(tree) if data is None else data, schema)
    merged = merge_repeated(data, schema) if data is not None and error is None and strict else None
    return Findings(error, strict, dirty=True, tree=merged)


def fits(tree: Any, schema: Schema) -> bool | None:
    """Tell whether `normalize` would change a tree; None if the tree has unknown fields or values of wrong types."""
    walk = schema.walks.get("check") or _compile(schema)
    try:
        return bool(walk(tree))
    except _Mismatch:
        return None


class _Mismatch(Exception):
    """The fast walk saw something that the slow one must look at."""


Walk: TypeAlias = Callable[[Any], bool]
"""Raises _Mismatch, or tells whether the value is not in the form in which Go would write it."""


def _compile(schema: Schema) -> Walk:
    known: Walk | None = schema.walks.get("check")
    if known is not None:
        return known
    if schema.kind == "struct":
        return _struct(schema)
    walk = _BUILDERS.get(schema.kind, _integer)(schema)
    schema.walks["check"] = walk
    return walk


def _struct(schema: Schema) -> Walk:
    table: dict[str, Any] = {}

    def walk(value: Any, get: Any = table.get) -> bool:
        if type(value) is not dict:
            raise _Mismatch
        dirty = False
        for name, item in value.items():
            expected = get(name)
            # Most fields are plain strings or booleans: their table entry is the type itself.
            if type(item) is expected:
                continue
            if expected is None:
                raise _Mismatch
            if item is None:
                dirty = True
            elif expected is str or expected is bool:
                raise _Mismatch
            elif expected(item):
                dirty = True
        return dirty

    schema.walks["check"] = walk  # Before the fields: structs refer to themselves.
    for name, declared in schema.fields.items():
        kind = declared.schema.kind
        table[name] = str if kind == "string" else bool if kind == "bool" else _compile(declared.schema)
    return walk


def _map(schema: Schema) -> Walk:
    element = schema.element
    assert element is not None
    if element.kind in ("string", "bool"):
        expected = str if element.kind == "string" else bool

        def walk_plain(value: Any) -> bool:
            if type(value) is not dict:
                raise _Mismatch
            for item in value.values():
                if type(item) is not expected:
                    if any(type(item) is not expected and item is not None for item in value.values()):
                        raise _Mismatch
                    return True
            return False

        return walk_plain
    inner = _compile(element)

    def walk(value: Any) -> bool:
        if type(value) is not dict:
            raise _Mismatch
        dirty = False
        for item in value.values():
            if item is None or inner(item):
                dirty = True
        return dirty

    return walk


def _list(schema: Schema) -> Walk:
    element = schema.element
    assert element is not None
    if element.kind in ("string", "bool"):
        expected = str if element.kind == "string" else bool

        def walk_plain(value: Any) -> bool:
            if type(value) is not list:
                raise _Mismatch
            for item in value:
                if type(item) is not expected:
                    if any(type(item) is not expected and item is not None for item in value):
                        raise _Mismatch
                    return True
            return False

        return walk_plain
    inner = _compile(element)

    def walk(value: Any) -> bool:
        if type(value) is not list:
            raise _Mismatch
        dirty = False
        for item in value:
            if item is None or inner(item):
                dirty = True
        return dirty

    return walk


def _integer(schema: Schema) -> Walk:
    low, high = INT_RANGES[schema.kind]

    def walk(value: Any) -> bool:
        if type(value) is not int or not low <= value <= high:
            raise _Mismatch
        return False

    return walk


def _float(_: Schema) -> Walk:
    def walk(value: Any) -> bool:
        if type(value) is not float and type(value) is not int:
            raise _Mismatch
        return False

    return walk


def _plain(expected: type) -> Callable[[Schema], Walk]:
    def build(_: Schema) -> Walk:
        def walk(value: Any) -> bool:
            if type(value) is not expected:
                raise _Mismatch
            return False

        return walk

    return build


def _bytes(_: Schema) -> Walk:
    def walk(value: Any) -> bool:
        if type(value) is not str:
            raise _Mismatch
        try:
            return bool(
                binascii.b2a_base64(binascii.a2b_base64(value, strict_mode=True), newline=False) != value.encode()
            )
        except ValueError:
            raise _Mismatch from None

    return walk


def _time(pattern: re.Pattern[str], parse: Callable[[str], str]) -> Callable[[Schema], Walk]:
    def build(_: Schema) -> Walk:
        def walk(value: Any, match: Any = pattern.fullmatch) -> bool:
            if type(value) is not str:
                raise _Mismatch
            if match(value) and not value.startswith("000"):
                return False
            try:
                return parse(value) != value
            except BadScalar:
                raise _Mismatch from None

        return walk

    return build


def _quantity(_: Schema) -> Walk:
    def walk(value: Any, parse: Any = Quantity.parse) -> bool:
        try:
            if type(value) is str:
                return str(parse(value)) != value
            if type(value) is int:
                parse(str(value))
                return True
        except InvalidQuantity:
            pass
        raise _Mismatch

    return walk


def _int_or_string(_: Schema) -> Walk:
    def walk(value: Any) -> bool:
        if type(value) is str:
            return False
        if type(value) is not int or not -(2**31) <= value < 2**31:
            raise _Mismatch
        return False

    return walk


def _duration(_: Schema) -> Walk:
    def walk(value: Any) -> bool:
        if type(value) is not str:
            raise _Mismatch
        try:
            return write_duration(parse_duration(value)) != value
        except BadScalar:
            raise _Mismatch from None

    return walk


def _anything(_: Schema) -> Walk:
    return lambda _: False


def _json_schema_or(other: type[Any]) -> Callable[[Schema], Walk]:
    """JSON schemas beside another form: Go decodes what is inside leniently, so only good schemas pass quickly."""

    def build(_: Schema) -> Walk:
        def walk(value: Any) -> bool:
            if type(value) is other and (other is bool or all(type(item) in (str, dict) for item in value)):
                return False
            if type(value) is not dict:
                raise _Mismatch
            return _compile(schema_named(JSON_SCHEMA_PROPS))(value)

        return walk

    return build


JSON_SCHEMA_PROPS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"

_BUILDERS: dict[str, Callable[[Schema], Walk]] = {
    "map": _map,
    "list": _list,
    "string": _plain(str),
    "bool": _plain(bool),
    "float64": _float,
    "bytes": _bytes,
    "time": _time(_TIME, parse_time),
    "micro_time": _time(_MICRO_TIME, parse_micro_time),
    "duration": _duration,
    "quantity": _quantity,
    "int_or_string": _int_or_string,
    "raw": _anything,
    "any": _anything,
    "schema_or_bool": _json_schema_or(bool),
    "schema_or_array": _json_schema_or(list),
    "schema_or_strings": _json_schema_or(list),
}

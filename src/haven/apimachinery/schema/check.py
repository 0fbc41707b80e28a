"""Whether a body has the types and fields that its kind declares.

Two speeds. The fast walk runs on the parsed tree, answers yes or no and knows no messages. Only when it says no does
the slow one (explain) read the text again, the way Go's decoder does, to word every complaint as upstream does.
"""

from __future__ import annotations

import binascii
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


_TIMES = ("time", "micro_time")
"""Go writes null for a time that is not set, so that is how such a field may come back."""


@dataclass(slots=True)
class Findings:
    """What is wrong with a body.

    `error` is Go's decoding error, which no level of field validation forgives. `strict` are the complaints about
    unknown and repeated fields, in upstream's order. `dirty` tells that `normalize` would change the tree, `unfit` that
    it must be done before the tree converts to its typed struct: times may be null there.
    """

    error: str | None = None
    strict: list[str] = field(default_factory=list)
    dirty: bool = False
    unfit: bool = False
    tree: Any = None
    """What to read instead of the tree that was checked, as keys come twice in its text."""

    @property
    def strict_error(self) -> str | None:
        """The complaints as the error that field validation Strict answers with."""
        return f"strict decoding error: {', '.join(self.strict)}" if self.strict else None


_CLEAN, _NULL_TIMES, _UNFIT = 0, 1, 2
"""What a walk finds; several of these are combined by or."""
_FINDINGS = (Findings(), Findings(dirty=True), *[Findings(dirty=True, unfit=True)] * 2)


def check(tree: Any, schema: Schema, data: bytes | None = None) -> Findings:
    """Return what is wrong with a tree; `data` is its JSON text, which keeps repeated keys and numbers' spelling.

    Without `data` (after a patch) repeated keys cannot be found and are not looked for.
    """
    found = _walked(tree, schema)
    if found is not None and (data is None or not lost_keys(data, orjson.dumps(tree))):
        return _FINDINGS[found]
    error, strict = explain(orjson.dumps(tree) if data is None else data, schema)
    merged = merge_repeated(data, schema) if data is not None and error is None and strict else None
    return Findings(error, strict, dirty=True, unfit=True, tree=merged)


def fits(tree: Any, schema: Schema) -> bool | None:
    """Tell whether a tree converts to its typed struct; None if it has unknown fields or values of wrong types."""
    found = _walked(tree, schema)
    return None if found is None else found < _UNFIT


def _walked(tree: Any, schema: Schema) -> int | None:
    walk = schema.walks.get("check") or _compile(schema)
    try:
        return walk(tree)
    except _Mismatch:
        return None


class _Mismatch(Exception):
    """The fast walk saw something that the slow one must look at."""


Walk: TypeAlias = Callable[[Any], int]
"""Raises _Mismatch, or tells how the value differs from the form in which Go would write it."""


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
    times = {name for name, declared in schema.fields.items() if declared.schema.kind in _TIMES}

    def walk(value: Any, get: Any = table.get) -> int:
        if type(value) is not dict:
            raise _Mismatch
        found = _CLEAN
        for name, item in value.items():
            expected = get(name)
            # Most fields are plain strings or booleans: their table entry is the type itself.
            if type(item) is expected:
                continue
            if expected is None:
                raise _Mismatch
            if item is None:
                found |= _NULL_TIMES if name in times else _UNFIT
            elif expected is str or expected is bool:
                raise _Mismatch
            else:
                found |= expected(item)
        return found

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

        def walk_plain(value: Any) -> int:
            if type(value) is not dict:
                raise _Mismatch
            for item in value.values():
                if type(item) is not expected:
                    if any(type(item) is not expected and item is not None for item in value.values()):
                        raise _Mismatch
                    return _UNFIT
            return _CLEAN

        return walk_plain
    inner = _compile(element)

    def walk(value: Any) -> int:
        if type(value) is not dict:
            raise _Mismatch
        found = _CLEAN
        for item in value.values():
            found |= _UNFIT if item is None else inner(item)
        return found

    return walk


def _list(schema: Schema) -> Walk:
    element = schema.element
    assert element is not None
    if element.kind in ("string", "bool"):
        expected = str if element.kind == "string" else bool

        def walk_plain(value: Any) -> int:
            if type(value) is not list:
                raise _Mismatch
            for item in value:
                if type(item) is not expected:
                    if any(type(item) is not expected and item is not None for item in value):
                        raise _Mismatch
                    return _UNFIT
            return _CLEAN

        return walk_plain
    inner = _compile(element)

    def walk(value: Any) -> int:
        if type(value) is not list:
            raise _Mismatch
        found = _CLEAN
        for item in value:
            found |= _UNFIT if item is None else inner(item)
        return found

    return walk


def _integer(schema: Schema) -> Walk:
    low, high = INT_RANGES[schema.kind]

    def walk(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise _Mismatch
        return _CLEAN

    return walk


def _float(_: Schema) -> Walk:
    def walk(value: Any) -> int:
        if type(value) is not float and type(value) is not int:
            raise _Mismatch
        return _CLEAN

    return walk


def _plain(expected: type) -> Callable[[Schema], Walk]:
    def build(_: Schema) -> Walk:
        def walk(value: Any) -> int:
            if type(value) is not expected:
                raise _Mismatch
            return _CLEAN

        return walk

    return build


def _bytes(_: Schema) -> Walk:
    def walk(value: Any) -> int:
        if type(value) is not str:
            raise _Mismatch
        try:
            plain = binascii.b2a_base64(binascii.a2b_base64(value, strict_mode=True), newline=False)
            return _CLEAN if plain == value.encode() else _UNFIT
        except ValueError:
            raise _Mismatch from None

    return walk


def _time(parse: Callable[[str], str]) -> Callable[[Schema], Walk]:
    def build(_: Schema) -> Walk:
        def walk(value: Any) -> int:
            if type(value) is not str:
                raise _Mismatch
            try:
                return _CLEAN if parse(value) == value else _UNFIT
            except BadScalar:
                raise _Mismatch from None

        return walk

    return build


def _quantity(_: Schema) -> Walk:
    def walk(value: Any, parse: Any = Quantity.parse) -> int:
        try:
            if type(value) is str:
                return _CLEAN if str(parse(value)) == value else _UNFIT
            if type(value) is int:
                parse(str(value))
                return _UNFIT
        except InvalidQuantity:
            pass
        raise _Mismatch

    return walk


def _int_or_string(_: Schema) -> Walk:
    def walk(value: Any) -> int:
        if type(value) is str:
            return _CLEAN
        if type(value) is not int or not -(2**31) <= value < 2**31:
            raise _Mismatch
        return _CLEAN

    return walk


def _duration(_: Schema) -> Walk:
    def walk(value: Any) -> int:
        if type(value) is not str:
            raise _Mismatch
        try:
            return _CLEAN if write_duration(parse_duration(value)) == value else _UNFIT
        except BadScalar:
            raise _Mismatch from None

    return walk


def _anything(_: Schema) -> Walk:
    return lambda _: _CLEAN


def _json_schema_or(other: type[Any]) -> Callable[[Schema], Walk]:
    """JSON schemas beside another form: Go decodes what is inside leniently, so only good schemas pass quickly."""

    def build(_: Schema) -> Walk:
        def walk(value: Any) -> int:
            if type(value) is other and (other is bool or all(type(item) in (str, dict) for item in value)):
                return _CLEAN
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
    "time": _time(parse_time),
    "micro_time": _time(parse_micro_time),
    "duration": _duration,
    "quantity": _quantity,
    "int_or_string": _int_or_string,
    "raw": _anything,
    "any": _anything,
    "schema_or_bool": _json_schema_or(bool),
    "schema_or_array": _json_schema_or(list),
    "schema_or_strings": _json_schema_or(list),
}

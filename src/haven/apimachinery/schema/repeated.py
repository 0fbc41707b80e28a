"""Repeated keys of a JSON object, read as Go's decoder reads them into a struct.

A field that comes twice is decoded into the value that is there already: the fields of structs and the entries of maps
come together, everything else is replaced. null empties a map and leaves a struct alone.
"""

from __future__ import annotations

from typing import Any

import orjson

from haven.apimachinery.schema.gojson import Number, Pairs, parse
from haven.apimachinery.schema.model import Schema

__all__ = ["merge_repeated"]


def merge_repeated(data: bytes, schema: Schema) -> Any:
    """Return the tree that a JSON text with repeated keys means."""
    return _read(parse(data), schema, None)


def _read(value: Any, schema: Schema | None, before: Any) -> Any:
    kind = schema.kind if schema is not None else ""
    if isinstance(value, Pairs):
        together = kind in ("struct", "map") and isinstance(before, dict)
        result: dict[str, Any] = dict(before) if together else {}
        for name, item in value:
            inner = _inner(schema, name)
            result[name] = _read(item, inner, result.get(name) if kind == "struct" else None)
        return result
    if isinstance(value, list):
        element = schema.element if schema is not None and kind == "list" else None
        return [_read(item, element, None) for item in value]
    if value is None and kind == "struct":
        return before
    return _number(str(value)) if isinstance(value, Number) else value


def _number(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return float(text)  # Infinity: no double can hold it.


def _inner(schema: Schema | None, name: str) -> Schema | None:
    if schema is None:
        return None
    if schema.kind == "struct":
        field = schema.fields.get(name)
        return field.schema if field is not None else None
    return schema.element if schema.kind == "map" else None

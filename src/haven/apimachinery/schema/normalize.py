"""What Go's decoding and encoding again make of a tree, short of defaults.

Unknown fields go, null fields count as absent, null items become zero values, and times, durations, quantities and
base64 get their canonical spelling. Afterwards the tree converts to its typed struct. Call `check` first: this assumes
that there is no decoding error.
"""

from __future__ import annotations

import base64
from typing import Any

from haven.apimachinery.quantity import Quantity
from haven.apimachinery.schema.goscalars import parse_duration, parse_micro_time, parse_time, write_duration
from haven.apimachinery.schema.model import Schema

__all__ = ["normalize"]


def normalize(tree: Any, schema: Schema) -> Any:
    """Return the canonical form of a tree; the input stays as it is, and shares with the result what is equal."""
    kind = schema.kind
    if kind == "struct":
        result = {}
        fields = schema.fields
        for name, value in tree.items():
            field = fields.get(name)
            if field is None or value is None:
                continue
            sub = field.schema
            if sub.kind not in _AS_IT_IS:
                value = normalize(value, sub)
                if value is None:  # The zero time.
                    continue
            result[name] = value
        return result
    if kind in _AS_IT_IS:
        return tree
    if kind == "map":
        element = schema.element
        assert element is not None
        return {name: _item(value, element, schema.element_pointer) for name, value in tree.items()}
    if kind == "list":
        element = schema.element
        assert element is not None
        return [_item(value, element, schema.element_pointer) for value in tree]
    return _scalar(tree, kind)


def _item(value: Any, schema: Schema, pointer: bool) -> Any:
    if value is None:
        return None if pointer else schema.null_value()
    return normalize(value, schema)


def _scalar(value: Any, kind: str) -> Any:
    if kind == "quantity":
        return str(Quantity.parse(str(value).strip()))
    if kind == "time":
        return parse_time(value) or None
    if kind == "micro_time":
        return parse_micro_time(value) or None
    if kind == "duration":
        return write_duration(parse_duration(value))
    if kind == "bytes":
        if isinstance(value, list):
            return base64.b64encode(bytes(value)).decode()
        return base64.b64encode(base64.b64decode(value.replace("\n", "").replace("\r", ""))).decode()
    if kind == "schema_or_array":
        return value if isinstance(value, dict | list) else None  # Go's decoder passes over anything else.
    if kind == "schema_or_strings":
        return value if isinstance(value, dict | list) else []
    return value


_AS_IT_IS = {
    "string", "bool", "int", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float64",
    "int_or_string", "raw", "any", "schema_or_bool",
}  # fmt: skip

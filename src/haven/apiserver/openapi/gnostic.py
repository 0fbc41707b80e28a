"""The OpenAPI v2 document in protobuf, the form that kubectl and helm ask for.

Messages and field numbers are those of gnostic's openapi.v2.Document (github.com/google/gnostic-models). Only what our
document contains is written: an unknown key is a bug of ours, except vendor extensions, which travel as YAML.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from haven.apimachinery.codecs.wire import sized, varint

__all__ = ["any_of", "document", "double", "flag", "key", "named", "number", "text"]

Tree = Mapping[str, Any]


def key(place: int) -> bytes:
    return varint(place << 3 | 2)


def text(number: int, value: str) -> bytes:
    return sized(key(number), value.encode())


def flag(number: int, value: bool) -> bytes:
    return varint(number << 3) + b"\x01" if value else b""


def number(place: int, value: int) -> bytes:
    return varint(place << 3) + varint(value)


def any_of(value: Any) -> bytes:
    """Return an Any: text that is YAML, of which JSON is a part."""
    return text(2, orjson.dumps(value).decode() + "\n")


def named(number: int, name: str, value: bytes) -> bytes:
    return sized(key(number), text(1, name) + sized(key(2), value))


def _extensions(number: int, tree: Tree) -> bytes:
    return b"".join(named(number, name, any_of(tree[name])) for name in tree if name.startswith("x-"))


_SCHEMA_TEXTS = {"$ref": 1, "format": 2, "title": 3, "description": 4, "pattern": 13}
_SCHEMA_FLAGS = {"exclusiveMaximum": 8, "exclusiveMinimum": 10, "uniqueItems": 16}
_SCHEMA_DOUBLES = {"multipleOf": 6, "maximum": 7, "minimum": 9}
_SCHEMA_NUMBERS = {
    "maxLength": 11, "minLength": 12, "maxItems": 14, "minItems": 15, "maxProperties": 17, "minProperties": 18,
}  # fmt: skip


def _schema(tree: Tree) -> bytes:
    out: list[bytes] = []
    for name, value in tree.items():
        if name in _SCHEMA_TEXTS:
            out.append(text(_SCHEMA_TEXTS[name], value))
        elif name == "type":
            types = value if isinstance(value, list) else [value]
            out.append(sized(key(22), b"".join(text(1, one) for one in types)))
        elif name == "allOf":
            out += [sized(key(24), _schema(one)) for one in value]
        elif name == "readOnly":
            out.append(flag(27, value))
        elif name == "properties":
            out.append(sized(key(25), b"".join(named(1, one, _schema(value[one])) for one in sorted(value))))
        elif name == "items":
            out.append(sized(key(23), sized(key(1), _schema(value))))
        elif name == "additionalProperties":
            inner = flag(2, value) if isinstance(value, bool) else sized(key(1), _schema(value))
            out.append(sized(key(21), inner))
        elif name == "required":
            out += [text(19, one) for one in value]
        elif name == "enum":
            out += [sized(key(20), any_of(one)) for one in value]
        elif name == "default":
            out.append(sized(key(5), any_of(value)))
        elif name == "example":
            out.append(sized(key(30), any_of(value)))
        elif name == "externalDocs":
            texts = text(1, value.get("description", "")) + text(2, value.get("url", ""))
            out.append(sized(key(29), texts))
        elif name in _SCHEMA_FLAGS:
            out.append(flag(_SCHEMA_FLAGS[name], value))
        elif name in _SCHEMA_NUMBERS:
            out.append(number(_SCHEMA_NUMBERS[name], value))
        elif name in _SCHEMA_DOUBLES:
            out.append(double(_SCHEMA_DOUBLES[name], value))
        else:
            assert name.startswith("x-"), name
    return b"".join(out) + _extensions(31, tree)


def double(number: int, value: float) -> bytes:
    return varint(number << 3 | 1) + struct.pack("<d", value)


def _told(number: int, tree: Tree, name: str) -> bytes:
    """Return a text, or nothing where another server says nothing."""
    return text(number, tree[name]) if name in tree else b""


def _parameter(tree: Tree) -> bytes:
    if tree["in"] == "body":
        body = text(2, tree["name"]) + text(3, "body") + flag(4, tree.get("required", False))
        if "description" in tree:
            body = text(1, tree["description"]) + body
        return sized(key(1), body + sized(key(5), _schema(tree["schema"])))
    is_query = tree["in"] == "query"
    inner = b"".join(
        (
            flag(1, tree.get("required", False)),
            text(2, tree["in"]),
            _told(3, tree, "description"),
            text(4, tree["name"]),
            _told(6 if is_query else 5, tree, "type"),
            flag(20 if is_query else 19, tree.get("uniqueItems", False)),
        )
    )
    return sized(key(2), sized(key(3 if is_query else 4), inner))


def _parameter_items(number: int, items: Iterable[Tree]) -> list[bytes]:
    return [
        sized(
            key(number),
            sized(key(2), text(1, item["$ref"])) if "$ref" in item else sized(key(1), _parameter(item)),
        )
        for item in items
    ]


def _response(tree: Tree) -> bytes:
    inner = text(1, tree["description"])
    if "schema" in tree:
        inner += sized(key(2), sized(key(1), _schema(tree["schema"])))
    return sized(key(1), inner)


def _operation(tree: Tree) -> bytes:
    out = [text(1, tag) for tag in tree.get("tags", ())]
    out += [_told(3, tree, "description"), _told(5, tree, "operationId")]
    out += [text(6, one) for one in tree.get("produces", ())]
    out += [text(7, one) for one in tree.get("consumes", ())]
    out += _parameter_items(8, tree.get("parameters", ()))
    out.append(sized(key(9), b"".join(named(1, code, _response(one)) for code, one in tree["responses"].items())))
    out += [text(10, one) for one in tree.get("schemes", ())]
    return b"".join(out) + _extensions(13, tree)


_METHODS = {"get": 2, "put": 3, "post": 4, "delete": 5, "options": 6, "head": 7, "patch": 8}


def _path_item(tree: Tree) -> bytes:
    out = [sized(key(number), _operation(tree[name])) for name, number in _METHODS.items() if name in tree]
    return b"".join(out + _parameter_items(9, tree.get("parameters", ())))


def _each(number: int, items: Iterable[tuple[str, Tree]], write: Callable[[Tree], bytes]) -> bytes:
    return b"".join(named(number, name, write(tree)) for name, tree in items)


def document(
    head: Tree, paths: Iterable[tuple[str, Tree]], definitions: Iterable[tuple[str, Tree]], parameters: Tree
) -> bytes:
    """Return the Document of the pieces that swagger makes."""
    info = text(1, head["info"]["title"]) + text(2, head["info"]["version"])
    bearer = head["securityDefinitions"]["BearerToken"]
    api_key = b"".join(
        (
            text(1, bearer["type"]),
            text(2, bearer["name"]),
            text(3, bearer["in"]),
            text(4, bearer["description"]),
        )
    )
    security = [
        sized(key(12), b"".join(named(1, name, b"".join(text(1, scope) for scope in one[name])) for name in one))
        for one in head["security"]
    ]
    return b"".join(
        (
            text(1, head["swagger"]),
            sized(key(2), info),
            sized(key(8), _each(2, paths, _path_item)),
            sized(key(9), _each(1, definitions, _schema)),
            sized(key(10), _each(1, parameters.items(), _parameter)),
            *security,
            sized(key(13), named(1, "BearerToken", sized(key(2), api_key))),
        )
    )

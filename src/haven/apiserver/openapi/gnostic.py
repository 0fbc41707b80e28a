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

__all__ = ["document"]

Tree = Mapping[str, Any]


def _key(number: int) -> bytes:
    return varint(number << 3 | 2)


def _text(number: int, value: str) -> bytes:
    return sized(_key(number), value.encode())


def _flag(number: int, value: bool) -> bytes:
    return varint(number << 3) + b"\x01" if value else b""


def _number(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def _any(value: Any) -> bytes:
    """Return an Any: text that is YAML, of which JSON is a part."""
    return _text(2, orjson.dumps(value).decode() + "\n")


def _named(number: int, name: str, value: bytes) -> bytes:
    return sized(_key(number), _text(1, name) + sized(_key(2), value))


def _extensions(number: int, tree: Tree) -> bytes:
    return b"".join(_named(number, name, _any(tree[name])) for name in tree if name.startswith("x-"))


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
            out.append(_text(_SCHEMA_TEXTS[name], value))
        elif name == "type":
            types = value if isinstance(value, list) else [value]
            out.append(sized(_key(22), b"".join(_text(1, one) for one in types)))
        elif name == "allOf":
            out += [sized(_key(24), _schema(one)) for one in value]
        elif name == "readOnly":
            out.append(_flag(27, value))
        elif name == "properties":
            out.append(sized(_key(25), b"".join(_named(1, one, _schema(value[one])) for one in sorted(value))))
        elif name == "items":
            out.append(sized(_key(23), sized(_key(1), _schema(value))))
        elif name == "additionalProperties":
            inner = _flag(2, value) if isinstance(value, bool) else sized(_key(1), _schema(value))
            out.append(sized(_key(21), inner))
        elif name == "required":
            out += [_text(19, one) for one in value]
        elif name == "enum":
            out += [sized(_key(20), _any(one)) for one in value]
        elif name == "default":
            out.append(sized(_key(5), _any(value)))
        elif name == "example":
            out.append(sized(_key(30), _any(value)))
        elif name == "externalDocs":
            texts = _text(1, value.get("description", "")) + _text(2, value.get("url", ""))
            out.append(sized(_key(29), texts))
        elif name in _SCHEMA_FLAGS:
            out.append(_flag(_SCHEMA_FLAGS[name], value))
        elif name in _SCHEMA_NUMBERS:
            out.append(_number(_SCHEMA_NUMBERS[name], value))
        elif name in _SCHEMA_DOUBLES:
            out.append(_double(_SCHEMA_DOUBLES[name], value))
        else:
            assert name.startswith("x-"), name
    return b"".join(out) + _extensions(31, tree)


def _double(number: int, value: float) -> bytes:
    return varint(number << 3 | 1) + struct.pack("<d", value)


def _parameter(tree: Tree) -> bytes:
    if tree["in"] == "body":
        body = _text(2, tree["name"]) + _text(3, "body") + _flag(4, tree.get("required", False))
        if "description" in tree:
            body = _text(1, tree["description"]) + body
        return sized(_key(1), body + sized(_key(5), _schema(tree["schema"])))
    is_query = tree["in"] == "query"
    inner = b"".join(
        (
            _flag(1, tree.get("required", False)),
            _text(2, tree["in"]),
            _text(3, tree["description"]),
            _text(4, tree["name"]),
            _text(6 if is_query else 5, tree["type"]),
            _flag(20 if is_query else 19, tree.get("uniqueItems", False)),
        )
    )
    return sized(_key(2), sized(_key(3 if is_query else 4), inner))


def _parameter_items(number: int, items: Iterable[Tree]) -> list[bytes]:
    return [
        sized(
            _key(number),
            sized(_key(2), _text(1, item["$ref"])) if "$ref" in item else sized(_key(1), _parameter(item)),
        )
        for item in items
    ]


def _response(tree: Tree) -> bytes:
    inner = _text(1, tree["description"])
    if "schema" in tree:
        inner += sized(_key(2), sized(_key(1), _schema(tree["schema"])))
    return sized(_key(1), inner)


def _operation(tree: Tree) -> bytes:
    out = [_text(1, tag) for tag in tree["tags"]]
    out += [_text(3, tree["description"]), _text(5, tree["operationId"])]
    out += [_text(6, one) for one in tree["produces"]]
    out += [_text(7, one) for one in tree["consumes"]]
    out += _parameter_items(8, tree.get("parameters", ()))
    out.append(sized(_key(9), b"".join(_named(1, code, _response(one)) for code, one in tree["responses"].items())))
    out += [_text(10, one) for one in tree["schemes"]]
    return b"".join(out) + _extensions(13, tree)


_METHODS = {"get": 2, "put": 3, "post": 4, "delete": 5, "options": 6, "head": 7, "patch": 8}


def _path_item(tree: Tree) -> bytes:
    out = [sized(_key(number), _operation(tree[name])) for name, number in _METHODS.items() if name in tree]
    return b"".join(out + _parameter_items(9, tree.get("parameters", ())))


def _each(number: int, items: Iterable[tuple[str, Tree]], write: Callable[[Tree], bytes]) -> bytes:
    return b"".join(_named(number, name, write(tree)) for name, tree in items)


def document(
    head: Tree, paths: Iterable[tuple[str, Tree]], definitions: Iterable[tuple[str, Tree]], parameters: Tree
) -> bytes:
    """Return the Document of the pieces that swagger makes."""
    info = _text(1, head["info"]["title"]) + _text(2, head["info"]["version"])
    bearer = head["securityDefinitions"]["BearerToken"]
    api_key = b"".join(
        (
            _text(1, bearer["type"]),
            _text(2, bearer["name"]),
            _text(3, bearer["in"]),
            _text(4, bearer["description"]),
        )
    )
    security = [
        sized(_key(12), b"".join(_named(1, name, b"".join(_text(1, scope) for scope in one[name])) for name in one))
        for one in head["security"]
    ]
    return b"".join(
        (
            _text(1, head["swagger"]),
            sized(_key(2), info),
            sized(_key(8), _each(2, paths, _path_item)),
            sized(_key(9), _each(1, definitions, _schema)),
            sized(_key(10), _each(1, parameters.items(), _parameter)),
            *security,
            sized(_key(13), _named(1, "BearerToken", sized(_key(2), api_key))),
        )
    )

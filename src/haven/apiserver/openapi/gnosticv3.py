"""An OpenAPI v3 document in protobuf, the form in which kubectl asks what a path's parameters are.

Messages and field numbers are those of gnostic's openapi.v3.Document (github.com/google/gnostic-models). What is no
field of a message must be a vendor extension, which travels as YAML.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from haven.apimachinery.codecs.wire import sized
from haven.apiserver.openapi.gnostic import any_of, double, flag, key, named, number, text

__all__ = ["document"]

Tree: TypeAlias = Mapping[str, Any]
Write: TypeAlias = Callable[[int, Any], bytes]


def _texts(place: int, values: list[str]) -> bytes:
    return b"".join(text(place, value) for value in values)


def _anys(place: int, values: list[Any]) -> bytes:
    return b"".join(_any(place, value) for value in values)


def _any(place: int, value: Any) -> bytes:
    return sized(key(place), any_of(value))


def _default(place: int, value: Any) -> bytes:
    if isinstance(value, bool):
        return sized(key(place), flag(2, value) or b"\x10\x00")
    if isinstance(value, int | float):
        return sized(key(place), double(1, value))
    return sized(key(place), text(3, value)) if isinstance(value, str) else b""  # It has no form for objects.


def _message(tree: Tree, fields: Mapping[str, tuple[int, Write]], extensions: int = 0) -> bytes:
    out: list[tuple[int, bytes]] = []
    for name, value in tree.items():
        if name in fields:
            place, write = fields[name]
            out.append((place, write(place, value)))
        else:
            assert name.startswith("x-"), name
            out.append((extensions, named(extensions, name, any_of(value))))
    return b"".join(data for _, data in sorted(out, key=lambda item: item[0]))


def _one(write: Callable[[Tree], bytes]) -> Write:
    return lambda place, tree: sized(key(place), write(tree))


def _each(write: Callable[[Tree], bytes]) -> Write:
    return lambda place, trees: b"".join(sized(key(place), write(tree)) for tree in trees)


def _by_name(write: Callable[[Tree], bytes]) -> Write:
    return lambda place, trees: sized(key(place), b"".join(named(1, name, write(tree)) for name, tree in trees.items()))


def _or_reference(write: Callable[[Tree], bytes]) -> Callable[[Tree], bytes]:
    return lambda tree: sized(key(2), text(1, tree["$ref"])) if "$ref" in tree else sized(key(1), write(tree))


def _schema(tree: Tree) -> bytes:
    return _message(tree, _SCHEMA, 36)


def _media_type(tree: Tree) -> bytes:
    return _message(tree, {"schema": (1, _one(_SCHEMA_OR_REFERENCE))})


def _additional(place: int, value: Any) -> bytes:
    inner = flag(2, value) or b"\x10\x00" if isinstance(value, bool) else sized(key(1), _SCHEMA_OR_REFERENCE(value))
    return sized(key(place), inner)


def _items(place: int, value: Tree) -> bytes:
    return sized(key(place), sized(key(1), _SCHEMA_OR_REFERENCE(value)))


_SCHEMA_OR_REFERENCE = _or_reference(_schema)
_CONTENT = _by_name(_media_type)
_EXTERNAL_DOCS = _one(lambda tree: _message(tree, {"description": (1, text), "url": (2, text)}))
_SCHEMA: dict[str, tuple[int, Write]] = {
    "nullable": (1, flag), "readOnly": (3, flag), "writeOnly": (4, flag), "externalDocs": (6, _EXTERNAL_DOCS),
    "example": (7, _any), "deprecated": (8, flag), "title": (9, text), "multipleOf": (10, double),
    "maximum": (11, double), "exclusiveMaximum": (12, flag), "minimum": (13, double), "exclusiveMinimum": (14, flag),
    "maxLength": (15, number), "minLength": (16, number), "pattern": (17, text), "maxItems": (18, number),
    "minItems": (19, number), "uniqueItems": (20, flag), "maxProperties": (21, number), "minProperties": (22, number),
    "required": (23, _texts), "enum": (24, _anys), "type": (25, text), "allOf": (26, _each(_SCHEMA_OR_REFERENCE)),
    "oneOf": (27, _each(_SCHEMA_OR_REFERENCE)), "anyOf": (28, _each(_SCHEMA_OR_REFERENCE)), "not": (29, _one(_schema)),
    "items": (30, _items), "properties": (31, _by_name(_SCHEMA_OR_REFERENCE)),
    "additionalProperties": (32, _additional), "default": (33, _default), "description": (34, text),
    "format": (35, text),
}  # fmt: skip
_PARAMETER = _or_reference(
    lambda tree: _message(
        tree,
        {
            "name": (1, text), "in": (2, text), "description": (3, text), "required": (4, flag),
            "schema": (10, _one(_SCHEMA_OR_REFERENCE)),
        },
    )
)  # fmt: skip
_BODY = _or_reference(
    lambda tree: _message(tree, {"description": (1, text), "content": (2, _CONTENT), "required": (3, flag)})
)
_RESPONSE = _or_reference(lambda tree: _message(tree, {"description": (1, text), "content": (3, _CONTENT)}))


def _responses(place: int, trees: Tree) -> bytes:
    default = sized(key(1), _RESPONSE(trees["default"])) if "default" in trees else b""
    codes = b"".join(named(2, code, _RESPONSE(tree)) for code, tree in trees.items() if code != "default")
    return sized(key(place), default + codes)


_OPERATION: dict[str, tuple[int, Write]] = {
    "tags": (1, _texts), "summary": (2, text), "description": (3, text), "operationId": (5, text),
    "parameters": (6, _each(_PARAMETER)), "requestBody": (7, _one(_BODY)), "responses": (8, _responses),
    "deprecated": (10, flag),
}  # fmt: skip
_METHODS = {"get": 4, "put": 5, "post": 6, "delete": 7, "options": 8, "head": 9, "patch": 10}
_PATH_ITEM: dict[str, tuple[int, Write]] = {
    "summary": (2, text),
    "description": (3, text),
    **{method: (place, _one(lambda tree: _message(tree, _OPERATION, 13))) for method, place in _METHODS.items()},
    "parameters": (13, _each(_PARAMETER)),
}
_SECURITY = _or_reference(
    lambda tree: _message(tree, {"type": (1, text), "description": (2, text), "name": (3, text), "in": (4, text)})
)
_COMPONENTS: dict[str, tuple[int, Write]] = {
    "schemas": (1, _by_name(_SCHEMA_OR_REFERENCE)),
    "securitySchemes": (7, _by_name(_SECURITY)),
}


def document(tree: Tree) -> bytes:
    """Return a document that v3 makes."""
    return _message(
        tree,
        {
            "openapi": (1, text),
            "info": (2, _one(lambda info: _message(info, {"title": (1, text), "version": (6, text)}))),
            "paths": (4, _by_name(lambda item: _message(item, _PATH_ITEM, 14))),
            "components": (5, _one(lambda components: _message(components, _COMPONENTS))),
        },
        9,
    )

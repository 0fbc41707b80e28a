"""Paths to fields of a schema, as rules (fieldPath) and selectable fields write them: .spec.a or .spec['a-b'].

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#field-path and
the behaviour of apiextensions-apiserver, whose scanner knows the marks . [ ] and text in single quotes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from haven.api.apiextensions import v1
from haven.apimachinery.fielderrors import Path

__all__ = ["BadFieldPathError", "follow_path"]

_token = re.compile(r"[.\[\]]|'(?:[^'\\]|\\.|\\)*?(?<!\\)'|'.*|[^.\[\]]+", re.DOTALL)
_ESCAPES = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "'": "'", "\\": "\\",
}  # fmt: skip
_NOWHERE = "does not refer to a valid field"
_ENDED = "unexpected end of JSON path"


class BadFieldPathError(ValueError):
    """A path leads to no field of a schema; str() says why."""


def follow_path(
    path: str, schema: v1.JSONSchemaProps, *, with_brackets: bool = True
) -> tuple[str, str, v1.JSONSchemaProps]:
    """Return (the first name, the path as complaints show it, the schema that it leads to)."""
    tokens = iter(_token.findall(path))
    names: list[str] = []
    place: Path | None = None
    found = schema
    for token in tokens:
        if token == "[":
            if not with_brackets:
                raise BadFieldPathError("array notation is not allowed")
            quoted = _next(tokens)
            if len(quoted) < 2 or not (quoted.startswith("'") and quoted.endswith("'")):
                raise BadFieldPathError(f"expected single quoted string but got {quoted}")
            place, found = _step(_unescaped(quoted[1:-1]), place, found, names)
            if (closing := _next(tokens)) != "]":
                raise BadFieldPathError(f"expected ] but got {closing}")
        elif token == ".":
            place, found = _step(_next(tokens), place, found, names)
        else:
            raise BadFieldPathError(f"expected [ or . but got: {token}")
    return names[0] if names else "", str(place) if place is not None else "", found


def _unescaped(text: str) -> str:
    bad = [mark for mark in re.findall(r"\\.", text) if mark[1] not in _ESCAPES]
    if bad:
        raise BadFieldPathError(f"invalid string literal: invalid escape char {bad[-1]}")
    return re.sub(r"\\.", lambda mark: _ESCAPES[mark[0][1]], text)


def _next(tokens: Iterator[str]) -> str:
    try:
        return next(tokens)
    except StopIteration:
        raise BadFieldPathError(_ENDED) from None


def _step(
    name: str, place: Path | None, schema: v1.JSONSchemaProps, names: list[str]
) -> tuple[Path, v1.JSONSchemaProps]:
    names.append(name)
    if schema.properties:
        found = schema.properties.get(name)
        if found is None:
            raise BadFieldPathError(_NOWHERE)
        return Path(name) if place is None else place.child(name), found
    extra = schema.additional_properties
    if extra is None:
        raise BadFieldPathError(_NOWHERE)
    return (place or Path()).key(name), extra if isinstance(extra, v1.JSONSchemaProps) else v1.JSONSchemaProps()

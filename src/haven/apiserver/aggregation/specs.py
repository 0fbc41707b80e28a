"""The part of an extension server's OpenAPI document that belongs to one APIService, for the merged document.

Definitions that several servers give the same name but different contents are renamed, as upstream does: name_v2, …
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ForeignSpec", "merged", "part_of"]

Tree = dict[str, Any]
_DEFINITIONS = "#/definitions/"
_PARAMETERS = "#/parameters/"
_METHODS = ("get", "put", "post", "delete", "options", "head", "patch")
_PLACES = ("body", "path", "query")
_OPERATION = ("consumes", "description", "operationId", "produces", "schemes", "tags")
_RESPONSE = ("description", "schema")
_SCHEMA = frozenset(
    {
        "$ref", "default", "description", "enum", "example", "exclusiveMaximum", "exclusiveMinimum", "externalDocs",
        "format", "maxItems", "maxLength", "maxProperties", "maximum", "minItems", "minLength", "minProperties",
        "minimum", "multipleOf", "pattern", "readOnly", "required", "title", "type", "uniqueItems",
    }
)  # fmt: skip


@dataclass(frozen=True)
class ForeignSpec:
    """Paths, and the definitions and parameters that come with them, all of OpenAPI v2."""

    paths: Mapping[str, Tree]
    definitions: Mapping[str, Tree]
    parameters: Mapping[str, Tree] = field(default_factory=dict)


def part_of(document: Tree, prefix: str) -> ForeignSpec:
    """Return what lies below a path, without definitions that only other paths need."""
    below = prefix.rstrip("/") + "/"
    given = document.get("paths") or {}
    paths = {path: _known_item(item) for path, item in given.items() if path.startswith(below)}
    definitions = {name: _known(schema) for name, schema in (document.get("definitions") or {}).items()}
    parameters = {name: _parameter(one) for name, one in (document.get("parameters") or {}).items()}
    needed = set(_references([paths, definitions, parameters]))
    elsewhere = set(_references([item for path, item in given.items() if path not in paths])) - needed
    kept = {name: schema for name, schema in sorted(definitions.items()) if name not in elsewhere}
    return ForeignSpec(dict(sorted(paths.items())), kept, dict(sorted(parameters.items())))


def merged(
    own: Mapping[str, Tree], specs: Iterable[ForeignSpec], own_parameters: Mapping[str, Tree] | None = None
) -> ForeignSpec:
    """Return all specs together, without what `own` has alike; the first to claim a path keeps it."""
    ours = own_parameters or {}
    paths: dict[str, Tree] = {}
    definitions: dict[str, Tree] = {}
    parameters: dict[str, Tree] = {}
    for spec in specs:
        names = {name: _free_name(name, schema, own, definitions) for name, schema in spec.definitions.items()}
        of_parameters = {name: _free_name(name, one, ours, parameters) for name, one in spec.parameters.items()}
        renamed = {_DEFINITIONS + old: _DEFINITIONS + new for old, new in names.items() if old != new}
        renamed |= {_PARAMETERS + old: _PARAMETERS + new for old, new in of_parameters.items() if old != new}
        for name, schema in spec.definitions.items():
            if names[name] not in own:
                definitions[names[name]] = _renamed(schema, renamed) if renamed else schema
        for name, one in spec.parameters.items():
            if of_parameters[name] not in ours:
                parameters[of_parameters[name]] = _renamed(one, renamed) if renamed else one
        for path, item in spec.paths.items():
            paths.setdefault(path, _renamed(item, renamed) if renamed else item)
    return ForeignSpec(paths, definitions, parameters)


def _known_item(item: Tree) -> Tree:
    """Return a path's entry without what OpenAPI v2 lacks."""
    result: Tree = {}
    if "parameters" in item:
        result["parameters"] = _parameters(item["parameters"])
    for method in _METHODS:
        operation = item.get(method)
        if operation is None:
            continue
        result[method] = {
            **{name: value for name, value in operation.items() if name in _OPERATION or name.startswith("x-")},
            "responses": {
                code: {name: _known(one[name]) if name == "schema" else one[name] for name in _RESPONSE if name in one}
                for code, one in (operation.get("responses") or {}).items()
            },
        }
        for one in result[method]["responses"].values():
            one.setdefault("description", "")
        if "parameters" in operation:
            result[method]["parameters"] = _parameters(operation["parameters"])
    return result


def _parameters(items: Iterable[Tree]) -> list[Tree]:
    return [_parameter(one) for one in items if "$ref" in one or one.get("in") in _PLACES]


def _parameter(parameter: Tree) -> Tree:
    if parameter.get("in") == "body":
        return {**parameter, "schema": _known(parameter.get("schema") or {})}
    return parameter


def _known(schema: Any) -> Any:
    """Return a schema without keywords that OpenAPI v2 lacks."""
    if not isinstance(schema, dict):
        return schema
    result: Tree = {}
    for name, value in schema.items():
        if name == "properties":
            result[name] = {key: _known(item) for key, item in value.items()}
        elif name in ("items", "additionalProperties"):
            result[name] = _known(value)
        elif name == "allOf":
            result[name] = [_known(item) for item in value]
        elif name in _SCHEMA or name.startswith("x-"):
            result[name] = value
    return result


def _free_name(name: str, schema: Tree, own: Mapping[str, Tree], others: Mapping[str, Tree]) -> str:
    number, candidate = 1, name
    while True:
        present = own.get(candidate, others.get(candidate))
        if present is None or _alike(present, schema):
            return candidate
        number += 1
        candidate = f"{name}_v{number}"


def _alike(one: Tree, other: Tree) -> bool:
    """Tell whether two definitions are the same but for which kinds they say they describe, and their words."""
    return bool(_bare(one) == _bare(other))


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _bare(item)
            for key, item in value.items()
            if key not in ("x-kubernetes-group-version-kind", "description", "default")
        }
    if isinstance(value, list):
        return [_bare(item) for item in value]
    return value


def _references(value: Any) -> Iterable[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "$ref" and isinstance(item, str) and item.startswith(_DEFINITIONS):
                yield item.removeprefix(_DEFINITIONS)
            else:
                yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            key: names.get(item, item) if key == "$ref" and isinstance(item, str) else _renamed(item, names)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    return value

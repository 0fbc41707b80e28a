"""What becomes of a custom resource's tree before anybody looks at it: pruning, dropping of nulls, defaults.

All of it follows the structural OpenAPI v3 schema of the kind, as trees. Metadata, at the root and in embedded
resources, is read as Go would read it, so wrong types are errors there and unknown fields go.
Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import orjson

from haven.apimachinery import serialization
from haven.apimachinery.fielderrors import render
from haven.apimachinery.meta import ObjectMeta
from haven.apimachinery.schema.check import check
from haven.apimachinery.schema.explain import explain
from haven.apimachinery.schema.model import schema_named
from haven.apimachinery.schema.normalize import normalize

__all__ = [
    "MalformedField",
    "MalformedObject",
    "as_stored",
    "coerce",
    "coerce_embedded",
    "fill_defaults",
    "prune_defaults",
    "pruned_value",
    "read_metadata",
]

Tree = dict[str, Any]
OpenAPI = Mapping[str, Any]

_OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_ENVELOPE = frozenset({"apiVersion", "kind", "metadata"})
_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_EMBEDDED = "x-kubernetes-embedded-resource"
_UNKNOWN_MARK = 'unknown field "'


class MalformedObject(ValueError):
    """The kind, apiVersion or metadata have wrong types; the text is upstream's."""


class MalformedField(MalformedObject):
    """The same of an embedded resource."""

    def __init__(self, place: str, value: Any, detail: str) -> None:
        super().__init__(f"{place}: Invalid value: {render(value)}: {detail}")
        self.place = place
        self.value = copy.deepcopy(value)
        self.detail = detail


def coerce(tree: Tree, schema: OpenAPI | None, *, preserve_unknown: bool = False, lenient: bool = False) -> list[str]:
    """Bring a tree into its schema's shape, in place; return complaints about unknown fields, in upstream's order.

    `schema` None means that nothing but metadata is known. `preserve_unknown` is the definition's
    spec.preserveUnknownFields. `lenient` drops what is malformed instead of raising MalformedObject: for objects that
    are already stored.
    """
    unknown = _coerce_metadata(tree, "", lenient=lenient)
    if not preserve_unknown:
        found: list[str] = []
        _prune(tree, schema or {}, "", found, is_embedded=True)
        unknown += sorted(found)
        _drop_nulls(tree, schema)
    found = []
    if schema is not None:
        _coerce_embedded(tree, schema, "", found, lenient=lenient, is_root=True)
    return [f'unknown field "{path}"' for path in (*unknown, *sorted(found))]


def as_stored(content: Tree, schema: OpenAPI | None) -> None:
    """Drop, in place, what a resource's schema does not declare, nulls where there may be none, and bad metadata."""
    _prune(content, schema or {}, "", [], is_embedded=True)
    _drop_nulls(content, schema)
    if schema is not None:
        _coerce_embedded(content, schema, "", [], lenient=True, is_root=True)


def read_metadata(value: Any) -> ObjectMeta:
    """Return the metadata of an embedded resource; raise MalformedObject."""
    tree: Tree = {"metadata": value}
    _coerce_metadata(tree, "", lenient=False)
    return serialization.convert(tree["metadata"], ObjectMeta)


def coerce_embedded(value: Any, schema: OpenAPI, *, is_resource: bool = False) -> None:
    """Bring the embedded resources of a value into shape, in place; the value is one itself if its schema says so."""
    _coerce_embedded(value, {**schema, _EMBEDDED: True} if is_resource else schema, "", [], lenient=False)


# ---- metadata


def _coerce_metadata(tree: Tree, parent: str, *, lenient: bool) -> list[str]:
    """Bring an object's metadata into the shape of ObjectMeta; return the paths of unknown fields."""
    if "metadata" not in tree:
        return []
    metadata = tree["metadata"]
    schema = schema_named(_OBJECT_META)
    if metadata is None:
        tree["metadata"] = {}
        return []
    if not isinstance(metadata, dict):
        if lenient:
            del tree["metadata"]
            return []
        raise MalformedObject(explain(orjson.dumps(metadata), schema)[0] or "")
    findings = check(metadata, schema)
    unknown: list[str] = []
    if findings.error is not None:
        if not lenient:
            raise MalformedObject(findings.error)
        metadata = {name: value for name, value in metadata.items() if check({name: value}, schema).error is None}
    prefix = f"{parent}.metadata." if parent else "metadata."
    unknown += [
        prefix + text.removeprefix(_UNKNOWN_MARK).removesuffix('"')
        for text in findings.strict
        if text.startswith(_UNKNOWN_MARK)
    ]
    if findings.dirty or findings.error is not None:
        tree["metadata"] = normalize(metadata, schema)
    return unknown


def _coerce_embedded(
    value: Any, schema: OpenAPI, place: str, unknown: list[str], *, lenient: bool, is_root: bool = False
) -> None:
    """Do to embedded resources what was done to the root: check the types of kind and apiVersion, prune metadata."""
    if isinstance(value, dict):
        if schema.get(_EMBEDDED) and not is_root:
            _coerce_resource(value, place, unknown, lenient=lenient)
        properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
        for name, item in value.items():
            sub = properties.get(name)
            spot = f"{place}.{name}" if place else name
            if sub is None and isinstance(extra, dict):
                sub, spot = extra, f"{place}[{name}]"
            if sub is not None and isinstance(item, dict | list):
                _coerce_embedded(item, sub, spot, unknown, lenient=lenient)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for index, item in enumerate(value):
            if isinstance(item, dict | list):
                _coerce_embedded(item, schema["items"], f"{place}[{index}]", unknown, lenient=lenient)


def _coerce_resource(value: Tree, place: str, unknown: list[str], *, lenient: bool) -> None:
    for name in ("apiVersion", "kind"):
        if name in value and not isinstance(value[name], str):
            if not lenient:
                raise MalformedField(f"{place}.{name}" if place else name, value[name], "must be a string")
            del value[name]
    try:
        unknown += _coerce_metadata(value, place, lenient=lenient)
    except MalformedObject as error:
        spot = f"{place}.metadata" if place else "metadata"
        raise MalformedField(spot, value["metadata"], str(error)) from None
    if isinstance(value.get("metadata"), dict):
        # What is empty goes, as it does at the root.
        metadata = serialization.to_tree(serialization.convert(value["metadata"], ObjectMeta))
        if metadata.get("creationTimestamp", "") is None:
            del metadata["creationTimestamp"]
        value["metadata"] = metadata


# ---- pruning


def _prune(value: Any, schema: OpenAPI | None, path: str, unknown: list[str], *, is_embedded: bool = False) -> None:
    if isinstance(value, dict):
        if schema is None:
            unknown += [f"{path}.{name}" if path else name for name in value]
            value.clear()
            return
        is_embedded = is_embedded or bool(schema.get(_EMBEDDED))
        preserves = bool(schema.get(_PRESERVE))
        properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
        lost: list[str] = []
        for name, item in value.items():
            if is_embedded and name in _ENVELOPE:
                continue
            sub = properties.get(name)
            if sub is not None:
                _prune(item, sub, f"{path}.{name}" if path else name, unknown)
            elif isinstance(extra, dict):
                _prune(item, extra, f"{path}.{name}" if path else name, unknown)
            elif extra is not None:
                _prune(item, None, f"{path}.{name}" if path else name, unknown)
            elif not preserves:
                lost.append(name)
        for name in lost:
            unknown.append(f"{path}.{name}" if path else name)
            del value[name]
    elif isinstance(value, list):
        items = schema.get("items") if schema is not None else None
        if schema is not None and schema.get(_PRESERVE) and not isinstance(items, dict):
            return
        inner = items if isinstance(items, dict) else None
        if inner is not None and schema is not None and schema.get(_PRESERVE):
            inner = {**inner, _PRESERVE: True}
        for index, item in enumerate(value):
            _prune(item, inner, f"{path}[{index}]", unknown)


def _drop_nulls(value: Any, schema: OpenAPI | None) -> None:
    """Drop null fields that may not be null and have no default; those with a default are filled in later."""
    if isinstance(value, dict):
        properties: Mapping[str, Any] = (schema or {}).get("properties") or {}
        extra = (schema or {}).get("additionalProperties")
        lost = []
        for name, item in value.items():
            sub = properties.get(name)
            if sub is None and isinstance(extra, dict):
                sub = extra
            if item is None:
                if sub is not None and not sub.get("nullable") and sub.get("default") is None:
                    lost.append(name)
            elif isinstance(item, dict | list):
                _drop_nulls(item, sub)
        for name in lost:
            del value[name]
    elif isinstance(value, list):
        items = (schema or {}).get("items")
        for item in value:
            if isinstance(item, dict | list):
                _drop_nulls(item, items if isinstance(items, dict) else None)


def pruned_value(value: Any, schema: OpenAPI, *, is_resource: bool = False) -> Any:
    """Return a value without the fields that its schema does not declare."""
    result = copy.deepcopy(value)
    _prune(result, schema, "", [], is_embedded=is_resource)
    return result


# ---- defaults


def fill_defaults(value: Any, schema: OpenAPI | None) -> None:
    """Fill in, in place, the defaults of absent fields, and of null ones that may not be null."""
    if schema is None:
        return
    if isinstance(value, dict):
        properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
        for name, sub in properties.items():
            default = sub.get("default")
            if default is not None and (name not in value or (value[name] is None and not sub.get("nullable"))):
                value[name] = copy.deepcopy(default)
        for name, item in value.items():
            sub = properties.get(name)
            if sub is not None:
                if isinstance(item, dict | list):
                    fill_defaults(item, sub)
            elif isinstance(extra, dict):
                if item is None and not extra.get("nullable"):
                    value[name] = item = copy.deepcopy(extra.get("default"))
                fill_defaults(item, extra)
    elif isinstance(value, list):
        items = schema.get("items")
        if not isinstance(items, dict):
            return
        for index, item in enumerate(value):
            if item is None and not items.get("nullable"):
                value[index] = item = copy.deepcopy(items.get("default"))
            fill_defaults(item, items)


def prune_defaults(schema: Tree) -> None:
    """Prune, in place, the defaults that a schema declares as objects with these values would be."""
    _prune_defaults(schema)


def _prune_defaults(schema: Tree) -> None:
    default = schema.get("default")
    if isinstance(default, dict | list):
        schema["default"] = pruned_value(default, schema)
    for sub in (schema.get("properties") or {}).values():
        _prune_defaults(sub)
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            _prune_defaults(schema[name])

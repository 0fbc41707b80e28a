"""The definitions of custom resources in the documents: what each notation can say of a structural schema.

Clients of version 2 (older kubectl) trip over nullable values, alternatives and open objects, so these are left out.
Source: the behaviour of apiextensions-apiserver's OpenAPI builder.
"""

from __future__ import annotations

from typing import Any

from haven.apiserver.openapi.operations import META, definition_of
from haven.apiserver.openapi.schemas import CustomKind

__all__ = ["custom_definitions"]

Schema = dict[str, Any]
_V2, _V3 = "#/definitions/", "#/components/schemas/"
_GVK = "x-kubernetes-group-version-kind"
_SELECTABLE = "x-kubernetes-selectable-fields"
_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_EMBEDDED = "x-kubernetes-embedded-resource"
_INT_OR_STRING = "x-kubernetes-int-or-string"
_EITHER = [{"type": "integer"}, {"type": "string"}]
_JUNCTORS = ("allOf", "anyOf", "not", "oneOf")
_METADATA_TEXT = "Standard object's metadata."
_EMBEDDED_TEXT = {
    "apiVersion": "APIVersion defines the versioned schema of this representation of an object. Servers should convert "
    "recognized schemas to the latest internal value, and may reject unrecognized values. More info: "
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources",
    "kind": "Kind is a string value representing the REST resource this object represents. Servers may infer this from "
    "the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: "
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
}


def custom_definitions(custom: CustomKind, *, version: int) -> dict[str, Schema]:
    """Return the definitions of a custom kind and of its list, in the notation of version 2 or 3."""
    gvk = custom.resource.gvk
    listed = gvk._replace(kind=custom.list_kind or gvk.kind + "List")
    schema = _kind(custom, version)
    items = _list(custom, listed.kind, version)
    for one, definition in ((gvk, schema), (listed, items)):
        definition[_GVK] = [dict(one._asdict())]
        if custom.selectable:
            definition[_SELECTABLE] = [{"fieldPath": path} for path in custom.selectable]
    return {definition_of(gvk): schema, definition_of(listed): items}


def _kind(custom: CustomKind, version: int) -> Schema:
    schema = custom.schema
    if schema is None or (version == 2 and (schema.get(_PRESERVE) or custom.is_open)):
        return {"type": "object"}  # Anything more would make kubectl refuse fields that are kept.
    result = _embedded(_to_v2(schema) if version == 2 else _unfolded(schema), version)
    result["properties"] = {**result.get("properties", {}), **_names(), "metadata": _metadata(version)}
    return result


def _metadata(version: int) -> Schema:
    if version == 2:
        return {"$ref": f"{_V2}{META}ObjectMeta", "description": _METADATA_TEXT}
    return {"allOf": [{"$ref": f"{_V3}{META}ObjectMeta"}], "description": _METADATA_TEXT}


def _list(custom: CustomKind, kind: str, version: int) -> Schema:
    prefix = _V2 if version == 2 else _V3
    metadata: Schema = {"$ref": f"{prefix}{META}ListMeta"}
    return {
        "description": f"{kind} is a list of {custom.resource.kind}",
        "type": "object",
        "required": ["items"],
        "properties": {
            **_names(),
            "items": {
                "type": "array",
                "description": f"List of {custom.resource.plural}.",
                "items": {"$ref": prefix + definition_of(custom.resource.gvk)},
            },
            "metadata": metadata if version == 2 else {"allOf": [metadata], "description": _METADATA_TEXT},
        },
    }


def _names() -> dict[str, Schema]:
    return {name: {"description": text, "type": "string"} for name, text in _EMBEDDED_TEXT.items()}


def _inside(schema: Schema, change: Any) -> Schema:
    """Return a schema whose inner ones went through `change`."""
    result = dict(schema)
    for name in ("items", "additionalProperties"):
        if isinstance(result.get(name), dict):
            result[name] = change(result[name])
    if isinstance(result.get("properties"), dict):
        result["properties"] = {name: change(value) for name, value in result["properties"].items()}
    return result


def _unfolded(schema: Schema) -> Schema:
    """Say of integers or strings that they are one of these."""
    result = _inside(schema, _unfolded)
    if not schema.get(_INT_OR_STRING):
        return result
    alternatives, every = schema.get("anyOf"), schema.get("allOf") or []
    if alternatives == _EITHER or (every and every[0].get("anyOf") == _EITHER):
        return result
    if alternatives:
        result["allOf"] = [{"anyOf": _EITHER}, *every]
    else:
        result["anyOf"] = _EITHER
    return result


def _to_v2(schema: Schema) -> Schema:
    """Return what version 2 can say of a structural schema."""
    schema = {key: value for key, value in schema.items() if key not in (*_JUNCTORS, "default")}
    if schema.get("nullable"):
        schema = {key: value for key, value in schema.items() if key not in ("type", "nullable", "items", "properties")}
    if schema.get(_PRESERVE):
        schema = {key: value for key, value in schema.items() if key not in ("items", "properties")}
    if schema.get("type") == "array" and "items" not in schema:
        del schema["type"]
    if schema.get(_PRESERVE) and schema.get("type") == "object":
        del schema["type"]
    required = schema.get("required")
    if required:
        nullable = {name for name, one in (schema.get("properties") or {}).items() if one.get("nullable")}
        values = schema.get("additionalProperties")
        kept = [name for name in required if name not in nullable]
        if isinstance(values, dict) and values.get("nullable"):
            kept = []
        schema["required"] = kept
        if not kept:
            del schema["required"]
    return _inside(schema, _to_v2)


def _embedded(schema: Schema, version: int) -> Schema:
    """Add what every embedded object has."""
    result = _inside(schema, lambda one: _embedded(one, version))
    if not schema.get(_EMBEDDED) or (version == 2 and schema.get(_PRESERVE)):
        return result
    result["properties"] = {**result.get("properties", {}), **_names(), "metadata": _metadata(version)}
    required = list(result.get("required") or ())
    result["required"] = required + [name for name in ("kind", "apiVersion") if name not in required]
    return result

"""Schemas of custom resources, from the structural OpenAPI v3 schema of their definition.

The same class as for built-in kinds, so merging, ownership and patches need nothing of their own.
Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from __future__ import annotations

from typing import Any

from haven.apimachinery.schema.model import UNTYPED, Field, Schema, schema_named

__all__ = ["structural"]

_OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_SCALARS = {"string": "string", "integer": "int64", "number": "float64", "boolean": "bool"}
Tree = dict[str, Any]


def structural(open_api: Tree, *, preserve_unknown: bool = False) -> Schema:
    """Return the schema of a custom resource; `preserve_unknown` is the definition's spec.preserveUnknownFields."""
    root = _schema(open_api or {"type": "object", "x-kubernetes-preserve-unknown-fields": True}, preserve_unknown)
    if root.kind != "struct":
        root = Schema("struct", element=root.element, preserve=True)
    _add_type_meta(root)
    return root


def _add_type_meta(schema: Schema) -> None:
    for name in ("apiVersion", "kind"):
        schema.fields[name] = Field(name, Schema("string", go="string"))
    schema.fields["metadata"] = Field("metadata", schema_named(_OBJECT_META))


def _schema(entry: Tree, preserve_all: bool) -> Schema:
    kind = entry.get("type", "")
    preserve = preserve_all or bool(entry.get("x-kubernetes-preserve-unknown-fields"))
    atomic = entry.get("x-kubernetes-map-type") == "atomic"
    preserve_all = preserve  # Applies may give unknown fields anywhere within.
    if entry.get("x-kubernetes-int-or-string"):
        return Schema("int_or_string", go="intstr.IntOrString", extra=entry)
    if kind == "object":
        values = entry.get("additionalProperties")
        if isinstance(values, dict):
            return Schema("map", element=_schema(values, preserve_all), atomic=atomic, extra=entry)
        if not entry.get("properties") and not entry.get("x-kubernetes-embedded-resource"):
            # An object without declared members: owned like a map of anything, whether or not they are kept.
            free = preserve or values is True
            return Schema("map" if free else "struct", element=UNTYPED, preserve=free, atomic=atomic, extra=entry)
        schema = Schema(
            "struct", element=UNTYPED if preserve or values is True else None, preserve=preserve or values is True,
            atomic=atomic, extra=entry,
        )  # fmt: skip
        for name, sub in entry.get("properties", {}).items():
            schema.fields[name] = Field(
                name, _schema(sub, preserve_all), default=sub.get("default"), required=name in entry.get("required", ())
            )
        if entry.get("x-kubernetes-embedded-resource"):
            _add_type_meta(schema)
        return schema
    if kind == "array":
        items = entry.get("items")
        return Schema(
            "list", element=_schema(items, preserve_all) if isinstance(items, dict) else UNTYPED,
            list_type=entry.get("x-kubernetes-list-type", "atomic"),
            keys=tuple(entry.get("x-kubernetes-list-map-keys", ())), extra=entry,
        )  # fmt: skip
    if kind == "string" and entry.get("format", "") not in ("", "byte"):
        return Schema("time", go=kind, extra=entry)  # Server-side apply takes any scalar there.
    if kind in _SCALARS:
        return Schema(_SCALARS[kind], go=kind, extra=entry)
    return UNTYPED

"""What expressions of mutating policies come to, applied to an object: JSON patches and apply configurations.

Source: https://kubernetes.io/docs/reference/access-authn-authz/mutating-admission-policy/#patch-type-json-patch
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, Protocol

from haven.api.scheme import GroupVersionKind, Resource, subresource_kind
from haven.apimachinery import serialization
from haven.apimachinery.apply.typed import TypeMismatch, merge
from haven.apimachinery.apply.validate import validate
from haven.apimachinery.cel import conversions, values
from haven.apimachinery.goformat import quote
from haven.apimachinery.patch import json_patch
from haven.apimachinery.patch.errors import PatchError
from haven.apimachinery.schema import Schema, schema_for
from haven.apimachinery.schema.model import UNTYPED, Shape
from haven.apiserver.admission.versions import ServedVersions

__all__ = [
    "PatchFailure",
    "Schemas",
    "ServedSchemas",
    "apply_configuration",
    "apply_json_patch",
]

Tree = dict[str, Any]


_JSON_INTEGER_MAX = 1 << 53


class PatchFailure(Exception):
    """The expression did not come to a patch that could be applied; the failure policy decides."""


class Schemas(Protocol):
    """Knows the schemas of served kinds."""

    def of(self, resource: Resource[Any], subresource: str) -> Schema:
        """Return the schema of what a resource or subresource shows."""
        ...


def _has_schema(resource: Resource[Any], kind: GroupVersionKind) -> bool:
    """Tell whether the OpenAPI document of a kind's own version has it: not what comes in another group's paths only,
    nor the options of connections, nor requests for tokens.
    """
    if kind == resource.gvk:
        return True
    in_own_group = (kind.group, kind.version) == (resource.group, resource.version)
    return in_own_group and not kind.kind.endswith("Options")


class ServedSchemas:
    """Schemas of built-in kinds and of custom resources."""

    def __init__(self, versions: ServedVersions) -> None:
        self._versions = versions

    def of(self, resource: Resource[Any], subresource: str) -> Schema:
        kind = subresource_kind(resource, subresource)
        if not _has_schema(resource, kind):
            raise PatchFailure(
                "error applying patch: failed to convert patch object to typed object: "
                f"no corresponding type for {kind.group}/{kind.version}, Kind={kind.kind}"
            )
        known = schema_for(*kind)
        if known is not None:
            return known
        for endpoint in self._versions.endpoints.values():
            if endpoint.resource == resource and endpoint.view is not None:
                # An object of the version itself needs no conversion, so this can not have to wait.
                empty = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {}}
                found = endpoint.view.convert(empty, resource.api_version)
                if found is not None:
                    return found[1]
        return UNTYPED


def _composed(value: Any, member: Callable[[Any], Any]) -> Any:
    """Return an object, map or list as a tree of its members, None for what is neither."""
    if isinstance(value, values.ObjectValue):
        return {name: member(item) for name, item in value.fields.items()}
    if isinstance(value, dict | values.MapView):
        return {_key(key): member(item) for key, item in values.entries(value)}
    if isinstance(value, list | values.ListView):
        return [member(item) for item in value]
    return None


def _native(value: Any) -> Any:
    """Return a value as it stands in a configuration, where it must be what the field is.

    Bytes stay bytes, which no field is, and nothing is the number 0: that is what upstream's schema sees.
    """
    if value is None:
        return 0
    if isinstance(value, str | bool | float | bytes):
        return value
    if isinstance(value, int):
        return int(value)
    tree = _composed(value, _native)
    if tree is None:
        raise PatchFailure(f"unable to convert a value of type {values.type_of(value).name} to JSON")
    return tree


def _json(value: Any) -> Any:
    """Return a value as JSON has it; raise PatchFailure for what has no form there."""
    if value is None or isinstance(value, str | bool | float):
        return value
    if isinstance(value, int):  # JSON's numbers are floats: what they cannot tell apart is written out.
        return int(value) if abs(value) < _JSON_INTEGER_MAX else str(int(value))
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, values.Duration | values.Timestamp):
        return conversions.to_string(value)
    if isinstance(value, values.Optional):
        return _json(value.value) if value.has_value else None
    tree = _composed(value, _json)
    if tree is None:
        kind = values.type_of(value).name
        raise PatchFailure(
            "JSONPath valueExpression evaluated to a type that could not marshal to JSON: "
            f"type conversion not supported for '{kind}'"
        )
    return tree


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise PatchFailure(f"map key {quote(values.show(key))} is of type {values.type_of(key).name}, not string")
    return key


def _check_type_names(value: Any, path: str) -> list[str]:
    """Return complaints about object literals whose type names do not follow the fields they stand in."""
    if isinstance(value, values.ObjectValue):
        found = []
        if value.type.name != path:
            found.append(
                f"unexpected type name {quote(value.type.name)}, expected {quote(path)}, "
                "which matches field name path from root Object type"
            )
        for name, item in value.fields.items():
            found += _check_type_names(item, f"{path}.{name}")
        return found
    if isinstance(value, list):
        return [text for item in value for text in _check_type_names(item, path)]
    if isinstance(value, dict):
        return [text for item in value.values() for text in _check_type_names(item, path)]
    return []


def apply_json_patch(tree: Tree, value: Any) -> Tree | None:
    """Return the patched tree, None if one of the patch's tests does not hold; raise PatchFailure."""
    operations: list[Tree] = []
    for item in value:
        if not isinstance(item, values.ObjectValue) or item.type.name != "JSONPatch":
            kind = values.type_of(item).name
            raise PatchFailure(
                f"type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch, got element of {kind}"
            )
        fields = item.fields
        operation: Tree = {"op": fields.get("op", ""), "path": fields.get("path", "")}
        if fields.get("from"):
            operation["from"] = fields["from"]
        if "value" in fields:
            given = fields["value"]
            if isinstance(given, values.ObjectValue):
                complaints = _check_type_names(given, given.type.name)
                if complaints:
                    raise PatchFailure("type mismatch: " + "\n".join(complaints))
            operation["value"] = _json(given)
        operations.append(operation)
    try:
        patched = json_patch.apply(tree, operations)
    except PatchError as error:
        if str(error).endswith(": test failed"):
            return None
        raise PatchFailure(f"JSON Patch: {error}") from None
    if not isinstance(patched, dict):
        raise PatchFailure("JSON Patch: the patched object is no object")
    return patched


def apply_configuration(tree: Tree, value: Any, schema: Schema) -> Tree:
    """Return the tree with the configuration merged in; raise PatchFailure."""
    if not isinstance(value, values.ObjectValue):
        kind = values.type_of(value).name
        raise PatchFailure(f"unsupported return type from ApplyConfiguration expression: {kind}")
    complaints = _check_type_names(value, "Object")
    if complaints:
        raise PatchFailure("type mismatch: " + "\n".join(complaints))
    applied = _native(value)
    applied["apiVersion"], applied["kind"] = tree.get("apiVersion", ""), tree.get("kind", "")
    try:
        validate(applied, schema)
    except TypeMismatch as error:
        raise PatchFailure(f"error applying patch: failed to convert patch object to typed object: {error}") from None
    atomics = _atomics(applied, schema, "")
    if atomics:
        text = f"may not mutate atomic arrays, maps or structs: {', '.join(atomics)}"
        raise PatchFailure(f"error applying patch: invalid ApplyConfiguration: {text}")
    try:
        merged = merge(tree, applied, schema)
    except TypeMismatch as error:
        raise PatchFailure(f"error applying patch: failed to merge patch: {error}") from None
    copied: Tree = serialization.decode_tree(serialization.encode_tree(merged))
    return copied


def _atomics(value: Any, schema: Schema, path: str) -> list[str]:
    """Return the paths of what can only be replaced as a whole."""
    found: list[str] = []
    if isinstance(value, dict) and schema.kind in ("struct", "map"):
        if schema.shape is Shape.LEAF:
            found.append(path)
        for name, item in value.items():
            field = schema.fields.get(name)
            if field is not None:
                found += _atomics(item, field.schema, f"{path}.{name}")
    elif isinstance(value, list) and schema.kind == "list":
        if schema.shape is Shape.LEAF:
            found.append(path)
        for index, item in enumerate(value):
            found += _atomics(item, schema.element or UNTYPED, f"{path}[{index}]")
    return found

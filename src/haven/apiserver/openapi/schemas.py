"""The types that operations speak of: built-in definitions with their prose, and those of custom resources.

Definitions are facts in the notation of OpenAPI v2. Version 3 differs in where a reference may stand, and tells Go's
zero values as defaults.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from haven.api.scheme import Resource
from haven.apimachinery import facts

__all__ = ["CustomKind", "Definitions", "references", "to_v3"]

Schema = dict[str, Any]
_ENUMS = pathlib.Path(__file__).parent / "enums.json"
"""The values of closed sets: definition -> field -> values; a field with [] behind it means its items."""
_V2, _V3 = "#/definitions/", "#/components/schemas/"
_INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_GVK = "x-kubernetes-group-version-kind"
_APART = ("admission.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io", "imagepolicy.k8s.io")
_SPECIAL_PROSE = {
    _INT_OR_STRING: "A whole number, or text: the name of a port, or a share such as 25%.",
    _QUANTITY: "A decimal number with an optional suffix: n, u, m, k, M, G, T, P, E (powers of 1000), Ki, Mi, Gi, Ti, "
    "Pi, Ei (powers of 1024), or an exponent such as e3.",
}
_ZEROS: dict[str, Any] = {
    "string": "", "bool": False, "int32": 0, "int64": 0, "uint8": 0, "uint16": 0, "uint32": 0, "uint64": 0,
}  # fmt: skip

# Defaults that types declare although Go would leave the field out; facts, by the end of the definition and field.
_RBD = {"keyring": "/etc/ceph/keyring", "pool": "rbd", "user": "admin"}
_SCALE_IO = {"fsType": "xfs", "storageMode": "ThinProvisioned"}
_DECLARED: dict[str, dict[str, Any]] = {
    "autoscaling.v1.ScaleSpec": {"replicas": 0},
    "core.v1.AzureDiskVolumeSource": {
        "cachingMode": "ReadWrite", "fsType": "ext4", "kind": "Shared", "readOnly": False,
    },
    **{
        f"core.v1.{kind}": {"name": ""}
        for kind in (
            "ConfigMapEnvSource", "ConfigMapKeySelector", "ConfigMapProjection", "ConfigMapVolumeSource",
            "SecretEnvSource", "SecretKeySelector", "SecretProjection",
        )
    },
    "core.v1.FileKeySelector": {"optional": False},
    "core.v1.GRPCAction": {"service": ""},
    "core.v1.ISCSIPersistentVolumeSource": {"iscsiInterface": "default"},
    "core.v1.ISCSIVolumeSource": {"iscsiInterface": "default"},
    "core.v1.RBDPersistentVolumeSource": _RBD,
    "core.v1.RBDVolumeSource": _RBD,
    "core.v1.ReplicationControllerSpec": {"minReadySeconds": 0},
    "core.v1.ScaleIOPersistentVolumeSource": _SCALE_IO,
    "core.v1.ScaleIOVolumeSource": _SCALE_IO,
    **{f"resource.{version}.DeviceToleration": {"operator": "Equal"} for version in ("v1", "v1beta1", "v1beta2")},
    "admissionregistration.v1alpha1.MatchCondition": {"expression": "", "name": ""},
    "resource.v1alpha3.ResourcePoolStatusRequestSpec": {"limit": 100},
}  # fmt: skip


@dataclass(frozen=True)
class CustomKind:
    """A served version of a custom resource; `schema` is its OpenAPI v3 schema, None if it declares none."""

    resource: Resource[Any]
    schema: Schema | None
    state: str = ""
    """What changes whenever the schema does; "" if that is to be found out by comparing."""
    list_kind: str = ""
    """The kind of its list, if that is not the kind with List behind it."""
    selectable: tuple[str, ...] = ()
    """The fields that a field selector may name."""
    is_open: bool = False
    """Whether fields that no schema declares are kept in the whole object."""


class Definitions:
    """The built-in definitions, read once for a build and dropped with it."""

    def __init__(self) -> None:
        self._plain = facts.definitions.__wrapped__()
        self._prose = facts.descriptions()
        self._enums: dict[str, dict[str, list[str]]] = orjson.loads(_ENUMS.read_bytes())

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._plain))

    def v2(self, name: str) -> Schema:
        """Return a definition with its descriptions."""
        schema: Schema = dict(self._plain[name])
        own, fields = self._prose.get(name, (_SPECIAL_PROSE.get(name, ""), {}))
        if own:
            schema["description"] = own
        if "properties" in schema:
            schema["properties"] = {
                field: {**value, "description": fields[field]} if field in fields else value
                for field, value in schema["properties"].items()
            }
            for field, values in self._enums.get(name, {}).items():
                _add_enum(schema["properties"], field, values)
        return schema

    def v3(self, name: str, group: str, version: str) -> Schema:
        """Return a definition in the notation of version 3.

        Of many kinds it names those of the core group and of this one; all of them when this group is a custom one.
        """
        schema = self.v2(name)
        kinds = schema.get(_GVK, ())
        if any((one["group"], one["version"]) == (group, version) for one in kinds):
            schema[_GVK] = [one for one in kinds if (one["group"], one["version"]) in (("", "v1"), (group, version))]
        elif kinds:
            schema[_GVK] = [one for one in kinds if one["group"] not in _APART]
        if name == _INT_OR_STRING:
            return {**_without(schema, "type"), "oneOf": [{"type": "integer"}, {"type": "string"}]}
        if name == _QUANTITY:
            return {**_without(schema, "type"), "oneOf": [{"type": "string"}, {"type": "number"}]}
        result = to_v3(schema)
        entry = facts.types().get(name)
        if entry is not None and "properties" in result:
            by_name = {field.name: field for field in entry.fields}
            for field, value in result["properties"].items():
                known = by_name.get(field)
                if known is not None:
                    _add_default(value, known)
        for field, default in _DECLARED.get(name.removeprefix("io.k8s.api."), {}).items():
            result["properties"][field]["default"] = default
        return result

    def closure(self, wanted: Iterable[str]) -> list[str]:
        """Return definitions and all that they refer to, sorted."""
        found: set[str] = set()
        waiting = [name for name in wanted if name in self._plain]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += references(self._plain[name])
        return sorted(found)


def _add_enum(properties: Schema, field: str, values: list[str]) -> None:
    field, brackets, _ = field.partition("[]")
    schema = properties[field]
    if brackets:
        inner = "items" if "items" in schema else "additionalProperties"
        properties[field] = {**schema, inner: {**schema[inner], "enum": values}}
    else:
        properties[field] = {**schema, "enum": values}


def _without(schema: Schema, name: str) -> Schema:
    return {key: value for key, value in schema.items() if key != name}


def references(schema: Any) -> list[str]:
    """Return the definitions that a schema in either notation refers to."""
    if isinstance(schema, list):
        return [name for item in schema for name in references(item)]
    if not isinstance(schema, dict):
        return []
    result = [name for value in schema.values() for name in references(value)]
    reference = schema.get("$ref")
    if isinstance(reference, str):
        result.append(reference.rpartition("/")[2])
    return result


def to_v3(schema: Schema) -> Schema:
    """Return a v2 schema in the notation of version 3: whatever stands beside a reference goes around it."""
    result: Schema = {}
    for key, value in schema.items():
        if key == "$ref":
            continue
        if key in ("items", "additionalProperties") and isinstance(value, dict):
            result[key] = to_v3(value)
        elif key == "properties":
            result[key] = {name: to_v3(item) for name, item in value.items()}
        else:
            result[key] = value
    if "$ref" in schema:
        target = {"$ref": _V3 + schema["$ref"].removeprefix(_V2)}
        return {**result, "allOf": [target]} if result else target
    return result


def _add_default(value: Schema, field: facts.FieldFacts) -> None:
    if field.default is not None:
        value["default"] = field.default
    elif field.pointer:
        return
    elif field.kind.startswith("#"):
        if "$ref" in value:
            value["allOf"] = [{"$ref": value.pop("$ref")}]
        value["default"] = {}
    elif field.always and field.kind in _ZEROS:
        value["default"] = _ZEROS[field.kind]

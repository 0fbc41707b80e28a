"""Values as upstream's messages show them: spelled like its internal types.

Upstream validates internal types, most of which have no JSON tags, so a bad struct appears in a message with Go's
field names, in the internal order, every field present: {"MinAvailable":1,"Selector":null,...}. The names are facts,
kept in internal_fields.tsv. Types of meta.k8s.io have tags and appear as usual.
"""

from __future__ import annotations

from functools import cache
from importlib import resources as package_files
from typing import Any

import msgspec

from haven.api.core import v1 as core_v1
from haven.api.givenempty import is_given
from haven.apimachinery import meta
from haven.apimachinery.fielderrors import HTML_ESCAPES, go_json
from haven.apimachinery.quantity import Quantity

__all__ = ["internal_form"]

_TAGGED = meta.__name__
_RENAMED = {
    "boolvalue": "bool", "boolvalues": "bools", "cephmonitors": "monitors", "datadiskuri": "diskuri",
    "discoverychapauth": "chapauthdiscovery", "donotuseexternalid": "externalid", "endpointsname": "endpoints",
    "intvalue": "int", "intvalues": "ints", "lastterminationstate": "laststate", "radosuser": "user",
    "rbdimage": "image", "rbdpool": "pool", "sessionchapauth": "chapauthsession", "stringvalue": "string",
    "stringvalues": "strings", "versionvalue": "version", "versionvalues": "versions",
}  # fmt: skip
"""Internal names that are not the served ones, both in lower case."""
_SCALARS = {"string": '""', "bool": "false", "[]byte": "null"} | dict.fromkeys(
    ("int", "int32", "int64", "float64", "uint32", "uint8", "uint64"), "0"
)


@cache
def _table() -> dict[tuple[str, str], str]:
    text = package_files.files("haven.api").joinpath("internal_fields.tsv").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    return {(group, name): fields for group, name, fields in rows}


@cache
def _fields(group: str, name: str) -> tuple[tuple[str, str, str], ...]:
    """Return (Go name, type, attribute in lower case); an embedded type has the name ""."""
    result = []
    for item in _table()[(group, name)].split(" "):
        if item.startswith("+"):
            result.append(("", item[1:], ""))
        elif item:
            go_name, _, kind = item.partition(":")
            result.append((go_name, kind.partition("@")[0], go_name.lower()))
    return tuple(result)


def internal_form(value: Any, kind: str | None = None, group: str | None = None) -> msgspec.Raw:
    """Return a value for a complaint, as the JSON of its internal type.

    `kind` and `group` name that type where they differ from the Python type's.
    """
    if group is None:
        first = next(iter(value), None) if isinstance(value, list) else value
        module = type(first).__module__
        group = module.split(".")[2] if module.startswith("haven.api.") else "core"
    if kind is None:
        kind = "[]" + type(value[0]).__name__ if isinstance(value, list) and value else type(value).__name__
    return msgspec.Raw(_render(value, kind, group).encode())


def _render(value: Any, kind: str, group: str) -> str:
    if kind.startswith("*"):
        return "null" if value is None else _render(value, kind[1:], group)
    if kind.startswith("[]") and kind != "[]byte":
        if value is None or (not value and not isinstance(value, list)):
            return "null"
        if not value:
            return "[]" if is_given(value) else "null"
        return "[" + ",".join(_render(item, kind[2:], group) for item in value) + "]"
    if kind.startswith("map["):
        if not value:
            return "{}" if is_given(value) else "null"
        item_kind = kind.partition("]")[2]
        items = (f"{go_json(str(key))}:{_render(value[key], item_kind, group)}" for key in sorted(value))
        return "{" + ",".join(items) + "}"
    package, dot, name = kind.rpartition(".")
    if name == "RawExtension" and value is not None:
        return msgspec.json.encode(value).decode().translate(HTML_ESCAPES)  # As it was given: the keys are not sorted.
    if dot:
        group = "core" if package in ("api", "core", "v1") else package
    if group == "apiextensions" and name in _SCHEMA_UNIONS:
        return _render_schema_union(value, name)
    if group == "apiextensions" and name == "JSON":
        return go_json(value)
    if isinstance(value, msgspec.Struct) and type(value).__module__ != _TAGGED:
        return _render_struct(value, name, group)
    if value is None:
        return _zero(name, group, package)
    if is_given(value):
        return "{}" if isinstance(value, dict) else "[]"
    if value == {} or (value == [] and (group, name) in _table()):
        return "null"
    if (group, name) in _table() and isinstance(value, list | dict):
        return _render(value, _table()[(group, name)].removeprefix("="), group)
    return go_json(value)


# Where a JSON schema may stand beside another form, the internal type has a field for each.
_SCHEMA_UNIONS = {
    "JSONSchemaPropsOrArray": '{{"Schema":{schema},"JSONSchemas":{other}}}',
    "JSONSchemaPropsOrBool": '{{"Allows":{other},"Schema":{schema}}}',
    "JSONSchemaPropsOrStringArray": '{{"Schema":{schema},"Property":{other}}}',
}


def _render_schema_union(value: Any, name: str) -> str:
    if isinstance(value, msgspec.Struct):
        other = "true" if name == "JSONSchemaPropsOrBool" else "null"
        return _SCHEMA_UNIONS[name].format(schema=_render(value, "JSONSchemaProps", "apiextensions"), other=other)
    if name == "JSONSchemaPropsOrArray":
        other = "[" + ",".join(_render(item, "JSONSchemaProps", "apiextensions") for item in value) + "]"
    else:
        other = go_json(value)
    return _SCHEMA_UNIONS[name].format(schema="null", other=other)


def _zero(name: str, group: str, package: str) -> str:
    if name in _SCALARS:
        return _SCALARS[name]
    if package.startswith("metav1") or package in ("resource", "intstr", "runtime"):
        return '"0"' if name == "Quantity" else "0" if name == "IntOrString" else "null"
    target = _table().get((group, name), "")
    if target.startswith("="):
        return _zero(target[1:], group, "") if target[1:] in _SCALARS else "null"
    return "null"


def _render_struct(value: msgspec.Struct, name: str, group: str) -> str:
    if (group, name) not in _table():
        return go_json(value)
    return "{" + ",".join(_parts(value, name, group)) + "}"


def _parts(value: Any, name: str, group: str) -> list[str]:
    by_lower = {
        attribute.replace("x_kubernetes_", "x").replace("_", ""): attribute for attribute in value.__struct_fields__
    }
    parts: list[str] = []
    for go_name, kind, lower in _fields(group, name):
        if name == "DeviceAttribute":
            lower = lower.replace("value", "")
        if not go_name:
            embedded = kind.rpartition(".")[2]
            if embedded == "ObjectMeta":
                inner = go_json(msgspec.structs.replace(value.metadata, labels=dict(value.metadata.labels)))[1:-1]
                parts += [inner] if inner else []
            elif embedded != "TypeMeta":
                parts += _parts(value, embedded, group)
        elif isinstance(value, core_v1.PodSpec) and go_name == "SecurityContext":
            parts.append(f'"SecurityContext":{_pod_security_context(value)}')
        elif (attribute := by_lower.get(lower) or by_lower.get(_RENAMED.get(lower, ""))) is not None:
            found = getattr(value, attribute)
            if found == [] and not is_given(found) and getattr(_empty(type(value)), attribute) is None:
                parts.append(f'"{go_name}":[]')  # Given as empty: lists that are always written keep the difference.
            elif isinstance(found, Quantity):
                parts.append(f'"{go_name}":{go_json(found)}')
            else:
                parts.append(f'"{go_name}":{_render(found, kind, group)}')
        else:
            parts.append(
                f'"{go_name}":{_zero(kind, group, kind.rpartition(".")[0]) if kind[0] not in "*[m" else "null"}'
            )
    return parts


_EMPTY: dict[type[Any], Any] = {}


def _empty(kind: type[Any]) -> Any:
    if kind not in _EMPTY:
        _EMPTY[kind] = kind()
    return _EMPTY[kind]


def _pod_security_context(spec: core_v1.PodSpec) -> str:
    """The internal type keeps the host namespaces of a Pod in its security context."""
    context = spec.security_context
    if context is None:
        return "null"
    parts = []
    for go_name, kind, lower in _fields("core", "PodSecurityContext"):
        owner: Any = (
            spec if go_name in ("HostNetwork", "HostPID", "HostIPC", "ShareProcessNamespace", "HostUsers") else context
        )
        by_lower = {attribute.replace("_", ""): attribute for attribute in owner.__struct_fields__}
        parts.append(f'"{go_name}":{_render(getattr(owner, by_lower[lower]), kind, "core")}')
    return "{" + ",".join(parts) + "}"

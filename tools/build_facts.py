#!/usr/bin/env python3
"""Write src/haven/apimachinery/facts from the published API definitions and tools/facts/go-fields.json.

  tools/build_facts.py [kubernetes_validate wheel or folder]

The definitions come from the PyPI package kubernetes-validate (Apache-2.0), needed at build time only. It holds
upstream's OpenAPI v2 definitions as JSON schema; this tool turns them back. Three files are written:

  definitions.json       the OpenAPI v2 definitions without descriptions
  descriptions.json.gz   their descriptions: definition -> [its own, {property: description}]
  types.json             what the schema engine reads: per definition Go's name, fields, list types, merge keys
"""

from __future__ import annotations

import gzip
import json
import pathlib
import sys
import zipfile
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = ROOT / "src" / "haven" / "apimachinery" / "facts"
MEMBER = "kubernetes_validate/kubernetes-json-schema/v1.36.0-local/_definitions.json"
META = "k8s.io/apimachinery/pkg/apis/meta/v1"
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
APIEXTENSIONS = "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

# Wire forms that Go decodes with code of their own: Go type -> kind of the schema engine.
SPECIAL = {
    "k8s.io/apimachinery/pkg/api/resource.Quantity": "quantity",
    "k8s.io/apimachinery/pkg/util/intstr.IntOrString": "int_or_string",
    "k8s.io/apimachinery/pkg/runtime.RawExtension": "raw",
    "k8s.io/apimachinery/pkg/runtime.Unknown": "raw",
    "k8s.io/apimachinery/pkg/runtime.Object": "raw",
    "interface{}": "raw",
    f"{META}.FieldsV1": "raw",
    f"{META}.Time": "time",
    f"{META}.MicroTime": "micro_time",
    f"{META}.Duration": "duration",
    f"{APIEXTENSIONS}.JSON": "raw",
    f"{APIEXTENSIONS}.JSONSchemaPropsOrBool": "schema_or_bool",
    f"{APIEXTENSIONS}.JSONSchemaPropsOrArray": "schema_or_array",
    f"{APIEXTENSIONS}.JSONSchemaPropsOrStringArray": "schema_or_strings",
}
SCALARS = {"string": "string", "bool": "bool", "float64": "float64"} | {
    name: name for name in ("int", "int32", "int64", "uint64", "uint32", "int16", "uint8", "uint16")
}
# Defaults of the OpenAPI v3 documents that are keys of map lists.
DEFAULTS = {
    ("io.k8s.api.core.v1.ContainerPort", "protocol"): "TCP",
    ("io.k8s.api.core.v1.ServicePort", "protocol"): "TCP",
}
# Fields that the published v3 documents give a default although they may be left out, beside the keys of map lists.
DEFAULTS_V3 = {
    ("io.k8s.api.core.v1.LocalObjectReference", "name"): "",
    ("io.k8s.api.core.v1.ReplicationControllerSpec", "replicas"): 1,
}


def turn_back(schema: Any, *, inside_properties: bool = False) -> Any:
    """Undo what kubernetes-validate did to the OpenAPI v2 definitions."""
    if isinstance(schema, list):
        return [turn_back(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {}
    for key, value in schema.items():
        if inside_properties:
            result[key] = turn_back(value)
        elif key == "$ref":
            result[key] = value.replace("#/$defs/", "#/definitions/")
        elif key == "type" and isinstance(value, list):
            result[key] = value[0]
        else:
            result[key] = turn_back(value, inside_properties=key == "properties")
    return result


def read_definitions(source: pathlib.Path) -> dict[str, Any]:
    if source.is_dir():
        data = (source / MEMBER).read_bytes()
    else:
        with zipfile.ZipFile(source) as wheel:
            data = wheel.read(MEMBER)
    definitions = {name: turn_back(schema) for name, schema in json.loads(data)["$defs"].items()}
    for schema in definitions.values():
        if "x-kubernetes-group-version-kind" in schema:
            for name in ("apiVersion", "kind"):
                schema.get("properties", {}).get(name, {}).pop("enum", None)
    quantity, int_or_string = definitions[QUANTITY], definitions[INT_OR_STRING]
    quantity.pop("oneOf")
    quantity["type"] = "string"
    int_or_string.pop("oneOf")
    int_or_string |= {"type": "string", "format": "int-or-string"}
    return definitions


def split_descriptions(definitions: dict[str, Any]) -> dict[str, Any]:
    """Take the descriptions out of the definitions; items of lists and values of maps have none of their own."""
    result = {}
    for name, schema in definitions.items():
        own = schema.pop("description", "")
        fields = {}
        for field, sub in schema.get("properties", {}).items():
            if text := sub.pop("description", ""):
                fields[field] = text
        if own or fields:
            result[name] = [own, fields]
    return result


def definition_name(go: str) -> str:
    """k8s.io/api/core/v1.Pod -> io.k8s.api.core.v1.Pod"""
    return "io.k8s." + go.removeprefix("k8s.io/").replace("/", ".")


class Types:
    """Joins Go's field facts with the definitions into the engine's type table."""

    def __init__(self, facts: dict[str, Any], definitions: dict[str, Any]) -> None:
        self.structs, self.aliases, self.definitions = facts["structs"], facts["aliases"], definitions
        self.missing: set[str] = set()
        self.used: set[str] = set()

    def struct(self, go: str) -> dict[str, Any]:
        definition = self.definitions.get(definition_name(go), {})
        fields: list[Any] = []
        self.flatten(go, definition, [], fields)
        entry: dict[str, Any] = {"g": go.rpartition("/")[2], "f": fields}
        if definition.get("x-kubernetes-map-type") == "atomic":
            entry["m"] = "atomic"
        return entry

    def flatten(self, go: str, definition: dict[str, Any], trail: list[str], fields: list[Any]) -> None:
        package = go.rpartition(".")[0]
        for name, kind, flags_text in self.structs[go]:
            flags = flags_text.split()
            if name == "":
                inner = self.resolve_name(kind.lstrip("*"), package)
                inner = self.aliases.get(inner, inner)
                self.flatten(inner, definition, [*trail, inner.rpartition(".")[2]], fields)
                continue
            schema = definition.get("properties", {}).get(name, {})
            field: dict[str, Any] = {"n": name, **self.type_of(kind, package, schema)}
            if trail:
                field["x"] = ".".join(trail)
            pointer = kind.startswith("*")
            if pointer:
                field["p"] = 1
            omit = "omitempty" in flags
            is_struct = not pointer and (
                field["t"].startswith("#")
                or (
                    field["t"] in ("quantity", "int_or_string", "time", "micro_time", "duration", "raw")
                    and kind != "interface{}"
                )
            )
            if ("omitzero" not in flags) and (not omit or is_struct):
                field["a"] = 1
            if strategy := schema.get("x-kubernetes-patch-strategy"):
                field["s"] = strategy
            if key := schema.get("x-kubernetes-patch-merge-key"):
                field["k"] = key
            if schema.get("x-kubernetes-map-type") and field["t"] != "map":
                field["m"] = schema["x-kubernetes-map-type"]
            default = {**DEFAULTS, **DEFAULTS_V3}.get((definition_name(go), name))
            if default is not None:
                field["d"] = default
            if name in definition.get("required", ()):
                field["r"] = 1
            fields.append(field)

    def resolve_name(self, kind: str, package: str) -> str:
        return kind if "." in kind.rpartition("/")[2] else f"{package}.{kind}"

    def type_of(self, kind: str, package: str, schema: dict[str, Any]) -> dict[str, Any]:
        """Return {t: kind, e: element, g: Go's name where it is not the obvious one, ...}."""
        kind = kind.removeprefix("*")
        if kind in ("[]byte", "[]uint8"):
            return {"t": "bytes"}
        if kind.startswith("[]"):
            element = self.type_of(kind[2:], package, schema.get("items", {}))
            if kind[2:].startswith("*"):
                element["p"] = 1
            result = {"t": "list", "e": element}
            for mark, key in (("l", "x-kubernetes-list-type"), ("K", "x-kubernetes-list-map-keys")):
                if key in schema:
                    result[mark] = schema[key]
            if "l" not in result and "merge" in schema.get("x-kubernetes-patch-strategy", "").split(","):
                key = schema.get("x-kubernetes-patch-merge-key")
                result |= {"l": "map", "K": [key]} if key else {"l": "set"}
            return result
        if kind.startswith("map["):
            key, value = kind[4 : kind.index("]")], kind[kind.index("]") + 1 :]
            result = {"t": "map", "e": self.type_of(value, package, schema.get("additionalProperties", {}))}
            if value.startswith("*"):
                result["e"]["p"] = 1
            if key != "string":
                result["key"] = self.go_text(key, package)
            if schema.get("x-kubernetes-map-type") == "atomic":
                result["m"] = "atomic"
            return result
        if kind in SPECIAL:
            return {"t": SPECIAL[kind]}
        if kind in SCALARS:
            return {"t": SCALARS[kind]}
        full = self.resolve_name(kind, package)
        if full in SPECIAL:
            return {"t": SPECIAL[full]}
        if full in self.structs:
            self.used.add(full)
            return {"t": "#" + definition_name(full)}
        if full in self.aliases:
            target = self.aliases[full]
            owner = full.rpartition(".")[0]
            if not target.startswith(("[]", "map[", "*")) and target not in SCALARS and target not in SPECIAL:
                target = self.resolve_name(target, owner)
            if target in self.structs:
                self.used.add(target)
                return {"t": "#" + definition_name(target)}
            result = self.type_of(target, owner, schema)
            result["g"] = self.go_text(full, package)
            return result
        if schema.get("type") == "string" or full.rpartition(".")[2] in ("UID", "PatchType"):
            return {"t": "string", "g": self.go_text(full, package)}
        self.missing.add(full)
        return {"t": "string", "g": self.go_text(full, package)}

    def go_text(self, kind: str, package: str) -> str:
        """The type as Go prints it: the package's last word and the name."""
        if kind in SCALARS:
            return kind
        return self.resolve_name(kind, package).rpartition("/")[2]


def main() -> None:
    source = (
        pathlib.Path(sys.argv[1])
        if len(sys.argv) > 1
        else next(pathlib.Path(entry) for entry in sys.path if (pathlib.Path(entry) / MEMBER).exists())
    )
    definitions = read_definitions(source)
    descriptions = split_descriptions(definitions)
    facts = json.loads((ROOT / "tools" / "facts" / "go-fields.json").read_text())
    types = Types(facts, definitions)
    by_definition = {definition_name(go): go for go in facts["structs"] if go not in SPECIAL}
    table: dict[str, Any] = {}
    todo = sorted(set(definitions) & set(by_definition))
    lacking = sorted(name for name in set(definitions) - set(by_definition) if "properties" in definitions[name])
    while todo:
        name = todo.pop()
        if name in table or name not in by_definition:
            continue
        table[name] = types.struct(by_definition[name])
        todo += [definition_name(go) for go in types.used if definition_name(go) not in table]
    kinds: dict[str, str] = {}
    for name, schema in definitions.items():
        for gvk in schema.get("x-kubernetes-group-version-kind", []):
            key = f"{gvk['group']}/{gvk['version']}/{gvk['kind']}"
            if kinds.setdefault(key, name) != name:
                raise SystemExit(f"{key} is both {kinds[key]} and {name}")
    TARGET.mkdir(parents=True, exist_ok=True)
    dump = {"sort_keys": True, "separators": (",", ":")}
    (TARGET / "definitions.json").write_text(json.dumps(definitions, **dump) + "\n")
    packed = gzip.compress(json.dumps(descriptions, **dump).encode(), 9, mtime=0)
    (TARGET / "descriptions.json.gz").write_bytes(packed)
    (TARGET / "types.json").write_text(json.dumps({"kinds": kinds, "types": table}, **dump) + "\n")
    print(f"{len(definitions)} definitions, {len(table)} types, {len(kinds)} kinds")
    print("definitions without Go fields:", lacking)
    print("Go types taken as strings:", sorted(types.missing))


if __name__ == "__main__":
    main()

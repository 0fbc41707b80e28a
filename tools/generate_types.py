#!/usr/bin/env python3
"""Write the typed structs of haven.api and haven.apimachinery.meta from tools/facts.

  tools/generate_types.py          write every generated module
  tools/generate_types.py --check  exit 1 if a generated module differs from the facts (CI)

Source of the facts: the field order, JSON names and Go types of the public Kubernetes v1.36 API types
(go-fields.json). What is written is ours to read and to import, not to edit: change the facts or this tool.
"""

from __future__ import annotations

import argparse
import json
import keyword
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "haven"
META = "k8s.io/apimachinery/pkg/apis/meta/v1"
SPECIAL_PACKAGES = {
    META: ("haven.apimachinery.meta", "meta.k8s.io/v1"),
    "k8s.io/api/admission/v1": ("haven.api.admission.v1", "admission.k8s.io/v1"),
    "k8s.io/apiserver/pkg/apis/audit/v1": ("haven.api.audit.v1", "audit.k8s.io/v1"),
    "k8s.io/kubelet/pkg/apis/stats/v1alpha1": ("haven.api.stats.v1alpha1", "stats.k8s.io/v1alpha1"),
    "k8s.io/metrics/pkg/apis/metrics/v1beta1": ("haven.api.metrics.v1beta1", "metrics.k8s.io/v1beta1"),
    "k8s.io/apimachinery/pkg/version": ("haven.api.version", ""),
    "k8s.io/api/apidiscovery/v2": ("haven.api.apidiscovery.v2", "apidiscovery.k8s.io/v2"),
}
# Wire forms that are not structs: Go type -> (annotation, always-written default, import).
SCALARS = {
    "string": ("str", '""', None),
    "bool": ("bool", "False", None),
    "int": ("int", "0", None),
    "int32": ("int", "0", None),
    "int64": ("int", "0", None),
    "uint64": ("int", "0", None),
    "float64": ("float", "0.0", None),
    "interface{}": ("Any", "None", "Any"),
    "k8s.io/apimachinery/pkg/types.UID": ("UID", 'UID("")', "UID"),
    "k8s.io/apimachinery/pkg/api/resource.Quantity": ("Quantity", "Quantity.ZERO", "Quantity"),
    "k8s.io/apimachinery/pkg/util/intstr.IntOrString": ("int | str", "0", None),
    "k8s.io/apimachinery/pkg/runtime.RawExtension": ("Any", "None", "Any"),
    "k8s.io/apimachinery/pkg/runtime.Unknown": ("Any", "None", "Any"),
    "k8s.io/apimachinery/pkg/runtime.Object": ("Any", "None", "Any"),
    f"{META}.Time": ("Time | None", "None", "Time"),
    f"{META}.MicroTime": ("MicroTime | None", "None", "MicroTime"),
    f"{META}.Duration": ("str", '"0s"', None),
    f"{META}.FieldsV1": ("Any", "None", "Any"),
    "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSON": ("Any", "None", "Any"),
    "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrBool": (
        "JSONSchemaProps | bool",
        "None",
        None,
    ),
    "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrArray": (
        "JSONSchemaProps | list[JSONSchemaProps]",
        "None",
        None,
    ),
    "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrStringArray": (
        "JSONSchemaProps | list[str]",
        "None",
        None,
    ),
}
NOT_STRUCTS = {name.rpartition(".")[2] for name in SCALARS if name.startswith("k8s.io")} | {"TypeMeta", "Fields"}
# Required lists that no valid object leaves out: [] is handier than None and never reaches a client.
BUILTINS = {"bool", "bytes", "dict", "float", "int", "list", "str"}  # Names that annotations need.
NEVER_NULL = {"containers", "items"}
TELLS_EMPTY = {"policies"}  # Lists with defaults for who gives none, and complaints for who gives an empty one.
HEADERS = {
    "Any": "from typing import Any",
    "Quantity": "from haven.apimachinery.quantity import Quantity",
    "Time": "from haven.apimachinery.times import Time",
    "MicroTime": "from haven.apimachinery.times import MicroTime",
    "UID": "from haven.apimachinery.names import UID",
}


def snake(name: str) -> str:
    """clusterIPs -> cluster_ips, podIP -> pod_ip, setHostnameAsFQDN -> set_hostname_as_fqdn."""
    text = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)
    text = re.sub(r"([A-Z]+)([A-Z][a-z])(?!$)", r"\1_\2", text).lower().replace("-", "_").replace("$", "")
    return text + "_" if keyword.iskeyword(text) or text in BUILTINS else text


def camel(name: str) -> str:
    """What msgspec's rename="camel" makes of an attribute's name."""
    head, *rest = name.rstrip("_").split("_")
    return head + "".join(part.title() for part in rest)


class Package:
    def __init__(self, facts: dict, path: str, module: str, group_version: str, modules: dict[str, str]) -> None:
        self.facts, self.path, self.module, self.group_version, self.modules = (
            facts,
            path,
            module,
            group_version,
            modules,
        )
        self.structs = {
            name.rpartition(".")[2]: fields
            for name, fields in facts["structs"].items()
            if name.rpartition(".")[0] == path and name.rpartition(".")[2] not in NOT_STRUCTS
        }
        self.imports: set[str] = set()

    def resolve(self, go: str) -> tuple[str, str, str]:
        """Return (kind, annotation, zero value) of a Go type; kind is scalar, list, map, struct or pointer."""
        if go.startswith("*"):
            _, annotation, _ = self.resolve(go[1:])
            return "pointer", annotation if annotation.endswith("| None") else f"{annotation} | None", "None"
        if go in ("[]byte", "[]uint8"):
            return "scalar", "bytes", 'b""'
        if go.startswith("[]"):
            return "list", f"list[{self.item(go[2:])}]", "[]"
        if go.startswith("map["):
            item = self.item(go[go.index("]") + 1 :])
            return "map", f"dict[str, {item} | None]" if item.startswith("list[") else f"dict[str, {item}]", "{}"
        if go in SCALARS:
            annotation, zero, name = SCALARS[go]
            if name:
                self.imports.add(HEADERS[name])
            return "scalar", annotation, zero
        package, _, name = go.rpartition(".")
        if not package:
            package = self.path
        full = f"{package}.{name}"
        if full in SCALARS:
            return self.resolve(full)
        if full in self.facts["aliases"]:
            target = self.facts["aliases"][full]
            if "." not in target and target not in SCALARS and not target.startswith(("[]", "map[")):
                target = f"{package}.{target}"
            elif target.startswith("map["):
                target = "map[string]" + target[target.index("]") + 1 :]
            elif target.startswith("[]") and target[2:] not in SCALARS and "." not in target:
                target = f"[]{package}.{target[2:]}"
            return self.resolve(target)
        if full not in self.facts["structs"]:
            if name.endswith(("Policy", "Type", "Operator", "Name", "Mode", "Reason")) or package.endswith(
                ("/types", "/version")
            ):
                return "scalar", "str", '""'
            raise SystemExit(f"{self.module}: unknown Go type {go}")
        if package == self.path:
            return "struct", name, name
        module = self.modules[package]
        parent, _, leaf = module.rpartition(".")
        alias = leaf if module == "haven.apimachinery.meta" else f"{parent.rpartition('.')[2]}_{leaf}"
        self.imports.add(f"from {parent} import {leaf}" + (f" as {alias}" if alias != leaf else ""))
        return "struct", f"{alias}.{name}", f"{alias}.{name}"

    def item(self, go: str) -> str:
        kind, annotation, _ = self.resolve(go)
        return annotation.removesuffix(" | None") if kind == "pointer" else annotation

    def order(self) -> list[str]:
        """Structs, each after the ones it embeds or holds by value."""
        done: list[str] = []

        def visit(name: str, trail: tuple[str, ...] = ()) -> None:
            if name in done or name in trail:
                return
            for _, go, _ in self.structs[name]:
                if not go.startswith(("*", "[]", "map[")) and go in self.structs:
                    visit(go, (*trail, name))
            done.append(name)

        for name in self.structs:
            visit(name)
        return done

    def fields_of(self, name: str) -> tuple[list[str], list[list[str]], bool]:
        """Return (base classes, own fields, whether it is a kind)."""
        bases, own, typed = [], [], False
        for json_name, go, flags in self.structs[name]:
            if json_name == "":
                leaf = go.rpartition(".")[2]
                if leaf in ("TypeMeta",):
                    typed = True
                    continue
                _, annotation, _ = self.resolve(go)
                bases.append(annotation)
            else:
                own.append([json_name, go, flags])
        return bases, own, typed

    def write(self) -> str:
        body: list[str] = []
        for name in self.order():
            bases, own, typed = self.fields_of(name)
            is_kind = typed and (self.path != META or any(f[0] in ("metadata", "spec") for f in own))
            lines = [f"class {name}({', '.join(bases) or 'Struct'}):"]
            if typed:
                if is_kind and not (self.path == META and name != "Status"):
                    group_version = "v1" if name == "Status" else self.group_version
                    lines += [f'    kind: str = always("{name}")', f'    api_version: str = always("{group_version}")']
                else:
                    lines += ['    kind: str = ""', '    api_version: str = ""']
            for json_name, go, flags in own:
                lines.append("    " + self.field(json_name, go, flags.split()))
            if len(lines) == 1:
                lines.append("    pass")
            body += ["", "", *lines]
        standard = sorted(line for line in self.imports if line.startswith("from typing"))
        local = sorted(
            {
                *(line for line in self.imports if not line.startswith("from typing")),
                "from haven.apimachinery.structs import Struct, always, field",
            }
        )
        title = self.group_version or self.module.rpartition(".")[2]
        head = [
            f'"""Types of {title}, generated by tools/generate_types.py from tools/facts; do not edit.',
            "",
            f"Source: the public API types of Kubernetes v1.36 ({self.path}).",
            '"""',
            "",
            "from __future__ import annotations",
            "",
            *standard,
            *([""] if standard else []),
            *local,
            "",
            f"GROUP_VERSION = {json.dumps(self.group_version)}",
        ]
        return "\n".join(head + body) + "\n"

    def field(self, json_name: str, go: str, flags: list[str]) -> str:
        attribute = snake(json_name)
        kind, annotation, zero = self.resolve(go)
        name = None if camel(attribute) == json_name else json_name
        wire = f', name="{name}"' if name else ""
        omit = "omitempty" in flags
        if "omitzero" in flags:
            omit, kind = True, "pointer"
            annotation = annotation if annotation.endswith("| None") else f"{annotation} | None"
            zero = "None"
        if kind == "struct":
            return f"{attribute}: {annotation} = field(default_factory={zero}{wire})"
        if json_name in TELLS_EMPTY and kind == "list":
            return f"{attribute}: {annotation} | None = None"
        if kind in ("list", "map") and omit:
            return f"{attribute}: {annotation} = " + (
                f"field(default_factory={'list' if kind == 'list' else 'dict'}{wire})" if name else zero
            )
        if kind in ("list", "map"):
            if json_name in NEVER_NULL and kind == "list":
                return f"{attribute}: {annotation} = field(default_factory=lambda: []{wire})"
            return f"{attribute}: {annotation} | None = always(None{wire})"
        # Go never omits a struct held by value: Time, Quantity, IntOrString and the like are structs.
        by_value = kind == "scalar" and go.rpartition(".")[2] in (
            "Time",
            "MicroTime",
            "Quantity",
            "IntOrString",
            "RawExtension",
            "JSON",
            "Duration",
        )
        if omit and not by_value:
            return f"{attribute}: {annotation} = " + (f"field(default={zero}{wire})" if name else zero)
        return f"{attribute}: {annotation} = always({zero}{wire})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    facts = json.loads((ROOT / "tools/facts/go-fields.json").read_text())
    modules, group_versions = {}, {}
    for path, group_version in facts["packages"].items():
        group, version = path.removeprefix("k8s.io/").split("/")[-2:]
        modules[path], group_versions[path] = f"haven.api.{group}.{version}", group_version
    for path, (module, group_version) in SPECIAL_PACKAGES.items():
        modules[path], group_versions[path] = module, group_version
    stale = []
    targets = []
    for path, module in sorted(modules.items()):
        text = Package(facts, path, module, group_versions[path], modules).write()
        target = SOURCE.parent / (module.replace(".", "/") + ".py")
        target.parent.mkdir(parents=True, exist_ok=True)
        formatted = subprocess.run(
            [
                sys.executable,
                "-m",
                "ruff",
                "check",
                "--fix",
                "-q",
                "--select",
                "F401,I",
                "--stdin-filename",
                str(target),
                "-",
            ],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        ).stdout
        formatted = subprocess.run(
            [sys.executable, "-m", "ruff", "format", "-q", "--stdin-filename", str(target), "-"],
            input=formatted,
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        ).stdout
        if check:
            if not target.exists() or target.read_text() != formatted:
                stale.append(str(target.relative_to(ROOT)))
            continue
        target.write_text(formatted)
        package = target.parent / "__init__.py"
        if not package.exists():
            package.write_text(f'"""The {target.parent.name} API group."""\n')
        targets.append(target)
    if stale:
        print("stale, run tools/generate_types.py: " + ", ".join(stale))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

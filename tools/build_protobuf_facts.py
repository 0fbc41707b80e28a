"""Write src/haven/apimachinery/facts/protobuf.json: the field numbers of every definition that the API serves.

Input: tools/facts/protobuf-fields.json (field numbers by Go type) and the definitions' table (types.json), whose names
decide what is kept. Output, by definition: [{JSON name: number}, {number: the same for a Go struct embedded there}].
Names of lists that travel as messages of their own (ExtraValue, Verbs) end with "*".

Run: python tools/build_protobuf_facts.py
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
FACTS = ROOT / "src" / "haven" / "apimachinery" / "facts"
SOURCE = ROOT / "tools" / "facts" / "protobuf-fields.json"

# Types whose wire form is hand-made, in haven.apimachinery.codecs.protobuf.
HAND_MADE = {"JSON", "JSONSchemaPropsOrArray", "JSONSchemaPropsOrBool", "JSONSchemaPropsOrStringArray"}

# What the binaries that protobuf-fields.json was read from do not hold; numbers of the published .proto files.
META = {"metadata": 1, "spec": 2, "status": 3}
ITEMS = {"metadata": 1, "items": 2}
AGGREGATOR = "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1."
MISSING: dict[str, list[Any]] = {
    AGGREGATOR + "APIService": [META, {}],
    AGGREGATOR + "APIServiceList": [ITEMS, {}],
    AGGREGATOR + "APIServiceSpec": [
        {
            "service": 1, "group": 2, "version": 3, "insecureSkipTLSVerify": 4, "caBundle": 5,
            "groupPriorityMinimum": 7, "versionPriority": 8,
        },
        {},
    ],
    AGGREGATOR + "APIServiceStatus": [{"conditions": 1}, {}],
    AGGREGATOR + "APIServiceCondition": [
        {"type": 1, "status": 2, "lastTransitionTime": 3, "reason": 4, "message": 5}, {},
    ],
    AGGREGATOR + "ServiceReference": [{"namespace": 1, "name": 2, "port": 3}, {}],
}  # fmt: skip


def definition(go: str) -> str:
    return "io.k8s." + go.removeprefix("k8s.io/").replace("/", ".")


def layout(messages: dict[str, Any], go: str) -> list[Any]:
    package = go.rpartition(".")[0]
    numbers: dict[str, int] = {}
    embedded: dict[str, Any] = {}
    for number, _wire, _label, kind, name in messages[go].values():
        if name:
            named_list = kind.rpartition(".")[2] in ("ExtraValue", "Verbs")
            numbers[name + "*" * named_list] = number
        elif name == "":
            embedded[str(number)] = layout(messages, f"{package.rpartition('/')[0]}/{kind}")
    if go.endswith("core/v1.EphemeralContainer"):
        # Its common part is embedded as well, under a name that the tags do not show.
        common = dict(layout(messages, f"{package}.EphemeralContainerCommon")[0])
        numbers = {"targetContainerName": 2}
        embedded = {"1": [common, {}]}
    return [numbers, embedded]


def main() -> None:
    messages: dict[str, Any] = json.loads(SOURCE.read_text())
    messages.pop("_")
    types: dict[str, Any] = json.loads((FACTS / "types.json").read_text())["types"]
    wanted = set(types)
    wanted |= {"io.k8s.apimachinery.pkg.apis.meta.v1.PartialObjectMetadata" + suffix for suffix in ("", "List")}
    result: dict[str, Any] = dict(MISSING)
    for go in messages:
        name = definition(go)
        if name in wanted and name.rpartition(".")[2] not in HAND_MADE:
            result[name] = layout(messages, go)
    for name in sorted(wanted - set(result)):
        if not types.get(name, {"f": 1})["f"]:
            result[name] = [{}, {}]  # Messages without fields leave no trace in the binaries.
    missing = wanted - set(result)
    text = ",\n".join(
        f"{json.dumps(name)}:{json.dumps(result[name], separators=(',', ':'))}" for name in sorted(result)
    )
    (FACTS / "protobuf.json").write_text("{" + text + "}\n")
    print(f"{len(result)} definitions; without a wire form: {sorted(missing)}")


if __name__ == "__main__":
    main()

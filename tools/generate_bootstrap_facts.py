"""Write src/haven/apiserver/bootstrap/facts.json from a recording of a fresh control plane's objects.

Run: generate_bootstrap_facts.py RECORDING. Each line of the result is one kind or one object; what all objects of a
kind share (API version, bootstrapping label, autoupdate annotation) is left to haven.apiserver.bootstrap.objects.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parent.parent / "src/haven/apiserver/bootstrap/facts.json"
RULE_FIELDS = ("verbs", "apiGroups", "resources", "resourceNames", "nonResourceURLs")
DROPPED_LABELS = {"kubernetes.io/bootstrapping", "kubernetes.io/metadata.name"}


def _rule(rule: dict[str, Any]) -> list[Any]:
    row = [rule.get(field, []) for field in RULE_FIELDS]
    while row and not row[-1]:
        row.pop()
    return row


def _name(obj: dict[str, Any]) -> str:
    metadata = obj["metadata"]
    return "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))


def _labels(obj: dict[str, Any]) -> dict[str, str]:
    labels = obj["metadata"].get("labels", {})
    return {key: value for key, value in labels.items() if key not in DROPPED_LABELS}


def _role(obj: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"name": _name(obj)}
    if labels := _labels(obj):
        row["labels"] = labels
    if rule := obj.get("aggregationRule"):
        row["aggregate"] = [selector["matchLabels"] for selector in rule["clusterRoleSelectors"]]
    row["rules"] = [_rule(rule) for rule in obj.get("rules") or []]
    return row


def _binding(obj: dict[str, Any]) -> dict[str, Any]:
    subjects = [
        ":".join(filter(None, (subject["kind"], subject.get("namespace")))) + " " + subject["name"]
        for subject in obj.get("subjects", [])
    ]
    return {"name": _name(obj), "role": f"{obj['roleRef']['kind']} {obj['roleRef']['name']}", "subjects": subjects}


def _plain(obj: dict[str, Any]) -> dict[str, Any]:
    body = {key: value for key, value in obj.items() if key not in ("apiVersion", "kind", "metadata")}
    return {"name": _name(obj), **body}


def main() -> None:
    recording = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    rows = {
        "clusterroles": _role,
        "roles": _role,
        "clusterrolebindings": _binding,
        "rolebindings": _binding,
        "flowschemas": _plain,
        "prioritylevelconfigurations": _plain,
        "priorityclasses": _plain,
        "apiservices": _plain,
    }
    kinds = []
    for kind, row in rows.items():
        lines = ",\n".join(json.dumps(row(obj), separators=(",", ":"), sort_keys=True) for obj in recording[kind])
        kinds.append(f'"{kind}":[\n{lines}\n]')
    kinds.append('"namespaces":' + json.dumps([_name(obj) for obj in recording["namespaces"]]))
    TARGET.write_text("{" + ",\n".join(kinds) + "}\n", encoding="utf-8")


if __name__ == "__main__":
    main()

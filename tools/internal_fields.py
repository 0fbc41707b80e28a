"""Write src/haven/api/internal_fields.tsv: how Kubernetes names and orders the fields of its internal types.

Messages of upstream show whole values in the internal types' spelling (`{"MinAvailable":1,...}`), so these names and
their order are facts that clients can see. Usage: internal_fields.py <folder of the kubernetes source>.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_TYPE = re.compile(r"^type (\w+) (struct \{\n(?P<body>.*?)^\}|(?P<alias>[^\n{]+))$", re.M | re.S)
_FIELD = re.compile(r"^\t(?P<names>\w+(?:, \w+)*)\s+(?P<type>[^`/\n]+?)\s*(?P<tag>`[^`]*`)?\s*(?://.*)?$")
_EMBEDDED = re.compile(r"^\t(?P<type>\*?[\w.]+)\s*(?P<tag>`[^`]*`)?\s*(?://.*)?$")
_FILES = (
    "pkg/apis/*/types.go",
    "staging/src/k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/types*.go",
    "staging/src/k8s.io/kube-aggregator/pkg/apis/apiregistration/types.go",
)


def rows(source: Path) -> list[str]:
    """Return one row per type: group folder, type, then its fields or what it is another name of."""
    found: dict[tuple[str, str], str] = {}
    for pattern in _FILES:
        for file in sorted(source.glob(pattern)):
            for match in _TYPE.finditer(file.read_text(encoding="utf-8")):
                name = match.group(1)
                if name.endswith("List") and "TypeMeta" in (match["body"] or ""):
                    continue
                text = f"={match['alias'].strip()}" if match["body"] is None else " ".join(_fields(match["body"]))
                found[(file.parent.name, name)] = text
    return [f"{group}\t{name}\t{text}" for (group, name), text in sorted(found.items())]


def _fields(body: str) -> list[str]:
    fields: list[str] = []
    for line in body.splitlines():
        if field := _FIELD.match(line):
            tag = re.search(r'json:"([^"]*)"', field["tag"] or "")
            for name in field["names"].split(", "):
                fields.append(f"{name}:{field['type'].replace(' ', '')}" + (f"@{tag[1]}" if tag else ""))
        elif embedded := _EMBEDDED.match(line):
            fields.append(f"+{embedded['type']}")
    return fields


if __name__ == "__main__":
    header = "# group\ttype\tfields (Name:type, +embedded) or =another type; written by tools/internal_fields.py"
    target = Path(__file__).parent.parent / "src/haven/api/internal_fields.tsv"
    target.write_text("\n".join([header, *rows(Path(sys.argv[1]))]) + "\n", encoding="utf-8")

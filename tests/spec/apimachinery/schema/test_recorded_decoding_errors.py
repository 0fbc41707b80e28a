"""Replays recorded bodies through the schema engine and compares the messages with upstream's."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterator

import orjson
import pytest
import yaml

from haven.apimachinery.schema import Schema, check, schema_for

GOLDEN = pathlib.Path(__file__).parents[5] / "shared" / "golden"
RESOURCES = pathlib.Path(__file__).parents[4] / "src" / "haven" / "api" / "resources.tsv"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def kinds_by_path() -> dict[tuple[str, str], str]:
    """(group/version, plural) -> kind."""
    rows = [line.split("\t") for line in RESOURCES.read_text().splitlines() if not line.startswith("#")]
    return {(row[0], row[1]): row[2] for row in rows if "/" not in row[1]}


def schema_of(path: str, kinds: dict[tuple[str, str], str]) -> Schema | None:
    parts = path.split("?")[0].strip("/").split("/")
    group_version, rest = ("v1", parts[2:]) if parts[0] == "api" else ("/".join(parts[1:3]), parts[3:])
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        rest = rest[2:]
    if not rest or len(rest) > 2:
        return None
    kind = kinds.get((group_version, rest[0]))
    group, _, version = group_version.rpartition("/")
    return schema_for(group, version, kind) if kind else None


def recorded(file: pathlib.Path) -> Iterator[tuple[str, str, bytes, Schema, int, str]]:
    """Yield (step, path, body, schema, status, message) of each JSON body that a file sends."""
    kinds = kinds_by_path()
    expected = json.loads((GOLDEN / "expected" / f"{file.stem}.json").read_text())
    for scenario in yaml.load(file.read_text(), Loader=yaml.CSafeLoader):
        for number, (step, answer) in enumerate(
            zip(scenario["steps"], expected.get(scenario["name"], []), strict=False)
        ):
            verb, _, path = step["do"].partition(" ")
            if verb not in ("POST", "PUT") or step.get("type") or not ("body" in step or "raw" in step):
                continue
            schema = schema_of(path, kinds)
            if schema is None:
                continue
            body = step["raw"] if "raw" in step else json.dumps(step["body"])
            answered = answer["body"] if isinstance(answer["body"], dict) else {}
            yield (f"{scenario['name']} {number}", path, body.encode(), schema, answer["status"],
                   answered.get("message") or "")  # fmt: skip


@pytest.mark.skipif(not GOLDEN.exists(), reason="needs the recorded conversations beside the repository")
@pytest.mark.parametrize("file", sorted((GOLDEN / "scenarios").glob("*.yaml")), ids=lambda file: file.stem)
def test_recorded_bodies_are_judged_as_upstream_judged_them(file: pathlib.Path) -> None:
    wrong = []
    for step, path, body, schema, status, message in recorded(file):
        try:
            tree = orjson.loads(body)
        except orjson.JSONDecodeError:
            continue
        if not isinstance(tree, dict) or "no kind" in message or "converting (" in message:
            continue

        findings = check(tree, schema, body)

        said = findings.error
        if said is None and "fieldValidation=Strict" in path:
            said = findings.strict_error
        want = message.partition(": ")[2] if status == 400 and "cannot be handled as a" in message else None
        if (TIME.sub("<time>", said) if said else None) != want:
            wrong.append((step, want, said))
    assert wrong == []

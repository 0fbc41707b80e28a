"""Replays recorded patches on the recorded live objects and compares with upstream's answers."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from haven.api.scheme import kind_type
from haven.apimachinery import apierrors
from haven.apimachinery.patch import PATCH_TYPES, PatchType, patched
from haven.apimachinery.schema import schema_for
from haven.apimachinery.serialization import convert, to_tree

GOLDEN = pathlib.Path(__file__).parents[5] / "shared" / "golden"
MASKS = {"<time>": "2024-01-01T00:00:00Z", "<rv>": "1", "<uid>": "u", "<ip>": "10.0.0.1", "<port>": 30000}


def unmasked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: unmasked(item) for name, item in value.items()}
    if isinstance(value, list):
        return [unmasked(item) for item in value]
    return MASKS.get(value, value) if isinstance(value, str) else value


def without_server_fields(tree: dict[str, Any]) -> dict[str, Any]:
    metadata = {
        name: value
        for name, value in tree["metadata"].items()
        if name not in ("managedFields", "resourceVersion", "generation", "uid")
    }
    return {**tree, "metadata": metadata}


def extras(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Yield what ours has that theirs lacks; what only theirs has are upstream's defaults."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in ours:
            if name not in theirs:
                yield f"{path}.{name}: {ours[name]!r}"
            else:
                yield from extras(ours[name], theirs[name], f"{path}.{name}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from extras(one, other, f"{path}[{index}]")
    elif ours != theirs and not path.endswith("targetPort"):  # Upstream defaults a port's zero.
        yield f"{path}: {ours!r}, not {theirs!r}"


def canonical(tree: dict[str, Any]) -> dict[str, Any]:
    group, _, version = tree["apiVersion"].rpartition("/")
    result: dict[str, Any] = to_tree(convert(tree, kind_type(group, version, tree["kind"])))
    return result


def recorded(file: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any], int, dict[str, Any]]]:
    """Yield (step, request, live object, status, answer) of each patch of a known object."""
    scenarios = GOLDEN / "scenarios" / f"{file}.yaml"
    expected = json.loads((GOLDEN / "expected" / f"{file}.json").read_text())
    for scenario in yaml.load(scenarios.read_text(), Loader=yaml.CSafeLoader):
        live: dict[str, Any] = {}
        for number, (step, answer) in enumerate(zip(scenario["steps"], expected[scenario["name"]], strict=False)):
            body = unmasked(answer["body"])
            path = step["do"].split(" ")[1].split("?")[0]
            if step["do"].startswith("PATCH") and step.get("type") in PATCH_TYPES and path in live:
                yield f"{scenario['name']} {number}", step, live[path], answer["status"], body
            if answer["status"] in (200, 201) and isinstance(body, dict) and "drop" not in step and "keep" not in step:
                kept = path if not step["do"].startswith("POST") else f"{path}/{body['metadata'].get('name')}"
                if "dryRun" not in step["do"]:
                    live[kept] = body


# Bodies with values that the recording masks, or that upstream's defaulting turns into something else.
SKIPPED_WORDS = (b"{rv}", b"{uid}", b"{u1}", b"{u2}", b"ownerReferences", b"stringData")
FILES = ("patch-json-merge", "patch-strategic", "field-validation", "metadata", "status-and-scale")


@pytest.mark.skipif(not GOLDEN.exists(), reason="needs the recorded conversations beside the repository")
@pytest.mark.parametrize("file", FILES)
def test_recorded_patches_end_as_they_ended_upstream(file: str) -> None:
    wrong = []
    for name, step, live, status, answer in recorded(file):
        group, _, version = live["apiVersion"].rpartition("/")
        schema = schema_for(group, version, live["kind"])
        if schema is None:
            continue
        data = (step["raw"] if "raw" in step else json.dumps(step["body"])).encode()
        if any(word in data for word in SKIPPED_WORDS):
            continue
        level = "Strict" if "fieldValidation=Strict" in step["do"] else "Warn"

        try:
            tree, _ = patched(PATCH_TYPES[step["type"]], live, data, schema, level)
        except apierrors.ApiError as error:
            told = to_tree(error.status())
            if error.code != status:
                wrong.append((name, status, told))
            elif answer and "drop" not in step and told["message"] != answer["message"]:
                wrong.append((name, answer["message"], told["message"]))
            continue

        if status == 200 and "drop" not in step and "keep" not in step:
            ours, theirs = without_server_fields(canonical(tree)), without_server_fields(answer)
            if differences := list(extras(ours, theirs)):
                wrong.append((name, differences))
        elif status in (400, 500) and "does not match" not in (answer or {}).get("message", ""):
            wrong.append((name, answer, "passed"))
    assert not wrong, "\n".join(map(str, wrong))


def test_patch_types_are_the_media_types() -> None:
    assert PATCH_TYPES["application/json-patch+json"] is PatchType.JSON

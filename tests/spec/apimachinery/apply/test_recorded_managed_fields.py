"""Replays recorded writes on the recorded live objects and compares the managedFields with upstream's.

Upstream's defaults are not applied here: fields that only they explain may be missing from our sets, never more.
"""

from __future__ import annotations

import json
import pathlib
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from haven.api.scheme import kind_type, table
from haven.apimachinery import apierrors
from haven.apimachinery.apply import apply, reset_for, update
from haven.apimachinery.apply.fieldset import members
from haven.apimachinery.patch import PATCH_TYPES, patched
from haven.apimachinery.schema import Schema, check, normalize, schema_for
from haven.apimachinery.serialization import convert, to_tree

GOLDEN = pathlib.Path(__file__).parents[5] / "shared" / "golden"
MASKS = {"<time>": "2024-01-01T00:00:00Z", "<rv>": "1", "<uid>": "u", "<ip>": "10.0.0.1", "<port>": 30000}
NOW = "2024-01-01T00:00:00Z"
APPLY = "application/apply-patch+yaml"


def unmasked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: unmasked(item) for name, item in value.items()}
    if isinstance(value, list):
        return [unmasked(item) for item in value]
    return MASKS.get(value, value) if isinstance(value, str) else value


def kinds() -> dict[tuple[str, str, str], str]:
    return {(key.group, key.version, key.resource): resource.kind for key, resource in table().items()}


def place(path: str) -> tuple[str, str, str, str, str] | None:
    """Return (group, version, plural, name, subresource) of a path."""
    parts = path.strip("/").split("/")
    if len(parts) < 3:
        return None
    group, version, rest = ("", parts[1], parts[2:]) if parts[0] == "api" else (parts[1], parts[2], parts[3:])
    if rest[:1] == ["namespaces"] and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        rest = rest[2:]
    return (group, version, *[*rest, "", "", ""][:3]) if rest else None  # type: ignore[return-value]


# Values that the recording masks, or that more than defaulting changes before upstream compares.
SKIPPED_WORDS = ("{rv}", "{uid}", "{u1}", "{u2}", "ownerReferences", "stringData", "deletionGracePeriodSeconds")


def canonical(tree: dict[str, Any], group: str, version: str, kind: str, schema: Schema) -> dict[str, Any] | None:
    if check(tree, schema).error is not None:
        return None
    result: dict[str, Any] = to_tree(convert(normalize(tree, schema), kind_type(group, version, kind)))
    return result


def by_manager(entries: Any) -> dict[tuple[str, str, str], Any]:
    return {(e.get("manager", ""), e["operation"], e.get("subresource", "")): e for e in entries or []}


def mentions(tree: Any, path: tuple[str, ...]) -> bool:
    """Tell whether a tree has something at a path."""
    for element in path:
        if element.startswith("f:"):
            if not isinstance(tree, dict) or tree.get(element[2:]) is None:
                return False
            tree = tree[element[2:]]
        elif element.startswith("k:"):
            keys = json.loads(element[2:])
            if not isinstance(tree, list):
                return False
            for item in tree:
                if all(item.get(name, "TCP" if name == "protocol" else None) == keys[name] for name in keys):
                    tree = item
                    break
            else:
                return False
        else:
            return isinstance(tree, list) and json.loads(element[2:]) in tree
    return True


NOTHING = {"fieldsV1": {}, "time": ""}


def differences(ours: Any, theirs: Any, sent: Any, *, exact: bool) -> list[str]:
    mine, yours = by_manager(ours), by_manager(theirs)
    found = []
    for key in sorted(mine.keys() | yours.keys()):
        have = set(members(mine.get(key, NOTHING)["fieldsV1"]))
        want = set(members(yours.get(key, NOTHING)["fieldsV1"]))
        if have - want:
            found.append(f"{key} too much: {sorted(have - want)}")
        lacking = [path for path in want - have if exact or mentions(sent, path)]
        if lacking:
            found.append(f"{key} too little: {sorted(lacking)}")
        if ("time" in mine.get(key, NOTHING)) != ("time" in yours.get(key, NOTHING)):
            found.append(f"{key} time")
    return found


def steps(file: pathlib.Path) -> Iterator[tuple[str, dict[str, Any], dict[str, Any] | None, dict[str, Any]]]:
    """Yield (name, request, live object or None, answer)."""
    expected = json.loads((GOLDEN / "expected" / f"{file.stem}.json").read_text())
    for scenario in yaml.load(file.read_text(), Loader=yaml.CSafeLoader):
        live: dict[str, Any] = {}
        for number, (step, answer) in enumerate(
            zip(scenario["steps"], expected.get(scenario["name"], []), strict=False)
        ):
            body = unmasked(answer["body"])
            verb, _, path = step["do"].partition(" ")
            base = path.split("?")[0]
            for suffix in ("/status", "/scale", "/finalize", "/approval"):
                base = base.removesuffix(suffix)
            yield f"{scenario['name']} {number}", step, live.get(base), {**answer, "body": body}
            whole = isinstance(body, dict) and not ({"drop", "keep", "volatile"} & step.keys())
            if verb == "DELETE":
                live.pop(base, None)
            if answer["status"] in (200, 201) and whole and verb in ("POST", "PUT", "PATCH", "GET"):
                if verb == "POST":
                    base = f"{base}/{body.get('metadata', {}).get('name')}"
                if "dryRun" not in path and not path.split("?")[0].endswith(("/scale", "/eviction", "/binding")):
                    live[base] = body
            elif verb in ("PUT", "PATCH", "POST") and answer["status"] in (200, 201):
                live.clear()  # What was written is not known in full.


@pytest.mark.skipif(not GOLDEN.exists(), reason="needs the recorded conversations beside the repository")
@pytest.mark.parametrize("file", sorted((GOLDEN / "scenarios").glob("*.yaml")), ids=lambda file: file.stem)
def test_recorded_writes_leave_the_managed_fields_that_upstream_left(file: pathlib.Path) -> None:
    known = kinds()
    wrong: list[str] = []
    for name, step, live, answer in steps(file):
        verb, _, url = step["do"].partition(" ")
        path, _, query = url.partition("?")
        where = place(path)
        if where is None or verb not in ("POST", "PUT", "PATCH") or not ("body" in step or "raw" in step):
            continue
        group, version, plural, _, subresource = where
        kind = known.get((group, version, plural))
        schema = schema_for(group, version, kind) if kind else None
        if (
            schema is None
            or kind is None
            or kind.endswith(("Binding", "Review"))
            or "accept" in step
            or subresource not in ("", "status")
        ):
            continue
        if verb == "POST" and (subresource or where[3]):
            continue
        options = urllib.parse.parse_qs(query)
        manager = options.get("fieldManager", ["unknown"])[0]
        api_version = f"{group}/{version}" if group else version
        answered = answer["body"] if isinstance(answer["body"], dict) else {}
        good = answer["status"] in (200, 201) and not ({"drop", "keep", "volatile"} & step.keys())
        if any(word in str(step.get("raw") or step.get("body")) for word in SKIPPED_WORDS):
            continue
        reset = reset_for(group, plural, subresource)
        want = answered.get("metadata", {}).get("managedFields")
        if step.get("type") == APPLY:
            try:
                sent = step["body"] if "body" in step else yaml.load(step["raw"], Loader=yaml.CSafeLoader)
            except yaml.YAMLError:
                continue
            if verb != "PATCH" or "fieldManager" not in options or not isinstance(sent, dict):
                continue
            try:
                result = apply(
                    live, sent, schema, manager, api_version=api_version, kind=kind, subresource=subresource,
                    force=options.get("force") == ["true"], now=NOW, reset=reset,
                )  # fmt: skip
            except apierrors.ApiError as error:
                told = to_tree(error.status())
                if told != {**answered, "metadata": {}}:
                    wrong.append(f"{name}: said {told}, not {answered}")
                continue
            if good:
                got = result.tree["metadata"].get("managedFields")
                wrong += [f"{name}: {text}" for text in differences(got, want, sent, exact=True)]
            elif answer["status"] in (409, 500) and "uid" not in str(sent) and "resourceVersion" not in str(sent):
                wrong.append(f"{name}: passed, not {answered}")
            continue
        if not good or step.get("type", "application/json") not in ("application/json", *PATCH_TYPES):
            continue
        if verb == "PATCH":
            if live is None:
                continue
            data = step["raw"] if "raw" in step else json.dumps(step["body"])
            sent = patched(PATCH_TYPES[step["type"]], live, data.encode(), schema, "Ignore")[0]
        else:
            sent = json.loads(step["raw"]) if "raw" in step else json.loads(json.dumps(step["body"]))
        if verb != "POST" and live is None:
            continue
        tree = canonical(sent, group, version, kind, schema)
        if tree is None:
            continue
        if verb == "PUT" and live is not None and "managedFields" in sent.get("metadata", {}):
            tree["metadata"]["managedFields"] = sent["metadata"]["managedFields"]
        before = None if verb == "POST" else live
        got = update(before, tree, schema, manager, now=NOW, subresource=subresource, reset=reset)
        exact = verb != "POST" and kind == "ConfigMap"
        if verb != "POST" and not exact:
            continue  # Upstream fills a new body in from the live object before it compares.
        wrong += [f"{name}: {text}" for text in differences(got, want, sent, exact=exact)]
    assert not wrong, "\n".join(wrong)

from __future__ import annotations

from typing import Any

import pytest

from haven.apimachinery import apierrors
from haven.apimachinery.apply import apply, update
from haven.apimachinery.schema import structural
from haven.apimachinery.schema.coercion import coerce, fill_defaults

NOW = "2024-01-01T00:00:00Z"
OPEN_API = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "a": {"type": "string", "default": "x"},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "open": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": True,
                    "properties": {"known": {"type": "object", "properties": {"z": {"type": "integer"}}}},
                },
                "ports": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["port", "protocol"],
                    "items": {
                        "type": "object",
                        "properties": {
                            "port": {"type": "integer"},
                            "protocol": {"type": "string", "default": "TCP"},
                            "name": {"type": "string"},
                        },
                    },
                },
                "plain": {"type": "array", "items": {"type": "object", "properties": {"q": {"type": "string"}}}},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "either": {"x-kubernetes-int-or-string": True},
            },
        }
    },
}


def thing(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": spec}


def test_what_is_not_declared_is_pruned_and_told() -> None:
    tree = thing(b=1, free={"any": {"thing": 1}}, open={"x": 1, "known": {"z": 1, "y": 2}}, plain=[{"q": "1", "r": 2}])
    tree["metadata"]["bogus"] = 1
    complaints = coerce(tree, OPEN_API)
    assert tree["spec"] == {"free": {"any": {"thing": 1}}, "open": {"x": 1, "known": {"z": 1}}, "plain": [{"q": "1"}]}
    assert complaints == [
        'unknown field "metadata.bogus"', 'unknown field "spec.b"', 'unknown field "spec.open.known.y"',
        'unknown field "spec.plain[0].r"',
    ]  # fmt: skip


def test_defaults_fill_what_is_absent_or_wrongly_null() -> None:
    tree = thing(a=None, ports=[{"port": 1}])
    fill_defaults(tree, OPEN_API)
    assert tree["spec"] == {"a": "x", "ports": [{"port": 1, "protocol": "TCP"}]}


def test_custom_resources_are_applied_and_owned_like_built_in_ones() -> None:
    schema = structural(OPEN_API)
    entries = update(None, thing(ports=[{"port": 1}], free={"a": {"b": 1}}), schema, "me", now=NOW)
    assert entries[0]["fieldsV1"] == {"f:spec": {
        ".": {}, "f:free": {".": {}, "f:a": {".": {}, "f:b": {}}},
        "f:ports": {".": {}, 'k:{"port":1,"protocol":"TCP"}': {".": {}, "f:port": {}}},
    }}  # fmt: skip

    def applied(live: Any, tree: Any, manager: str) -> Any:
        return apply(live, tree, schema, manager, api_version="example.com/v1", kind="Thing", force=False, now=NOW).tree

    live = applied(None, thing(ports=[{"port": 1, "name": "a"}], either="50%"), "one")
    both = applied(live, thing(ports=[{"port": 2}]), "two")
    assert both["spec"]["ports"] == [{"port": 1, "name": "a"}, {"port": 2}]
    with pytest.raises(apierrors.Conflict) as raised:
        applied(both, thing(ports=[{"port": 1, "name": "b"}]), "two")
    assert '.spec.ports[port=1,protocol="TCP"].name' in raised.value.message
    assert applied(both, thing(labels={"a": "b"}), "one")["spec"] == {"ports": [{"port": 2}], "labels": {"a": "b"}}

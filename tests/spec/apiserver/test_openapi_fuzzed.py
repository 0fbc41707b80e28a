"""Requests made from the served OpenAPI document, right and wrong ones, are answered without a fault of the server.

A few operations, with a few requests each; HAVEN_FUZZ=20 tries every operation of every group with so many.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from .test_fuzzed import Target, target

__all__ = ["target"]

EXAMPLES = int(os.environ.get("HAVEN_FUZZ", "0"))
FEW = {
    "api/v1": ("POST /api/v1/namespaces/{namespace}/services", "GET /api/v1/namespaces/{namespace}/pods"),
    "apis/apps/v1": ("PATCH /apis/apps/v1/namespaces/{namespace}/deployments/{name}",),
    "apis/authorization.k8s.io/v1": ("POST /apis/authorization.k8s.io/v1/subjectaccessreviews",),
    "apis/coordination.k8s.io/v1": ("PUT /apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}",),
    "apis/networking.k8s.io/v1": (
        "POST /apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies",
        "DELETE /apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses",
    ),
    "apis/fuzz.example.com/v1": (
        "POST /apis/fuzz.example.com/v1/namespaces/{namespace}/widgets",
        "PATCH /apis/fuzz.example.com/v1/namespaces/{namespace}/widgets/{name}",
    ),
}
WIDGETS = "/apis/fuzz.example.com/v1/namespaces/default/widgets"
SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "x-kubernetes-validations": [{"rule": "self.size != 13 || has(self.port)"}],
            "properties": {
                "size": {"type": "integer", "minimum": 0, "default": 1},
                "ratio": {"type": "number", "nullable": True},
                "port": {"x-kubernetes-int-or-string": True},
                "name": {"type": "string", "pattern": "^[a-z]*$", "maxLength": 20},
                "when": {"type": "string", "format": "date-time"},
                "tags": {"type": "array", "x-kubernetes-list-type": "set", "maxItems": 5, "items": {"type": "string"}},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "parts": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["key"],
                    "items": {"type": "object", "required": ["key"], "properties": {"key": {"type": "string"}}},
                },
            },
        },
        "status": {"type": "object", "properties": {"phase": {"type": "string", "enum": ["A", "B"]}}},
    },
}
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)


def _operations(target: Target) -> Iterator[Any]:
    groups = target.json("/openapi/v3")["paths"]
    for group in sorted(groups) if EXAMPLES else FEW:
        for found in schemathesis.openapi.from_dict(target.json(f"/openapi/v3/{group}")).get_all_operations():
            operation = found.ok()
            if (EXAMPLES and "/watch/" not in operation.path) or _label(operation) in FEW.get(group, ()):
                yield operation


def _label(operation: Any) -> str:
    return f"{operation.method.upper()} {operation.path}"


def _ask(target: Target, operation: Any, case: Any) -> None:
    query = {name: value for name, value in (case.query or {}).items() if name not in ("watch", "follow")}
    if "{name}" in operation.path:
        query.pop("resourceVersion", None)  # An odd revision of one object is upstream's internal error, too.
    if operation.method != "get":
        query.setdefault("dryRun", "All")
    path = case.formatted_path + (f"?{urlencode(query, doseq=True)}" if query else "")
    body = case.body
    if isinstance(body, dict | list | str | int | float | bool):
        body = json.dumps(body).encode()
    media = case.media_type or ""
    spoken = media if media.endswith(("json", "yaml")) else "application/json"
    target.answers(operation.method.upper(), path, body if isinstance(body, bytes) else b"", spoken)


def _serve_widgets(target: Target) -> None:
    """Have custom resources served, with a schema that has something of everything."""
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": SCHEMA},
        "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.n"}},
    }
    definition = {
        "metadata": {"name": "widgets.fuzz.example.com"},
        "spec": {"group": "fuzz.example.com", "scope": "Namespaced", "names": names, "versions": [version]},
    }
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    assert target.answers("POST", path, json.dumps(definition).encode(), "application/json") in (201, 409)
    target.waits_for(WIDGETS)


def _explore(target: Target, operation: Any, mode: GenerationMode) -> None:
    @settings(
        max_examples=EXAMPLES or 5,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        _ask(target, operation, case)

    with contextlib.suppress(Unsatisfiable):  # There is nothing that could be wrong.
        ask()


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name.lower())
def test_what_the_document_says_is_answered(target: Target, mode: GenerationMode) -> None:
    _serve_widgets(target)
    tried = []
    for operation in _operations(target):
        _explore(target, operation, mode)
        tried.append(_label(operation))

    assert EXAMPLES or sorted(tried) == sorted(label for labels in FEW.values() for label in labels)

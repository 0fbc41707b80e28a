"""Requests per second that change what is there: PUT, patches, server-side apply. Each says something new."""

from __future__ import annotations

from typing import Any

from bench.load import Figure, changing, wrk
from bench.objects import CONFIG_MAP, NAMESPACE, POD, named, pods_path
from bench.target import Target

__all__ = ["OBJECTS", "ROWS", "measure", "prepare"]

OBJECTS = 500
"""Of each kind; the load goes round."""
CONNECTIONS = 32
_MAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
_DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
_MERGE, _STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
_APPLY = "application/apply-patch+yaml"
_LONG_AGO = "2026-01-01T00:00:00Z"

_STATUS: dict[str, Any] = {
    "phase": "Running",
    "message": "MARK",
    "podIP": "192.0.2.9",
    "conditions": [
        {"type": kind, "status": "True", "lastTransitionTime": _LONG_AGO}
        for kind in ("Ready", "Initialized", "ContainersReady", "PodScheduled")
    ],
    "containerStatuses": [
        {
            "name": "web",
            "ready": True,
            "restartCount": 0,
            "image": "registry.example.com/web:1.2.3",
            "imageID": "",
            "state": {"running": {"startedAt": _LONG_AGO}},
        }
    ],
}
_APPLIED_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "NAME"}, "data": {"applied": "MARK"}}
_DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "NAME", "labels": {"mark": "MARK"}},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "bench"}},
        "template": {"metadata": {"labels": {"app": "bench"}}, "spec": POD["spec"]},
    },
}

_CHANGES: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "update ConfigMap": ("PUT", f"{_MAPS}/NAME", "application/json", {**CONFIG_MAP, "data": {"k": "MARK"}}),
    "patch ConfigMap": ("PATCH", f"{_MAPS}/NAME", _MERGE, {"data": {"k": "MARK"}}),
    "patch a Pod's labels": ("PATCH", pods_path("NAME"), _STRATEGIC, {"metadata": {"labels": {"mark": "MARK"}}}),
    "patch a Pod's status": ("PATCH", pods_path("NAME") + "/status", _STRATEGIC, {"status": _STATUS}),
    "apply ConfigMap": ("PATCH", f"{_MAPS}/NAME?fieldManager=bench", _APPLY, _APPLIED_MAP),
    "apply Deployment": ("PATCH", f"{_DEPLOYMENTS}/NAME?fieldManager=bench", _APPLY, _DEPLOYMENT),
}
ROWS = tuple(_CHANGES)


def prepare(target: Target) -> None:
    """Store what is changed later."""
    target.request("POST", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", {"metadata": {"name": "default"}})
    for number in range(OBJECTS):
        for path, body in ((_MAPS, CONFIG_MAP), (pods_path(), POD)):
            status, answer = target.request("POST", path, named(body, f"c{number}"))
            assert status == 201, answer
        applied = f"{_DEPLOYMENTS}/c{number}?fieldManager=bench"
        status, answer = target.request("PATCH", applied, named(_DEPLOYMENT, f"c{number}"), content_type=_APPLY)
        assert status == 201, answer


def measure(target: Target, row: str, seconds: float) -> Figure:
    """Return a row's figure for one server."""
    method, path, content_type, body = _CHANGES[row]
    script = changing(method, path, content_type, body, target.token, names=OBJECTS)
    figure = wrk(target, "", seconds, CONNECTIONS, script)
    if figure.refused:
        raise RuntimeError(f"{target.name} refused {figure.refused} requests of {row}")
    return figure

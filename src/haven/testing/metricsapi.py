"""metrics.k8s.io, as a metrics-server would serve it, from what simulated Pods are said to use.

Source: https://kubernetes.io/docs/tasks/debug/debug-cluster/resource-metrics-pipeline/
"""

from __future__ import annotations

import json
from typing import Any

from haven.apimachinery import apierrors, serialization
from haven.apimachinery.apierrors import GroupResource
from haven.apimachinery.selectors import parse_labels
from haven.apiserver.request import Request, Response
from haven.hollow.runner import Fleet
from haven.hollow.usage import node_metrics, pod_metrics

__all__ = ["GROUP", "answer", "describe", "listed"]

GROUP = "metrics.k8s.io"
_VERSION = f"{GROUP}/v1beta1"


def answer(request: Request, fleet: Fleet, now: float) -> Response:
    """Answer a request of this group; raise NotFound or MethodNotAllowed."""
    info = request.info
    if info.verb not in ("get", "list") or info.resource not in ("pods", "nodes"):
        raise apierrors.MethodNotAllowed("the server does not allow this method on the requested resource")
    if info.resource == "pods":
        found = [
            item
            for sim in fleet.sims()
            if info.namespace in ("", sim.state.pod.metadata.namespace)
            if (item := pod_metrics(sim, now)) is not None
        ]
    else:
        found = [node_metrics(node, fleet.sims(), now) for node in fleet.nodes.values() if node.is_alive]
    if info.verb == "get":
        for item in found:
            if item["metadata"]["name"] == info.name:
                return _json(item)
        raise apierrors.NotFound.of(GroupResource(GROUP, info.resource), info.name)
    if info.label_selector:
        wanted = parse_labels(info.label_selector)
        found = [item for item in found if wanted.matches(item["metadata"].get("labels", {}))]
    kind = "PodMetricsList" if info.resource == "pods" else "NodeMetricsList"
    return _json({"kind": kind, "apiVersion": _VERSION, "metadata": {}, "items": found})


_VERSIONS = [{"groupVersion": _VERSION, "version": "v1beta1"}]
_GROUP = {"name": GROUP, "versions": _VERSIONS, "preferredVersion": _VERSIONS[0]}
_KINDS = (("nodes", "NodeMetrics", False), ("pods", "PodMetrics", True))


def describe(path: str) -> Response | None:
    """Return the discovery document of the group or of its version, None for another path."""
    match path.rstrip("/"):
        case "/apis/metrics.k8s.io":
            return _json({"kind": "APIGroup", "apiVersion": "v1", **_GROUP})
        case "/apis/metrics.k8s.io/v1beta1":
            resources = [
                {"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get", "list"]}
                for name, kind, namespaced in _KINDS
            ]
            return _json(
                {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": _VERSION, "resources": resources}
            )
    return None


def listed(response: Response) -> Response:
    """Return the list of all groups with this one; the answer as it is where that is no list in JSON."""
    if response.status != 200 or response.body[:1] != b"{":
        return response
    document = json.loads(response.body)
    if document.get("kind") == "APIGroupList":
        document["groups"].append(_GROUP)
    elif document.get("kind") == "APIGroupDiscoveryList":
        resources = [
            {
                "resource": name,
                "responseKind": {"group": GROUP, "version": "v1beta1", "kind": kind},
                "scope": "Namespaced" if namespaced else "Cluster",
                "singularResource": "",
                "verbs": ["get", "list"],
            }
            for name, kind, namespaced in _KINDS
        ]
        version = {"version": "v1beta1", "resources": resources, "freshness": "Current"}
        document["items"].append({"metadata": {"name": GROUP}, "versions": [version]})
    headers = {
        name: value for name, value in response.headers.items() if name.lower() not in ("etag", "content-length")
    }
    return Response(200, headers, serialization.encode_tree(document))


def _json(document: dict[str, Any]) -> Response:
    return Response(200, {"Content-Type": "application/json"}, serialization.encode_tree(document))

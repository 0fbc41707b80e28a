"""metrics.k8s.io, as a metrics-server would serve it, from what simulated Pods are said to use.

Source: https://kubernetes.io/docs/tasks/debug/debug-cluster/resource-metrics-pipeline/
"""

from __future__ import annotations

from typing import Any

from haven.apimachinery import apierrors, serialization
from haven.apimachinery.apierrors import GroupResource
from haven.apimachinery.selectors import parse_labels
from haven.apiserver.request import Request, Response
from haven.hollow.runner import Fleet
from haven.hollow.usage import node_metrics, pod_metrics

__all__ = ["GROUP", "answer"]

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


def _json(document: dict[str, Any]) -> Response:
    return Response(200, {"Content-Type": "application/json"}, serialization.encode_tree(document))

"""What the load is made of. NAME stands where each object has something of its own."""

from __future__ import annotations

from typing import Any

__all__ = ["CONFIG_MAP", "DIFFERENT_POD", "NAMESPACE", "NODE", "POD", "TOLERANT_POD", "named", "pods_path"]

NAMESPACE = "default"


def _pod(mark: str) -> dict[str, Any]:
    """A pod of two containers, about 1.5 kB; `mark` is what makes its spec differ from all others."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "NAME",
            "labels": {"app": "bench" + mark, "tier": "web"},
            "annotations": {"example.com/note": "made by the benchmark"},
        },
        "spec": {
            "containers": [
                {
                    "name": "web",
                    "image": "registry.example.com/web:1.2.3" + mark,
                    "ports": [{"name": "http", "containerPort": 8080}],
                    "env": [
                        {"name": "A", "value": "1" + mark},
                        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    ],
                    "resources": {
                        "requests": {"cpu": "100m", "memory": "64Mi"},
                        "limits": {"cpu": "500m", "memory": "128Mi"},
                    },
                    "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 5},
                },
                {
                    "name": "log",
                    "image": "registry.example.com/log:4.5",
                    "args": ["--follow", "/var/log/web"],
                    "volumeMounts": [{"name": "logs", "mountPath": "/var/log/web"}],
                    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                },
            ],
            "volumes": [{"name": "logs", "emptyDir": {}}],
            "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "web", "effect": "NoSchedule"}],
        },
    }


POD = _pod("")
"""Pods of one template, as controllers make them."""
DIFFERENT_POD = _pod("-NAME")
"""Pods of which no two are alike."""
TOLERANT_POD: dict[str, Any] = {**POD, "spec": {**POD["spec"], "tolerations": [{"operator": "Exists"}]}}
"""A pod for nodes that no kubelet keeps ready."""
CONFIG_MAP: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "NAME", "labels": {"app": "bench"}},
    "data": {"k": "v", "other": "some more text"},
}
_ROOM = {"cpu": "32", "memory": "128Gi", "pods": "110", "ephemeral-storage": "100Gi"}
NODE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {
        "name": "NAME",
        "labels": {"kubernetes.io/hostname": "NAME", "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"},
    },
    "status": {
        "capacity": _ROOM,
        "allocatable": _ROOM,
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "KubeletReady",
                "message": "kubelet is posting ready status",
                "lastHeartbeatTime": "2026-01-01T00:00:00Z",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
        "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
    },
}


def pods_path(name: str = "") -> str:
    """Return the path of the pods, or of one."""
    return f"/api/v1/namespaces/{NAMESPACE}/pods" + (f"/{name}" if name else "")


def named(body: dict[str, Any], name: str) -> dict[str, Any]:
    """Return an object under another name."""
    return {**body, "metadata": {**body["metadata"], "name": name}}

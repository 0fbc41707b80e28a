"""What simulated containers use: by their behaviour, as kubelets and the metrics API tell it. Pure.

Source: https://kubernetes.io/docs/reference/instrumentation/node-metrics/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from haven.apimachinery import times
from haven.hollow.behaviour import Usage
from haven.hollow.podstate import Container, State
from haven.hollow.runner import Node, Sim

__all__ = ["node_metrics", "pod_metrics", "resource_metrics", "summary", "usage_of"]

WINDOW = "30s"
_NODE = Usage(cpu_cores=0.05, memory_bytes=256 * 1024 * 1024)


def usage_of(sim: Sim, item: Container) -> Usage:
    """Return what a running container uses."""
    known = item.behaviour.usage
    if known is None:
        return Usage()
    return known if isinstance(known, Usage) else known(sim.state.pod, item.spec.name)


def _running(sim: Sim) -> list[tuple[Container, Usage]]:
    return [(item, usage_of(sim, item)) for item in sim.state.all if item.state is State.RUNNING]


def _of_node(node: Node, sims: Sequence[Sim]) -> Usage:
    uses = [use for sim in sims if sim.node is node for _, use in _running(sim)]
    return Usage(
        _NODE.cpu_cores + sum(use.cpu_cores for use in uses), _NODE.memory_bytes + sum(use.memory_bytes for use in uses)
    )


def _amounts(use: Usage) -> dict[str, str]:
    return {"cpu": f"{round(use.cpu_cores * 1e9)}n", "memory": f"{use.memory_bytes // 1024}Ki"}


def pod_metrics(sim: Sim, now: float) -> dict[str, Any] | None:
    """Return a Pod's entry in metrics.k8s.io/v1beta1, None while nothing of it runs."""
    running = _running(sim)
    if not running:
        return None
    metadata = sim.state.pod.metadata
    return {
        "kind": "PodMetrics",
        "apiVersion": "metrics.k8s.io/v1beta1",
        "metadata": {
            "name": metadata.name,
            "namespace": metadata.namespace,
            "creationTimestamp": times.format_time(now),
            "labels": dict(metadata.labels),
        },
        "timestamp": times.format_time(now),
        "window": WINDOW,
        "containers": [{"name": item.spec.name, "usage": _amounts(use)} for item, use in running],
    }


def node_metrics(node: Node, sims: Sequence[Sim], now: float) -> dict[str, Any]:
    """Return a node's entry in metrics.k8s.io/v1beta1."""
    return {
        "kind": "NodeMetrics",
        "apiVersion": "metrics.k8s.io/v1beta1",
        "metadata": {"name": node.settings.name, "creationTimestamp": times.format_time(now)},
        "timestamp": times.format_time(now),
        "window": WINDOW,
        "usage": _amounts(_of_node(node, sims)),
    }


def summary(node: Node, sims: Sequence[Sim], now: float) -> dict[str, Any]:
    """Return /stats/summary of a node."""
    time = times.format_time(now)

    def figures(use: Usage) -> dict[str, Any]:
        return {
            "cpu": {"time": time, "usageNanoCores": round(use.cpu_cores * 1e9)},
            "memory": {"time": time, "usageBytes": use.memory_bytes, "workingSetBytes": use.memory_bytes},
        }

    pods = []
    for sim in sims:
        if sim.node is not node:
            continue
        metadata, running = sim.state.pod.metadata, _running(sim)
        total = Usage(sum(use.cpu_cores for _, use in running), sum(use.memory_bytes for _, use in running))
        pods.append(
            {
                "podRef": {"name": metadata.name, "namespace": metadata.namespace, "uid": metadata.uid},
                "startTime": times.format_time(sim.state.started_seconds),
                "containers": [
                    {"name": item.spec.name, "startTime": times.format_time(item.started_seconds), **figures(use)}
                    for item, use in running
                ],
                **figures(total),
            }
        )
    return {
        "node": {"nodeName": node.settings.name, "startTime": time, **figures(_of_node(node, sims))},
        "pods": pods,
    }


def resource_metrics(node: Node, sims: Sequence[Sim], now: float) -> str:
    """Return /metrics/resource of a node, in Prometheus' text format."""
    lines: list[str] = []
    for name, kind, read in (
        ("container_cpu_usage_seconds_total", "counter", lambda use, age: use.cpu_cores * age),
        ("container_memory_working_set_bytes", "gauge", lambda use, age: float(use.memory_bytes)),
    ):
        lines += [f"# HELP {name} [STABLE] of a simulated container", f"# TYPE {name} {kind}"]
        for sim in sims:
            if sim.node is not node:
                continue
            metadata = sim.state.pod.metadata
            for item, use in _running(sim):
                labels = f'container="{item.spec.name}",namespace="{metadata.namespace}",pod="{metadata.name}"'
                lines.append(f"{name}{{{labels}}} {read(use, now - item.started_seconds)}")
    return "\n".join(lines) + "\n"

"""/metrics/resource: CPU and memory of the node, pods and containers; what metrics-server (`kubectl top`) reads.

Source: https://kubernetes.io/docs/reference/instrumentation/metrics/ and KEP-727
"""

from __future__ import annotations

from haven.kubelet.server.exposition import Family
from haven.kubelet.usage import NodeUsage

__all__ = ["resource_families"]


def resource_families(usage: NodeUsage | None) -> list[Family]:
    """Return the families; None says that no reading could be taken."""
    failed = Family("resource_scrape_error", "gauge", "1 if resource use could not be read, else 0")
    failed.add(0 if usage is not None else 1)
    if usage is None:
        return [failed]
    counter, gauge = "counter", "gauge"
    cpu = "CPU time used so far, in seconds of one core"
    memory = "Memory that cannot be taken back without effort, in bytes"
    swap = "Swap space in use, in bytes"
    node_cpu = Family("node_cpu_usage_seconds_total", counter, cpu)
    node_memory = Family("node_memory_working_set_bytes", gauge, memory)
    node_swap = Family("node_swap_usage_bytes", gauge, swap)
    pod_cpu = Family("pod_cpu_usage_seconds_total", counter, cpu)
    pod_memory = Family("pod_memory_working_set_bytes", gauge, memory)
    pod_swap = Family("pod_swap_usage_bytes", gauge, swap)
    container_cpu = Family("container_cpu_usage_seconds_total", counter, cpu)
    container_memory = Family("container_memory_working_set_bytes", gauge, memory)
    container_swap = Family("container_swap_usage_bytes", gauge, swap)
    container_swap_limit = Family("container_swap_limit_bytes", gauge, "Swap space that may be used, in bytes")
    container_start = Family("container_start_time_seconds", gauge, "When the container was started, in Unix seconds")
    at = usage.seconds
    node_cpu.add(usage.cpu / 1e9, at=at)
    node_memory.add(usage.memory["MemTotal"] - usage.memory["MemAvailable"], at=at)
    node_swap.add(usage.memory.get("SwapTotal", 0) - usage.memory.get("SwapFree", 0), at=at)
    for pod in usage.pods:
        metadata = pod.pod.metadata
        place = {"namespace": metadata.namespace, "pod": metadata.name}
        if pod.use is not None:
            pod_cpu.add(pod.use.cpu / 1e9, place, at=at)
            pod_memory.add(pod.use.working_set, place, at=at)
            pod_swap.add(pod.use.swap, place, at=at)
        for container in pod.containers:
            labels = {"container": container.name, **place}
            container_cpu.add(container.use.cpu / 1e9, labels, at=at)
            container_memory.add(container.use.working_set, labels, at=at)
            container_swap.add(container.use.swap, labels, at=at)
            container_swap_limit.add(container.use.swap_limit, labels, at=at)
            container_start.add(container.started_seconds, labels)
    return [
        failed, node_cpu, node_memory, node_swap, pod_cpu, pod_memory, pod_swap, container_cpu, container_memory,
        container_swap, container_swap_limit, container_start,
    ]  # fmt: skip

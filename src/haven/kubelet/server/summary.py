"""/stats/summary: what the node and its Pods use, from the runtime and from the kernel.

Source: https://kubernetes.io/docs/reference/instrumentation/node-metrics/
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from haven.apimachinery import times
from haven.cri.interface import ContainerStats, PodStats

__all__ = ["node_usage", "summary"]


def node_usage(proc: Path = Path("/proc")) -> dict[str, int]:
    """Return the node's memory in bytes and its CPU time in nanoseconds."""
    memory: dict[str, int] = {}
    for line in (proc / "meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        memory[name] = int(rest.split()[0]) * 1024
    fields = [int(word) for word in (proc / "stat").read_text().split("\n", 1)[0].split()[1:]]
    busy_ticks = sum(fields[:3]) + sum(fields[5:8])
    tick_nanoseconds = 10**9 // os.sysconf("SC_CLK_TCK")
    total, available = memory["MemTotal"], memory.get("MemAvailable", memory["MemFree"])
    return {
        "cpu_core_nanoseconds": busy_ticks * tick_nanoseconds,
        "memory_available_bytes": available,
        "memory_usage_bytes": total - memory["MemFree"],
        "memory_working_set_bytes": total - available,
        "memory_rss_bytes": memory.get("AnonPages", 0),
    }


def summary(
    node_name: str,
    pods: Sequence[PodStats],
    containers: Sequence[ContainerStats],
    started_seconds: float,
    root: Path,
) -> dict[str, Any]:
    """Return the document."""
    now = times.format_time(time.time())
    usage = node_usage()
    disk = shutil.disk_usage(root)
    by_pod: dict[str, list[ContainerStats]] = {}
    for container in containers:
        by_pod.setdefault(container.labels.get("io.kubernetes.pod.uid", ""), []).append(container)
    filesystem = {
        "time": now,
        "availableBytes": disk.free,
        "capacityBytes": disk.total,
        "usedBytes": disk.used,
    }
    return {
        "node": {
            "nodeName": node_name,
            "startTime": times.format_time(started_seconds),
            "cpu": {"time": now, "usageCoreNanoSeconds": usage["cpu_core_nanoseconds"]},
            "memory": {
                "time": now,
                "availableBytes": usage["memory_available_bytes"],
                "usageBytes": usage["memory_usage_bytes"],
                "workingSetBytes": usage["memory_working_set_bytes"],
                "rssBytes": usage["memory_rss_bytes"],
            },
            "fs": filesystem,
            "runtime": {"imageFs": filesystem},
        },
        "pods": [_pod(pod, by_pod.get(pod.uid, list(pod.containers)), now) for pod in pods],
    }


def _pod(pod: PodStats, containers: Sequence[ContainerStats], now: str) -> dict[str, Any]:
    interfaces = [
        {
            "name": one.name,
            "rxBytes": one.rx_bytes,
            "rxErrors": one.rx_errors,
            "txBytes": one.tx_bytes,
            "txErrors": one.tx_errors,
        }
        for one in pod.interfaces
    ]
    return {
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "startTime": now,
        "containers": [_container(item, now) for item in containers],
        "cpu": {
            "time": now,
            "usageNanoCores": pod.cpu_usage_nanocores,
            "usageCoreNanoSeconds": pod.cpu_usage_core_nanoseconds,
        },
        "memory": {
            "time": now,
            "usageBytes": pod.memory_usage_bytes,
            "workingSetBytes": pod.memory_working_set_bytes,
            "rssBytes": pod.memory_rss_bytes,
        },
        "network": {"time": now, **(interfaces[0] if interfaces else {"name": ""}), "interfaces": interfaces},
        "process_stats": {"process_count": pod.process_count},
    }


def _container(item: ContainerStats, now: str) -> dict[str, Any]:
    return {
        "name": item.name,
        "startTime": now,
        "cpu": {
            "time": now,
            "usageNanoCores": item.cpu_usage_nanocores,
            "usageCoreNanoSeconds": item.cpu_usage_core_nanoseconds,
        },
        "memory": {
            "time": now,
            "usageBytes": item.memory_usage_bytes,
            "workingSetBytes": item.memory_working_set_bytes,
            "rssBytes": item.memory_rss_bytes,
            "pageFaults": item.memory_page_faults,
            "majorPageFaults": item.memory_major_page_faults,
        },
        "rootfs": {"time": now, "usedBytes": item.writable_layer_bytes, "inodesUsed": item.writable_layer_inodes},
    }

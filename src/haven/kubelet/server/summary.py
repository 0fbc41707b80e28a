"""/stats/summary: what the node and its pods use, as one document.

Source: https://kubernetes.io/docs/reference/instrumentation/node-metrics/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from haven.apimachinery import times
from haven.kubelet.cgroupuse import CgroupUse
from haven.kubelet.machine import DiskSpace
from haven.kubelet.usage import ContainerUsage, Interface, NodeUsage, PodUsage, VolumeUsage

__all__ = ["summary"]

Document = dict[str, Any]


def summary(node_name: str, usage: NodeUsage, *, only_cpu_and_memory: bool = False) -> Document:
    """Return the document for a reading."""
    now = times.format_time(usage.seconds)
    memory = usage.memory
    disk = _space(usage.disk, usage.disk.total_bytes - usage.disk.free_bytes, now)
    node: Document = {
        "nodeName": node_name,
        "systemContainers": [
            {"name": name, "startTime": times.format_time(usage.started_seconds)}
            | _cpu_and_memory(use, usage.rates.get(path), now)
            for path, use in usage.cgroups.items()
            if (name := "pods" if path.count("/") == 1 and path != "/" else "")
        ],
        "startTime": times.format_time(usage.started_seconds),
        "cpu": _cpu(usage.cpu, usage.cpu_nanocores, now),
        "memory": {
            "time": now,
            "availableBytes": memory["MemAvailable"],
            "usageBytes": memory["MemTotal"] - memory["MemFree"],
            "workingSetBytes": memory["MemTotal"] - memory["MemAvailable"],
            "rssBytes": memory.get("AnonPages", 0),
            "pageFaults": usage.page_faults,
            "majorPageFaults": usage.major_page_faults,
        },
        "swap": {
            "time": now,
            "swapAvailableBytes": memory.get("SwapFree", 0),
            "swapUsageBytes": memory.get("SwapTotal", 0) - memory.get("SwapFree", 0),
        },
    }
    if not only_cpu_and_memory:
        node |= {
            "network": _network([item for item in usage.interfaces if item.name != "lo"], now),
            "fs": disk,
            "runtime": {"imageFs": disk, "containerFs": disk},
            "rlimit": {"time": now, "maxpid": usage.processes_max, "curproc": usage.processes},
        }
    pods = [_pod(pod, usage, now, only_cpu_and_memory=only_cpu_and_memory) for pod in usage.pods]
    return {"node": node, "pods": pods}


def _pod(pod: PodUsage, usage: NodeUsage, now: str, *, only_cpu_and_memory: bool) -> Document:
    metadata = pod.pod.metadata
    document: Document = {
        "podRef": {"name": metadata.name, "namespace": metadata.namespace, "uid": metadata.uid},
        "startTime": times.format_time(pod.started_seconds),
        "containers": [
            _container(item, usage, now, only_cpu_and_memory=only_cpu_and_memory) for item in pod.containers
        ],
    }
    if pod.use is not None:
        document |= _cpu_and_memory(pod.use, pod.cpu_nanocores, now)
        document["process_stats"] = {"process_count": pod.use.processes}
    if only_cpu_and_memory:
        return document
    own = [volume for volume in pod.volumes if not volume.claim]
    used = sum(item.rootfs_bytes + item.log_bytes for item in pod.containers) + sum(item.used_bytes for item in own)
    inodes = sum(item.rootfs_inodes for item in pod.containers) + sum(item.used_inodes for item in own)
    document |= {
        "network": _network(pod.interfaces, now),
        "volume": [_volume(volume, metadata.namespace, now) for volume in pod.volumes],
        "ephemeral-storage": _space(usage.disk, used, now, inodes_used=inodes),
    }
    return document


def _container(item: ContainerUsage, usage: NodeUsage, now: str, *, only_cpu_and_memory: bool) -> Document:
    document: Document = {"name": item.name, "startTime": times.format_time(item.started_seconds)}
    document |= _cpu_and_memory(item.use, item.cpu_nanocores, now)
    if not only_cpu_and_memory:
        document["rootfs"] = _space(usage.disk, item.rootfs_bytes, now, inodes_used=item.rootfs_inodes)
        document["logs"] = _space(usage.disk, item.log_bytes, now)
    return document


def _cpu_and_memory(use: CgroupUse, nanocores: int | None, now: str) -> Document:
    memory: Document = {
        "time": now,
        "usageBytes": use.memory,
        "workingSetBytes": use.working_set,
        "rssBytes": use.rss,
        "pageFaults": use.page_faults,
        "majorPageFaults": use.major_page_faults,
    }
    if use.memory_limit:
        memory["availableBytes"] = max(use.memory_limit - use.working_set, 0)
    return {"cpu": _cpu(use.cpu, nanocores, now), "memory": memory, "swap": {"time": now, "swapUsageBytes": use.swap}}


def _cpu(nanoseconds: int, nanocores: int | None, now: str) -> Document:
    document: Document = {"time": now, "usageCoreNanoSeconds": nanoseconds}
    if nanocores is not None:
        document["usageNanoCores"] = nanocores
    return document


def _network(interfaces: Sequence[Interface], now: str) -> Document:
    listed = [
        {
            "name": one.name,
            "rxBytes": one.rx_bytes,
            "rxErrors": one.rx_errors,
            "txBytes": one.tx_bytes,
            "txErrors": one.tx_errors,
        }
        for one in interfaces
    ]
    first = next((one for one in listed if one["name"] == "eth0"), listed[0] if listed else {"name": ""})
    return {"time": now, **first, "interfaces": listed}


def _volume(volume: VolumeUsage, namespace: str, now: str) -> Document:
    document = _space(volume.space, volume.used_bytes, now, inodes_used=volume.used_inodes)
    document["name"] = volume.name
    if volume.claim:
        document["pvcRef"] = {"name": volume.claim, "namespace": namespace}
    return document


def _space(space: DiskSpace, used_bytes: int, now: str, *, inodes_used: int | None = None) -> Document:
    used_inodes = space.total_inodes - space.free_inodes if inodes_used is None else inodes_used
    return {
        "time": now,
        "availableBytes": space.free_bytes,
        "capacityBytes": space.total_bytes,
        "usedBytes": used_bytes,
        "inodesFree": space.free_inodes,
        "inodes": space.total_inodes,
        "inodesUsed": used_inodes,
    }

"""/metrics/cadvisor: what cgroups count, under the names and labels that cAdvisor gave them.

Each series says the cgroup (`id`), the runtime's id (`name`), image, namespace, pod and container; those of a pod as a
whole have an empty container, and the network's are the sandbox's.
Source: https://github.com/google/cadvisor/blob/master/docs/storage/prometheus.md
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence

from haven.kubelet.cgroupuse import CgroupUse
from haven.kubelet.server.exposition import Family
from haven.kubelet.usage import ContainerUsage, Interface, NodeUsage, PodUsage

__all__ = ["cadvisor_families"]

Labels = Mapping[str, str]

_SECONDS = {
    "container_cpu_user_seconds_total": ("cpu_user", "CPU time in user mode"),
    "container_cpu_system_seconds_total": ("cpu_system", "CPU time in the kernel"),
}
_THROTTLING = {
    "container_cpu_cfs_periods_total": ("cpu_periods", 1, "Periods in which the CPU limit was enforced"),
    "container_cpu_cfs_throttled_periods_total": ("cpu_throttled_periods", 1, "Periods that were cut short"),
    "container_cpu_cfs_throttled_seconds_total": ("cpu_throttled", 1e9, "Time spent throttled"),
}
_GAUGES = {
    "container_memory_cache": ("cache", "Page cache in bytes"),
    "container_memory_rss": ("rss", "Anonymous memory in bytes"),
    "container_memory_kernel_usage": ("kernel", "Memory of the kernel in bytes"),
    "container_memory_mapped_file": ("mapped_file", "Mapped files in bytes"),
    "container_memory_swap": ("swap", "Swap in bytes"),
    "container_memory_usage_bytes": ("memory", "Memory in use, whenever it was touched last"),
    "container_memory_max_usage_bytes": ("memory_max", "The most memory that was ever in use"),
    "container_memory_working_set_bytes": ("working_set", "Memory that cannot be taken back without effort"),
    "container_memory_total_active_file_bytes": ("active_file", "File pages touched lately"),
    "container_memory_total_inactive_file_bytes": ("inactive_file", "File pages not touched lately"),
    "container_processes": ("processes", "Processes"),
    "container_threads": ("processes", "Threads"),
    "container_threads_max": ("processes_max", "Threads allowed, 0 for any number"),
    "container_spec_memory_limit_bytes": ("memory_limit", "Memory limit, 0 for none"),
    "container_spec_memory_swap_limit_bytes": ("swap_limit", "Limit of memory and swap, 0 for none"),
}
_COUNTERS = {
    "container_memory_failcnt": ("failcnt", "How often memory hit its limit"),
    "container_oom_events_total": ("oom_kills", "Processes killed for want of memory"),
}
_INTERFACE = {
    "container_network_receive_bytes_total": "rx_bytes",
    "container_network_receive_packets_total": "rx_packets",
    "container_network_receive_packets_dropped_total": "rx_dropped",
    "container_network_receive_errors_total": "rx_errors",
    "container_network_transmit_bytes_total": "tx_bytes",
    "container_network_transmit_packets_total": "tx_packets",
    "container_network_transmit_packets_dropped_total": "tx_dropped",
    "container_network_transmit_errors_total": "tx_errors",
}


class _Families(dict[str, Family]):
    def get_or_add(self, name: str, kind: str, help: str) -> Family:
        if name not in self:
            self[name] = Family(name, kind, help)
        return self[name]


def cadvisor_families(usage: NodeUsage) -> list[Family]:
    """Return the families for a reading."""
    families = _Families()
    for labels, use, started in _series(usage):
        _add_use(families, labels, use, usage.seconds)
        families.get_or_add("container_start_time_seconds", "gauge", "When it was started, in Unix seconds").add(
            int(started), labels
        )
        families.get_or_add("container_last_seen", "gauge", "When it was last seen, in Unix seconds").add(
            int(usage.seconds), labels, at=usage.seconds
        )
    _add_interfaces(families, _labels("/"), usage.interfaces, usage.seconds)
    for pod in usage.pods:
        if pod.sandbox is not None:
            _add_interfaces(families, _container_labels(pod, pod.sandbox), pod.interfaces, usage.seconds)
        for container in pod.containers:
            families.get_or_add("container_fs_usage_bytes", "gauge", "Bytes of the writable layer").add(
                container.rootfs_bytes, {**_container_labels(pod, container), "device": ""}, at=usage.seconds
            )
    _add_machine(families, usage)
    return list(families.values())


def _series(usage: NodeUsage) -> Iterator[tuple[Labels, CgroupUse, float]]:
    for path, use in usage.cgroups.items():
        yield _labels(path), use, usage.started_seconds
    for pod in usage.pods:
        metadata = pod.pod.metadata
        if pod.use is not None:
            yield _labels(pod.cgroup, namespace=metadata.namespace, pod=metadata.name), pod.use, pod.started_seconds
        for container in (*((pod.sandbox,) if pod.sandbox else ()), *pod.containers):
            yield _container_labels(pod, container), container.use, container.started_seconds


def _labels(
    path: str, *, name: str = "", image: str = "", namespace: str = "", pod: str = "", container: str = ""
) -> dict[str, str]:
    return {"container": container, "id": path, "image": image, "name": name, "namespace": namespace, "pod": pod}


def _container_labels(pod: PodUsage, container: ContainerUsage) -> dict[str, str]:
    return _labels(
        container.cgroup,
        name=container.id,
        image=container.image,
        namespace=pod.pod.metadata.namespace,
        pod=pod.pod.metadata.name,
        container=container.name,
    )


def _add_use(families: _Families, labels: Labels, use: CgroupUse, at: float) -> None:
    add = families.get_or_add
    add("container_cpu_usage_seconds_total", "counter", "CPU time").add(
        use.cpu / 1e9, {**labels, "cpu": "total"}, at=at
    )
    for name, (attribute, help) in _SECONDS.items():
        add(name, "counter", help).add(getattr(use, attribute) / 1e9, labels, at=at)
    if use.cpu_quota:
        for name, (attribute, unit, help) in _THROTTLING.items():
            add(name, "counter", help).add(getattr(use, attribute) / unit, labels, at=at)
        add("container_spec_cpu_quota", "gauge", "CPU limit, microseconds per period").add(use.cpu_quota, labels)
    add("container_spec_cpu_period", "gauge", "Period of the CPU limit, microseconds").add(use.cpu_period, labels)
    add("container_spec_cpu_shares", "gauge", "Share of the CPU under contention").add(use.cpu_shares, labels)
    add("container_spec_memory_reservation_limit_bytes", "gauge", "Soft memory limit, 0 for none").add(0, labels)
    for name, (attribute, help) in _GAUGES.items():
        add(name, "gauge", help).add(getattr(use, attribute), labels, at=at)
    for name, (attribute, help) in _COUNTERS.items():
        add(name, "counter", help).add(getattr(use, attribute), labels, at=at)
    faults = add("container_memory_failures_total", "counter", "Page faults")
    for kind, count in (("pgfault", use.page_faults), ("pgmajfault", use.major_page_faults)):
        for scope in ("container", "hierarchy"):
            faults.add(count, {**labels, "failure_type": kind, "scope": scope}, at=at)
    for (device, operation), (size, count) in use.io.items():
        verb = "reads" if operation == "Read" else "writes"
        where = {**labels, "device": _device(device)}
        add(f"container_fs_{verb}_bytes_total", "counter", f"Bytes of {verb}").add(size, where, at=at)
        add(f"container_fs_{verb}_total", "counter", f"Number of {verb}").add(count, where, at=at)
        major, _, minor = device.partition(":")
        add("container_blkio_device_usage_total", "counter", "Bytes by device and operation").add(
            size, {**labels, "device": _device(device), "major": major, "minor": minor, "operation": operation}, at=at
        )
    for resource, pressure in use.pressure.items():
        for word, seconds in (("waiting", pressure.some_seconds), ("stalled", pressure.full_seconds)):
            name = f"container_pressure_{resource}_{word}_seconds_total"
            add(name, "counter", f"Time for which tasks were {word} for {resource}").add(seconds, labels, at=at)


def _add_interfaces(families: _Families, labels: Labels, interfaces: Sequence[Interface], at: float) -> None:
    for interface in interfaces:
        for name, attribute in _INTERFACE.items():
            words = name.removeprefix("container_network_").removesuffix("_total").replace("_", " ")
            families.get_or_add(name, "counter", f"Network: {words}").add(
                getattr(interface, attribute), {**labels, "interface": interface.name}, at=at
            )


def _add_machine(families: _Families, usage: NodeUsage) -> None:
    cpus = os.sched_getaffinity(0)
    boot = {"boot_id": "", "machine_id": "", "system_uuid": ""}
    for name, value, help in (
        ("machine_cpu_cores", len(cpus), "Logical CPUs"),
        ("machine_memory_bytes", usage.memory["MemTotal"], "Memory of the machine"),
        ("machine_swap_bytes", usage.memory.get("SwapTotal", 0), "Swap of the machine"),
    ):
        families.get_or_add(name, "gauge", help).add(value, boot)
    families.get_or_add("machine_scrape_error", "gauge", "1 if the machine could not be read").add(0)
    families.get_or_add("container_scrape_error", "gauge", "1 if containers could not be read").add(0)
    versions = {
        "cadvisorRevision": "", "cadvisorVersion": "", "dockerVersion": "",
        "kernelVersion": platform.release(), "osVersion": platform.system(),
    }  # fmt: skip
    families.get_or_add("cadvisor_version_info", "gauge", "Always 1").add(1, versions)


def _device(number: str) -> str:
    """Return the path of a block device such as 8:0."""
    try:
        return "/dev/" + os.path.basename(os.readlink(f"/sys/dev/block/{number}"))
    except OSError:
        return number

"""/metrics and /metrics/probes: the agent about itself.

Source: https://kubernetes.io/docs/reference/instrumentation/metrics/
"""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Mapping
from pathlib import Path

from haven.cri.interface import CallTally
from haven.kubelet.probes import ProbeCount, ProbeKind
from haven.kubelet.server.exposition import Family
from haven.kubelet.statistics import KubeletStatistics
from haven.kubelet.usage import NodeUsage
from haven.telemetry import Durations

__all__ = ["agent_families", "probe_families"]


def agent_families(facts: KubeletStatistics, calls: Mapping[str, CallTally], usage: NodeUsage | None) -> list[Family]:
    """Return the agent's own metrics; volumes' ones only with a reading."""
    families: list[Family] = []

    def add(name: str, kind: str, help: str, values: Mapping[tuple[tuple[str, str], ...], float] | float) -> None:
        family = Family(name, kind, help)
        for labels, value in values.items() if isinstance(values, Mapping) else (((), values),):
            family.add(value, dict(labels))
        families.append(family)

    def by(label: str, values: Mapping[str, int]) -> dict[tuple[tuple[str, str], ...], float]:
        return {((label, name),): float(value) for name, value in sorted(values.items())}

    def static(values: Mapping[bool, int]) -> dict[tuple[tuple[str, str], ...], float]:
        return {(("static", "true" if key else ""),): float(values.get(key, 0)) for key in (False, True)}

    gauge, counter = "gauge", "counter"
    add("kubelet_node_name", gauge, "The node's name; always 1", by("node", {facts.node_name: 1}))
    add("kubelet_running_pods", gauge, "Pods with a running sandbox", facts.running_pods)
    add("kubelet_running_containers", gauge, "Containers by state", by("container_state", facts.containers))
    add("kubelet_desired_pods", gauge, "Pods that shall run here", static(facts.desired_pods))
    add("kubelet_active_pods", gauge, "Pods that take room here", static(facts.active_pods))
    add("kubelet_mirror_pods", gauge, "API objects of static pods", facts.mirror_pods)
    add("kubelet_started_pods_total", counter, "Pods started", facts.started_pods)
    add(
        "kubelet_started_containers_total", counter, "Containers started",
        by("container_type", {"container": facts.started_containers}),
    )  # fmt: skip
    ended_containers: dict[tuple[tuple[str, str], ...], float] = {
        (("container_type", kind), ("exit_code", str(code))): float(count)
        for (kind, code), count in sorted(facts.ended_containers.items())
    }
    add("kubelet_terminated_containers_total", counter, "Containers that have ended", ended_containers)
    add("kubelet_evictions", counter, "Pods evicted", by("eviction_signal", facts.evictions))
    add("kubelet_preemptions", counter, "Pods that made room", by("preemption_signal", facts.preemptions))
    add("kubelet_admission_rejections_total", counter, "Pods refused", by("reason", facts.rejections))
    add(
        "kubelet_image_garbage_collected_total", counter, "Images removed",
        by("reason", {"space": facts.collected_images}),
    )  # fmt: skip
    add("kubelet_cgroup_version", gauge, "Version of the cgroups", facts.cgroup_version)
    add("kubelet_pleg_last_seen_seconds", gauge, "When pods were last listed, Unix time", facts.pleg_seen_seconds)
    started, ended = facts.shutdown_started_seconds, facts.shutdown_ended_seconds
    add("kubelet_graceful_shutdown_start_time_seconds", gauge, "When the node's shutdown began", started)
    add("kubelet_graceful_shutdown_end_time_seconds", gauge, "When the node's pods had ended", ended)
    volumes: dict[tuple[tuple[str, str], ...], float] = {
        (("plugin_name", f"kubernetes.io/{name}"), ("state", state)): float(count)
        for name, count in sorted(facts.volumes.items())
        for state in ("desired_state_of_world", "actual_state_of_world")
    }
    add("volume_manager_total_volumes", gauge, "Volumes by plugin and state", volumes)
    families += _call_families(calls)
    if usage is not None:
        families += _volume_families(usage)
    families += _process_families(facts)
    return families


def probe_families(counts: Mapping[tuple[str, str, ProbeKind], ProbeCount]) -> list[Family]:
    """Return what became of probes; `counts` is by pod UID, container and kind."""
    total = Family("prober_probe_total", "counter", "Probes by outcome")
    took = Family("prober_probe_duration_seconds", "histogram", "How long probes took")
    for (uid, container, kind), count in counts.items():
        place = {"container": container, "namespace": count.namespace, "pod": count.pod}
        for outcome, number in sorted(count.outcomes.items()):
            total.add(number, {**place, "pod_uid": uid, "probe_type": kind.value, "result": outcome})
        _add_durations(took, count.durations, {**place, "probe_type": kind.value})
    return [total, took]


def _call_families(calls: Mapping[str, CallTally]) -> list[Family]:
    total = Family("kubelet_runtime_operations_total", "counter", "Calls to the container runtime")
    failed = Family("kubelet_runtime_operations_errors_total", "counter", "Calls to the container runtime that failed")
    took = Family("kubelet_runtime_operations_duration_seconds", "histogram", "How long the container runtime took")
    for operation, tally in sorted(calls.items()):
        labels = {"operation_type": operation}
        total.add(tally.durations.count, labels)
        if tally.errors:
            failed.add(tally.errors, labels)
        _add_durations(took, tally.durations, labels)
    return [total, failed, took]


def _add_durations(family: Family, durations: Durations, labels: Mapping[str, str]) -> None:
    if durations.counts:
        family.add_histogram(durations.bounds, durations.counts, durations.total_seconds, labels)


def _volume_families(usage: NodeUsage) -> list[Family]:
    """Return what is left of claims' volumes."""
    prefix = "kubelet_volume_stats_"
    families = {
        name: Family(prefix + name, "gauge", f"Of a claim's volume: {name.replace('_', ' ')}")
        for name in ("capacity_bytes", "available_bytes", "used_bytes", "inodes", "inodes_free", "inodes_used")
    }
    seen: set[tuple[str, str]] = set()
    for pod in usage.pods:
        for volume in pod.volumes:
            place = (pod.pod.metadata.namespace, volume.claim)
            if not volume.claim or place in seen:
                continue
            seen.add(place)
            labels = {"namespace": place[0], "persistentvolumeclaim": place[1]}
            space = volume.space
            for name, value in (
                ("capacity_bytes", space.total_bytes),
                ("available_bytes", space.free_bytes),
                ("used_bytes", volume.used_bytes),
                ("inodes", space.total_inodes),
                ("inodes_free", space.free_inodes),
                ("inodes_used", volume.used_inodes),
            ):
                families[name].add(value, labels)
    return list(families.values())


def _process_families(facts: KubeletStatistics) -> list[Family]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    build = Family("kubernetes_build_info", "gauge", "What this is; always 1")
    number = facts.version.lstrip("v").split(".")
    build.add(
        1,
        {
            "compiler": platform.python_implementation().lower(),
            "git_version": facts.version,
            "major": number[0],
            "minor": number[1] if len(number) > 1 else "",
            "platform": f"linux/{platform.machine()}",
        },
    )
    families = [build]
    for name, kind, help, value in (
        ("process_cpu_seconds_total", "counter", "CPU time of this process", used.ru_utime + used.ru_stime),
        ("process_resident_memory_bytes", "gauge", "Resident memory", float(pages * resource.getpagesize())),
        ("process_start_time_seconds", "gauge", "When this process was started", facts.started_seconds),
        ("process_open_fds", "gauge", "Open files", float(len(os.listdir("/proc/self/fd")))),
    ):
        family = Family(name, kind, help)
        family.add(value)
        families.append(family)
    return families

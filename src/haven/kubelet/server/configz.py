"""/configz: the kubelet's settings in the form of upstream's KubeletConfiguration; only what has a meaning here.

Source: https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/
"""

from __future__ import annotations

from typing import Any

from haven.kubelet.eviction import Threshold
from haven.kubelet.settings import Settings

__all__ = ["kubelet_configuration"]


def kubelet_configuration(settings: Settings) -> dict[str, Any]:
    """Return the document."""
    shutdown, eviction, images = settings.shutdown, settings.eviction, settings.images
    found: dict[str, Any] = {
        "port": settings.server_port,
        "clusterDomain": settings.cluster_domain,
        "clusterDNS": list(settings.cluster_dns),
        "maxPods": settings.max_pods,
        "podPidsLimit": settings.pod_pids_max or -1,
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": True,
        "resolvConf": settings.resolver_config,
        "registerNode": settings.register_node,
        "nodeStatusUpdateFrequency": _duration(settings.node_status_update_seconds),
        "nodeStatusReportFrequency": _duration(settings.node_status_report_seconds),
        "nodeLeaseDurationSeconds": settings.lease_duration_seconds,
        "syncFrequency": _duration(settings.sync_seconds),
        "containerLogMaxSize": f"{settings.container_log_bytes_max // 2**20}Mi",
        "containerLogMaxFiles": settings.container_log_files_max,
        "imageMinimumGCAge": _duration(images.gc_min_age_seconds),
        "imageGCHighThresholdPercent": images.gc_high_percent,
        "imageGCLowThresholdPercent": images.gc_low_percent,
        "evictionHard": {each.signal: _amount(each) for each in eviction.hard},
        "evictionSoft": {each.signal: _amount(each) for each in eviction.soft},
        "evictionSoftGracePeriod": {each.signal: _duration(each.grace_seconds) for each in eviction.soft},
        "evictionMinimumReclaim": {each.signal: str(each.reclaim) for each in eviction.hard if each.reclaim},
        "evictionMaxPodGracePeriod": eviction.pod_grace_seconds_max,
        "evictionPressureTransitionPeriod": _duration(eviction.pressure_transition_seconds),
        "shutdownGracePeriod": _duration(shutdown.grace_seconds),
        "shutdownGracePeriodCriticalPods": _duration(shutdown.grace_critical_seconds),
        "shutdownGracePeriodByPodPriority": [
            {"priority": each.priority, "shutdownGracePeriodSeconds": each.seconds} for each in shutdown.by_priority
        ],
        "systemReserved": {name: str(amount) for name, amount in settings.system_reserved.items()},
        "seccompDefault": settings.seccomp_default,
        "allowedUnsafeSysctls": list(settings.allowed_unsafe_sysctls),
        "enableServer": True,
        "enableDebuggingHandlers": True,
    }
    if settings.manifest_directory is not None:
        found["staticPodPath"] = str(settings.manifest_directory)
    return {"kubeletconfig": {key: value for key, value in found.items() if value not in ({}, [])}}


def _amount(threshold: Threshold) -> str:
    if threshold.value:
        mebibytes, rest = divmod(threshold.value, 2**20)
        return str(threshold.value) if rest else f"{mebibytes}Mi"
    return f"{threshold.fraction * 100:g}%"


def _duration(seconds: float) -> str:
    """Write a duration as Go does: 1m0s, 10s, 0s."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{hours}h" if hours else ""
    text += f"{minutes}m" if hours or minutes else ""
    return f"{text}{rest:g}s"

"""What the agent counts, as a frozen snapshot that metrics and tests share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from haven.api.core.v1 import Volume
from haven.cri.pleg import PodContents
from haven.kubelet.podspec import is_static
from haven.kubelet.podworker import PodWorker, WorkerState

__all__ = ["KubeletStatistics", "count_containers", "count_pods", "count_volumes"]

_PLUGINS = {
    "empty_dir": "empty-dir",
    "host_path": "host-path",
    "config_map": "configmap",
    "secret": "secret",
    "downward_api": "downward-api",
    "projected": "projected",
    "persistent_volume_claim": "persistent-claim",
    "ephemeral": "persistent-claim",
    "csi": "csi",
    "nfs": "nfs",
    "iscsi": "iscsi",
    "image": "image",
}


@dataclass(frozen=True, slots=True)
class KubeletStatistics:
    """What the agent counts. Static pods come from files, mirror pods stand for them in the API."""

    node_name: str
    version: str
    started_seconds: float
    cgroup_version: int
    running_pods: int
    containers: Mapping[str, int]
    """By state, as the runtime says."""
    desired_pods: Mapping[bool, int]
    """By whether they are static; active ones count when others are admitted."""
    active_pods: Mapping[bool, int]
    mirror_pods: int
    started_pods: int
    started_containers: int
    ended_containers: Mapping[tuple[str, int], int]
    """By type and exit code."""
    evictions: Mapping[str, int]
    """By signal."""
    preemptions: Mapping[str, int]
    rejections: Mapping[str, int]
    """By reason."""
    collected_images: int
    pleg_seen_seconds: float
    shutdown_started_seconds: float
    shutdown_ended_seconds: float
    volumes: Mapping[str, int]
    """Mounted ones by plugin."""
    pods: int
    """All that are known here, those that have ended included."""
    image_pulls: int
    status_writes: int
    events: int
    events_dropped: int
    node_reports: int
    relists: int
    relist_failures: int


def count_containers(pods: Iterable[PodContents]) -> dict[str, int]:
    """Return how many containers are in which state."""
    states = Counter(container.state.name.lower() for contents in pods for container in contents.containers)
    return dict(states)


def count_pods(workers: Iterable[PodWorker]) -> tuple[dict[bool, int], dict[bool, int]]:
    """Return how many pods are desired, and how many are active, by whether they are static."""
    desired: Counter[bool] = Counter()
    active: Counter[bool] = Counter()
    for worker in workers:
        kind = is_static(worker.pod)
        desired[kind] += not worker.is_gone_from_api
        active[kind] += worker.state is not WorkerState.FINISHED and worker.verdict is None
    return dict(desired), dict(active)


def count_volumes(workers: Iterable[PodWorker]) -> dict[str, int]:
    """Return how many volumes are mounted, by plugin."""
    plugins: Counter[str] = Counter()
    for worker in workers:
        for volume in worker.pod.spec.volumes:
            if volume.name in worker.volumes:
                plugins[_plugin(volume)] += 1
    return dict(plugins)


def _plugin(volume: Volume) -> str:
    for name, plugin in _PLUGINS.items():
        if getattr(volume, name) is not None:
            return plugin
    return "other"

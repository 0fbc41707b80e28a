"""What pods get of what they ask for: CPU shares and quotas, memory limits, huge pages, OOM scores.

Source: https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/ and
https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/
"""

from __future__ import annotations

from haven.api.core.podresources import is_sidecar, pod_limits, pod_requests, qos_class
from haven.api.core.v1 import Container, Pod, ResourceRequirements
from haven.apimachinery.quantity import Format, Quantity
from haven.cri.interface import LinuxResources
from haven.kubelet.cgroups import CgroupLimits
from haven.kubelet.podspec import is_critical

__all__ = [
    "container_resources",
    "cpu_limit_of_quota",
    "cpu_quota",
    "cpu_request_of_shares",
    "cpu_shares",
    "oom_score_adj",
    "pod_cgroup_limits",
    "pod_level_status",
]

CPU_PERIOD = 100_000
_SHARES_MIN, _SHARES_MAX = 2, 262_144
_QUOTA_MIN = 1000
_OOM_GUARANTEED, _OOM_BEST_EFFORT = -997, 1000


def pod_level_status(pod: Pod) -> ResourceRequirements | None:
    """Return status.resources of the pod."""
    requests = pod_requests(pod, overhead=False)
    limits = pod_limits(pod, overhead=False)
    claims = list(pod.spec.resources.claims) if pod.spec.resources else []
    return ResourceRequirements(limits=limits, requests=requests, claims=claims)


def cpu_shares(milli: int) -> int:
    """Return cgroup v1 shares of a CPU request."""
    return max(_SHARES_MIN, min(milli * 1024 // 1000, _SHARES_MAX))


def cpu_quota(milli: int) -> int:
    """Return the CFS quota of a CPU limit for a period of 100 ms; 0 for no limit."""
    return max(milli * CPU_PERIOD // 1000, _QUOTA_MIN) if milli else 0


def cpu_request_of_shares(shares: int) -> int:
    """Return the millicores that shares stand for, rounded up."""
    return -(-shares * 1000 // 1024)


def cpu_limit_of_quota(quota: int, period: int) -> int:
    """Return the millicores that a quota stands for; 0 for none."""
    return quota * 1000 // period if quota > 0 and period > 0 else 0


def oom_score_adj(pod: Pod, container: Container, memory_capacity_bytes: int) -> int:
    """Return how readily the kernel kills a container when memory runs out."""
    if is_critical(pod) and pod.spec.priority_class_name == "system-node-critical":
        return _OOM_GUARANTEED
    tier = pod.status.qos_class or qos_class(pod)
    if tier == "Guaranteed":
        return _OOM_GUARANTEED
    if tier == "BestEffort":
        return _OOM_BEST_EFFORT
    request = _memory_request(container)
    if container in pod.spec.init_containers and is_sidecar(container):
        # A sidecar must not die before the containers that it serves.
        request = max(request, min((_memory_request(item) for item in pod.spec.containers), default=0))
    if pod.spec.resources is not None and "memory" in pod.spec.resources.requests:
        # Pod-level memory that no container claimed is shared out evenly.
        own = sum(
            _memory_request(item)
            for item in (*pod.spec.containers, *(c for c in pod.spec.init_containers if is_sidecar(c)))
        )
        rest = pod.spec.resources.requests["memory"].value - own
        members = len(pod.spec.containers) + sum(is_sidecar(item) for item in pod.spec.init_containers)
        request += max(rest, 0) // max(members, 1)
    score = 1000 - 1000 * request // max(memory_capacity_bytes, 1)
    # Above the guaranteed ones, below the best-effort ones, whatever the sizes.
    floor = 1000 + _OOM_GUARANTEED
    return min(max(score, floor), _OOM_BEST_EFFORT - 1)


def _memory_request(container: Container) -> int:
    return container.resources.requests.get("memory", Quantity.ZERO).value


def container_resources(pod: Pod, container: Container, memory_capacity_bytes: int) -> LinuxResources:
    """Return the cgroup limits of a container."""
    requests, limits = container.resources.requests, container.resources.limits
    request = requests.get("cpu")
    limit = limits.get("cpu")
    pod_level = pod.spec.resources
    if limit is None and pod_level is not None:
        limit = pod_level.limits.get("cpu")
    effective = request if request is not None else container.resources.limits.get("cpu")
    memory = limits.get("memory")
    if memory is None and pod_level is not None:
        memory = pod_level.limits.get("memory")
    hugepages = {_page_size(name): amount.value for name, amount in limits.items() if name.startswith("hugepages-")}
    return LinuxResources(
        cpu_period=CPU_PERIOD,
        cpu_quota=cpu_quota(limit.milli_value) if limit is not None else 0,
        cpu_shares=cpu_shares(effective.milli_value) if effective is not None else _SHARES_MIN,
        memory_limit_bytes=memory.value if memory is not None else 0,
        oom_score_adj=oom_score_adj(pod, container, memory_capacity_bytes),
        hugepage_limits=tuple(sorted(hugepages.items())),
    )


def _page_size(resource: str) -> str:
    """Return 2MB for hugepages-2Mi, as cgroup files are named."""
    size = Quantity.parse(resource.removeprefix("hugepages-")).value
    for unit, factor in (("GB", 2**30), ("MB", 2**20), ("KB", 2**10)):
        if size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def pod_cgroup_limits(pod: Pod, *, pids_max: int | None = None) -> CgroupLimits:
    """Return the limits of the pod's own cgroup: a hard one only if every container has it (or the pod itself)."""
    requests, limits = pod_requests(pod), pod_limits(pod)
    tier = pod.status.qos_class or qos_class(pod)
    containers = [*pod.spec.containers, *pod.spec.init_containers]
    pod_level = pod.spec.resources.limits if pod.spec.resources else {}

    def is_limited(name: str) -> bool:
        return name in pod_level or all(container.resources.limits.get(name) for container in containers)

    if tier == "BestEffort":
        return CgroupLimits(cpu_shares=_SHARES_MIN, pids_max=pids_max)
    hugepages = tuple(
        sorted((_page_size(name), amount.value) for name, amount in limits.items() if name.startswith("hugepages-"))
    )
    memory = limits["memory"].value if is_limited("memory") and "memory" in limits else None
    quota = cpu_quota(limits["cpu"].milli_value) if is_limited("cpu") and "cpu" in limits else None
    return CgroupLimits(
        cpu_shares=cpu_shares(requests.get("cpu", Quantity.ZERO).milli_value),
        cpu_quota=quota,
        memory_bytes=memory,
        pids_max=pids_max,
        hugepages=hugepages,
    )


def bytes_quantity(amount: int) -> Quantity:
    """Return an amount of bytes as Kubernetes writes it."""
    return Quantity.of(amount, Format.BINARY_SI)

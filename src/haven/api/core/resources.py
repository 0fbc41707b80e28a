"""Names and sums of compute resources: which are standard, extended, integers, quota'd; what a Pod asks for in all.

Source: https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/ and the behaviour of
pkg/apis/core/helper and k8s.io/component-helpers/resource.
"""

from __future__ import annotations

from haven.api.core import v1
from haven.apimachinery.quantity import Quantity
from haven.apimachinery.validation.names import qualified_name_errors

__all__ = [
    "QUOTA_SCOPES",
    "STANDARD_QUOTA_RESOURCES",
    "aggregate_container_limits",
    "aggregate_container_requests",
    "is_attachable_volume",
    "is_extended",
    "is_huge_page",
    "is_integer_resource",
    "is_native",
    "is_overcommit_allowed",
    "is_quota_huge_page",
    "is_standard_container_resource",
    "is_standard_limit_range_type",
    "is_standard_quota_resource",
    "is_standard_resource",
    "is_supported_pod_level_resource",
    "round_up_to_milli",
]

ResourceList = dict[str, Quantity]

_MILLI = 10**6
HUGE_PAGES = "hugepages-"
_REQUESTS_HUGE_PAGES = "requests.hugepages-"
_DEFAULT_NAMESPACE = "kubernetes.io/"
_STANDARD_CONTAINER = frozenset(("cpu", "memory", "ephemeral-storage"))
QUOTA_SCOPES = (
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
)
STANDARD_QUOTA_RESOURCES = frozenset(
    (
        "cpu", "memory", "ephemeral-storage", "requests.cpu", "requests.memory", "requests.storage",
        "requests.ephemeral-storage", "limits.cpu", "limits.memory", "limits.ephemeral-storage", "pods",
        "resourcequotas", "services", "replicationcontrollers", "secrets", "persistentvolumeclaims", "configmaps",
        "services.nodeports", "services.loadbalancers",
    )
)  # fmt: skip
_STANDARD = STANDARD_QUOTA_RESOURCES | {"storage"}
_INTEGER = frozenset(
    (
        "pods", "resourcequotas", "services", "replicationcontrollers", "secrets", "configmaps",
        "persistentvolumeclaims", "services.nodeports", "services.loadbalancers",
    )
)  # fmt: skip


def round_up_to_milli(amounts: ResourceList) -> None:
    """Round amounts to thousandths, the finest that the API keeps, away from zero."""
    for name, amount in amounts.items():
        if amount.nano % _MILLI:
            amounts[name] = Quantity.of_milli(amount.milli_value, amount.format)


def is_huge_page(name: str) -> bool:
    """Tell hugepages-2Mi and the like."""
    return name.startswith(HUGE_PAGES)


def is_quota_huge_page(name: str) -> bool:
    """Tell the names under which a quota limits huge pages."""
    return name.startswith((HUGE_PAGES, _REQUESTS_HUGE_PAGES))


def is_native(name: str) -> bool:
    """Tell resources of Kubernetes itself: unqualified ones and those of kubernetes.io."""
    return "/" not in name or _DEFAULT_NAMESPACE in name


def is_attachable_volume(name: str) -> bool:
    """Tell the names under which nodes count volumes."""
    return name.startswith("attachable-volumes-")


def is_extended(name: str) -> bool:
    """Tell resources of others, which come in whole numbers and cannot be overcommitted."""
    if is_native(name) or name.startswith("requests."):
        return False
    return not qualified_name_errors(f"requests.{name}")


def is_overcommit_allowed(name: str) -> bool:
    """Tell whether a limit may exceed its request."""
    return is_native(name) and not is_huge_page(name)


def is_standard_container_resource(name: str) -> bool:
    """Tell what a container may ask for without a domain."""
    return name in _STANDARD_CONTAINER or is_huge_page(name)


def is_standard_resource(name: str) -> bool:
    """Tell unqualified names that mean something."""
    return name in _STANDARD or is_quota_huge_page(name)


def is_standard_quota_resource(name: str) -> bool:
    """Tell unqualified names that a quota may limit."""
    return name in STANDARD_QUOTA_RESOURCES or is_quota_huge_page(name)


def is_integer_resource(name: str) -> bool:
    """Tell what is counted, or extended, and so comes in whole numbers."""
    return name in _INTEGER or is_extended(name)


def is_standard_limit_range_type(name: str) -> bool:
    """Tell the types of limits that mean something."""
    return name in ("Pod", "Container", "PersistentVolumeClaim")


def is_supported_pod_level_resource(name: str) -> bool:
    """Tell what a Pod as a whole may ask for."""
    return name in ("cpu", "memory") or is_huge_page(name)


def _add(total: ResourceList, more: ResourceList) -> None:
    for name, amount in more.items():
        total[name] = total[name] + amount if name in total else amount


def _maximum(total: ResourceList, other: ResourceList) -> None:
    for name, amount in other.items():
        if name not in total or amount > total[name]:
            total[name] = amount


def _aggregate(spec: v1.PodSpec, which: str) -> ResourceList:
    total: ResourceList = {}
    for container in spec.containers or ():
        _add(total, getattr(container.resources, which))
    sidecars: ResourceList = {}
    peak: ResourceList = {}
    for container in spec.init_containers:
        amounts: ResourceList = getattr(container.resources, which)
        if container.restart_policy == "Always":
            _add(total, amounts)
            _add(sidecars, amounts)
            _maximum(peak, sidecars)
        else:
            now = dict(amounts)
            _add(now, sidecars)
            _maximum(peak, now)
    _maximum(total, peak)
    return total


def aggregate_container_requests(spec: v1.PodSpec) -> ResourceList:
    """Return what all containers of a Pod ask for, init containers and sidecars reckoned in."""
    return _aggregate(spec, "requests")


def aggregate_container_limits(spec: v1.PodSpec) -> ResourceList:
    """Return what all containers of a Pod may use at most."""
    return _aggregate(spec, "limits")

"""What one object costs under a ResourceQuota. Pure.

Source: https://kubernetes.io/docs/concepts/policy/resource-quotas/
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from haven.api.core import v1 as core
from haven.api.core.podresources import BEST_EFFORT, pod_limits, pod_requests, qos_class
from haven.api.scheme import Resource, table
from haven.apimachinery.quantity import Quantity
from haven.controllers import pods

__all__ = ["counted_resources", "usage_of"]

_ONE = Quantity.of(1)
_PLAIN = {
    "configmaps": ("", "configmaps"),
    "secrets": ("", "secrets"),
    "services": ("", "services"),
    "persistentvolumeclaims": ("", "persistentvolumeclaims"),
    "replicationcontrollers": ("", "replicationcontrollers"),
    "resourcequotas": ("", "resourcequotas"),
    "services.nodeports": ("", "services"),
    "services.loadbalancers": ("", "services"),
    "requests.storage": ("", "persistentvolumeclaims"),
}
_STORAGE_CLASS = ".storageclass.storage.k8s.io/"


def counted_resources(names: Iterable[str]) -> list[Resource[Any]]:
    """Return the resources whose objects count towards these names; unknown names count nothing."""
    found: dict[tuple[str, str], None] = {}
    for name in names:
        if name.startswith("count/"):
            plural, _, group = name[6:].partition(".")
            found[(group, plural)] = None
        elif name in _PLAIN:
            found[_PLAIN[name]] = None
        elif _STORAGE_CLASS in name:
            found[("", "persistentvolumeclaims")] = None
        else:
            found[("", "pods")] = None
    by_group: dict[tuple[str, str], Resource[Any]] = {}
    for resource in table().values():
        if resource.namespaced:
            by_group.setdefault((resource.group, resource.plural), resource)
    return [by_group[each] for each in found if each in by_group]


def usage_of(resource: Resource[Any], obj: Any, quota: core.ResourceQuota, now_seconds: float) -> dict[str, Quantity]:
    """Return what an object costs, by the names that quotas use."""
    count_name = f"count/{resource.plural}.{resource.group}" if resource.group else f"count/{resource.plural}"
    usage: dict[str, Quantity] = {count_name: _ONE}
    if not resource.group and resource.plural in _PLAIN:
        usage[resource.plural] = _ONE
    if isinstance(obj, core.Pod):
        if not _matches_scopes(obj, quota):
            return {}
        if not _is_over(obj, now_seconds):
            usage |= _pod_usage(obj)
    elif isinstance(obj, core.Service):
        usage |= _service_usage(obj)
    elif isinstance(obj, core.PersistentVolumeClaim):
        usage |= _claim_usage(obj)
    return usage


def _is_over(pod: core.Pod, now_seconds: float) -> bool:
    """Tell whether a Pod uses nothing any more: it ended, or should have been gone by now."""
    if pods.is_finished(pod):
        return True
    if pod.metadata.deletion_timestamp is None or pod.metadata.deletion_grace_period_seconds is None:
        return False
    return now_seconds > pods.seconds_of(pod.metadata.deletion_timestamp)


def _pod_usage(pod: core.Pod) -> dict[str, Quantity]:
    usage = {"pods": _ONE}
    for name, amount in pod_requests(pod).items():
        if name in ("cpu", "memory", "ephemeral-storage") or name.startswith("hugepages-"):
            usage[name] = amount
            usage[f"requests.{name}"] = amount
        else:
            usage[f"requests.{name}"] = amount
    for name, amount in pod_limits(pod).items():
        if name in ("cpu", "memory", "ephemeral-storage"):
            usage[f"limits.{name}"] = amount
    return usage


def _service_usage(service: core.Service) -> dict[str, Quantity]:
    node_ports = 0
    if service.spec.type == "NodePort":
        node_ports = len(service.spec.ports)
    elif service.spec.type == "LoadBalancer":
        allocates = service.spec.allocate_load_balancer_node_ports is not False
        node_ports = len(service.spec.ports) if allocates else sum(p.node_port != 0 for p in service.spec.ports)
    balancers = int(service.spec.type == "LoadBalancer")
    return {"services.nodeports": Quantity.of(node_ports), "services.loadbalancers": Quantity.of(balancers)}


def _claim_usage(claim: core.PersistentVolumeClaim) -> dict[str, Quantity]:
    usage: dict[str, Quantity] = {}
    storage_class = claim.spec.storage_class_name or claim.metadata.annotations.get(
        "volume.beta.kubernetes.io/storage-class", ""
    )
    if storage_class:
        usage[f"{storage_class}{_STORAGE_CLASS}persistentvolumeclaims"] = _ONE
    asked = claim.spec.resources.requests.get("storage")
    if asked is not None:
        allocated = claim.status.allocated_resources.get("storage")
        amount = max(asked, allocated) if allocated is not None else asked
        usage["requests.storage"] = amount
        if storage_class:
            usage[f"{storage_class}{_STORAGE_CLASS}requests.storage"] = amount
    return usage


# Scopes


def _matches_scopes(pod: core.Pod, quota: core.ResourceQuota) -> bool:
    if not all(_has_scope(pod, scope) for scope in quota.spec.scopes):
        return False
    selector = quota.spec.scope_selector
    for each in selector.match_expressions if selector else ():
        if each.scope_name == "PriorityClass":
            if not _matches_priority(pod, each):
                return False
        elif _has_scope(pod, each.scope_name) != (each.operator in ("Exists", "In")):
            return False
    return True


def _has_scope(pod: core.Pod, scope: str) -> bool:
    match scope:
        case "Terminating":
            return pod.spec.active_deadline_seconds is not None
        case "NotTerminating":
            return pod.spec.active_deadline_seconds is None
        case "BestEffort":
            return qos_class(pod) == BEST_EFFORT
        case "NotBestEffort":
            return qos_class(pod) != BEST_EFFORT
        case "PriorityClass":
            return bool(pod.spec.priority_class_name)
        case "CrossNamespacePodAffinity":
            return _crosses_namespaces(pod)
    return False


def _matches_priority(pod: core.Pod, each: core.ScopedResourceSelectorRequirement) -> bool:
    name = pod.spec.priority_class_name
    match each.operator:
        case "Exists":
            return bool(name)
        case "DoesNotExist":
            return not name
        case "In":
            return name in each.values
        case "NotIn":
            return name not in each.values
    return False


def _crosses_namespaces(pod: core.Pod) -> bool:
    affinity = pod.spec.affinity
    if affinity is None:
        return False
    terms: list[core.PodAffinityTerm] = []
    for part in (affinity.pod_affinity, affinity.pod_anti_affinity):
        if part is not None:
            terms += part.required_during_scheduling_ignored_during_execution
            weighted = part.preferred_during_scheduling_ignored_during_execution
            terms += [each.pod_affinity_term for each in weighted]
    return any(term.namespaces or term.namespace_selector is not None for term in terms)

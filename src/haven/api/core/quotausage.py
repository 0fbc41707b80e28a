"""What objects count for in a ResourceQuota, and which objects a quota is about. Pure.

The API server checks requests with it, the resource quota controller sums up what is there.
Source: https://kubernetes.io/docs/concepts/policy/resource-quotas/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from haven.api.core import v1 as core
from haven.api.core.podresources import BEST_EFFORT, pod_limits, pod_requests, qos_class
from haven.api.core.resources import is_extended
from haven.apimachinery import times
from haven.apimachinery.apierrors import GroupResource
from haven.apimachinery.quantity import Quantity

__all__ = [
    "IGNORED",
    "SPECIAL",
    "Counting",
    "Usage",
    "calculate",
    "counting_of",
    "covers",
    "is_terminating",
    "object_count_name",
    "scope_selectors",
]

Usage = dict[str, Quantity]
_ONE = Quantity.of(1)
_PODS, _SERVICES = GroupResource("", "pods"), GroupResource("", "services")
_CLAIMS = GroupResource("", "persistentvolumeclaims")
_DEVICE_CLAIMS = GroupResource("resource.k8s.io", "resourceclaims")

IGNORED = frozenset(
    {
        GroupResource("", "bindings"), GroupResource("", "componentstatuses"), GroupResource("", "events"),
        GroupResource("events.k8s.io", "events"), GroupResource("authentication.k8s.io", "tokenreviews"),
        GroupResource("authentication.k8s.io", "selfsubjectreviews"),
        GroupResource("authorization.k8s.io", "subjectaccessreviews"),
        GroupResource("authorization.k8s.io", "selfsubjectaccessreviews"),
        GroupResource("authorization.k8s.io", "localsubjectaccessreviews"),
        GroupResource("authorization.k8s.io", "selfsubjectrulesreviews"),
    }
)  # fmt: skip
"""Resources that no quota counts."""

_ALIASES = {
    GroupResource("", name): name for name in ("configmaps", "resourcequotas", "replicationcontrollers", "secrets")
}


def object_count_name(resource: GroupResource) -> str:
    """Return the name under which a quota counts objects of a resource: count/deployments.apps."""
    return f"count/{resource}"


@dataclass(frozen=True, slots=True)
class Counting:
    """How objects of one resource count.

    `usage(object, now)` returns amounts by name; `names(names)` picks those that these objects may count for;
    `in_scope(selector, object)` tells whether an object is in a scope; `missing(names, object)` what a pod fails to say
    though the quota needs it, "" if nothing.
    """

    resource: GroupResource
    usage: Callable[[Any, float], Usage]
    names: Callable[[Iterable[str]], list[str]]
    in_scope: Callable[[core.ScopedResourceSelectorRequirement, Any], bool] = lambda _selector, _object: False
    missing: Callable[[Iterable[str], Any], str] = lambda _names, _object: ""


def counting_of(resource: GroupResource) -> Counting:
    """Return how objects of a resource count; most only by their number."""
    special = SPECIAL.get(resource)
    if special is not None:
        return special
    own = {object_count_name(resource)} | ({_ALIASES[resource]} if resource in _ALIASES else set())
    return Counting(resource, lambda _object, _now: dict.fromkeys(own, _ONE), _picking(own))


def scope_selectors(quota: core.ResourceQuota) -> Iterator[core.ScopedResourceSelectorRequirement]:
    """Yield a quota's scopes, all in the form of selectors."""
    for scope in quota.spec.scopes:
        yield core.ScopedResourceSelectorRequirement(scope_name=scope, operator="Exists")
    if quota.spec.scope_selector is not None:
        yield from quota.spec.scope_selector.match_expressions


def covers(counting: Counting, quota: core.ResourceQuota, names: Iterable[str], obj: Any) -> bool:
    """Tell whether a quota, which limits `names`, is about an object."""
    return bool(counting.names(names)) and all(counting.in_scope(one, obj) for one in scope_selectors(quota))


def calculate(quota: core.ResourceQuota, objects_of: Callable[[GroupResource], Iterable[Any]], now: float) -> Usage:
    """Return what is used of each resource that a quota limits and that can be counted.

    `objects_of(resource)` returns the objects of the quota's namespace; `now` is seconds since 1970.
    """
    names = list(quota.spec.hard)
    used: Usage = {}
    for resource in _resources(names):
        counting = counting_of(resource)
        counted = counting.names(names)
        if not counted:
            continue
        for name in counted:
            used.setdefault(name, Quantity.ZERO)
        selectors = list(scope_selectors(quota))
        for obj in objects_of(resource):
            if all(counting.in_scope(selector, obj) for selector in selectors):
                usage = counting.usage(obj, now)
                for name in counted:
                    if name in usage:
                        used[name] = used[name] + usage[name]
    return used


def _resources(names: Iterable[str]) -> list[GroupResource]:
    """Return the resources whose objects may count for any of these names."""
    result = dict.fromkeys([*SPECIAL, *_ALIASES])
    for name in names:
        kind, slash, resource = name.partition("/")
        if kind == "count" and slash:
            plural, _, group = resource.partition(".")
            result[GroupResource(group, plural)] = None
    return [each for each in result if each not in IGNORED]


def _picking(own: Iterable[str]) -> Callable[[Iterable[str]], list[str]]:
    known = frozenset(own)
    return lambda names: sorted(known.intersection(names))


# ---- pods


_POD_NAMES = frozenset(
    {
        "count/pods", "pods", "cpu", "memory", "ephemeral-storage", "requests.cpu", "requests.memory",
        "requests.ephemeral-storage", "limits.cpu", "limits.memory", "limits.ephemeral-storage",
    }
)  # fmt: skip
_NEEDED = frozenset({"cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"})
"""If a quota limits these, every container has to say how much it wants."""
_COMPUTE = ("cpu", "memory", "ephemeral-storage")
_DEVICE_CLASS = "requests.deviceclass.resource.kubernetes.io/"


def is_terminating(pod: core.Pod) -> bool:
    """Tell whether a pod ends by itself, which the scope Terminating asks for."""
    deadline = pod.spec.active_deadline_seconds
    return deadline is not None and deadline >= 0


def _is_pod_name(name: str) -> bool:
    if name in _POD_NAMES or name.startswith(("hugepages-", "requests.hugepages-", _DEVICE_CLASS)):
        return True
    return name.startswith("requests.") and is_extended(name.removeprefix("requests."))


def _pod_names(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if _is_pod_name(name))


def _pod_usage(pod: core.Pod, now: float) -> Usage:
    usage: Usage = {"count/pods": _ONE}
    if pod.status.phase in ("Failed", "Succeeded") or _is_overdue(pod, now):
        return usage
    return usage | _compute(pod_requests(pod), pod_limits(pod))


def _is_overdue(pod: core.Pod, now: float) -> bool:
    """Tell whether a pod should long be gone: a lost node must not hold the quota."""
    stamp, grace = pod.metadata.deletion_timestamp, pod.metadata.deletion_grace_period_seconds
    return stamp is not None and grace is not None and now > times.parse(stamp) + grace


def _compute(requests: Mapping[str, Quantity], limits: Mapping[str, Quantity]) -> Usage:
    usage: Usage = {"pods": _ONE}
    for name in _COMPUTE:
        if name in requests:
            usage[name] = usage[f"requests.{name}"] = requests[name]
        if name in limits:
            usage[f"limits.{name}"] = limits[name]
    for name, amount in requests.items():
        if name.startswith("hugepages-"):
            usage[name] = usage[f"requests.{name}"] = amount
        elif is_extended(name) or name.startswith("deviceclass.resource.kubernetes.io/"):
            usage[f"requests.{name}"] = amount
    return usage


def _pod_missing(names: Iterable[str], pod: core.Pod) -> str:
    resources = pod.spec.resources
    if resources is not None and (resources.requests or resources.limits):
        return ""
    needed = sorted(_NEEDED.intersection(names))
    lacking: dict[str, set[str]] = {}
    for container in (*(pod.spec.containers or ()), *pod.spec.init_containers):
        said = _compute(container.resources.requests, container.resources.limits)
        for name in needed:
            if name not in said:
                lacking.setdefault(name, set()).add(container.name)
    if not lacking:
        return ""
    parts = (f"{name} for: {','.join(sorted(lacking[name]))}" for name in sorted(lacking))
    return f"must specify {'; '.join(parts)}"


def _pod_in_scope(selector: core.ScopedResourceSelectorRequirement, pod: core.Pod) -> bool:
    match selector.scope_name:
        case "Terminating":
            return is_terminating(pod)
        case "NotTerminating":
            return not is_terminating(pod)
        case "BestEffort":
            return qos_class(pod) == BEST_EFFORT
        case "NotBestEffort":
            return qos_class(pod) != BEST_EFFORT
        case "PriorityClass":
            name = pod.spec.priority_class_name
            return _selected(selector, [name] if name else [])
        case "CrossNamespacePodAffinity":
            return _crosses_namespaces(pod.spec.affinity)
    return False


def _selected(selector: core.ScopedResourceSelectorRequirement, values: Sequence[str]) -> bool:
    """Tell whether one of the values is what the selector asks for; none counts as a value that is not there."""
    match selector.operator:
        case "Exists":
            return bool(values)
        case "DoesNotExist":
            return not values
        case "In":
            return any(value in selector.values for value in values)
        case "NotIn":
            return not values or any(value not in selector.values for value in values)
    return False


def _crosses_namespaces(affinity: core.Affinity | None) -> bool:
    if affinity is None:
        return False
    terms: list[core.PodAffinityTerm] = []
    for part in (affinity.pod_affinity, affinity.pod_anti_affinity):
        if part is not None:
            terms += part.required_during_scheduling_ignored_during_execution
            terms += [term.pod_affinity_term for term in part.preferred_during_scheduling_ignored_during_execution]
    return any(term.namespaces or term.namespace_selector is not None for term in terms)


# ---- services


def _service_usage(service: core.Service, _now: float) -> Usage:
    spec = service.spec
    ports = balancers = 0
    if spec.type == "NodePort":
        ports = len(spec.ports)
    elif spec.type == "LoadBalancer":
        balancers = 1
        if spec.allocate_load_balancer_node_ports is False:
            ports = sum(1 for port in spec.ports if port.node_port)
        else:
            ports = len(spec.ports)
    return {
        "count/services": _ONE,
        "services": _ONE,
        "services.loadbalancers": Quantity.of(balancers),
        "services.nodeports": Quantity.of(ports),
    }


# ---- persistent volume claims


_CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
_BY_CLASS = ".storageclass.storage.k8s.io/"
_CLAIM_NAMES = ("persistentvolumeclaims", "requests.storage")


def _claim_names(names: Iterable[str]) -> list[str]:
    return sorted(
        name
        for name in names
        if name in _CLAIM_NAMES
        or name == "count/persistentvolumeclaims"
        or name.endswith(tuple(_BY_CLASS + own for own in _CLAIM_NAMES))
    )


def _claim_usage(claim: core.PersistentVolumeClaim, _now: float) -> Usage:
    usage: Usage = {"persistentvolumeclaims": _ONE, "count/persistentvolumeclaims": _ONE}
    storage = claim.spec.resources.requests.get("storage")
    if storage is not None:
        # An expansion that failed half-way still occupies what was allocated.
        allocated = claim.status.allocated_resources.get("storage")
        usage["requests.storage"] = allocated if allocated is not None and allocated > storage else storage
    name = claim.metadata.annotations.get(_CLASS_ANNOTATION) or claim.spec.storage_class_name
    if name:
        usage |= {name + _BY_CLASS + own: usage[own] for own in _CLAIM_NAMES if own in usage}
    return usage


def _claim_in_scope(selector: core.ScopedResourceSelectorRequirement, claim: core.PersistentVolumeClaim) -> bool:
    if selector.scope_name != "VolumeAttributesClass":
        return False
    modifying = claim.status.modify_volume_status
    names = (
        claim.spec.volume_attributes_class_name,
        claim.status.current_volume_attributes_class_name,
        modifying.target_volume_attributes_class_name if modifying is not None else None,
    )
    return _selected(selector, [name for name in names if name])


# ---- resource claims


_BY_DEVICE_CLASS = ".deviceclass.resource.k8s.io/devices"
_ALL_DEVICES = 32
"""What a request for all devices counts for: the most that an allocation can hold."""


def _device_claim_names(names: Iterable[str]) -> list[str]:
    own = "count/resourceclaims.resource.k8s.io"
    return sorted(name for name in names if name == own or name.endswith(_BY_DEVICE_CLASS))


def _device_claim_usage(claim: Any, _now: float) -> Usage:
    usage: Usage = {"count/resourceclaims.resource.k8s.io": _ONE}
    for request in claim.spec.devices.requests:
        alternatives = request.first_available or ([request.exactly] if request.exactly is not None else [])
        largest: dict[str, int] = {}
        for wanted in alternatives:
            name = wanted.device_class_name + _BY_DEVICE_CLASS
            count = {"ExactCount": wanted.count, "All": _ALL_DEVICES}.get(wanted.allocation_mode, 0)
            largest[name] = max(largest.get(name, 0), count)
        for name, count in largest.items():
            usage[name] = usage.get(name, Quantity.ZERO) + Quantity.of(count)
    return usage


SPECIAL: Mapping[GroupResource, Counting] = {
    _PODS: Counting(_PODS, _pod_usage, _pod_names, _pod_in_scope, _pod_missing),
    _SERVICES: Counting(
        _SERVICES,
        _service_usage,
        _picking(("count/services", "services", "services.nodeports", "services.loadbalancers")),
    ),
    _CLAIMS: Counting(_CLAIMS, _claim_usage, _claim_names, _claim_in_scope),
    _DEVICE_CLAIMS: Counting(_DEVICE_CLAIMS, _device_claim_usage, _device_claim_names),
}
"""Resources whose objects count for more than their number."""

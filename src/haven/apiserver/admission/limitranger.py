"""LimitRanger: defaults and bounds for what containers, pods and claims may ask for.

Source: https://kubernetes.io/docs/concepts/policy/limit-range/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from haven.api import scheme
from haven.api.core import v1 as core
from haven.api.core.podresources import pod_limits, pod_requests
from haven.apimachinery.apierrors import GroupResource
from haven.apimachinery.quantity import Quantity
from haven.apiserver.admission.interface import CREATE, UPDATE, AdmissionRequest, Objects, forbidden

__all__ = ["LimitRanger"]

ANNOTATION = "kubernetes.io/limit-ranger"
Amounts = Mapping[str, Quantity]


class LimitRanger:
    """Fills in what containers leave open, then checks every limit range of the namespace."""

    name = "LimitRanger"
    resources = frozenset({GroupResource("", "pods"), GroupResource("", "persistentvolumeclaims")})
    is_steady = True

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._limit_ranges = scheme.resource_of(core.LimitRange)

    def handles(self, operation: str) -> bool:
        return operation in (CREATE, UPDATE)

    async def admit(self, request: AdmissionRequest) -> None:
        if request.resource.plural != "pods":
            return
        for limit_range in self._ranges(request):
            _set_defaults(limit_range, request.object)

    async def validate(self, request: AdmissionRequest) -> None:
        check = _pod_errors if request.resource.plural == "pods" else _claim_errors
        for limit_range in self._ranges(request):
            errors = list(dict.fromkeys(check(limit_range, request.object)))
            if errors:
                raise forbidden(request, errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]")

    def _ranges(self, request: AdmissionRequest) -> Sequence[core.LimitRange]:
        is_pod_update = request.resource.plural == "pods" and request.operation == UPDATE
        # Of a pod's updates only a resize changes what it asks for.
        if request.subresource != ("resize" if is_pod_update else ""):
            return ()
        if request.old is not None and request.old.metadata.deletion_timestamp is not None:
            return ()
        return self._objects.list(self._limit_ranges, request.namespace)


def _set_defaults(limit_range: core.LimitRange, pod: core.Pod) -> None:
    requests: dict[str, Quantity] = {}
    limits: dict[str, Quantity] = {}
    for item in limit_range.spec.limits or ():
        if item.type == "Container":
            requests |= item.default_request
            limits |= item.default
    if not requests and not limits:
        return
    notes: list[str] = []
    for kind, containers in (("container", pod.spec.containers or []), ("init container", pod.spec.init_containers)):
        for container in containers:
            resources = container.resources
            for amounts, defaults, word in (
                (resources.requests, requests, "request"),
                (resources.limits, limits, "limit"),
            ):
                missing = sorted(defaults.keys() - amounts.keys())
                for name in missing:
                    amounts[name] = defaults[name]
                if missing:
                    notes.append(f"{', '.join(missing)} {word} for {kind} {container.name}")
    if notes:
        pod.metadata.annotations[ANNOTATION] = f"LimitRanger plugin set: {'; '.join(notes)}"


def _claim_errors(limit_range: core.LimitRange, claim: core.PersistentVolumeClaim) -> Iterator[str]:
    requests = claim.spec.resources.requests
    for item in limit_range.spec.limits or ():
        if item.type == "PersistentVolumeClaim":
            yield from _each(item.min, lambda name, bound: _minimum("PersistentVolumeClaim", name, bound, requests, {}))
            yield from _each(
                item.max, lambda name, bound: _maximum_request("PersistentVolumeClaim", name, bound, requests)
            )


def _pod_errors(limit_range: core.LimitRange, pod: core.Pod) -> Iterator[str]:
    for item in limit_range.spec.limits or ():
        if item.type == "Container":
            for container in (*(pod.spec.containers or ()), *pod.spec.init_containers):
                yield from _bounds(item, container.resources.requests, container.resources.limits)
        elif item.type == "Pod":
            yield from _bounds(item, pod_requests(pod, overhead=False), pod_limits(pod, overhead=False))


def _bounds(item: core.LimitRangeItem, requests: Amounts, limits: Amounts) -> Iterator[str]:
    kind = item.type
    yield from _each(item.min, lambda name, bound: _minimum(kind, name, bound, requests, limits))
    yield from _each(item.max, lambda name, bound: _maximum(kind, name, bound, requests, limits))
    yield from _each(item.max_limit_request_ratio, lambda name, bound: _ratio(kind, name, bound, requests, limits))


def _each(bounds: Amounts, check: Callable[[str, Quantity], str]) -> Iterator[str]:
    return filter(None, (check(name, bounds[name]) for name in sorted(bounds)))


def _minimum(kind: str, name: str, bound: Quantity, requests: Amounts, limits: Amounts) -> str:
    told = f"minimum {name} usage per {kind} is {bound}"
    request, limit = requests.get(name), limits.get(name)
    if request is None:
        return f"{told}.  No request is specified"
    if request < bound:
        return f"{told}, but request is {request}"
    if limit is not None and limit < bound:
        return f"{told}, but limit is {limit}"
    return ""


def _maximum_request(kind: str, name: str, bound: Quantity, requests: Amounts) -> str:
    told = f"maximum {name} usage per {kind} is {bound}"
    request = requests.get(name)
    if request is None:
        return f"{told}.  No request is specified"
    return f"{told}, but request is {request}" if request > bound else ""


def _maximum(kind: str, name: str, bound: Quantity, requests: Amounts, limits: Amounts) -> str:
    told = f"maximum {name} usage per {kind} is {bound}"
    request, limit = requests.get(name), limits.get(name)
    if limit is None:
        return f"{told}.  No limit is specified"
    if limit > bound:
        return f"{told}, but limit is {limit}"
    if request is not None and request > bound:
        return f"{told}, but request is {request}"
    return ""


def _ratio(kind: str, name: str, bound: Quantity, requests: Amounts, limits: Amounts) -> str:
    told = f"{name} max limit to request ratio per {kind} is {bound}"
    request, limit = requests.get(name), limits.get(name)
    if not request:
        return f"{told}, but no request is specified or request is 0"
    if not limit:
        return f"{told}, but no limit is specified or limit is 0"
    if limit.nano * 10**9 > bound.nano * request.nano:
        return f"{told}, but provided ratio is {limit.nano / request.nano:.6f}"
    return ""

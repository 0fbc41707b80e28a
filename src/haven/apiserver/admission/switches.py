"""Plugins that are mostly switches: refuse all, insist on namespaces, limit the rate of Events.

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from haven.api import scheme
from haven.api.core import v1 as core
from haven.apimachinery.apierrors import GroupResource, NotFound, TooManyRequests
from haven.apiserver.admission.interface import CONNECT, CREATE, DELETE, UPDATE, AdmissionRequest, Objects, forbidden
from haven.clock import Clock

__all__ = ["AlwaysDeny", "EventLimit", "EventRateLimit", "NamespaceExists"]


class AlwaysDeny:
    """Refuses everything; for tests of clients."""

    name = "AlwaysDeny"
    resources: frozenset[GroupResource] | None = None

    def handles(self, operation: str) -> bool:
        return operation in (CREATE, UPDATE, DELETE, CONNECT)

    async def validate(self, request: AdmissionRequest) -> None:
        raise forbidden(request, "admission control is denying all modifications")


class NamespaceExists:
    """Insists that the namespace of any write exists."""

    name = "NamespaceExists"
    resources: frozenset[GroupResource] | None = None

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._namespaces = scheme.resource_of(core.Namespace)

    def handles(self, operation: str) -> bool:
        return operation in (CREATE, UPDATE, DELETE)

    async def validate(self, request: AdmissionRequest) -> None:
        if not request.namespace or request.is_for("", "namespaces"):
            return
        if self._objects.get(self._namespaces, "", request.namespace) is None:
            raise NotFound.of(self._namespaces.group_resource, request.namespace)


@dataclass(frozen=True)
class EventLimit:
    """So many Events per second, `burst` at once, for each key of a type: Server, Namespace, User, SourceAndObject."""

    type: str
    qps: float
    burst: int
    cache_size: int = 4096


class EventRateLimit:
    """Refuses Events that come too fast."""

    name = "EventRateLimit"
    resources = frozenset({GroupResource("", "events"), GroupResource("events.k8s.io", "events")})

    def __init__(self, limits: tuple[EventLimit, ...], clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._buckets: list[OrderedDict[str, tuple[float, float]]] = [OrderedDict() for _ in limits]

    def handles(self, operation: str) -> bool:
        return operation in (CREATE, UPDATE)

    async def validate(self, request: AdmissionRequest) -> None:
        if request.dry_run:
            return
        now = self._clock.monotonic_seconds()
        refused = ""
        for limit, buckets in zip(self._limits, self._buckets, strict=True):
            key = _KEYS[limit.type](request)
            level, at = buckets.pop(key, (float(limit.burst), now))
            level = min(float(limit.burst), level + (now - at) * limit.qps)
            if level < 1:
                refused = refused or f"limit reached on type {limit.type} for key {key}"
            else:
                level -= 1
            buckets[key] = (level, now)
            if len(buckets) > limit.cache_size:
                buckets.popitem(last=False)
        if refused:
            raise TooManyRequests.after(refused, 0)


def _source_and_object(request: AdmissionRequest) -> str:
    event = request.object
    source = getattr(event, "source", None) or getattr(event, "deprecated_source", None)
    about = getattr(event, "involved_object", None) or getattr(event, "regarding", None)
    parts = [source.component, source.host] if source is not None else []
    if about is not None:
        parts += [about.kind, about.namespace, about.name, about.uid, about.api_version]
    return "".join(parts)


_KEYS: dict[str, Callable[[AdmissionRequest], str]] = {
    "Server": lambda request: "",
    "Namespace": lambda request: request.namespace,
    "User": lambda request: request.user.name,
    "SourceAndObject": _source_and_object,
}

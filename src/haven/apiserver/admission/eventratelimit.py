"""EventRateLimit: Events that come too fast are refused.

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#eventratelimit
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from haven.apimachinery.apierrors import GroupResource, TooManyRequests
from haven.apimachinery.fielderrors import ErrorList, Path, invalid, not_supported
from haven.apimachinery.goformat import aggregate
from haven.apiserver.admission.configuration import raise_first
from haven.apiserver.admission.interface import CREATE, UPDATE, AdmissionRequest
from haven.apiserver.configfiles import Document, read_document
from haven.clock import Clock

__all__ = ["EventLimit", "EventRateLimit", "parse_limits"]

CACHE_SIZE = 4096
_VERSIONS = frozenset({"eventratelimit.admission.k8s.io/v1alpha1"})


@dataclass(frozen=True)
class EventLimit:
    """So many Events per second, `burst` at once, for each key of a type: Server, Namespace, User, SourceAndObject."""

    type: str
    qps: float
    burst: int
    cache_size: int = CACHE_SIZE


class _Limit(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True, frozen=True):
    type: str = ""
    qps: int = 0
    burst: int = 0
    cache_size: int = 0


class _Configuration(Document, frozen=True):
    limits: list[_Limit] | None = None


def parse_limits(document: bytes | None) -> tuple[EventLimit, ...]:
    """Return the limits of a configuration; raise ConfigError."""
    found = [] if document is None else _read(document)
    path = Path("limits")
    errors: ErrorList = [] if found else [invalid(path, None, "must not be empty")]
    for index, limit in enumerate(found):
        place = path.index(index)
        if limit.type not in _KEYS:
            errors.append(not_supported(place.child("type"), limit.type, sorted(_KEYS)))
        if limit.burst <= 0:
            errors.append(invalid(place.child("burst"), limit.burst, "must be positive"))
        if limit.qps <= 0:
            errors.append(invalid(place.child("qps"), limit.qps, "must be positive"))
        if limit.type != "Server" and limit.cache_size < 0:
            errors.append(invalid(place.child("cacheSize"), limit.cache_size, "must not be negative"))
    raise_first(errors)
    return tuple(EventLimit(one.type, one.qps, one.burst, one.cache_size or CACHE_SIZE) for one in found)


def _read(document: bytes) -> list[_Limit]:
    return read_document(document, _Configuration, "Configuration", _VERSIONS).limits or []


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
        refused: list[str] = []
        for limit, buckets in zip(self._limits, self._buckets, strict=True):
            key = _KEYS[limit.type](request)
            level, at = buckets.pop(key, (float(limit.burst), now))
            level = min(float(limit.burst), level + (now - at) * limit.qps)
            if level < 1:
                refused.append(f"limit reached on type {limit.type} for key {key}")
            else:
                level -= 1
            buckets[key] = (level, now)
            if len(buckets) > limit.cache_size:
                buckets.popitem(last=False)
        if refused:
            raise TooManyRequests(f"Too many requests: {aggregate(refused)}")


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

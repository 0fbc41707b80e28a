"""What becomes of a component's observations: a new Event, a higher count on an old one, or nothing. Pure.

Three rules, in this order, as client-go applies them: ten observations that differ in their message alone within ten
minutes become one combined Event; an observation that was made before counts that Event up; and an object may have 25
Events at once from one source, then one every five minutes.
Source: client-go's record.EventCorrelator (behaviour).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from haven.api.core import v1 as core_v1
from haven.apimachinery import meta, times
from haven.client.ratelimit import TokenBucket

__all__ = ["Correlation", "EventCorrelator", "Observation"]

SIMILAR_MAX = 10
SIMILAR_SECONDS = 600.0
SPAM_BURST = 25
SPAM_PER_SECOND = 1 / 300
CACHE_KEYS_MAX = 4096

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Observation:
    """Something a component has to say about an object. `type` is Normal or Warning."""

    regarding: core_v1.ObjectReference
    type: str
    reason: str
    message: str
    source: core_v1.EventSource
    annotations: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Correlation:
    """An Event to create, or, if `count` is above 1, to change on the server. `key` is for `written`."""

    event: core_v1.Event
    key: Key


@dataclass(slots=True)
class _Similar:
    """Messages seen lately that differ in nothing else."""

    messages: dict[str, None]
    last_seconds: float


@dataclass(slots=True)
class _Logged:
    count: int
    first_timestamp: str | None
    name: str


class EventCorrelator:
    """Remembers what was observed, as much as its caches hold."""

    def __init__(self) -> None:
        self._similar: _Recent[Key, _Similar] = _Recent(CACHE_KEYS_MAX)
        self._logged: _Recent[Key, _Logged] = _Recent(CACHE_KEYS_MAX)
        self._budgets: _Recent[Key, TokenBucket] = _Recent(CACHE_KEYS_MAX)

    def correlate(self, observation: Observation, now_seconds: float) -> Correlation | None:
        """Return what to write; None if the object had too many Events lately."""
        message, key = self._combine(observation, now_seconds)
        event = self._count(observation, message, key, now_seconds)
        regarding, source = observation.regarding, observation.source
        subject = (source.component, source.host, *_reference_key(regarding))
        budget = self._budgets.get(subject)
        if budget is None:
            budget = TokenBucket(per_second=SPAM_PER_SECOND, burst=SPAM_BURST, now_seconds=now_seconds)
            self._budgets.put(subject, budget)
        return Correlation(event, key) if budget.try_take(now_seconds) else None

    def written(self, correlation: Correlation, event: core_v1.Event) -> None:
        """Note under which name and with which count the server holds the Event."""
        self._logged.put(correlation.key, _Logged(event.count, event.first_timestamp, event.metadata.name))

    def _combine(self, observation: Observation, now_seconds: float) -> tuple[str, Key]:
        """Return the message to write, and the key under which equal ones are counted."""
        source = observation.source
        group = (
            source.component,
            source.host,
            *_reference_key(observation.regarding),
            observation.type,
            observation.reason,
        )
        similar = self._similar.get(group)
        if similar is None or now_seconds - similar.last_seconds > SIMILAR_SECONDS:
            similar = _Similar({}, now_seconds)
        similar.messages[observation.message] = None
        similar.last_seconds = now_seconds
        self._similar.put(group, similar)
        if len(similar.messages) < SIMILAR_MAX:
            return observation.message, (*group, observation.regarding.field_path, observation.message)
        del similar.messages[next(iter(similar.messages))]
        return f"(combined from similar events): {observation.message}", group

    def _count(self, observation: Observation, message: str, key: Key, now_seconds: float) -> core_v1.Event:
        regarding, now = observation.regarding, times.format_time(now_seconds)
        known = self._logged.get(key)
        alone = message == observation.message  # A combined Event keeps less of those that it stands for.
        name = known.name if known is not None else f"{regarding.name}.{round(now_seconds * 1e9):x}"
        event = core_v1.Event(
            metadata=meta.ObjectMeta(
                name=name,
                namespace=regarding.namespace or "default",
                annotations=dict(observation.annotations) if alone else {},
            ),
            involved_object=regarding,
            type=observation.type,
            reason=observation.reason,
            message=message,
            source=observation.source,
            reporting_component=observation.source.component if alone else "",
            reporting_instance=observation.source.host if alone else "",
            first_timestamp=known.first_timestamp if known is not None else now,
            last_timestamp=now,
            count=known.count + 1 if known is not None else 1,
        )
        self._logged.put(key, _Logged(event.count, event.first_timestamp, name))
        return event


class _Recent(Generic[K, V]):
    """A dictionary that forgets what was not touched for longest."""

    def __init__(self, keys_max: int) -> None:
        self._values: OrderedDict[K, V] = OrderedDict()
        self._keys_max = keys_max

    def get(self, key: K) -> V | None:
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._keys_max:
            self._values.popitem(last=False)


def _reference_key(reference: core_v1.ObjectReference) -> Key:
    return (reference.kind, reference.namespace, reference.name, str(reference.uid), reference.api_version)

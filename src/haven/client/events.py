"""Recording Events: what happened to an object, for humans, written in the background.

`EventRecorder.event` never waits and never fails: observations go into a bounded queue, the oldest are dropped when
it is full, and an Event that the server refuses is logged and forgotten. `run` writes them, one after another.

The scheduler speaks the newer dialect (`series=True`), events.k8s.io: eventTime, action and reporting controller in
place of source and count, and repetitions as a series that is written when it begins, then every half hour and when it
ends.
Source: https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/ and client-go's tools/events.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from haven import telemetry
from haven.api.core import v1 as core_v1
from haven.api.events import v1 as events_v1
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, meta, serialization, times
from haven.client.cache import metadata_of
from haven.client.eventcorrelator import EventCorrelator, Observation
from haven.client.interface import Client, Patch, PatchType, Unreachable
from haven.clock import Clock, SystemClock

__all__ = ["EventRecorder", "EventStatistics", "reference_to"]

QUEUE_EVENTS_MAX = 1000
TRIES_MAX = 12
RETRY_SECONDS = 10.0
SERIES_REFRESH_SECONDS = 1800.0
SERIES_FINISH_SECONDS = 360.0
MESSAGE_BYTES_MAX = 1024
SERIES_MAX = 4096

E = TypeVar("E", core_v1.Event, events_v1.Event)

_log = telemetry.logger("events")


@dataclass(frozen=True, slots=True)
class EventStatistics:
    """A snapshot for metrics."""

    queued: int
    written: int
    dropped: int
    refused: int


@dataclass(slots=True)
class _Series:
    """An Event of the newer dialect and how often it was seen since it was written."""

    event: events_v1.Event
    last_seconds: float
    written_seconds: float


_SeriesKey = tuple[str, ...]


class EventRecorder:
    """Records Events of one component. `run` must be running for them to be written."""

    def __init__(
        self,
        client: Client,
        component: str,
        *,
        host: str = "",
        series: bool = False,
        clock: Clock | None = None,
        chance: random.Random | None = None,
    ) -> None:
        """`host` is the node, for components that run on each; with `series`, what tells instances apart."""
        self._client = client
        self._source = core_v1.EventSource(component=component, host=host)
        self._series_dialect = series
        self._clock = clock or SystemClock()
        self._chance = chance or random.Random()
        self._correlator = EventCorrelator()
        self._series: dict[_SeriesKey, _Series] = {}
        self._queue: deque[tuple[Observation, str, core_v1.ObjectReference | None]] = deque()
        self._wake = asyncio.Event()
        self._written = self._dropped = self._refused = 0

    def event(
        self,
        obj: object,
        type: str,
        reason: str,
        message: str,
        *,
        action: str = "",
        field_path: str = "",
        related: object | None = None,
        annotations: dict[str, str] | None = None,
    ) -> None:
        """Say that something happened to an object (or to what an ObjectReference names).

        `type` is Normal or Warning, `reason` a word in camel case. `action` and `related` are for the newer dialect.
        """
        assert type in {"Normal", "Warning"}, type
        if len(self._queue) >= QUEUE_EVENTS_MAX:
            self._queue.popleft()
            self._dropped += 1
        observation = Observation(
            regarding=reference_to(obj, field_path),
            type=type,
            reason=reason,
            message=_cut(message),
            source=self._source,
            annotations=annotations or {},
        )
        self._queue.append((observation, action, reference_to(related) if related is not None else None))
        self._wake.set()

    def statistics(self) -> EventStatistics:
        """Return a snapshot for metrics."""
        return EventStatistics(len(self._queue), self._written, self._dropped, self._refused)

    async def run(self) -> None:
        """Write what is recorded until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            if self._series_dialect:
                tasks.create_task(self._tend_series(), name="event-series")
            while True:
                while self._queue:
                    await self._record(*self._queue.popleft())
                self._wake.clear()
                await self._wake.wait()

    async def flush(self) -> None:
        """Write what is queued now; for a component that is about to end."""
        while self._queue:
            await self._record(*self._queue.popleft())

    async def _record(self, observation: Observation, action: str, related: core_v1.ObjectReference | None) -> None:
        if self._series_dialect:
            await self._record_series(observation, action, related)
            return
        correlation = self._correlator.correlate(observation, self._clock.now_seconds())
        if correlation is None:
            self._dropped += 1
            return
        event = correlation.event
        counted = {"count": event.count, "lastTimestamp": event.last_timestamp, "message": event.message}
        written = await self._write(event, counted if event.count > 1 else None)
        if written is not None:
            self._correlator.written(correlation, written)

    # The newer dialect

    async def _record_series(
        self, observation: Observation, action: str, related: core_v1.ObjectReference | None
    ) -> None:
        now = self._clock.now_seconds()
        key = _series_key(observation, action, related)
        known = self._series.get(key)
        if known is None:
            if len(self._series) >= SERIES_MAX:
                del self._series[next(iter(self._series))]
            event = self._new_event(observation, action, related, now)
            self._series[key] = _Series(event, now, now)
            await self._write(event, None)
            return
        known.last_seconds = now
        began = known.event.series is None
        count = 2 if known.event.series is None else known.event.series.count + 1
        known.event.series = events_v1.EventSeries(count=count, last_observed_time=times.format_micro_time(now))
        if began:
            await self._write_series(known, now)

    async def _tend_series(self) -> None:
        """Write running series now and then, and those that ended."""
        while True:
            await self._clock.sleep(SERIES_FINISH_SECONDS)
            now = self._clock.now_seconds()
            for key, each in list(self._series.items()):
                finished = now - each.last_seconds > SERIES_FINISH_SECONDS
                if each.event.series is not None and (finished or now - each.written_seconds >= SERIES_REFRESH_SECONDS):
                    await self._write_series(each, now)
                if finished:
                    self._series.pop(key, None)

    async def _write_series(self, series: _Series, now: float) -> None:
        series.written_seconds = now
        event = serialization.copy(series.event)
        await self._write(event, {"series": serialization.to_tree(event.series)})

    def _new_event(
        self, observation: Observation, action: str, related: core_v1.ObjectReference | None, now: float
    ) -> events_v1.Event:
        regarding = observation.regarding
        return events_v1.Event(
            metadata=meta.ObjectMeta(
                name=f"{regarding.name}.{round(now * 1e9):x}",
                namespace=regarding.namespace or "default",
                annotations=dict(observation.annotations),
            ),
            event_time=times.format_micro_time(now),
            regarding=regarding,
            type=observation.type,
            reason=observation.reason,
            note=observation.message,
            action=action or observation.reason,
            related=related,
            reporting_controller=observation.source.component,
            reporting_instance="-".join(filter(None, (observation.source.component, observation.source.host))),
        )

    # Writing

    async def _write(self, event: E, change: dict[str, Any] | None) -> E | None:
        """Create an Event, or change the one that is there; return it, None if the server would not have it."""
        for attempt in range(TRIES_MAX):
            if attempt:
                first = self._chance.random() if attempt == 1 else 1.0  # Not everybody at once when a server returns.
                await self._clock.sleep(RETRY_SECONDS * first)
            try:
                written = await self._write_once(event, change)
            except (Unreachable, apierrors.TooManyRequests, apierrors.ServiceUnavailable) as error:
                _log.debug("could not write an event, trying again", because=error.message)
            except apierrors.ApiError as error:
                self._refused += 1
                of = event.regarding if isinstance(event, events_v1.Event) else event.involved_object
                _log.info(
                    "the server refused an event",
                    object=f"{of.kind} {of.namespace}/{of.name}",
                    reason=event.reason,
                    because=error.message,
                )
                return None
            else:
                self._written += 1
                return written
        self._dropped += 1
        _log.warning("an event could not be written", reason=event.reason, tries=TRIES_MAX)
        return None

    async def _write_once(self, event: E, change: dict[str, Any] | None) -> E:
        resource = resource_of(type(event))
        namespace, name = event.metadata.namespace, event.metadata.name
        if change is not None:
            try:
                return await self._client.patch(resource, namespace, name, Patch(PatchType.STRATEGIC, change))
            except apierrors.NotFound:
                pass  # Its time was over: it begins anew under the same name.
        return await self._client.create(resource, event)


def reference_to(obj: object, field_path: str = "") -> core_v1.ObjectReference:
    """Return a reference to an object; a reference is returned as it is."""
    if isinstance(obj, core_v1.ObjectReference):
        return obj
    metadata, typed = metadata_of(obj), cast("Any", obj)
    return core_v1.ObjectReference(
        kind=typed.kind,
        api_version=typed.api_version,
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        resource_version=metadata.resource_version,
        field_path=field_path,
    )


def _series_key(observation: Observation, action: str, related: core_v1.ObjectReference | None) -> _SeriesKey:
    regarding = observation.regarding
    key = (
        observation.type,
        action,
        observation.reason,
        regarding.kind,
        regarding.namespace,
        regarding.name,
        str(regarding.uid),
        regarding.field_path,
    )
    return key if related is None else (*key, related.kind, related.namespace, related.name, str(related.uid))


def _cut(message: str) -> str:
    """The server takes at most 1024 bytes."""
    data = message.encode()
    if len(data) <= MESSAGE_BYTES_MAX:
        return message
    return data[: MESSAGE_BYTES_MAX - 3].decode(errors="ignore") + "..."

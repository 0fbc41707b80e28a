"""Hands audit events on in batches, to a webhook for one; a callee that is away gets them later, while there is room.

Source: https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/#webhook-backend
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from haven import telemetry
from haven.clock import Clock

__all__ = ["BatchSettings", "DirectLog", "SendFailed", "WebhookLog", "event_list", "fitting", "list_item"]

Send = Callable[[bytes], Awaitable[None]]
"""Posts an EventList; raises SendFailed."""
_BACKOFF_FACTOR = 1.5
_ATTEMPTS = 5
_log = telemetry.logger("apiserver")


class SendFailed(Exception):
    """A batch did not arrive. `again` tells whether it may the next time."""

    def __init__(self, message: str, *, again: bool) -> None:
        super().__init__(message)
        self.again = again


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """How events are gathered; what does not fit into the buffer is dropped and counted."""

    buffer_events_max: int = 10_000
    batch_events_max: int = 400
    wait_seconds_max: float = 30.0
    batches_per_second_max: float = 10.0
    burst: int = 15
    initial_backoff_seconds: float = 10.0
    event_bytes_max: int = 0
    """Events above this size lose their objects, then are dropped; 0 leaves them whole."""
    batch_bytes_max: int = 0
    """A batch above this size is handed on in parts; 0 is no limit."""
    throttled: bool = True
    in_order: bool = True
    """Whether a batch waits for the one before it: else one that is tried again holds up no other."""


def list_item(event: dict[str, Any]) -> bytes:
    """Return an event as it stands in a list, which says what kind its items are of."""
    return orjson.dumps({key: value for key, value in event.items() if key not in ("kind", "apiVersion")})


def event_list(batch: Sequence[bytes]) -> bytes:
    """Return events as a webhook gets them."""
    return b'{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":[%b]}' % b",".join(batch)


def fitting(event: dict[str, Any], limit: int) -> dict[str, Any] | None:
    """Return an event, without its objects if it is too large with them; None if it is too large even so."""
    if not limit or _size(event) <= limit:
        return event
    if event.get("level") == "Metadata":
        return None
    less = {key: value for key, value in event.items() if key not in ("requestObject", "responseObject")}
    less["annotations"] = {**less.get("annotations", {}), "audit.k8s.io/truncated": "true"}
    return less if _size(less) <= limit else None


def _size(event: dict[str, Any]) -> int:
    return len(orjson.dumps(event)) + 1  # With the end of its line.


class WebhookLog:
    """Gathers events and sends them. `run` has to run."""

    def __init__(
        self,
        send: Send,
        settings: BatchSettings,
        clock: Clock,
        *,
        line: Callable[[dict[str, Any]], bytes] = list_item,
        join: Callable[[Sequence[bytes]], bytes] = event_list,
    ) -> None:
        self._send = send
        self._line = line
        self._join = join
        self._settings = settings
        self._clock = clock
        self._events: deque[bytes] = deque()
        self._some = asyncio.Event()
        self._full = asyncio.Event()
        self._tokens = float(settings.burst)
        self._filled = clock.monotonic_seconds()
        self.dropped = 0
        self._under_way: dict[asyncio.Task[None], list[bytes]] = {}
        """Batches that are being delivered beside each other."""

    def write(self, events: Sequence[dict[str, Any]]) -> bool:
        """Take events; one that finds no room is dropped and counted."""
        for event in events:
            kept = fitting(event, self._settings.event_bytes_max)
            if kept is None or len(self._events) >= self._settings.buffer_events_max:
                self.dropped += 1
                continue
            self._events.append(self._line(kept))
        if self._events:
            self._some.set()
        if len(self._events) >= self._settings.batch_events_max:
            self._full.set()
        return True  # What is lost later is counted, and refuses nothing.

    async def run(self) -> None:
        """Send what is gathered, until cancelled; then what is left, once."""
        try:
            while True:
                await self._some.wait()
                try:
                    async with asyncio.timeout(self._settings.wait_seconds_max):
                        await self._full.wait()
                except TimeoutError:
                    pass  # Whatever is there by now is sent.
                await self._throttle()
                batch = self._batch()
                if self._settings.in_order:
                    await self._deliver(batch)
                else:
                    task = asyncio.create_task(self._deliver(batch), name="audit-batch")
                    self._under_way[task] = batch
                    task.add_done_callback(self._ended)
        finally:
            for task, batch in list(self._under_way.items()):
                task.cancel()
                for event in reversed(batch):
                    self._events.appendleft(event)
            if self._events:
                await self._flush()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.pop(task, None)

    async def _flush(self) -> None:
        while self._events:
            try:
                async with asyncio.timeout(5):
                    await self._send(self._join(self._batch()))
            except (SendFailed, TimeoutError) as error:
                self.dropped += len(self._events)
                _log.error("Audit events were lost when the server ended.", error=str(error))
                return

    def _batch(self) -> list[bytes]:
        batch: list[bytes] = []
        size, limit = 0, self._settings.batch_bytes_max
        while self._events and len(batch) < self._settings.batch_events_max:
            if batch and limit and size + len(self._events[0]) > limit:
                break
            batch.append(self._events.popleft())
            size += len(batch[-1])
        if len(self._events) < self._settings.batch_events_max:
            self._full.clear()
        if not self._events:
            self._some.clear()
        return batch

    async def _deliver(self, batch: list[bytes]) -> None:
        body = self._join(batch)
        pause = self._settings.initial_backoff_seconds
        for attempt in range(_ATTEMPTS):
            try:
                await self._send(body)
                return
            except SendFailed as error:
                if not error.again or attempt == _ATTEMPTS - 1:
                    self.dropped += len(batch)
                    _log.error("Audit events were not delivered.", events=len(batch), error=str(error))
                    return
            await self._clock.sleep(pause)
            pause *= _BACKOFF_FACTOR

    async def _throttle(self) -> None:
        if not self._settings.throttled:
            return
        now = self._clock.monotonic_seconds()
        rate = self._settings.batches_per_second_max
        self._tokens = min(self._settings.burst, self._tokens + (now - self._filled) * rate)
        self._filled = now
        if self._tokens < 1:
            await self._clock.sleep((1 - self._tokens) / rate)
        self._tokens -= 1


class DirectLog:
    """Hands each event on by itself, and has its request wait until it has arrived."""

    def __init__(
        self,
        send: Send,
        under_way: set[asyncio.Future[bool]],
        *,
        event_bytes_max: int,
        wait_seconds: float,
        clock: Clock,
    ) -> None:
        self._send = send
        self._under_way = under_way
        self._event_bytes_max = event_bytes_max
        self._wait_seconds = wait_seconds
        self._clock = clock
        self.dropped = 0

    def write(self, events: Sequence[dict[str, Any]]) -> bool:
        """Begin to hand events on; requests learn from `under_way` what became of them."""
        for event in events:
            kept = fitting(event, self._event_bytes_max)
            if kept is None:
                self.dropped += 1
                return False
            self._under_way.add(asyncio.ensure_future(self._deliver(event_list((list_item(kept),)))))
        return True

    async def _deliver(self, body: bytes) -> bool:
        pause = self._wait_seconds
        for attempt in range(_ATTEMPTS):
            try:
                await self._send(body)
                return True
            except SendFailed as error:
                if not error.again or attempt == _ATTEMPTS - 1:
                    self.dropped += 1
                    _log.error("An audit event was not delivered.", error=str(error))
                    return False
            await self._clock.sleep(pause)
            pause *= _BACKOFF_FACTOR
        return False

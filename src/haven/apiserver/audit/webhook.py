"""Sends audit events to a webhook, in batches; a callee that is away gets them later, as long as there is room.

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

__all__ = ["BatchSettings", "SendFailed", "WebhookLog"]

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


class WebhookLog:
    """Gathers events and sends them. `run` has to run."""

    def __init__(self, send: Send, settings: BatchSettings, clock: Clock) -> None:
        self._send = send
        self._settings = settings
        self._clock = clock
        self._events: deque[bytes] = deque()
        self._some = asyncio.Event()
        self._full = asyncio.Event()
        self._tokens = float(settings.burst)
        self._filled = clock.monotonic_seconds()
        self.dropped = 0

    def write(self, events: Sequence[dict[str, Any]]) -> None:
        """Take events."""
        for event in events:
            data = self._fit(event)
            if data is None or len(self._events) >= self._settings.buffer_events_max:
                self.dropped += 1
                continue
            self._events.append(data)
        if self._events:
            self._some.set()
        if len(self._events) >= self._settings.batch_events_max:
            self._full.set()

    def _fit(self, event: dict[str, Any]) -> bytes | None:
        data = orjson.dumps(event)
        limit = self._settings.event_bytes_max
        if not limit or len(data) <= limit:
            return data
        less = {key: value for key, value in event.items() if key not in ("requestObject", "responseObject")}
        less["annotations"] = {**less.get("annotations", {}), "audit.k8s.io/truncated": "true"}
        data = orjson.dumps(less)
        return data if len(data) <= limit else None

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
                await self._deliver(self._batch())
        finally:
            if self._events:
                await self._flush()

    async def _flush(self) -> None:
        while self._events:
            try:
                async with asyncio.timeout(5):
                    await self._send(_event_list(self._batch()))
            except (SendFailed, TimeoutError) as error:
                self.dropped += len(self._events)
                _log.error("Audit events were lost when the server ended.", error=str(error))
                return

    def _batch(self) -> list[bytes]:
        count = min(len(self._events), self._settings.batch_events_max)
        batch = [self._events.popleft() for _ in range(count)]
        if len(self._events) < self._settings.batch_events_max:
            self._full.clear()
        if not self._events:
            self._some.clear()
        return batch

    async def _deliver(self, batch: list[bytes]) -> None:
        body = _event_list(batch)
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
        now = self._clock.monotonic_seconds()
        rate = self._settings.batches_per_second_max
        self._tokens = min(self._settings.burst, self._tokens + (now - self._filled) * rate)
        self._filled = now
        if self._tokens < 1:
            await self._clock.sleep((1 - self._tokens) / rate)
        self._tokens -= 1


def _event_list(batch: Sequence[bytes]) -> bytes:
    return b'{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":[%b]}' % b",".join(batch)

"""Follows requests through their stages and hands the events to the back ends.

Source: https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from haven.apimachinery import apierrors
from haven.apiserver.audit.events import Record
from haven.apiserver.audit.policy import Level, Policy, Stage
from haven.apiserver.request import Request, Response
from haven.clock import Clock

__all__ = ["Auditor", "Sink"]


class Sink(Protocol):
    """Takes events. It does not raise and does not wait."""

    def write(self, events: Sequence[dict[str, Any]]) -> bool:
        """Take events; False if they are lost."""
        ...


class Auditor:
    """Writes down requests as a policy says. There is none when auditing is off."""

    def __init__(self, policy: Policy, clock: Clock, sinks: Sequence[Sink] = ()) -> None:
        self.policy = policy
        self.sinks = tuple(sinks)
        self.emitted = self.rejected = 0
        self.under_way: set[asyncio.Future[bool]] = set()
        """Deliveries for which requests wait."""
        self.is_strict = False
        """Whether requests whose beginning cannot be written down are refused."""
        self.events = dict.fromkeys(Level, 0)
        self._clock = clock

    def begin(self, request: Request, *, known: bool = True) -> None:
        """A request was received; `known` tells whether its sender is. If not, only the refusal is written down."""
        treatment = self.policy.treatment(request.user, request.info)
        self.events[treatment.level] += 1
        request.audit_id = request.headers.get("audit-id") or str(uuid.uuid4())
        if treatment.level is Level.NONE:
            return
        record = Record(request, treatment, request.audit_id, self._clock.now_seconds())
        record.is_known = known
        request.audit = record
        if known:
            if not self._emit(record, Stage.REQUEST_RECEIVED) and self.is_strict:
                raise self._refused()
            record.add_request()

    async def settle(self, *, beginning: bool = False) -> None:
        """Return when everything has arrived that requests wait for; raise InternalError if a beginning did not."""
        waiting = tuple(self.under_way)
        self.under_way.clear()
        arrived = await asyncio.gather(*waiting) if waiting else ()
        if beginning and self.is_strict and not all(arrived):
            raise self._refused()

    def _refused(self) -> apierrors.InternalError:
        self.rejected += 1
        return apierrors.InternalError.because("failed to store audit event")

    def answered(self, request: Request, response: Response, *, long: bool, panicked: bool = False) -> None:
        """A request has its answer, or the beginning of it."""
        record: Record = request.audit
        record.add_response(response)
        if not record.is_known:
            self._emit(record, Stage.RESPONSE_STARTED)
            return
        if panicked:
            self._emit(record, Stage.PANIC)
            return
        if long:
            self._emit(record, Stage.RESPONSE_STARTED)
        if response.stream is None and response.hijack is None:
            self._complete(record)
        else:
            response.when_over.append(partial(self._complete, record))

    def _complete(self, record: Record) -> None:
        record.add_latency(self._clock.now_seconds())
        self._emit(record, Stage.RESPONSE_COMPLETE)

    def abandoned(self, request: Request, *, long: bool) -> None:
        """The client went away before there was an answer."""
        record: Record = request.audit
        record.close_early()
        if long:
            self._emit(record, Stage.RESPONSE_STARTED)
        self._emit(record, Stage.RESPONSE_COMPLETE)

    def _emit(self, record: Record, stage: Stage) -> bool:
        event = record.event(stage, self._clock.now_seconds())
        if event is None:
            return True
        self.emitted += 1
        written = [sink.write((event,)) for sink in self.sinks]  # Each of them, whatever the others say.
        return all(written)

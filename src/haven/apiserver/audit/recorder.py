"""Follows requests through their stages and hands the events to the back ends.

Source: https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Protocol

from haven.apiserver.audit.events import Record
from haven.apiserver.audit.policy import Level, Policy, Stage
from haven.apiserver.request import Request, Response
from haven.clock import Clock

__all__ = ["Auditor", "Sink"]


class Sink(Protocol):
    """Takes events. It does not raise and does not wait."""

    def write(self, events: Sequence[dict[str, Any]]) -> None:
        """Take events."""
        ...


class Auditor:
    """Writes down requests as a policy says. There is none when auditing is off."""

    def __init__(self, policy: Policy, clock: Clock, sinks: Sequence[Sink] = ()) -> None:
        self.policy = policy
        self.sinks = tuple(sinks)
        self.emitted = 0
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
            self._emit(record, Stage.REQUEST_RECEIVED)
            record.add_request()

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
            self._emit(record, Stage.RESPONSE_COMPLETE)
        else:
            response.when_over.append(lambda: self._emit(record, Stage.RESPONSE_COMPLETE))

    def abandoned(self, request: Request, *, long: bool) -> None:
        """The client went away before there was an answer."""
        record: Record = request.audit
        record.close_early()
        if long:
            self._emit(record, Stage.RESPONSE_STARTED)
        self._emit(record, Stage.RESPONSE_COMPLETE)

    def _emit(self, record: Record, stage: Stage) -> None:
        event = record.event(stage, self._clock.now_seconds())
        if event is not None:
            self.emitted += 1
            for sink in self.sinks:
                sink.write((event,))

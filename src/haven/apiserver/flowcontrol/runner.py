"""Lets requests in: each belongs to a flow schema and a priority level, takes seats there, waits its turn if it must.

Two things can be short. Seats: as many as --max-requests-inflight and its mutating twin add up to, divided among the
levels and lent between them every ten seconds. And turns: requests are served on one event loop, one after another, so
what is ready to run may be far more than can be run now. Once the requests of one pass of the loop have taken
TURN_SECONDS, later ones wait, and are let in a few at a time: the level that had least of its shares first, within it
the flow that had least. So a flood waits for itself, and the next request of somebody else is served within a few
turns. An uncontended request costs a look-up and a few additions.
Source: https://kubernetes.io/docs/concepts/cluster-administration/flow-control/
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from haven import telemetry
from haven.api import scheme
from haven.api.flowcontrol import v1 as flowcontrol
from haven.api.scheme import Resource
from haven.apimachinery import apierrors, serialization, times
from haven.apiserver.flowcontrol.allocation import lend, set_nominal
from haven.apiserver.flowcontrol.levels import Level, Queuing, SchemaCounts, Ticket
from haven.apiserver.flowcontrol.matching import (
    CONFIG_CONSUMER,
    Test,
    compile_schema,
    dangling,
    distinguisher,
    flow_hash,
)
from haven.apiserver.flowcontrol.width import ONE, Sizes, WatchCounts, Width, list_seats, write_width
from haven.apiserver.request import Request, RequestInfo, UserInfo
from haven.clock import Clock

__all__ = ["FlowControl", "TooManyRequests"]

_SCHEMAS = scheme.resource_of(flowcontrol.FlowSchema)
_LEVELS = scheme.resource_of(flowcontrol.PriorityLevelConfiguration)
_KNOWN_MAX = 4096
TURN_SECONDS = 0.004
"""How long requests run one after another before those of others are looked for."""
WAIT_SECONDS_MAX = 15.0
"""How long a request may wait for seats unless told otherwise: a quarter of the time that a request may take."""
LENDING_SECONDS = 10.0
_WRITES = frozenset({"create", "update", "patch", "delete"})
_log = telemetry.logger("apiserver")


class Statuses(Protocol):
    """Where the status of schemas is written."""

    async def apply_status(self, resource: Resource[Any], name: str, status: dict[str, Any], manager: str) -> None:
        """Apply a part of an object's status, by force; nothing happens if the object is gone."""
        ...


class TooManyRequests(Exception):
    """There is no place for a request; `retry_after_seconds` is when to try again."""

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__("Too many requests, please try again later.")
        self.retry_after_seconds = retry_after_seconds


class _Place(NamedTuple):
    """Where requests of one kind belong."""

    schema: flowcontrol.FlowSchema
    level: Level
    counts: SchemaCounts
    uids: tuple[str, str]


class FlowControl:
    """An Observer of flow schemas and priority levels that decides when requests run.

    Invariants: `_schemas` is in the order of matching; `_known` only holds answers of the present schemas;
    `_pumping` is set while a pass over waiting requests is scheduled.
    """

    resources: Sequence[Resource[Any]] = (_SCHEMAS, _LEVELS)

    def __init__(
        self,
        clock: Clock,
        *,
        seats: int = 600,
        sizes: Sizes | None = None,
        wait_seconds_max: float = WAIT_SECONDS_MAX,
    ) -> None:
        self._wait_seconds_max = wait_seconds_max
        self.watches = WatchCounts()
        self.levels: dict[str, Level] = {}
        self.counts: dict[tuple[str, str], SchemaCounts] = {}
        self.fair_fraction = 0.0
        self._clock = clock
        self._seats = seats
        self._sizes = sizes or _unknown_sizes
        self._schemas: list[tuple[flowcontrol.FlowSchema, Test]] = []
        self._known: dict[tuple[Any, ...], _Place | None] = {}
        self._changed = asyncio.Event()
        self._pass_began = 0.0
        self._pumping = False
        self._seconds = {True: 0.002, False: 0.0003}
        self._turns_now = 0.0

    # Configuration

    def changed(self, resource: Resource[Any], old: Any | None, new: Any | None) -> None:
        """Take note of a schema or a level."""
        self._known.clear()
        self._changed.set()
        if resource.plural == _LEVELS.plural:
            self._change_level(old, new)
            return
        present: Any = old if new is None else new
        name = present.metadata.name
        self._schemas = [item for item in self._schemas if item[0].metadata.name != name]
        if new is not None:
            self._schemas.append((new, compile_schema(new)))
            self._schemas.sort(key=lambda item: (item[0].spec.matching_precedence, item[0].metadata.name))

    def _change_level(self, old: Any | None, new: Any | None) -> None:
        if new is None:
            assert old is not None
            level = self.levels.get(old.metadata.name)
            if level is not None:
                level.leaving = True
        else:
            spec = new.spec
            level = self.levels.get(new.metadata.name)
            if level is None:
                level = self.levels[new.metadata.name] = Level(new.metadata.name, new.metadata.uid)
            level.uid, level.leaving = new.metadata.uid, False
            own = spec.exempt if spec.exempt is not None else spec.limited
            level.shares = (own and own.nominal_concurrency_shares) or 0
            level.lendable_percent = (own and own.lendable_percent) or 0
            level.borrowing_percent = spec.limited.borrowing_limit_percent if spec.limited is not None else None
            asked = spec.limited.limit_response.queuing if spec.limited is not None else None
            queuing = Queuing(asked.queues, asked.hand_size, asked.queue_length_limit) if asked is not None else None
            level.configure(queuing, exempt=spec.type == "Exempt")
        self._divide()

    def _divide(self) -> None:
        for name in [name for name, level in self.levels.items() if level.leaving and level.is_idle]:
            del self.levels[name]
        present = list(self.levels.values())
        set_nominal(present, self._seats)
        self.fair_fraction = lend(present)

    def lend_seats(self) -> None:
        """Work out anew how many seats each level has, from what it needed lately."""
        now = self._clock.monotonic_seconds()
        for level in self.levels.values():
            level.demand.settle(now)
        self._divide()
        self._wake()

    # Requests

    def classify(self, user: UserInfo, info: RequestInfo) -> tuple[str, str]:
        """Return the UIDs of the schema and the priority level of a request; "" where there is none."""
        place = self._place(user, info)
        return place.uids if place is not None else ("", "")

    def _place(self, user: UserInfo, info: RequestInfo) -> _Place | None:
        where = (info.group, info.resource, info.subresource, info.namespace) if info.is_resource else (info.path,)
        key = (user.name, user.groups, info.verb, *where)
        try:
            return self._known[key]
        except KeyError:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            found = self._known[key] = self._find(user, info)
            return found

    def _find(self, user: UserInfo, info: RequestInfo) -> _Place | None:
        for schema, matches in self._schemas:
            level = self.levels.get(schema.spec.priority_level_configuration.name)
            if level is not None and not level.leaving and matches(user, info):
                key = (level.name, schema.metadata.name)
                counts = self.counts.setdefault(key, SchemaCounts())
                return _Place(schema, level, counts, (schema.metadata.uid, level.uid))
        return None

    def enter(self, request: Request, now: float) -> Ticket | None:
        """Let a request in, or in line; raise TooManyRequests. None means that no schema takes it.

        If the ticket says that it has not `started`, `wait_turn` has to be awaited. Whoever got in has to `leave`.
        """
        info = request.info
        place = self._place(request.user, info)
        if place is None:
            return None
        request.flow = place.uids
        level = place.level
        verb = info.verb
        is_list = verb in ("list", "watch")
        if is_list:
            width = Width(list_seats(info, request.query, self._sizes, level.ticket_seats_max))
        elif verb in _WRITES:
            interested = self.watches.interested(info)
            place.counts.watches.add(interested)
            width = write_width(interested, level.ticket_seats_max)
        else:
            width = ONE
        ticket = Ticket(level, place.counts, place.schema.metadata.name, *width, request=request)
        ticket.is_wide = is_list
        if width.seats > 1 or width.final_seats > 1:
            place.counts.widths.add(max(width.seats, width.final_seats))
        if level.exempt:
            level.start(ticket, now)
            return ticket
        if not level.waiting and level.has_room(ticket.seats_held) and (self._has_turn(now) or level.queuing is None):
            level.start(ticket, now)
            return ticket
        if not level.waiting:
            level.turns = max(level.turns, self._turns_now)  # What it did not use while idle is no claim.
        ticket.flow = distinguisher(place.schema, request.user, info)
        if not level.wait(ticket, flow_hash(ticket.schema, ticket.flow), now):
            raise self.refused(level)
        self._wake()
        return ticket

    async def wait_turn(self, ticket: Ticket) -> None:
        """Return when a request may run; raise TooManyRequests if it waited too long."""
        if ticket.started:
            return
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[bool] = loop.create_future()
        ticket.woken = woken
        timer = loop.call_later(self._wait_seconds_max, self._expire, ticket)
        try:
            may = await woken
        except asyncio.CancelledError:
            now = self._clock.monotonic_seconds()
            if not ticket.level.give_up(ticket, now, "cancelled") and ticket.started:
                self.leave(ticket, now)
            raise
        finally:
            timer.cancel()
        if not may:
            raise self.refused(ticket.level)
        ticket.running_since = self._clock.monotonic_seconds()

    def leave(self, ticket: Ticket, now: float) -> None:
        """A request is answered: its seats are free, perhaps after a while."""
        level = ticket.level
        if ticket.queue is not None:
            self._learn(ticket, now - ticket.running_since)
        linger = level.finish(ticket, now)
        ticket.request = None
        if linger:
            asyncio.get_running_loop().call_later(linger, self._release, ticket)
        elif level.waiting:
            self._wake()
        elif level.leaving and level.is_idle:
            self._divide()

    def refused(self, level: Level) -> TooManyRequests:
        """Return the refusal of one more request of a level."""
        level.dropped.record(int(self._clock.now_seconds()))
        return TooManyRequests(level.dropped.retry_after_seconds)

    def _release(self, ticket: Ticket) -> None:
        ticket.level.release(ticket, self._clock.monotonic_seconds())
        if ticket.level.waiting:
            self._wake()

    def _expire(self, ticket: Ticket) -> None:
        if ticket.level.give_up(ticket, self._clock.monotonic_seconds()) and not ticket.woken.done():
            ticket.woken.set_result(False)

    # Turns

    def _has_turn(self, now: float) -> bool:
        """Tell whether a request may run in this pass of the event loop."""
        if self._pumping:
            return False
        if not self._pass_began:
            self._pass_began = now
            asyncio.get_running_loop().call_soon(self._end_pass)
            return True
        return now - self._pass_began < TURN_SECONDS

    def _end_pass(self) -> None:
        self._pass_began = 0.0

    def _wake(self) -> None:
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        """Let waiting requests run, as many as take about one turn; then come back behind them if there are more."""
        now = self._clock.monotonic_seconds()
        left = TURN_SECONDS
        ready = [level for level in self.levels.values() if level.waiting]
        while ready and left > 0:
            level = min(ready, key=_turns)
            ticket = level.next(now)
            if ticket is None:
                ready.remove(level)
                continue
            self._turns_now = max(self._turns_now, level.turns)
            level.turns += ticket.seats_held / max(level.shares, 1)
            left -= self._seconds[ticket.is_wide] * ticket.seats
            if ticket.woken is not None and not ticket.woken.done():
                ticket.woken.set_result(True)
            if not level.waiting:
                ready.remove(level)
        self._pumping = bool(ready)
        if self._pumping:
            asyncio.get_running_loop().call_soon(self._pump)

    def _learn(self, ticket: Ticket, took: float) -> None:
        """Remember how long requests take: a long one at once, short ones by and by."""
        each = took / ticket.seats
        known = self._seconds[ticket.is_wide]
        self._seconds[ticket.is_wide] = max(each, known + 0.05 * (each - known))

    # Status of schemas

    async def run(self, statuses: Statuses) -> None:
        """Lend seats, and keep the condition of schemas that tells whether their level exists, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._lend_now_and_then(), name="flow-seats")
            tasks.create_task(self._keep_conditions(statuses), name="flow-conditions")

    async def _lend_now_and_then(self) -> None:
        while True:
            await self._clock.sleep(LENDING_SECONDS)
            self.lend_seats()

    async def _keep_conditions(self, statuses: Statuses) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            for schema, _ in list(self._schemas):
                try:
                    await self._settle(statuses, schema)
                except apierrors.ApiError as error:
                    _log.debug("A flow schema's status was not written.", schema=schema.metadata.name, error=str(error))

    async def _settle(self, statuses: Statuses, schema: flowcontrol.FlowSchema) -> None:
        name = schema.spec.priority_level_configuration.name
        level = self.levels.get(name)
        exists = level is not None and not level.leaving
        condition = dangling(name, times.format_time(self._clock.now_seconds()), exists=exists)
        for one in schema.status.conditions:
            if (one.type, one.status, one.message) == (condition.type, condition.status, condition.message):
                return
        status = {"conditions": [serialization.to_tree(condition)]}
        await statuses.apply_status(_SCHEMAS, schema.metadata.name, status, CONFIG_CONSUMER)

    def statistics(self) -> Mapping[str, tuple[int, int]]:
        """Return (executing, waiting) by level."""
        return {name: (level.executing, level.waiting) for name, level in self.levels.items()}


def _turns(level: Level) -> float:
    return level.turns


def _unknown_sizes(_group: str, _resource: str) -> tuple[int, int] | None:
    return None

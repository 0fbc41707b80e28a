"""One priority level: its seats, its queues, and which request is next. Pure: no clock, no tasks.

A request takes seats (most take one). While seats are free and nobody waits it simply starts. Else it waits in the
shortest of the few queues that its flow was dealt; queues are served so that each flow gets the same share of work:
every queue has a place on a line of virtual time, moves forward by the work it got, and the one that would be done
first is next. Virtual time is the place of the queue that was served last: it keeps pace with the machine's speed.

Invariants: `seats_in_use` and `seats_waiting` are the sums over requests executing (or lingering) and waiting; a queue
in `_busy` has a request waiting.
Source: https://github.com/kubernetes/enhancements/blob/master/keps/sig-api-machinery/1040-priority-and-fairness/README.md
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from haven.apiserver.flowcontrol.demand import Demand
from haven.apiserver.flowcontrol.retryafter import DroppedRequests
from haven.apiserver.flowcontrol.sharding import deal
from haven.metrics.families import Histogram

__all__ = ["Level", "Queue", "Queuing", "SchemaCounts", "Ticket"]

ESTIMATED_SERVICE_SECONDS = 0.003
_WAIT_BUCKETS = (0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30)
_LENGTH_BUCKETS = (0, 10, 25, 50, 100, 250, 500, 1000)
_SEAT_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 100)
_WATCH_BUCKETS = (0, 1, 10, 100, 1000, 10000)


@dataclass(frozen=True, slots=True)
class Queuing:
    """How requests wait: in how many queues, how many of them a flow may use, how many requests each holds."""

    queues: int
    hand_size: int
    length_max: int


class SchemaCounts:
    """What happened to the requests of one flow schema at one level."""

    __slots__ = (
        "dispatched", "executing", "execution", "lengths", "rejected", "seats", "waiting", "waits", "waits_refused",
        "watches", "widths",
    )  # fmt: skip

    def __init__(self) -> None:
        self.dispatched = self.executing = self.seats = self.waiting = 0
        self.rejected: dict[str, int] = {}
        self.execution = Histogram(_WAIT_BUCKETS)
        self.waits = Histogram(_WAIT_BUCKETS)
        self.waits_refused = Histogram(_WAIT_BUCKETS)
        self.lengths = Histogram(_LENGTH_BUCKETS)
        """How many waited in a queue when one more came."""
        self.widths = Histogram(_SEAT_BUCKETS)
        """The seats of requests that take more than one."""
        self.watches = Histogram(_WATCH_BUCKETS)
        """How many watches heard of each write."""

    def reject(self, reason: str) -> None:
        """Count a refusal."""
        self.rejected[reason] = self.rejected.get(reason, 0) + 1


class Queue:
    """Requests of a few flows, oldest first. `place` is where on the line of virtual time it may start its next one."""

    __slots__ = ("executing", "index", "place", "seats_in_use", "waiting", "work")

    def __init__(self, index: int) -> None:
        self.index = index
        self.waiting: deque[Ticket] = deque()
        self.executing = 0
        self.seats_in_use = 0
        self.work = 0.0
        """The work that waits, in seat-seconds."""
        self.place = 0.0


class Ticket:
    """A request at a level. `queue` is None if it never had to wait. `woken` is for the shell."""

    __slots__ = (
        "arrived", "counts", "final_seats", "flow", "is_wide", "level", "linger_seconds", "queue", "request",
        "running_since", "schema", "seats", "seats_held", "started", "woken",
    )  # fmt: skip

    def __init__(
        self,
        level: Level,
        counts: SchemaCounts,
        schema: str,
        seats: int,
        final_seats: int = 0,
        linger_seconds: float = 0.0,
        flow: str = "",
        request: Any = None,
    ) -> None:
        self.level = level
        self.counts = counts
        self.schema = schema
        self.seats = seats
        self.final_seats = final_seats
        self.linger_seconds = linger_seconds
        self.seats_held = seats if seats >= final_seats else final_seats
        self.flow = flow
        self.request = request
        self.arrived = self.started = self.running_since = 0.0
        self.is_wide = False
        self.queue: Queue | None = None
        self.woken: Any = None

    @property
    def work(self) -> float:
        """The work it is likely to take, in seat-seconds."""
        return self.seats * ESTIMATED_SERVICE_SECONDS + self.final_seats * self.linger_seconds


@dataclass(slots=True, eq=False)
class Level:
    """A priority level. `queuing` None rejects at once what finds no seat; `exempt` never limits."""

    name: str
    uid: str
    exempt: bool = False
    queuing: Queuing | None = None
    shares: int = 0
    lendable_percent: int = 0
    borrowing_percent: int | None = None
    nominal: int = 0
    seats_min: int = 0
    seats_max: int = 0
    limit: int = 0
    """The seats it has at present."""
    seats_in_use: int = 0
    seats_waiting: int = 0
    executing: int = 0
    waiting: int = 0
    dispatched: int = 0
    rejected: int = 0
    cancelled: int = 0
    leaving: bool = False
    """Its object is gone; what still waits or runs is served to the end."""
    turns: float = 0.0
    """How much it has been served in comparison to its shares, for the choice between levels."""
    demand: Demand = field(default_factory=Demand)
    dropped: DroppedRequests = field(default_factory=DroppedRequests)
    running: set[Ticket] = field(default_factory=set)
    queues: list[Queue] = field(default_factory=list)
    _now: float = 0.0
    _robin: int = 0
    _busy: dict[int, Queue] = field(default_factory=dict)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits or runs."""
        return not self.waiting and not self.executing

    @property
    def progress(self) -> float:
        """Virtual time: how far the work of every busy queue has come."""
        return self._now

    @property
    def ticket_seats_max(self) -> int:
        """The widest that one request may be estimated; 0 leaves it to the estimate."""
        if self.queuing is None:
            return 0
        return max(1, min(-(-self.nominal * 15 // 100), self.nominal // self.queuing.hand_size))

    def configure(self, queuing: Queuing | None, *, exempt: bool) -> None:
        """Take over another configuration; requests that wait stay where they are."""
        self.exempt, self.queuing = exempt, queuing
        for index in range(len(self.queues), queuing.queues if queuing is not None else 0):
            self.queues.append(Queue(index))

    def has_room(self, seats: int) -> bool:
        """Tell whether so many seats are free. What is wider than the level itself goes when it has the level alone."""
        if self.exempt:
            return True
        if seats > self.limit:
            return not self.executing
        return self.seats_in_use + seats <= self.limit

    def start(self, ticket: Ticket, now: float) -> None:
        """Let a request begin that did not have to wait."""
        ticket.arrived = ticket.started = now
        self.seats_in_use += ticket.seats_held
        self.executing += 1
        self.dispatched += 1
        counts = ticket.counts
        counts.dispatched += 1
        counts.executing += 1
        counts.seats += ticket.seats_held
        self.running.add(ticket)
        self.demand.set(self.seats_in_use + self.seats_waiting, now)

    def wait(self, ticket: Ticket, flow_hash: int, now: float) -> bool:
        """Put a request in line; False if it has to be refused, which is counted."""
        queuing = self.queuing
        if queuing is None:
            self._refuse(ticket, "concurrency-limit")
            return False
        queue = self._choose(flow_hash, queuing)
        if len(queue.waiting) >= queuing.length_max:
            self._refuse(ticket, "queue-full")
            return False
        ticket.arrived = now
        ticket.queue = queue
        if not queue.waiting:
            queue.place = max(queue.place, self._now)
            self._busy[queue.index] = queue
        queue.waiting.append(ticket)
        ticket.counts.lengths.add(len(queue.waiting))
        queue.work += ticket.work
        self.waiting += 1
        self.seats_waiting += ticket.seats_held
        ticket.counts.waiting += 1
        self.demand.set(self.seats_in_use + self.seats_waiting, now)
        return True

    def next(self, now: float) -> Ticket | None:
        """Start the request whose turn it is and return it; None if nobody waits or there are no seats for it."""
        best: Queue | None = None
        best_finish = 0.0
        size = len(self.queues) or 1
        for queue in self._busy.values():
            finish = queue.place + queue.waiting[0].work
            if best is None or finish < best_finish:
                best, best_finish = queue, finish
            elif finish == best_finish and (queue.index - self._robin) % size < (best.index - self._robin) % size:
                best = queue
        if best is None or not self.has_room(best.waiting[0].seats_held):
            return None
        self._robin = (best.index + 1) % size
        ticket = best.waiting.popleft()
        self._now = max(self._now, best.place)
        best.place += ticket.work
        best.executing += 1
        best.seats_in_use += ticket.seats_held
        self._left(best, ticket)
        waited = now - ticket.arrived
        ticket.counts.waits.add(waited)
        arrived = ticket.arrived
        self.start(ticket, now)
        ticket.arrived = arrived
        return ticket

    def give_up(self, ticket: Ticket, now: float, reason: str = "time-out") -> bool:
        """Take a request out of the line, if it still waits, and count the refusal."""
        queue = ticket.queue
        if queue is None or ticket not in queue.waiting:
            return False
        queue.waiting.remove(ticket)
        self._left(queue, ticket)
        ticket.counts.waits_refused.add(now - ticket.arrived)
        self.cancelled += 1
        self._refuse(ticket, reason)
        self.demand.set(self.seats_in_use + self.seats_waiting, now)
        return True

    def finish(self, ticket: Ticket, now: float) -> float:
        """A request is done: return how long its seats stay taken (0: they are free at once, else call `release`)."""
        self.executing -= 1
        counts = ticket.counts
        counts.executing -= 1
        took = now - ticket.started
        counts.execution.add(took)
        self.running.discard(ticket)
        queue = ticket.queue
        if queue is not None:
            queue.executing -= 1
            queue.place -= ticket.seats * (ESTIMATED_SERVICE_SECONDS - took)
            queue.place = max(queue.place, 0.0)
        if ticket.linger_seconds > 0:
            return ticket.linger_seconds
        self.release(ticket, now)
        return 0.0

    def release(self, ticket: Ticket, now: float) -> None:
        """Free the seats of a request that is done."""
        self.seats_in_use -= ticket.seats_held
        ticket.counts.seats -= ticket.seats_held
        if ticket.queue is not None:
            ticket.queue.seats_in_use -= ticket.seats_held
        self.demand.set(self.seats_in_use + self.seats_waiting, now)

    def check(self) -> None:
        """Verify the invariants."""
        waiting = [ticket for queue in self.queues for ticket in queue.waiting]
        assert self.waiting == len(waiting), (self.waiting, len(waiting))
        assert self.seats_waiting == sum(ticket.seats_held for ticket in waiting)
        assert set(self._busy) == {queue.index for queue in self.queues if queue.waiting}
        assert self.executing == len(self.running), (self.executing, len(self.running))
        assert self.seats_in_use >= sum(ticket.seats_held for ticket in self.running)

    def tickets_waiting(self) -> Iterator[tuple[Queue, Ticket]]:
        """Yield what waits, queue by queue."""
        for queue in self.queues:
            for ticket in queue.waiting:
                yield queue, ticket

    def _choose(self, flow_hash: int, queuing: Queuing) -> Queue:
        if queuing.queues == 1:
            return self.queues[0]
        hand = deal(flow_hash, queuing.queues, queuing.hand_size)
        return min((self.queues[card] for card in hand), key=_load)

    def _left(self, queue: Queue, ticket: Ticket) -> None:
        queue.work -= ticket.work
        if not queue.waiting:
            queue.work = 0.0
            self._busy.pop(queue.index, None)
        self.waiting -= 1
        self.seats_waiting -= ticket.seats_held
        ticket.counts.waiting -= 1

    def _refuse(self, ticket: Ticket, reason: str) -> None:
        self.rejected += 1
        ticket.counts.reject(reason)


def _load(queue: Queue) -> tuple[float, int]:
    return queue.work, queue.seats_in_use

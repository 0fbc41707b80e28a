"""Keys to work on: each at most once in the queue, with at most one worker, later again after a failure.

`QueueCore` decides and knows no tasks; `WorkQueue` lets workers wait. A key that is added while a worker holds it is
handed out again once that worker answers. Source: client-go's workqueue, whose limits these are.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from haven import telemetry
from haven.clock import Clock, SystemClock
from haven.metrics.families import Histogram

__all__ = ["QueueCore", "QueueLimits", "QueueShutDown", "QueueStatistics", "WorkQueue"]

K = TypeVar("K", bound=Hashable)

_DURATIONS = (1e-08, 1e-07, 1e-06, 1e-06 * 10, 1e-06 * 10 * 10, 0.001, 0.01, 0.1, 1.0, 10.0)
_log = telemetry.logger("workqueue")


class QueueShutDown(Exception):
    """The queue is shut down and empty: the worker may go home."""


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How long a failing key waits: twice as long each time."""

    first_seconds: float = 0.005
    seconds_max: float = 1000.0


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """A snapshot for metrics."""

    name: str
    waiting: int
    processing: int
    delayed: int
    failing: int
    added: int
    retried: int
    unfinished_seconds: float = 0.0
    longest_seconds: float = 0.0


class QueueCore(Generic[K]):
    """Which key is next. Time is told by the caller and must not go back.

    Invariants: a key is in `_ready` at most once and never while it is processed; every ready key is dirty.
    """

    def __init__(self, limits: QueueLimits | None = None) -> None:
        self._limits = limits or QueueLimits()
        self._ready: deque[K] = deque()
        self._dirty: set[K] = set()
        self._processing: set[K] = set()
        self._delayed: list[tuple[float, int, K]] = []
        self._delayed_until: dict[K, float] = {}
        self._failures: dict[K, int] = {}
        self._order = itertools.count()
        self.added = 0
        self.retried = 0

    def add(self, key: K) -> bool:
        """Have a key worked on; return whether a worker can take it now."""
        if key in self._dirty:
            return False
        self.added += 1
        self._dirty.add(key)
        if key in self._processing:
            return False
        self._ready.append(key)
        return True

    def add_at(self, key: K, at_seconds: float) -> None:
        """Have a key worked on at that time; an earlier arrangement for it stands."""
        if self._delayed_until.get(key, float("inf")) <= at_seconds:
            return
        self._delayed_until[key] = at_seconds
        heapq.heappush(self._delayed, (at_seconds, next(self._order), key))

    def next_due_seconds(self) -> float | None:
        """Return when the next delayed key is due."""
        while self._delayed:
            at_seconds, _, key = self._delayed[0]
            if self._delayed_until.get(key) == at_seconds:
                return at_seconds
            heapq.heappop(self._delayed)
        return None

    def add_due(self, now_seconds: float) -> int:
        """Add the delayed keys that are due; return how many a worker can take now."""
        count = 0
        while (due := self.next_due_seconds()) is not None and due <= now_seconds:
            _, _, key = heapq.heappop(self._delayed)
            del self._delayed_until[key]
            count += self.add(key)
        return count

    def take(self) -> K | None:
        """Hand out the next key, None if there is none; `answer` for it."""
        if not self._ready:
            return None
        key = self._ready.popleft()
        self._dirty.discard(key)
        self._processing.add(key)
        return key

    def answer(self, key: K) -> bool:
        """The worker is through with the key; return whether it is ready again at once."""
        assert key in self._processing, key
        self._processing.discard(key)
        if key in self._dirty:
            self._ready.append(key)
            return True
        return False

    def fail(self, key: K) -> float:
        """Note a failure; return how long the key should wait."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        self.retried += 1
        limits = self._limits
        # The exponent is capped: floats end at 2 ** 1023.
        return min(limits.first_seconds * 2.0 ** min(count, 64), limits.seconds_max)

    def forget(self, key: K) -> None:
        """Forget a key's failures."""
        self._failures.pop(key, None)

    def failures(self, key: K) -> int:
        """Return how often in a row a key failed."""
        return self._failures.get(key, 0)

    def counts(self) -> tuple[int, int, int, int]:
        """Return how many keys are ready, processed, delayed, failing."""
        return len(self._ready), len(self._processing), len(self._delayed_until), len(self._failures)

    def check(self) -> None:
        """Assert every invariant; for tests and simulations."""
        assert len(self._ready) == len(set(self._ready)), "a key is ready twice"
        assert not self._processing & set(self._ready), "a key is ready and processed"
        assert set(self._ready) <= self._dirty, "a ready key is not dirty"
        assert self._dirty - set(self._ready) <= self._processing, "a dirty key is lost"


class WorkQueue(Generic[K]):
    """The queue as workers see it: `wait_next`, then exactly one of `done` and `retry_later`."""

    def __init__(self, name: str = "", *, limits: QueueLimits | None = None, clock: Clock | None = None) -> None:
        self._name = name
        self._clock = clock or SystemClock()
        self._core: QueueCore[K] = QueueCore(limits)
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.Task[None] | None = None
        self._timer_seconds = float("inf")
        self._shut_down = False
        self._arrived: dict[K, float] = {}
        self._began: dict[K, float] = {}
        self.waits = Histogram(_DURATIONS)
        """How long keys waited, in seconds, once they could be worked on."""
        self.work = Histogram(_DURATIONS)
        """How long workers held them."""

    def __len__(self) -> int:
        return self._core.counts()[0]

    def add(self, key: K) -> None:
        """Have a key worked on soon; nothing happens if it is in the queue."""
        if not self._shut_down:
            self._arrived.setdefault(key, self._clock.monotonic_seconds())
            if self._core.add(key):
                self._wake_one()

    def add_after(self, key: K, seconds: float) -> None:
        """Have a key worked on that much later."""
        if seconds <= 0:
            self.add(key)
        elif not self._shut_down:
            self._core.add_at(key, self._clock.monotonic_seconds() + seconds)
            self._set_timer()

    async def wait_next(self) -> K:
        """Return the next key, which nobody else holds until it is answered for; raise QueueShutDown at the end."""
        while True:
            key = self._core.take()
            if key is not None:
                now = self._clock.monotonic_seconds()
                self.waits.add(now - self._arrived.pop(key, now))
                self._began[key] = now
                return key
            if self._shut_down:
                raise QueueShutDown(self._name)
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake_one()  # We were woken for a key that we shall not take.
                else:
                    self._waiters.remove(waiter)
                raise

    def done(self, key: K) -> None:
        """The key's work succeeded: its failures are forgotten."""
        self._core.forget(key)
        self._answer(key)

    def retry_later(self, key: K, *, because: Exception | str = "") -> None:
        """The key's work failed: work on it again, the later the more often it failed."""
        seconds = self._core.fail(key)
        _log.debug(
            "working on a key again later",
            queue=self._name,
            key=str(key),
            in_seconds=seconds,
            failures=self._core.failures(key),
            because=str(because),
        )
        self.add_after(key, seconds)
        self._answer(key)

    def failures(self, key: K) -> int:
        """Return how often in a row a key failed."""
        return self._core.failures(key)

    def shut_down(self) -> None:
        """Take no more keys; workers finish what is ready, then get QueueShutDown."""
        self._shut_down = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiters:
            self._wake_one()

    def statistics(self) -> QueueStatistics:
        """Return a snapshot for metrics."""
        waiting, processing, delayed, failing = self._core.counts()
        now = self._clock.monotonic_seconds()
        held = [now - began for began in self._began.values()]
        return QueueStatistics(
            self._name,
            waiting,
            processing,
            delayed,
            failing,
            self._core.added,
            self._core.retried,
            sum(held),
            max(held, default=0.0),
        )

    def _answer(self, key: K) -> None:
        now = self._clock.monotonic_seconds()
        self.work.add(now - self._began.pop(key, now))
        if self._core.answer(key):
            self._wake_one()

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _set_timer(self) -> None:
        """Have one timer, for the earliest delayed key."""
        due = self._core.next_due_seconds()
        if due is None or (self._timer is not None and self._timer_seconds <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_seconds = due
        self._timer = asyncio.get_running_loop().create_task(self._add_later(due), name=f"workqueue-{self._name}")

    async def _add_later(self, due_seconds: float) -> None:
        while (wait := due_seconds - self._clock.monotonic_seconds()) > 0:
            await self._clock.sleep(wait)
        for _ in range(self._core.add_due(self._clock.monotonic_seconds())):
            self._wake_one()
        self._timer = None
        self._set_timer()

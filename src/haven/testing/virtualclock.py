"""A clock that runs with the machine's, and can be pushed ahead: an hour passes in milliseconds, a year in seconds.

`advance` goes from one due sleeper to the next and lets the cluster come to rest in between, so that a CronJob of
every five minutes runs twelve times in an hour that takes none. Belongs to one event loop.

Where nothing changes, its steps grow: the longer nothing has, the longer loops that only look around may sleep. What
somebody began to wait for at the last change, or waits for longer than a step, is met exactly.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Awaitable, Callable
from math import inf

__all__ = ["VirtualClock"]

STEPS_MAX = 2000
"""An advance is made in at most about so many steps: sleepers that are due close together wake together."""
STEP_SECONDS_MAX = 25.0
"""But never further apart than this, so that heartbeats stay in time whatever the distance."""
QUIET_PARTS = 16
"""While nothing changes, a step may also be this part of the time since something did."""
QUIET_TURNS = 4
REST_TURNS_MAX = 20_000
SWEEP_SLEEPERS = 1024


class VirtualClock:
    """A Clock. Invariant: it never goes back, except by `set_now_seconds` for a cluster that was restored."""

    def __init__(self, *, start_seconds: float | None = None, frozen: bool = False) -> None:
        self._monotonic = time.monotonic
        self._skipped = 0.0
        self._frozen_at: float | None = self._monotonic() if frozen else None
        self._epoch = (time.time() if start_seconds is None else start_seconds) - self.monotonic_seconds()
        self._sleepers: list[tuple[float, int, asyncio.Future[None], float]] = []
        """When each is due, what settles ties, whom to wake, and for how long it wanted to sleep."""
        self._sweep_at = SWEEP_SLEEPERS
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self.is_busy: Callable[[], bool] = lambda: False
        """Whether something is under way that the event loop does not show, such as a call to a webhook."""
        self.changes: Callable[[], int] = lambda: 0
        """How often something has changed, heartbeats aside."""
        self.heartbeat: Callable[[], Awaitable[None]] = _no_heartbeat
        """Lets who is alive say so, before those look who wait for it."""
        self._advancing = asyncio.Lock()

    # What the cluster sees

    def now_seconds(self) -> float:
        return self._epoch + self.monotonic_seconds()

    def monotonic_seconds(self) -> float:
        real = self._monotonic() if self._frozen_at is None else self._frozen_at
        return real + self._skipped

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._push(seconds, future)
        self._set_timer()
        await future

    def _push(self, seconds: float, future: asyncio.Future[None]) -> None:
        if len(self._sleepers) >= self._sweep_at:  # Many were cancelled before their time.
            self._sleepers = [item for item in self._sleepers if not item[2].done()]
            heapq.heapify(self._sleepers)
            self._sweep_at = max(SWEEP_SLEEPERS, 2 * len(self._sleepers))
        heapq.heappush(self._sleepers, (self.monotonic_seconds() + seconds, next(self._order), future, seconds))

    def _next_due(self) -> float | None:
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        return self._sleepers[0][0] if self._sleepers else None

    def _set_timer(self) -> None:
        due = self._next_due()
        if due is None or self._frozen_at is not None or self._advancing.locked():
            self.stop()
            return
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.cancel()
        self._timer_due = due
        wait = max(0.0, due - self.monotonic_seconds())
        self._timer = asyncio.get_running_loop().call_later(wait, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._wake()
        self._set_timer()

    def _wake(self) -> None:
        now = self.monotonic_seconds()
        while (due := self._next_due()) is not None and due <= now:
            _, _, future, _ = heapq.heappop(self._sleepers)
            future.set_result(None)

    def stop(self) -> None:
        """Wake nobody by itself any more (the loop ends)."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # What tests do

    @property
    def is_frozen(self) -> bool:
        return self._frozen_at is not None

    def freeze(self) -> None:
        """Stand still from now on, except for `advance`."""
        if self._frozen_at is None:
            self._frozen_at = self._monotonic()
            self.stop()

    def resume(self) -> None:
        """Run with the machine's clock again, from where it stands."""
        if self._frozen_at is not None:
            self._skipped -= self._monotonic() - self._frozen_at
            self._frozen_at = None
            self._wake()
            self._set_timer()

    async def advance(self, seconds: float) -> None:
        """Let time pass: everything that is due happens, in order, with rest in between."""
        if seconds < 0:
            raise ValueError("time does not go back")
        async with self._advancing:
            try:
                self.stop()
                await self._advance(seconds)
            finally:
                asyncio.get_running_loop().call_soon(self._ring)

    async def _advance(self, seconds: float) -> None:
        await self.rest()
        end = self.monotonic_seconds() + seconds
        step = min(STEP_SECONDS_MAX, seconds / STEPS_MAX)
        changes, changed = self.changes(), self.monotonic_seconds()
        while (due := self._next_due()) is not None and due <= end:
            now = self.monotonic_seconds()
            if self.changes() != changes:
                changes, changed = self.changes(), now
            stride = (now - changed) / QUIET_PARTS
            reached = min(end, due + step)
            if stride > step:
                reached = min(end, max(reached, min(now + stride, self._next_due_beyond(stride))))
            self._skip_to(reached)
            if reached - now > STEP_SECONDS_MAX:
                await self.heartbeat()
                await self.rest()
            self._wake()
            await self.rest()
        self._skip_to(end)
        self._wake()
        await self.rest()

    def _next_due_beyond(self, span: float) -> float:
        """Return when the first of those is due who wanted to sleep for longer than this."""
        return min(
            (due for due, _, future, wanted in self._sleepers if wanted > span and not future.done()), default=inf
        )

    def _skip_to(self, monotonic: float) -> None:
        self._skipped += max(0.0, monotonic - self.monotonic_seconds())

    def set_now_seconds(self, seconds: float) -> None:
        """Set the time of day, forward or back; spans that are being waited for are not touched."""
        self._epoch += seconds - self.now_seconds()

    async def rest(self) -> None:
        """Return once nothing happens any more without time passing."""
        loop = asyncio.get_running_loop()
        ready = getattr(loop, "_ready", None)  # asyncio's own loops have it; on others a fixed number of turns must do.
        quiet = 0
        for _ in range(REST_TURNS_MAX if ready is not None else 200):
            await asyncio.sleep(0)
            if ready is not None and not ready and not self.is_busy():
                quiet += 1
                if quiet >= QUIET_TURNS:
                    return
            else:
                quiet = 0


async def _no_heartbeat() -> None:
    pass

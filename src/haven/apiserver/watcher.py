"""One watch's end of the cache: changes wait here until its owner takes them; and how many watchers are woken.

Each answer to a watcher costs a system call and a TLS record, however many changes it holds. So where many watch, they
are woken in waves that leave time for other work, and a wave in parts; the first change after a pause is told at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from haven.apiserver.watchcache import Selection, WatchCache, Watched

__all__ = ["Watcher", "Waves"]

WATCHERS_FEW = WATCHERS_PER_TURN = 50
WAVE_SECONDS_PER_WATCHER = 40e-6
WAVE_SECONDS_MAX = 0.1
TIMER_SECONDS = 0.01


class Watcher:
    """One watch: changes wait here until its owner takes them. `overrun` tells that it was cut off for lagging."""

    __slots__ = (
        "_cache", "_events", "_everything", "_in_wave", "_timer", "_waiter", "error", "events_max", "overrun",
        "selection", "sink", "stopped",
    )  # fmt: skip

    def __init__(self, cache: WatchCache, selection: Selection, events_max: int) -> None:
        self.error: Exception | None = None
        """Why it was stopped, if its client shall hear of it."""
        self._cache = cache
        self.selection = selection
        self._everything = selection.is_everything
        self._in_wave = False
        self.events_max = events_max
        self._events: list[Watched] = []
        self._waiter: asyncio.Future[None] | None = None
        self._timer: tuple[float, asyncio.TimerHandle] | None = None
        self.overrun = False
        self.stopped = False
        self.sink: Callable[[list[Watched]], bool] | None = None
        """Takes changes while the owner waits for some; returns False if it cannot, and the owner is woken."""

    def offer(self, event: Watched) -> None:
        """Take a change if it concerns this watcher."""
        seen: Watched | None = event if self._everything else event.seen_by(self.selection)
        if seen is None or self.stopped:
            return
        if len(self._events) >= self.events_max:
            self.overrun = True
            self._cache.overruns += 1
            self.stop()
            return
        self._events.append(seen)
        if self._waiter is not None and not self._in_wave:
            self._in_wave = True
            self._cache.waves.add(self)

    def take(self) -> list[Watched]:
        """Return the changes that wait, oldest first, and forget them."""
        events, self._events = self._events, []
        return events

    async def wait_change(self, timeout_seconds: float | None = None) -> bool:
        """Return True once changes wait or the watch is stopped, False after the timeout."""
        if self._events or self.stopped:
            return True
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        if timeout_seconds is not None:
            # A timer that is set for about that moment stays: most waits end long before.
            due = loop.time() + timeout_seconds
            if self._timer is None or not self._timer[0] - TIMER_SECONDS < due < self._timer[0] + TIMER_SECONDS:
                self._set_timer(loop, due)
        elif self._timer is not None:
            self._timer[1].cancel()
            self._timer = None
        try:
            await waiter
        finally:
            self._waiter = None
        return bool(self._events) or self.stopped

    def _set_timer(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        if self._timer is not None:
            self._timer[1].cancel()
        self._timer = (due, loop.call_at(due, self._time_out))

    def _time_out(self) -> None:
        self._timer = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def wake(self) -> None:
        """Let the owner take what waits."""
        self._in_wave = False
        if self._waiter is None or self._waiter.done():
            return
        if self.sink is not None and self._events and not self.stopped:
            events = self.take()
            if self.sink(events):
                return
            self._events = events
        self._waiter.set_result(None)

    def stop(self) -> None:
        """End the watch; no more changes come."""
        self.stopped = True
        self._cache.forget(self)
        if self._timer is not None:
            self._timer[1].cancel()
            self._timer = None
        self.wake()


class Waves:
    """Those who are to be woken."""

    __slots__ = ("_last_seconds", "_later", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[Watcher] = []
        self._later: asyncio.TimerHandle | None = None
        self._last_seconds = float("-inf")

    def add(self, watcher: Watcher) -> None:
        """Note a watcher for which there is something."""
        self._waiting.append(watcher)

    def wake(self) -> None:
        """Wake those who were noted: few at once, many only so often, with several changes each."""
        many = len(self._waiting)
        if not many or self._later is not None:
            return
        if many > WATCHERS_FEW:
            loop = asyncio.get_running_loop()
            now = loop.time()
            due = self._last_seconds + min(WAVE_SECONDS_MAX, many * WAVE_SECONDS_PER_WATCHER)
            if now < due:
                self._later = loop.call_at(due, self._wake_late)
                return
            self._last_seconds = now
        self._wake_all()

    def _wake_late(self) -> None:
        self._later = None
        self._last_seconds = asyncio.get_running_loop().time()
        self._wake_all()

    def _wake_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._wake_some(waiting, 0)

    def _wake_some(self, waiting: list[Watcher], first: int) -> None:
        """Wake a part, and the next one behind whatever else the loop has to do."""
        for watcher in waiting[first : first + WATCHERS_PER_TURN]:
            watcher.wake()
        if first + WATCHERS_PER_TURN < len(waiting):
            asyncio.get_running_loop().call_soon(self._wake_some, waiting, first + WATCHERS_PER_TURN)

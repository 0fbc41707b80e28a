"""One watch's end of the cache: changes wait here until its owner takes them; and how many watchers are woken.

Each answer to a watcher costs a system call and a TLS record, however many changes it holds. So where many watch, they
are woken in waves that leave time for other work, and a wave in parts; the first change after a pause is told at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

from haven.apiserver.audience import WATCHERS_PER_TURN, Audience, Sink

if TYPE_CHECKING:
    from haven.apiserver.watchcache import Selection, WatchCache, Watched

__all__ = ["Watcher", "Waves"]

WATCHERS_FEW = 50
WAVE_SECONDS_PER_WATCHER = 40e-6
WAVE_SECONDS_MAX = 0.1
TIMER_SECONDS = 0.01


class Watcher:
    """One watch: changes wait here until its owner takes them. `overrun` tells that it was cut off for lagging."""

    __slots__ = (
        "_audience", "_cache", "_events", "_everything", "_in_wave", "_timer", "_waiter", "error", "events_max",
        "overrun", "place", "selection", "sink", "stopped",
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
        self.sink: Sink | None = None
        """Takes changes while the owner waits for some."""
        self._audience: Audience | None = None
        self.place = 0
        """What its audience knows of it."""

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
        if self.sink is not None and self.sink.form is not None:
            self._audience = self._cache.seat(self, self.sink.form)
        try:
            await waiter
        finally:
            self._waiter = None
            self._rise()
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
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def depart(self) -> None:
        """Leave the audience, and let the owner send what was not."""
        self._rise()
        self.wake()

    def _rise(self) -> None:
        """Leave the audience, if it sits in one, with what it was not sent."""
        if self._audience is not None:
            audience, self._audience = self._audience, None
            self._events += self._cache.rise(self, audience)

    def stop(self) -> None:
        """End the watch; no more changes come."""
        self._rise()
        self.stopped = True
        self._cache.forget(self)
        if self._timer is not None:
            self._timer[1].cancel()
            self._timer = None
        self.wake()


class Waves:
    """Those who are to be woken, or told."""

    __slots__ = ("_audiences", "_last_seconds", "_later", "_under_way", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[Watcher] = []
        self._audiences: list[Audience] = []
        self._later: asyncio.TimerHandle | None = None
        self._under_way = False
        self._last_seconds = float("-inf")

    def add(self, watcher: Watcher) -> None:
        """Note a watcher for which there is something."""
        self._waiting.append(watcher)

    def add_audience(self, audience: Audience) -> None:
        """Note an audience for which there is something."""
        self._audiences.append(audience)

    def wake(self) -> None:
        """Wake those who were noted: few at once, many only so often, with several changes each."""
        if self._later is not None or self._under_way:
            return
        many = len(self._waiting)
        for audience in self._audiences:
            many += len(audience.members)
        if not many:
            return
        if many > WATCHERS_FEW:
            loop = asyncio.get_running_loop()
            now = loop.time()
            due = self._last_seconds + min(WAVE_SECONDS_MAX, many * WAVE_SECONDS_PER_WATCHER)
            if now < due:
                self._later = loop.call_at(due, self._wake_late)
                return
            self._last_seconds = now
        self._go_on(self._wave())

    def _wake_late(self) -> None:
        self._later = None
        self._last_seconds = asyncio.get_running_loop().time()
        self._go_on(self._wave())

    def _wave(self) -> Iterator[None]:
        waiting, self._waiting = self._waiting, []
        audiences, self._audiences = self._audiences, []
        for number, watcher in enumerate(waiting, 1):
            watcher.wake()
            if number % WATCHERS_PER_TURN == 0:
                yield
        for audience in audiences:
            yield from audience.tell()

    def _go_on(self, wave: Iterator[None]) -> None:
        """Serve a part, and the next one behind whatever else the loop has to do."""
        self._under_way = False
        for _ in wave:
            self._under_way = True
            asyncio.get_running_loop().call_soon(self._go_on, wave)
            return
        if self._waiting or self._audiences:  # They came meanwhile.
            self.wake()

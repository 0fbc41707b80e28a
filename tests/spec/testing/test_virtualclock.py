"""The clock that tests push ahead: quiet times are short, and nothing that was begun comes late."""

from __future__ import annotations

import asyncio

from haven.testing.virtualclock import VirtualClock

DAY = 86_400.0


class Town:
    """A loop that looks around every second, and whatever else a test begins."""

    def __init__(self) -> None:
        self.clock = VirtualClock(start_seconds=0.0, frozen=True)
        self.clock.changes = lambda: self.changes
        self.clock.heartbeat = self._beat
        self.changes = self.looks = 0
        self.happened: list[tuple[str, float]] = []
        self.beaten_seconds = 0.0
        self.silence_seconds = 0.0

    async def _beat(self) -> None:
        self.beaten_seconds = self.clock.now_seconds()

    async def look_around(self) -> None:
        while True:
            await self.clock.sleep(1.0)
            self.looks += 1
            self.silence_seconds = max(self.silence_seconds, self.clock.now_seconds() - self.beaten_seconds)

    async def happen(self, *spans: float) -> None:
        for span in spans:
            await self.clock.sleep(span)
            self.happened.append((f"after {span:g}", self.clock.now_seconds()))
            self.changes += 1

    async def pass_days(self, days: float, *spans: float) -> None:
        tasks = [asyncio.create_task(self.look_around()), asyncio.create_task(self.happen(*spans))]
        await self.clock.advance(days * DAY)
        for task in tasks:
            task.cancel()


async def test_a_year_in_which_nothing_happens_takes_few_steps() -> None:
    town = Town()

    await town.pass_days(365)

    assert town.clock.now_seconds() == 365 * DAY
    assert town.looks < 400


async def test_what_is_due_after_days_of_quiet_is_not_late_and_neither_is_what_it_begins() -> None:
    town = Town()

    await town.pass_days(30, 10 * DAY, 30.0, 3600.0)

    step = 25.0  # of an advance over days
    (_, first), (_, second), (_, third) = town.happened
    assert 0 <= first - 10 * DAY <= step
    assert 0 <= second - first - 30.0 <= step
    assert 0 <= third - second - 3600.0 <= step


async def test_the_living_say_so_before_anybody_looks_for_them() -> None:
    town = Town()

    await town.pass_days(365)

    assert town.silence_seconds < 400.0 + 25.0  # longer steps begin with a heartbeat


async def test_who_advances_at_the_same_time_as_another_comes_after_it() -> None:
    clock = VirtualClock(start_seconds=0.0, frozen=True)

    await asyncio.gather(clock.advance(60), clock.advance(60))

    assert clock.now_seconds() == 120.0

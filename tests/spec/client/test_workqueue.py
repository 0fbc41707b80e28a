from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haven.client.workqueue import QueueCore, QueueLimits, QueueShutDown, WorkQueue
from haven.clock import FakeClock


@pytest.fixture
def queue(clock: FakeClock) -> WorkQueue[str]:
    return WorkQueue("test", clock=clock)


async def test_keys_come_in_the_order_in_which_they_were_added(queue: WorkQueue[str]) -> None:
    for key in "abc":
        queue.add(key)

    assert [await queue.wait_next() for _ in range(3)] == ["a", "b", "c"]


async def test_a_key_is_in_the_queue_once(queue: WorkQueue[str]) -> None:
    queue.add("a")
    queue.add("a")

    assert await queue.wait_next() == "a"
    assert len(queue) == 0


async def test_a_key_that_is_added_while_it_is_worked_on_comes_again_after_the_answer(queue: WorkQueue[str]) -> None:
    queue.add("a")
    await queue.wait_next()
    queue.add("a")
    queue.add("b")

    assert await queue.wait_next() == "b"
    queue.done("a")
    assert await queue.wait_next() == "a"


async def test_a_worker_that_waits_is_woken_by_the_next_key(queue: WorkQueue[str], settle: Callable[[], Any]) -> None:
    waiting = asyncio.ensure_future(queue.wait_next())
    await settle()

    queue.add("a")

    assert await waiting == "a"


async def test_a_worker_that_was_woken_and_cancelled_passes_the_key_on(
    queue: WorkQueue[str], settle: Callable[[], Any]
) -> None:
    first, second = asyncio.ensure_future(queue.wait_next()), asyncio.ensure_future(queue.wait_next())
    await settle()

    queue.add("a")
    first.cancel()

    assert await second == "a"


async def test_a_key_added_for_later_comes_then(queue: WorkQueue[str], clock: FakeClock) -> None:
    queue.add_after("late", 10)
    queue.add_after("early", 5)
    queue.add_after("early", 7)
    waiting = asyncio.ensure_future(queue.wait_next())

    await clock.advance(4.9)
    assert not waiting.done()
    await clock.advance(0.2)
    assert waiting.result() == "early"
    queue.done("early")
    await clock.advance(3)
    assert len(queue) == 0
    await clock.advance(3)

    assert await queue.wait_next() == "late"


async def test_a_failing_key_waits_twice_as_long_each_time_until_it_succeeds(
    queue: WorkQueue[str], clock: FakeClock
) -> None:
    queue.add("a")
    waits: list[float] = []
    for _ in range(4):
        key = await queue.wait_next()
        queue.retry_later(key, because="test")
        start = clock.monotonic_seconds()
        while not len(queue):
            await clock.advance(0.001)
        waits.append(round(clock.monotonic_seconds() - start, 3))

    assert waits == [pytest.approx(seconds, abs=0.0011) for seconds in (0.005, 0.01, 0.02, 0.04)]
    queue.done(await queue.wait_next())
    assert queue.failures("a") == 0


def test_the_wait_of_a_failing_key_has_a_limit() -> None:
    core: QueueCore[str] = QueueCore(QueueLimits(first_seconds=0.005, seconds_max=1000))

    waits = [core.fail("a") for _ in range(2000)]

    assert waits[17] == pytest.approx(655.36)
    assert set(waits[18:]) == {1000}


async def test_after_shutting_down_workers_finish_the_rest_and_go_home(
    queue: WorkQueue[str], settle: Callable[[], Any]
) -> None:
    idle = asyncio.ensure_future(queue.wait_next())
    await settle()
    queue.add("a")
    queue.add("b")
    queue.shut_down()
    queue.add("late")

    assert await idle == "a"
    assert await queue.wait_next() == "b"
    with pytest.raises(QueueShutDown):
        await queue.wait_next()


async def test_shutting_down_wakes_every_worker_that_waits(queue: WorkQueue[str], settle: Callable[[], Any]) -> None:
    workers = [asyncio.ensure_future(queue.wait_next()) for _ in range(3)]
    await settle()

    queue.shut_down()

    for worker in workers:
        with pytest.raises(QueueShutDown):
            await worker


async def test_many_workers_never_hold_one_key_together_and_lose_none(clock: FakeClock) -> None:
    queue: WorkQueue[int] = WorkQueue(clock=clock)
    held: set[int] = set()
    worked: dict[int, int] = {}

    async def work() -> None:
        while True:
            key = await queue.wait_next()
            assert key not in held
            held.add(key)
            await asyncio.sleep(0)
            worked[key] = worked.get(key, 0) + 1
            if worked[key] < 3:
                queue.add(key)
            await asyncio.sleep(0)
            held.discard(key)
            queue.done(key)

    workers = [asyncio.ensure_future(work()) for _ in range(5)]
    for key in range(50):
        queue.add(key)
    for _ in range(500):
        await asyncio.sleep(0)
    queue.shut_down()
    for worker in workers:
        with suppress(QueueShutDown):
            await worker

    assert worked == dict.fromkeys(range(50), 3)


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 3)),
            st.tuples(st.just("later"), st.integers(0, 3)),
            st.tuples(st.just("take"), st.just(0)),
            st.tuples(st.just("answer"), st.integers(0, 3)),
            st.tuples(st.just("tick"), st.integers(1, 3)),
        )
    )
)
def test_the_core_keeps_its_invariants_and_loses_no_key(steps: list[tuple[str, int]]) -> None:
    core: QueueCore[int] = QueueCore()
    now, held, owed = 0.0, [], set()
    for step, number in steps:
        if step == "add":
            core.add(number)
            owed.add(number)
        elif step == "later":
            core.add_at(number, now + number)
            owed.add(number)
        elif step == "tick":
            now += number
            core.add_due(now)
        elif step == "take" and (key := core.take()) is not None:
            assert key not in held
            held.append(key)
        elif step == "answer" and held:
            core.answer(held.pop(number % len(held)))
        core.check()

    core.add_due(now + 100)
    taken = set(held)
    while held:
        core.answer(held.pop())
    while (key := core.take()) is not None:
        taken.add(key)
        core.answer(key)
    assert taken <= owed
    assert core.counts()[:3] == (0, 0, 0)

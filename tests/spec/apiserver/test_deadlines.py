"""Requests that take too long are ended, others are not, and a cancellation from elsewhere stays one."""

from __future__ import annotations

import asyncio

import pytest
from tests.virtualtime import in_virtual_time

from haven.apiserver.deadlines import Deadlines


@in_virtual_time
async def test_what_takes_too_long_is_ended_and_may_go_on_behind() -> None:
    deadlines = Deadlines(0.02)
    with pytest.raises(TimeoutError), deadlines.limit():
        await asyncio.sleep(60)
    await asyncio.sleep(0)  # The task itself is not cancelled any more.


@in_virtual_time
async def test_what_is_in_time_is_left_alone() -> None:
    deadlines = Deadlines(0.02)
    for _ in range(3):
        with deadlines.limit():
            await asyncio.sleep(0)
    await asyncio.sleep(0.03)
    with deadlines.limit():
        await asyncio.sleep(0)


@in_virtual_time
async def test_each_of_many_has_its_own_time() -> None:
    deadlines = Deadlines(0.03)

    async def work(seconds: float) -> str:
        try:
            with deadlines.limit():
                await asyncio.sleep(seconds)
        except TimeoutError:
            return "late"
        return "done"

    first = asyncio.gather(work(60), work(0), work(60))
    await asyncio.sleep(0.015)
    second = asyncio.gather(work(60), work(0))
    assert await asyncio.wait_for(first, 5) == ["late", "done", "late"]
    assert await asyncio.wait_for(second, 5) == ["late", "done"]


async def test_a_cancellation_from_elsewhere_is_no_timeout() -> None:
    deadlines = Deadlines(60)

    async def work() -> None:
        with deadlines.limit():
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_block_is_raised() -> None:
    deadlines = Deadlines(60)
    with pytest.raises(ValueError, match="bad"), deadlines.limit():
        raise ValueError("bad")

"""Logs come out as kubectl shows them: whole lines, the last ones, since a time, while they grow and rotate."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists, text

from haven.clock import FakeClock
from haven.kubelet.server.logfile import LogQuery, read_log, tail_offset

LINES = (
    "2026-01-01T00:00:01.000000001Z stdout F one\n"
    "2026-01-01T00:00:02.5Z stderr F two\n"
    "2026-01-01T00:00:03Z stdout P thr\n"
    "2026-01-01T00:00:03Z stdout F ee\n"
)


async def never() -> bool:
    return False


async def read(path: Path, query: LogQuery) -> str:
    return "".join([block.decode() async for block in read_log(path, query, FakeClock(), never)])


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "0.log"
    path.write_text(LINES)
    return path


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (LogQuery(), "one\ntwo\nthree\n"),
        (LogQuery(tail_lines=3), "two\nthree\n"),
        (LogQuery(tail_lines=0), ""),
        (LogQuery(limit_bytes=5), "one\nt"),
        (LogQuery(since_seconds=1767225602.0), "two\nthree\n"),
        (LogQuery(stream="Stderr"), "two\n"),
        (LogQuery(timestamps=True, tail_lines=4, limit_bytes=35), "2026-01-01T00:00:01.000000001Z one\n"),
    ],
)
async def test_only_what_is_wanted_is_shown(log: Path, query: LogQuery, expected: str) -> None:
    assert await read(log, query) == expected


async def test_following_ends_with_the_container_and_loses_nothing(log: Path) -> None:
    clock, running = FakeClock(), True
    got: list[bytes] = []

    async def is_running() -> bool:
        return running

    async def follow() -> None:
        async for block in read_log(log, LogQuery(follow=True), clock, is_running):
            got.append(block)

    task = asyncio.create_task(follow())
    while len(got) < 1:
        await clock.advance(0.01)
    with log.open("a") as file:
        file.write("2026-01-01T00:00:04Z stdout F four\n")
    while len(got) < 2:
        await clock.advance(0.1)
    log.rename(log.with_suffix(".old"))
    log.write_text("2026-01-01T00:00:05Z stdout F five\n")
    while len(got) < 3:
        await clock.advance(0.1)
    running = False
    while not task.done():
        await clock.advance(0.5)

    assert b"".join(got) == b"one\ntwo\nthree\nfour\nfive\n"


@given(lines=lists(text("abc", max_size=8), max_size=30), wanted=integers(0, 40))
def test_the_tail_is_found_from_the_end(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], wanted: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "x"
    path.write_text("".join(f"{line}\n" for line in lines))

    with path.open() as file:
        file.seek(tail_offset(path, wanted))
        assert file.read().splitlines() == (lines[-wanted:] if wanted else [])

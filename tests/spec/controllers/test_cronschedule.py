from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis.strategies import integers

from haven.apimachinery import times
from haven.controllers.cronschedule import InvalidSchedule, parse


@pytest.mark.parametrize(
    ("schedule", "after", "expected"),
    [
        ("* * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"),
        ("*/15 * * * *", "2026-01-01T00:16:10Z", "2026-01-01T00:30:00Z"),
        ("0 3 * * *", "2026-01-01T03:00:00Z", "2026-01-02T03:00:00Z"),
        ("30 4 1 * *", "2026-01-31T00:00:00Z", "2026-02-01T04:30:00Z"),
        ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
        ("0 9 * * mon-fri", "2026-01-02T09:00:00Z", "2026-01-05T09:00:00Z"),
        ("0 0 13 * fri", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
        ("@monthly", "2026-01-15T00:00:00Z", "2026-02-01T00:00:00Z"),
        ("0 12 * JAN,JUL *", "2026-02-01T00:00:00Z", "2026-07-01T12:00:00Z"),
        ("@every 90s", "2026-01-01T00:00:00Z", "2026-01-01T00:01:30Z"),
    ],
)
def test_the_next_time_is_the_first_that_matches(schedule: str, after: str, expected: str) -> None:
    found = parse(schedule).next_after(times.parse(after), UTC)

    assert found is not None
    assert times.format_time(found) == expected


def test_a_day_that_never_comes_is_none() -> None:
    assert parse("0 0 30 2 *").next_after(times.parse("2026-01-01T00:00:00Z"), UTC) is None


def test_a_schedule_means_local_time() -> None:
    found = parse("0 9 * * *").next_after(times.parse("2026-07-01T00:00:00Z"), ZoneInfo("Europe/Berlin"))

    assert found == times.parse("2026-07-01T07:00:00Z")


def test_a_local_time_that_clocks_jump_over_waits_for_the_next_day() -> None:
    before = datetime(2026, 3, 29, 0, 0, tzinfo=UTC).timestamp()

    found = parse("30 2 * * *").next_after(before, ZoneInfo("Europe/Berlin"))

    assert found == times.parse("2026-03-30T00:30:00Z")


@pytest.mark.parametrize(
    "text", ["", "* * * *", "60 * * * *", "* * 0 * *", "5-1 * * * *", "*/0 * * * *", "@often", "x"]
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(InvalidSchedule):
        parse(text)


@given(minute=integers(0, 59), hour=integers(0, 23), start=integers(1_700_000_000, 1_900_000_000))
def test_a_daily_time_comes_within_a_day_and_not_before(minute: int, hour: int, start: int) -> None:
    found = parse(f"{minute} {hour} * * *").next_after(start, UTC)

    assert found is not None
    assert start < found <= start + 86_400
    moment = datetime.fromtimestamp(found, UTC)
    assert (moment.hour, moment.minute, moment.second) == (hour, minute, 0)

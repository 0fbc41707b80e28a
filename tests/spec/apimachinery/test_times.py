"""Times are written in the one form that the API knows, whatever the year."""

from __future__ import annotations

from haven.apimachinery import times

YEAR_ONE = -62135596800


def test_the_year_one_is_written_with_four_digits() -> None:
    assert times.format_time(YEAR_ONE + 2) == "0001-01-01T00:00:02Z"
    assert times.format_micro_time(YEAR_ONE + 2) == "0001-01-01T00:00:02.000000Z"


def test_what_is_written_can_be_read_again() -> None:
    assert times.parse(times.format_time(YEAR_ONE + 2)) == YEAR_ONE + 2
    assert times.parse(times.format_micro_time(1.5)) == 1.5


def test_another_zone_and_precision_become_the_canonical_form() -> None:
    assert times.normalize("0099-12-31T23:30:00.5-01:00") == "0100-01-01T00:30:00Z"
    assert times.normalize("2026-01-02T03:04:05.1234567Z", micro=True) == "2026-01-02T03:04:05.123456Z"

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis.strategies import integers, sets
from tests.spec.controllers.workloads import a_pod

from haven.controllers.jobindexes import INDEX, format_indexes, parse_indexes, pending_indexes, split_duplicates


@pytest.mark.parametrize(
    ("indexes", "text"),
    [((), ""), ((3,), "3"), ((3, 4), "3,4"), ((3, 4, 5), "3-5"), ((0, 1, 2, 5, 7, 8), "0-2,5,7,8")],
)
def test_two_neighbours_are_listed_and_three_are_a_range(indexes: tuple[int, ...], text: str) -> None:
    assert format_indexes(indexes) == text


@given(sets(integers(0, 50)))
def test_what_is_written_is_read_back(indexes: set[int]) -> None:
    assert parse_indexes(format_indexes(indexes), 51) == indexes


def test_indexes_beyond_the_completions_are_dropped() -> None:
    assert parse_indexes("1,3-9", 5) == {1, 3, 4}


def test_the_lowest_free_indexes_come_first() -> None:
    assert pending_indexes({0, 2}, 2, 5) == [1, 3]


def test_of_two_pods_with_one_index_one_is_kept() -> None:
    first, second, stray = a_pod("first"), a_pod("second"), a_pod("stray")
    for pod in (first, second):
        pod.metadata.annotations[INDEX] = "1"

    assert split_duplicates([first, second, stray], 3) == ([first, stray], [second])

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from haven.apimachinery.names import Revision
from haven.store.expiry import Expiries, Expiry
from haven.store.keyrange import first_key, overlaps, prefix_end
from haven.store.retention import Retention, RetentionLimits


def retention(*, seconds: float = 1e9, revisions: int = 10**9, bytes: int = 10**12) -> Retention:
    limits = RetentionLimits(seconds=seconds, revisions=revisions, bytes=bytes)
    return Retention(limits, compacted=Revision(0), newest=Revision(0), now_seconds=0)


def test_history_ends_by_age() -> None:
    kept = retention(seconds=100)
    for second in range(1, 201):
        kept.record(Revision(second), 10, second)

    assert kept.target(200) == 99
    assert kept.target(250) == 149


def test_history_ends_by_number_of_revisions() -> None:
    kept = retention(revisions=50)
    for revision in range(1, 201):
        kept.record(Revision(revision), 10, 0)

    assert kept.target(0) == 150


def test_history_ends_by_bytes() -> None:
    kept = retention(bytes=6400)
    for revision in range(1, 201):
        kept.record(Revision(revision), 100, 0)

    assert 130 <= kept.target(0) <= 140


def test_a_store_that_rests_keeps_its_newest_revision() -> None:
    kept = retention(seconds=10)
    kept.record(Revision(5), 1, 1)

    assert kept.target(1000) == 5
    assert kept.target(2000) == 5


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 100), st.floats(0, 20)), max_size=60))
def test_the_target_never_goes_back_nor_beyond_the_newest(steps: list[tuple[int, int, float]]) -> None:
    kept = retention(seconds=30, revisions=20, bytes=500)
    newest, now, target = 0, 0.0, Revision(0)
    for revisions, written, seconds in steps:
        newest, now = newest + revisions, now + seconds
        kept.record(Revision(newest), written, now)
        assert target <= (target := kept.target(now)) <= newest
        assert newest - target <= 20


def test_expiries_come_soonest_first_and_cancelled_ones_never() -> None:
    expiries = Expiries([Expiry(30, b"c", Revision(1))])
    expiries.put(Expiry(20, b"b", Revision(2)))
    expiries.put(Expiry(10, b"a", Revision(3)))
    expiries.put(Expiry(40, b"b", Revision(4)))
    expiries.cancel(b"a")
    expiries.cancel(b"never there")

    assert expiries.next_seconds() == 30
    assert expiries.take_due(29, 10) == []
    assert [expiry.key for expiry in expiries.take_due(100, 10)] == [b"c", b"b"]
    assert expiries.next_seconds() is None


def test_keys_that_are_renewed_for_ever_do_not_fill_the_heap() -> None:
    expiries = Expiries()
    for number in range(100_000):
        expiries.put(Expiry(number, b"%d" % (number % 10), Revision(number)))

    assert len(expiries) == 10
    assert len(expiries._heap) < 1100


@given(st.binary(max_size=4), st.binary(max_size=6))
def test_a_key_has_a_prefix_exactly_if_it_lies_in_its_range(prefix: bytes, key: bytes) -> None:
    end = prefix_end(prefix)

    assert (prefix <= key and (end is None or key < end)) == key.startswith(prefix)
    assert first_key(prefix, key) > key or not key or key < prefix


def test_prefixes_overlap_if_one_begins_with_the_other() -> None:
    assert overlaps(b"/a/", b"/a/b/")
    assert overlaps(b"", b"/a/")
    assert not overlaps(b"/a/", b"/b/")

"""What haven.store.interface.Store promises, held against every implementation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.etcdserver import Etcd

from haven.apimachinery.names import Revision
from haven.clock import FakeClock
from haven.store.etcd import EtcdStore
from haven.store.etcdwire import EtcdSettings
from haven.store.interface import (
    Change,
    Compacted,
    Delete,
    Expectation,
    Operation,
    Put,
    RevisionInFuture,
    Store,
    StoreError,
    TransactionFailed,
)
from haven.store.memory import MemoryStore
from haven.store.sqlite import SqliteStore

OpenStore = Callable[[Path, FakeClock], Awaitable[Store]]


async def open_sqlite(folder: Path, clock: FakeClock) -> Store:
    return await SqliteStore.open(folder / "store.db", clock=clock)


async def open_memory(folder: Path, clock: FakeClock) -> Store:
    return MemoryStore(clock=clock)


async def open_etcd(folder: Path, clock: FakeClock) -> Store:
    etcd = Etcd(folder)
    etcd.start()
    store = await EtcdStore.open(EtcdSettings((etcd.address,)), clock=clock)
    close = store.close

    async def close_both() -> None:
        await close()
        await etcd.stop()

    store.close = close_both  # type: ignore[method-assign]
    return store


IMPLEMENTATIONS = {"sqlite": open_sqlite, "memory": open_memory, "etcd": open_etcd}


@pytest.fixture(params=IMPLEMENTATIONS)
def open_store(request: pytest.FixtureRequest) -> OpenStore:
    return IMPLEMENTATIONS[request.param]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store(open_store: OpenStore, tmp_path: Path, clock: FakeClock) -> AsyncIterator[Store]:
    opened = await open_store(tmp_path, clock)
    yield opened
    await opened.close()


async def take(watch: AsyncIterator[Sequence[Change]], count: int) -> list[Change]:
    """Return the next changes of a watch, at least `count`."""
    changes: list[Change] = []
    async with asyncio.timeout(60):
        while len(changes) < count:
            changes += await anext(watch)
    return changes


def told(changes: Sequence[Change]) -> list[tuple[bytes, bytes | None, int]]:
    return [(change.key, change.value, change.revision) for change in changes]


# Writing and reading


async def test_a_new_store_is_empty_and_at_revision_zero(store: Store) -> None:
    everything = await store.range(b"")

    assert (store.revision, store.compacted) == (0, 0)
    assert (list(everything.records), everything.revision, everything.more) == ([], 0, False)


async def test_a_record_knows_when_it_was_created_and_modified(store: Store) -> None:
    created = await store.commit([Put(b"/a", b"1")])
    modified = await store.commit([Put(b"/a", b"2")])

    record = await store.get(b"/a")

    assert record is not None
    assert (record.key, record.value, record.created, record.modified) == (b"/a", b"2", created, modified)


async def test_a_key_that_was_never_written_or_was_deleted_is_not_there(store: Store) -> None:
    await store.commit([Put(b"/a", b"1")])
    await store.commit([Delete(b"/a")])

    assert await store.get(b"/a") is None
    assert await store.get(b"/b") is None


async def test_a_key_that_comes_back_is_created_anew(store: Store) -> None:
    await store.commit([Put(b"/a", b"1")])
    await store.commit([Delete(b"/a")])
    again = await store.commit([Put(b"/a", b"2")])

    record = await store.get(b"/a")

    assert record is not None
    assert (record.created, record.modified) == (again, again)


async def test_an_empty_value_is_a_value(store: Store) -> None:
    await store.commit([Put(b"/a", b"")])

    record = await store.get(b"/a")

    assert record is not None
    assert record.value == b""


async def test_each_transaction_has_a_revision_of_its_own(store: Store) -> None:
    revisions = await asyncio.gather(*(store.commit([Put(b"/%d" % number, b"")]) for number in range(100)))

    assert sorted(revisions) == list(range(1, 101))
    assert store.revision == 100


async def test_all_operations_of_a_transaction_share_its_revision(store: Store) -> None:
    await store.commit([Put(b"/gone", b"")])

    revision = await store.commit([Put(b"/a", b"1"), Put(b"/b", b"2"), Delete(b"/gone")])

    found = await store.range(b"/")
    assert [(record.key, record.modified) for record in found.records] == [(b"/a", revision), (b"/b", revision)]


async def test_a_transaction_that_changes_nothing_takes_no_revision(store: Store) -> None:
    before = await store.commit([Put(b"/a", b"1")])

    assert await store.commit([Delete(b"/nothing")]) == before
    assert await store.commit([]) == before
    assert store.revision == before


async def test_a_key_twice_in_a_transaction_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="another key"):
        await store.commit([Put(b"/a", b"1"), Delete(b"/a")])

    assert store.revision == 0


async def test_a_commit_is_seen_by_whoever_reads_after_it(store: Store) -> None:
    for number in range(50):
        revision = await store.commit([Put(b"/a", b"%d" % number)])
        record, everything = await store.get(b"/a"), await store.range(b"/")
        assert record is not None
        assert record.value == b"%d" % number
        assert everything.revision == revision
        assert everything.records[0].modified == revision


# Expectations


async def test_an_expectation_that_holds_lets_the_transaction_through(store: Store) -> None:
    first = await store.commit([Put(b"/a", b"1")], [Expectation(b"/a", Revision(0))])

    second = await store.commit([Put(b"/a", b"2")], [Expectation(b"/a", first)])

    assert second > first


async def test_a_failed_expectation_writes_nothing_and_shows_what_is_there(store: Store) -> None:
    written = await store.commit([Put(b"/a", b"1")])

    with pytest.raises(TransactionFailed) as failure:
        await store.commit([Put(b"/a", b"2"), Put(b"/b", b"2")], [Expectation(b"/a", Revision(0))])

    assert failure.value.key == b"/a"
    assert failure.value.current is not None
    assert (failure.value.current.value, failure.value.current.modified) == (b"1", written)
    assert await store.get(b"/b") is None
    assert store.revision == written


async def test_an_expectation_on_a_missing_key_fails_with_nothing(store: Store) -> None:
    with pytest.raises(TransactionFailed) as failure:
        await store.commit([Put(b"/a", b"2")], [Expectation(b"/a", Revision(7))])

    assert failure.value.current is None


async def test_an_expectation_may_be_about_a_key_that_is_not_written(store: Store) -> None:
    await store.commit([Put(b"/guard", b"")])

    with pytest.raises(TransactionFailed):
        await store.commit([Put(b"/a", b"")], [Expectation(b"/guard", Revision(0))])

    assert await store.get(b"/a") is None


async def test_of_many_that_create_the_same_key_at_once_exactly_one_wins(store: Store) -> None:
    attempts = [store.commit([Put(b"/a", b"%d" % number)], [Expectation(b"/a", Revision(0))]) for number in range(20)]

    results = await asyncio.gather(*attempts, return_exceptions=True)

    winners = [number for number, result in enumerate(results) if isinstance(result, int)]
    record = await store.get(b"/a")
    assert len(winners) == 1
    assert record is not None
    assert record.value == b"%d" % winners[0]
    assert all(isinstance(result, int | TransactionFailed) for result in results)


async def test_concurrent_increments_lose_no_update(store: Store) -> None:
    await store.commit([Put(b"/n", b"0")])

    async def increment() -> None:
        while True:
            record = await store.get(b"/n")
            assert record is not None
            try:
                await store.commit([Put(b"/n", b"%d" % (int(record.value) + 1))], [Expectation(b"/n", record.modified)])
                return
            except TransactionFailed:
                continue

    await asyncio.gather(*(increment() for _ in range(10)))

    record = await store.get(b"/n")
    assert record is not None
    assert record.value == b"10"


# Ranges


async def fill(store: Store, *keys: bytes) -> None:
    for key in keys:
        await store.commit([Put(key, b"value of " + key)])


async def test_a_range_holds_what_starts_with_the_prefix_in_key_order(store: Store) -> None:
    await fill(store, b"/b/2", b"/b/10", b"/a/1", b"/c", b"/b", b"/b/1", b"/b0")

    found = await store.range(b"/b/")

    assert [record.key for record in found.records] == [b"/b/1", b"/b/10", b"/b/2"]
    assert found.records[0].value == b"value of /b/1"


async def test_pages_go_on_after_the_last_key_and_count_what_remains(store: Store) -> None:
    await fill(store, *(b"/p/%d" % number for number in range(7)), b"/q")
    await store.commit([Delete(b"/p/3")])

    first = await store.range(b"/p/", limit=2)
    second = await store.range(b"/p/", after=first.records[-1].key, limit=2)
    third = await store.range(b"/p/", after=second.records[-1].key, limit=2)

    assert [[record.key[-1:] for record in page.records] for page in (first, second, third)] == [
        [b"0", b"1"],
        [b"2", b"4"],
        [b"5", b"6"],
    ]
    assert [(page.more, page.remaining) for page in (first, second, third)] == [(True, 4), (True, 2), (False, 0)]


async def test_pages_at_one_revision_do_not_see_later_writes(store: Store) -> None:
    await fill(store, b"/p/1", b"/p/2", b"/p/3")
    first = await store.range(b"/p/", limit=1)
    await store.commit([Delete(b"/p/2"), Put(b"/p/3", b"new"), Put(b"/p/4", b"new")])

    second = await store.range(b"/p/", after=b"/p/1", revision=first.revision)

    assert [(record.key, record.value) for record in second.records] == [
        (b"/p/2", b"value of /p/2"),
        (b"/p/3", b"value of /p/3"),
    ]
    assert second.revision == first.revision


async def test_a_range_in_the_future_names_the_newest_revision(store: Store) -> None:
    await fill(store, b"/a")

    with pytest.raises(RevisionInFuture) as failure:
        await store.range(b"/", revision=Revision(2))

    assert failure.value.newest == 1


# Watches


async def test_a_watch_tells_every_later_change_once_in_order(store: Store) -> None:
    await fill(store, b"/w/old")
    watch = store.watch(b"/w/", after=store.revision)

    await store.commit([Put(b"/w/a", b"1")])
    await store.commit([Put(b"/other", b"")])
    await store.commit([Put(b"/w/a", b"2"), Put(b"/w/b", b"3")])
    await store.commit([Delete(b"/w/a")])
    changes = await take(watch, 4)

    assert told(changes) == [(b"/w/a", b"1", 2), (b"/w/a", b"2", 4), (b"/w/b", b"3", 4), (b"/w/a", None, 5)]


@pytest.mark.parametrize("live", [True, False])
async def test_a_change_tells_what_was_there_before(store: Store, live: bool) -> None:
    watch = store.watch(b"/", after=Revision(0))
    if live:
        await store.commit([Put(b"/first", b"")])
        await take(watch, 1)
    else:
        await store.commit([Put(b"/first", b"")])
    await store.commit([Put(b"/a", b"1")])
    await store.commit([Put(b"/a", b"2")])
    await store.commit([Delete(b"/a")])
    await store.commit([Put(b"/a", b"3")])

    changes = [change for change in await take(watch, 4 if live else 5) if change.key == b"/a"]

    before = [change.previous and (change.previous.value, change.previous.modified) for change in changes]
    assert before == [None, (b"1", 2), (b"2", 3), None]
    assert [change.created for change in changes] == [2, 2, 2, 5]


async def test_a_watch_resumes_from_any_revision_held(store: Store) -> None:
    for number in range(1, 11):
        await store.commit([Put(b"/w", b"%d" % number)])

    for after in range(10):
        changes = await take(store.watch(b"/w", after=Revision(after)), 10 - after)
        assert [change.revision for change in changes] == list(range(after + 1, 11))


async def test_a_watch_from_the_future_waits_for_it(store: Store) -> None:
    await fill(store, b"/1")
    watch = store.watch(b"/", after=Revision(3))

    await fill(store, b"/2", b"/3", b"/4")

    assert [change.key for change in await take(watch, 1)] == [b"/4"]


async def test_a_watch_misses_nothing_while_writes_go_on(store: Store) -> None:
    watches = [store.watch(b"/w/", after=Revision(0)) for _ in range(3)]

    async def write(writer: int) -> None:
        for number in range(40):
            await store.commit([Put(b"/w/%d" % writer, b"%d" % number), Put(b"/other/%d" % writer, b"")])

    results = await asyncio.gather(*(take(watch, 200) for watch in watches), *(write(writer) for writer in range(5)))

    for changes in results[:3]:
        assert changes is not None
        assert [change.revision for change in changes] == list(range(1, 201))


async def test_a_watcher_that_falls_behind_loses_nothing(store: Store) -> None:
    watch = store.watch(b"/w/", after=Revision(0))
    await store.commit([Put(b"/w/first", b"")])
    changes = await take(watch, 1)  # Live from here on, and now it does not read for a while.
    for start in range(0, 6000, 500):
        await store.commit([Put(b"/w/%d" % number, b"") for number in range(start, start + 500)])

    changes += await take(watch, 6000)

    assert [change.key for change in changes] == [b"/w/first", *(b"/w/%d" % number for number in range(6000))]


async def test_transactions_are_not_torn_apart_between_batches(store: Store) -> None:
    for _ in range(3):
        await store.commit([Put(b"/w/%d" % number, b"") for number in range(700)])
    seen = 0

    async for batch in store.watch(b"/w/", after=Revision(0)):
        assert len(batch) % 700 == 0
        seen += len(batch)
        if seen == 2100:
            break


async def test_closing_ends_a_watch_with_an_error(store: Store) -> None:
    watch = store.watch(b"/", after=Revision(0))
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)

    await store.close()

    with pytest.raises(StoreError, match="closed"):
        await waiting
    with pytest.raises(StoreError, match="closed"):
        await store.get(b"/a")


# Listeners


async def test_a_listener_knows_a_change_before_its_commit_returns(store: Store) -> None:
    known: list[Change] = []
    store.add_listener(known.extend)

    for number in range(10):
        revision = await store.commit([Put(b"/a", b"%d" % number)])
        assert known[-1].revision == revision

    assert [change.value for change in known] == [b"%d" % number for number in range(10)]


async def test_a_listener_hears_all_in_order_until_it_is_removed(store: Store) -> None:
    known: list[Change] = []
    stop = store.add_listener(known.extend)
    await asyncio.gather(*(store.commit([Put(b"/%d" % number, b"")]) for number in range(100)))

    stop()
    await store.commit([Put(b"/late", b"")])

    assert [change.revision for change in known] == list(range(1, 101))


# Compaction


async def test_compaction_forgets_history_and_keeps_the_newest_values(store: Store) -> None:
    for number in range(10):
        await store.commit([Put(b"/a", b"%d" % number)])
    await fill(store, b"/b")
    await store.commit([Delete(b"/b")])

    await store.compact(Revision(12))

    assert store.compacted == 12
    assert [(record.key, record.value) for record in (await store.range(b"/")).records] == [(b"/a", b"9")]
    with pytest.raises(Compacted) as failure:
        await store.range(b"/", revision=Revision(11))
    assert failure.value.oldest == 12
    with pytest.raises(Compacted):
        await anext(store.watch(b"/", after=Revision(11)))


async def test_what_is_newer_than_the_compaction_is_still_there(store: Store) -> None:
    for number in range(1, 11):
        await store.commit([Put(b"/a", b"%d" % number)])

    await store.compact(Revision(5))

    assert (await store.range(b"/", revision=Revision(5))).records[0].value == b"5"
    assert (await store.range(b"/", revision=Revision(7))).records[0].value == b"7"
    changes = await take(store.watch(b"/", after=Revision(5)), 5)
    assert [change.value for change in changes] == [b"6", b"7", b"8", b"9", b"10"]
    assert changes[0].previous is not None
    assert changes[0].previous.value == b"5"


async def test_revisions_go_on_when_everything_was_deleted_and_compacted(store: Store) -> None:
    await fill(store, b"/a", b"/b")
    await store.commit([Delete(b"/a")])
    await store.commit([Delete(b"/b")])
    await store.compact(store.revision)

    assert await store.commit([Put(b"/a", b"")]) == 5


async def test_compacting_twice_or_backwards_does_nothing(store: Store) -> None:
    await fill(store, b"/a", b"/b", b"/c")
    await store.compact(Revision(2))

    await store.compact(Revision(1))

    assert store.compacted == 2


async def test_compacting_the_future_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="not written yet"):
        await store.compact(Revision(1))


# Time to live; that of etcd runs on a clock of its own: test_store_etcd.py


@pytest.fixture(params=["sqlite", "memory"])
async def timed_store(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> AsyncIterator[Store]:
    opened = await IMPLEMENTATIONS[request.param](tmp_path, clock)
    yield opened
    await opened.close()


async def expired(store: Store, clock: FakeClock, seconds: float) -> None:
    """Let time pass, and whatever it makes expire be deleted."""
    for _ in range(int(seconds)):
        await clock.advance(1)
    await store.commit([])  # Behind the deletions, if there are any.


async def test_a_key_vanishes_when_its_time_is_over(timed_store: Store, clock: FakeClock) -> None:
    await timed_store.commit(
        [Put(b"/short", b"", ttl_seconds=10), Put(b"/long", b"", ttl_seconds=100), Put(b"/ever", b"")]
    )

    await expired(timed_store, clock, 9)
    assert await timed_store.get(b"/short") is not None
    await expired(timed_store, clock, 3)

    assert [record.key for record in (await timed_store.range(b"/")).records] == [b"/ever", b"/long"]


async def test_expiry_is_a_deletion_that_watchers_see(timed_store: Store, clock: FakeClock) -> None:
    written = await timed_store.commit([Put(b"/a", b"last words", ttl_seconds=10)])
    watch = timed_store.watch(b"/", after=written)

    await expired(timed_store, clock, 12)

    (change,) = await take(watch, 1)
    assert change.value is None
    assert change.revision == written + 1
    assert change.previous is not None
    assert change.previous.value == b"last words"


async def test_overwriting_a_key_renews_or_ends_its_time(timed_store: Store, clock: FakeClock) -> None:
    await timed_store.commit([Put(b"/renewed", b"", ttl_seconds=10), Put(b"/kept", b"", ttl_seconds=10)])
    await expired(timed_store, clock, 5)
    await timed_store.commit([Put(b"/renewed", b"", ttl_seconds=10), Put(b"/kept", b"")])

    await expired(timed_store, clock, 7)
    assert [record.key for record in (await timed_store.range(b"/")).records] == [b"/kept", b"/renewed"]
    await expired(timed_store, clock, 5)

    assert [record.key for record in (await timed_store.range(b"/")).records] == [b"/kept"]


async def test_a_key_that_expires_earlier_than_the_one_waited_for_is_not_forgotten(
    timed_store: Store, clock: FakeClock
) -> None:
    await timed_store.commit([Put(b"/late", b"", ttl_seconds=50)])
    await expired(timed_store, clock, 1)
    await timed_store.commit([Put(b"/early", b"", ttl_seconds=5)])

    await expired(timed_store, clock, 8)

    assert [record.key for record in (await timed_store.range(b"/")).records] == [b"/late"]


# Against a model

KEYS = st.sampled_from([b"/a", b"/a/b", b"/b", b"/b\xff", b"/c"])
OPERATIONS: st.SearchStrategy[Operation] = st.one_of(
    st.builds(Put, KEYS, st.binary(max_size=4)), st.builds(Delete, KEYS)
)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(transactions=st.lists(st.lists(OPERATIONS, max_size=3, unique_by=lambda operation: operation.key), max_size=20))
def test_every_revision_reads_as_it_was_written(
    implementation: str, tmp_path_factory: pytest.TempPathFactory, transactions: list[list[Operation]]
) -> None:
    async def check() -> None:
        store = await IMPLEMENTATIONS[implementation](tmp_path_factory.mktemp("store"), FakeClock())
        state: dict[bytes, bytes] = {}
        states = [dict(state)]
        for operations in transactions:
            before = dict(state)
            for operation in operations:
                if isinstance(operation, Put):
                    state[operation.key] = operation.value
                else:
                    state.pop(operation.key, None)
            revision = await store.commit(operations)
            if any(isinstance(operation, Put) for operation in operations) or state != before:
                states.append(dict(state))
            assert revision == len(states) - 1
        for index, expected in enumerate(states):
            found = await store.range(b"/", revision=Revision(index))
            assert [(record.key, record.value) for record in found.records] == sorted(expected.items())
        middle = Revision(len(states) // 2)
        if middle <= store.revision:
            await store.compact(middle)
            for number in range(middle, len(states)):
                found = await store.range(b"/", revision=Revision(number))
                assert [(record.key, record.value) for record in found.records] == sorted(states[number].items())
        await store.close()

    asyncio.run(check())

"""The watch cache shows every watcher its changes, in order, as its selectors see them."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.virtualtime import in_virtual_time

from haven.api.core import v1 as core
from haven.apimachinery import meta, serialization
from haven.apimachinery.names import UID, Revision
from haven.apimachinery.selectors import parse_fields, parse_labels
from haven.apiserver.watchcache import (
    ADDED,
    DELETED,
    MODIFIED,
    Entry,
    Kind,
    Selection,
    WatchCache,
    Watched,
    decoder,
    splice_revision,
    strip_revision,
)

KIND = Kind(decoder(core.Pod), {"spec.nodeName": lambda pod: pod.spec.node_name})


def a_value(name: str, *, namespace: str = "n", labels: dict[str, str] | None = None, node: str = "") -> bytes:
    pod = core.Pod(
        kind="Pod",
        api_version="v1",
        metadata=meta.ObjectMeta(
            name=name,
            namespace=namespace,
            uid=UID(str(uuid.uuid4())),
            labels=labels or {},
            annotations={"uid": '"uid":"x"'},
        ),
        spec=core.PodSpec(node_name=node),
    )
    return serialization.encode(pod)


def an_entry(name: str, revision: int, **rest: object) -> Entry:
    return Entry.parsed(KIND, a_value(name, **rest), Revision(revision), Revision(revision))  # type: ignore[arg-type]


class Store:
    """Feeds a cache as the store's listener would."""

    def __init__(self, history_max: int = 100, queue_max: int = 100) -> None:
        self.cache = WatchCache(start=Revision(0), history_max=history_max, queue_max=queue_max)
        self.revision = 0

    def put(self, name: str, **rest: object) -> Entry:
        self.revision += 1
        entry = an_entry(name, self.revision, **rest)
        previous = self.cache.get(entry.namespace, name)
        kind = MODIFIED if previous is not None else ADDED
        self.cache.record(Watched(kind, entry, previous, Revision(self.revision)))
        self.cache.check()
        return entry

    def delete(self, name: str, namespace: str = "n") -> None:
        self.revision += 1
        previous = self.cache.get(namespace, name)
        assert previous is not None
        entry = previous.at(Revision(self.revision))
        self.cache.record(Watched(DELETED, entry, previous, Revision(self.revision)))
        self.cache.check()


def seen(events: list[Watched]) -> list[tuple[str, str, int]]:
    return [(event.type, event.entry.name, event.revision) for event in events]


def test_the_resource_version_is_spliced_behind_the_uid_and_nowhere_else() -> None:
    value = a_value("a")

    data = splice_revision(value, Revision(42))

    pod = serialization.decode(data, core.Pod)
    assert pod.metadata.resource_version == "42"
    assert strip_revision(data) == value


def test_a_deleted_object_is_shown_at_the_revision_of_its_deletion() -> None:
    store = Store()
    store.put("a")
    watcher = store.cache.watch(Selection())

    store.delete("a")

    (event,) = watcher.take()
    assert (event.type, event.entry.object.metadata.resource_version) == (DELETED, "2")


def test_an_object_that_begins_or_ceases_to_match_is_added_or_deleted_for_that_watcher() -> None:
    store = Store()
    watcher = store.cache.watch(Selection(labels=parse_labels("in=yes")))

    store.put("a", labels={"in": "no"})
    store.put("a", labels={"in": "yes"})
    store.put("a", labels={"in": "yes", "x": "y"})
    lost = store.put("a", labels={"in": "no"})
    store.delete("a")

    events = watcher.take()
    assert seen(events) == [(ADDED, "a", 2), (MODIFIED, "a", 3), (DELETED, "a", 4)]
    assert events[-1].entry.object.metadata.labels == {"in": "yes", "x": "y"}
    assert events[-1].entry.object.metadata.resource_version == str(lost.revision)


def test_a_watch_of_one_node_sees_pods_come_and_go() -> None:
    store = Store()
    watcher = store.cache.watch(Selection(fields=parse_fields("spec.nodeName=one")))

    store.put("a")
    store.put("a", node="one")
    store.put("b", node="two")
    store.delete("a")

    assert seen(watcher.take()) == [(ADDED, "a", 2), (DELETED, "a", 4)]


def test_a_watch_of_a_namespace_sees_no_other() -> None:
    store = Store()
    watcher = store.cache.watch(Selection(namespace="n"))

    store.put("a", namespace="other")
    store.put("b")

    assert seen(watcher.take()) == [(ADDED, "b", 2)]


def test_a_watcher_that_lags_is_cut_off() -> None:
    store = Store(queue_max=3)
    watcher = store.cache.watch(Selection())

    for number in range(4):
        store.put(f"p{number}")

    assert watcher.overrun
    assert watcher.stopped
    assert store.cache.statistics().watchers == 0


def test_objects_come_in_the_order_of_their_keys() -> None:
    store = Store()
    for namespace, name in (("b", "x"), ("a", "z"), ("a-b", "m"), ("a", "a")):
        store.put(name, namespace=namespace)

    order = [(entry.namespace, entry.name) for entry in store.cache.entries()]

    assert order == sorted(order, key=lambda place: f"{place[0]}/{place[1]}")
    assert [e.name for e in store.cache.entries(after=("a", "a"))] == ["z", "x"]


async def test_waiting_ends_with_the_next_change() -> None:
    store = Store()
    watcher = store.cache.watch(Selection())
    assert not await watcher.wait_change(timeout_seconds=0)

    store.put("a")

    assert await watcher.wait_change(timeout_seconds=0)


@given(
    steps=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["put", "label", "delete"])), max_size=30),
    after=st.integers(0, 30),
)
def test_a_replay_and_a_watch_tell_the_same_story(steps: list[tuple[str, str]], after: int) -> None:
    store = Store()
    selection = Selection(labels=parse_labels("on=1"))
    watcher = None
    for name, action in steps:
        if store.revision == after and watcher is None:
            watcher = store.cache.watch(selection)
        if action == "delete":
            if store.cache.get("n", name) is not None:
                store.delete(name)
        else:
            store.put(name, labels={"on": "1"} if action == "label" else {})
    if watcher is None:
        return

    replayed = store.cache.replay(selection, after=Revision(after))

    assert seen(watcher.take()) == seen(replayed)


def test_the_history_forgets_its_oldest_changes_and_says_so() -> None:
    store = Store(history_max=2)

    for number in range(4):
        store.put(f"p{number}")

    assert not store.cache.holds_after(Revision(1))
    assert store.cache.holds_after(Revision(2))
    assert seen(store.cache.replay(Selection(), after=Revision(2))) == [(ADDED, "p2", 3), (ADDED, "p3", 4)]


@pytest.mark.parametrize("limit", [1, 10])
def test_encodings_are_made_once_for_everybody(limit: int) -> None:
    entry = an_entry("a", 1)
    made: list[Entry] = []

    def encode(one: Entry) -> bytes:
        made.append(one)
        return b"x"

    for _ in range(limit):
        assert entry.encoded("yaml", encode) == b"x"

    assert len(made) == 1


@in_virtual_time
async def test_many_watchers_are_woken_in_waves_and_miss_nothing() -> None:
    store = Store(queue_max=10_000)
    watchers = [store.cache.watch(Selection()) for _ in range(500)]
    seen: list[list[str]] = [[] for _ in watchers]
    rounds = [0] * len(watchers)

    async def follow(number: int) -> None:
        while len(seen[number]) < 40:
            await watchers[number].wait_change(5.0)
            rounds[number] += 1
            seen[number] += [event.entry.name for event in watchers[number].take()]

    followers = [asyncio.create_task(follow(number)) for number in range(len(watchers))]
    await asyncio.sleep(0)
    for number in range(40):
        store.put(f"pod-{number}")
        await asyncio.sleep(0.001)
    await asyncio.wait_for(asyncio.gather(*followers), 10)
    assert all(names == [f"pod-{number}" for number in range(40)] for names in seen)
    assert max(rounds) < 40, "each change woke everybody"


@in_virtual_time
async def test_few_watchers_hear_of_each_change_at_once() -> None:
    store = Store()
    watcher = store.cache.watch(Selection())
    for number in range(3):
        waiting = asyncio.create_task(watcher.wait_change())
        await asyncio.sleep(0)
        store.put(f"pod-{number}")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert waiting.done()
        assert [event.entry.name for event in watcher.take()] == [f"pod-{number}"]


@in_virtual_time
async def test_a_wait_ends_in_time_whatever_was_waited_for_before() -> None:
    store = Store()
    watcher = store.cache.watch(Selection())
    waiting = asyncio.create_task(watcher.wait_change(60.0))
    await asyncio.sleep(0)
    store.put("a")
    assert await waiting
    watcher.take()
    assert not await asyncio.wait_for(watcher.wait_change(0.01), 5)
    store.put("b")
    assert await watcher.wait_change(0.01)
    watcher.take()
    endless = asyncio.create_task(watcher.wait_change())
    await asyncio.sleep(0.02)
    assert not endless.done()
    watcher.stop()
    assert await endless


def test_a_field_selector_sees_what_the_entry_tells() -> None:
    entry = an_entry("a", 3, node="n1")
    assert entry.fields == {"metadata.name": "a", "metadata.namespace": "n", "spec.nodeName": "n1"}
    assert [entry.field(path) for path in ("metadata.name", "metadata.namespace", "spec.nodeName", "spec.other")] == [
        "a",
        "n",
        "n1",
        "",
    ]
    for text, wanted in (("spec.nodeName=n1", True), ("spec.nodeName!=n1", False), ("metadata.name!=b", True)):
        assert Selection(fields=parse_fields(text)).matches(entry) is wanted

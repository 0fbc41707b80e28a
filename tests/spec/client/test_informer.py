from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haven.api.core import v1 as core_v1
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, meta
from haven.apimachinery.names import UID, NamespacedName
from haven.client.cache import ObjectCache, by_controller_uid, by_label, by_node_name, by_owner_uid, key_of
from haven.client.informer import Informer
from haven.client.metadata import metadata_only
from haven.client.sharedinformers import SharedInformers
from haven.clock import FakeClock

PODS = resource_of(core_v1.Pod)
Heard = list[tuple[str | None, str | None]]


def a_pod(name: str, namespace: str = "ns", *, node: str = "", labels: dict[str, str] | None = None) -> core_v1.Pod:
    return core_v1.Pod(
        metadata=meta.ObjectMeta(name=name, namespace=namespace, labels=labels or {}),
        spec=core_v1.PodSpec(node_name=node),
    )


@asynccontextmanager
async def running(informer: Informer[Any] | SharedInformers) -> AsyncIterator[None]:
    task = asyncio.ensure_future(informer.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def listen(informer: Informer[core_v1.Pod]) -> Heard:
    heard: Heard = []

    def on_change(old: core_v1.Pod | None, new: core_v1.Pod | None) -> None:
        heard.append((old.metadata.name if old else None, new.metadata.name if new else None))

    informer.add_handler(on_change)
    return heard


@pytest.fixture
def informer(client: Any, clock: FakeClock) -> Informer[core_v1.Pod]:
    return Informer(client, PODS, clock=clock, chance=random.Random(1))


async def test_it_shows_what_is_there_and_then_every_change(
    client: Any, informer: Informer[core_v1.Pod], settle: Callable[[], Any]
) -> None:
    client.put(a_pod("old"))
    async with running(informer):
        await informer.wait_synced()
        assert [pod.metadata.name for pod in informer.list()] == ["old"]

        client.put(a_pod("new"))
        client.put(a_pod("old", node="n1"))
        await settle()
        assert informer.get("ns", "new") is not None
        assert (found := informer.get("ns", "old")) is not None
        assert found.spec.node_name == "n1"

        client.remove("ns", "old")
        await settle()
        assert [pod.metadata.name for pod in informer.list()] == ["new"]


async def test_handlers_hear_old_and_new(
    client: Any, informer: Informer[core_v1.Pod], settle: Callable[[], Any]
) -> None:
    client.put(a_pod("a"))
    heard = listen(informer)
    async with running(informer):
        await settle()
        client.put(a_pod("a", node="n"))
        client.remove("ns", "a")
        await settle()

    assert heard == [(None, "a"), ("a", "a"), ("a", None)]


async def test_a_late_handler_hears_of_what_is_there(
    client: Any, informer: Informer[core_v1.Pod], settle: Callable[[], Any]
) -> None:
    client.put(a_pod("a"))
    async with running(informer):
        await settle()
        heard = listen(informer)

    assert heard == [(None, "a")]


async def test_a_removed_handler_hears_no_more(
    client: Any, informer: Informer[core_v1.Pod], settle: Callable[[], Any]
) -> None:
    heard: list[Any] = []
    stop = informer.add_handler(lambda old, new: heard.append(new))
    async with running(informer):
        await settle()
        stop()
        client.put(a_pod("a"))
        await settle()

    assert heard == []


async def test_long_lists_come_in_pages(client: Any, informer: Informer[core_v1.Pod]) -> None:
    client.page_objects = 2
    for number in range(5):
        client.put(a_pod(f"p{number}"))
    async with running(informer):
        await informer.wait_synced()

    assert len(informer) == 5
    assert [call for call in client.calls if call[0] == "list"] == [
        ("list", "0", ""),
        ("list", "0", "2"),
        ("list", "0", "4"),
    ]


async def test_a_watch_that_ends_is_resumed_where_it_was(
    client: Any, informer: Informer[core_v1.Pod], clock: FakeClock, settle: Callable[[], Any]
) -> None:
    async with running(informer):
        await settle()
        client.put(a_pod("a"))
        await settle()
        client.end_watches()
        client.put(a_pod("b"))
        await settle()
        await clock.advance(5)

    assert len(informer) == 2
    assert [call[1] for call in client.calls if call[0] == "watch"][:2] == ["100", "101"]
    assert sum(call[0] == "list" for call in client.calls) == 1


async def test_a_bookmark_moves_the_place_to_resume_from(
    client: Any, informer: Informer[core_v1.Pod], settle: Callable[[], Any]
) -> None:
    async with running(informer):
        await settle()
        client.version = 500
        client.bookmark(core_v1.Pod)
        await settle()
        client.end_watches()
        await settle()

    assert [call[1] for call in client.calls if call[0] == "watch"] == ["100", "500"]


async def test_an_expired_watch_lists_again_and_tells_the_differences(
    client: Any, informer: Informer[core_v1.Pod], settle: Callable[[], Any]
) -> None:
    client.put(a_pod("gone"))
    client.put(a_pod("kept"))
    client.put(a_pod("changed"))
    heard = listen(informer)
    async with running(informer):
        await settle()
        heard.clear()
        client.end_watches(apierrors.Expired("too old"))
        client.remove("ns", "gone")
        client.put(a_pod("changed", node="n"))
        client.put(a_pod("new"))
        client.forget_history()
        await settle()

    assert sorted(heard, key=str) == sorted([("gone", None), ("changed", "changed"), (None, "new")], key=str)
    assert [call[1] for call in client.calls if call[0] == "list"] == ["0", None]


async def test_a_lost_connection_is_tried_again_with_growing_waits(
    client: Any, informer: Informer[core_v1.Pod], clock: FakeClock, settle: Callable[[], Any]
) -> None:
    client.failures["list"] = [apierrors.ServiceUnavailable("down") for _ in range(3)]
    client.put(a_pod("a"))
    async with running(informer):
        await settle()
        assert not informer.synced
        await clock.advance(0.7)
        assert sum(call[0] == "list" for call in client.calls) == 1
        await clock.advance(1.0)
        assert sum(call[0] == "list" for call in client.calls) == 2
        await clock.advance(20)

        assert len(informer) == 1
        assert informer.statistics().failures == 3


async def test_a_failing_watch_does_not_list_again(
    client: Any, informer: Informer[core_v1.Pod], clock: FakeClock, settle: Callable[[], Any]
) -> None:
    async with running(informer):
        await settle()
        client.end_watches(apierrors.ServiceUnavailable("down"))
        client.put(a_pod("a"))
        await settle()
        await clock.advance(2)

        assert len(informer) == 1
    assert sum(call[0] == "list" for call in client.calls) == 1


async def test_a_watch_that_ends_at_once_again_and_again_does_not_spin(
    client: Any, informer: Informer[core_v1.Pod], clock: FakeClock, settle: Callable[[], Any]
) -> None:
    async with running(informer):
        for _ in range(20):
            await settle()
            client.end_watches()
        watches = sum(call[0] == "watch" for call in client.calls)

    assert watches == 1


async def test_a_namesake_created_while_nobody_looked_is_two_changes(
    client: Any, informer: Informer[core_v1.Pod], settle: Callable[[], Any]
) -> None:
    client.put(a_pod("a"))
    heard = listen(informer)
    async with running(informer):
        await settle()
        heard.clear()
        client.end_watches(apierrors.Expired("too old"))
        client.remove("ns", "a")
        client.put(a_pod("a"))
        client.forget_history()
        await settle()

    assert heard == [("a", None), (None, "a")]


async def test_ones_own_write_can_be_waited_for(
    client: Any, informer: Informer[core_v1.Pod], settle: Callable[[], Any]
) -> None:
    async with running(informer):
        await informer.wait_synced()
        await settle()
        key = NamespacedName("ns", "a")
        waiting = asyncio.ensure_future(informer.wait_seen(key, "101"))
        await settle()
        assert not waiting.done()

        client.put(a_pod("a"))
        await waiting
        assert informer.get_key(key) is not None
        await informer.wait_seen(key, "99")

        with pytest.raises(TimeoutError):
            await informer.wait_seen(key, "102", timeout_seconds=0.01)


async def test_a_bookmark_ends_the_wait_for_an_object_that_is_not_selected(
    client: Any, informer: Informer[core_v1.Pod], settle: Callable[[], Any]
) -> None:
    async with running(informer):
        await settle()
        waiting = asyncio.ensure_future(informer.wait_seen(NamespacedName("ns", "elsewhere"), "105"))
        await settle()
        client.version = 105
        client.bookmark(core_v1.Pod)

        await waiting


async def test_a_transform_decides_what_is_kept(client: Any, clock: FakeClock, settle: Callable[[], Any]) -> None:
    def slim(pod: core_v1.Pod) -> core_v1.Pod:
        return core_v1.Pod(metadata=pod.metadata)

    informer = Informer(client, PODS, transform=slim, clock=clock)
    client.put(a_pod("a", node="n"))
    async with running(informer):
        await informer.wait_synced()

    assert informer.list()[0].spec.node_name == ""


async def test_shared_informers_are_one_per_selection(client: Any, clock: FakeClock, settle: Callable[[], Any]) -> None:
    shared = SharedInformers(client, clock=clock, chance=random.Random(1))
    client.put(a_pod("a"))

    first = shared.informer(core_v1.Pod)
    assert shared.informer(PODS) is first
    assert shared.informer(PODS, namespace="ns") is not first
    assert shared.informer(metadata_only(PODS)).resource != first.resource
    async with running(shared):
        await shared.wait_synced()
        late = shared.informer(PODS, label_selector="a=b")
        await late.wait_synced()

        assert len(first) == 1
        assert len(shared.statistics()) == 4


async def test_an_error_in_a_handler_ends_the_informers(client: Any, clock: FakeClock) -> None:
    shared = SharedInformers(client, clock=clock)
    client.put(a_pod("a"))

    def broken(old: object, new: object) -> None:
        raise RuntimeError("bug")

    shared.informer(PODS).add_handler(broken)

    with pytest.raises(ExceptionGroup) as failure:
        await shared.run()
    assert failure.group_contains(RuntimeError, match="bug")


# The cache alone


def an_owned_pod(name: str, owner: str, *, controller: bool) -> core_v1.Pod:
    pod = a_pod(name)
    pod.metadata.owner_references = [meta.OwnerReference(uid=UID(owner), controller=controller or None)]
    return pod


def test_indexes_find_by_owner_controller_label_and_node() -> None:
    cache: ObjectCache[core_v1.Pod] = ObjectCache({"owner": by_owner_uid, "controller": by_controller_uid})
    cache.put(an_owned_pod("controlled", "rs", controller=True))
    cache.put(an_owned_pod("owned", "rs", controller=False))
    cache.put(a_pod("web", labels={"app": "web"}, node="n1"))
    cache.add_index("app", by_label("app"))
    cache.add_index("node", by_node_name)

    def names(index: str, value: str) -> list[str]:
        return [pod.metadata.name for pod in cache.indexed(index, value)]

    assert names("owner", "rs") == ["controlled", "owned"]
    assert names("controller", "rs") == ["controlled"]
    assert names("app", "web") == ["web"]
    assert names("node", "n1") == ["web"]
    assert names("node", "") == ["controlled", "owned"]
    assert names("node", "n2") == []
    assert list(cache.index_values("app")) == ["web"]


@given(
    steps=st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.sampled_from(["", "n1", "n2"]), st.booleans())
    )
)
def test_the_cache_and_its_indexes_agree_after_any_changes(steps: list[tuple[str, str, str, bool]]) -> None:
    cache: ObjectCache[core_v1.Pod] = ObjectCache({"node": by_node_name})
    expected: dict[NamespacedName, str] = {}
    for namespace, name, node, remove in steps:
        key = NamespacedName(namespace, name)
        if remove:
            cache.remove(key)
            expected.pop(key, None)
        else:
            cache.put(a_pod(name, namespace, node=node))
            expected[key] = node
        cache.check()

    assert {key_of(pod): pod.spec.node_name for pod in cache} == expected
    assert len(cache) == len(expected)
    assert sorted(cache.places()) == sorted(expected)
    assert {key_of(pod) for pod in cache.list("a")} == {key for key in expected if key.namespace == "a"}

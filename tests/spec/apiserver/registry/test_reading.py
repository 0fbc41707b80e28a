"""Reads: pages at one revision, resource versions, selectors, watches."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from haven.apimachinery.names import Revision

MAPS = "/api/v1/namespaces/default/configmaps"


async def events_of(api: Any, path: str) -> list[dict[str, Any]]:
    """Return what a watch sends until its time is over."""
    answer = await api.raw("GET", path)
    assert answer.status == 200, answer.body
    return [json.loads(line) for line in answer.body.splitlines()]


def names(answer: dict[str, Any]) -> list[str]:
    return [item["metadata"]["name"] for item in answer["items"]]


async def test_pages_show_the_list_as_it_was_when_the_first_was_read(api: Any) -> None:
    for name in "abcd":
        await api.config_map(name)
    _, first = await api.send("GET", f"{MAPS}?limit=2")
    await api.config_map("bb")
    await api.send("DELETE", f"{MAPS}/c")
    await api.send("PUT", f"{MAPS}/d", {"metadata": {"name": "d"}, "data": {"k": "changed"}})

    status, second = await api.send("GET", f"{MAPS}?limit=2&continue={first['metadata']['continue']}")

    assert status == 200
    assert names(first) + names(second) == ["a", "b", "c", "d"]
    assert first["metadata"]["remainingItemCount"] == 2
    assert second["items"][1]["data"] == {"k": "v"}
    assert second["metadata"] == {"resourceVersion": first["metadata"]["resourceVersion"]}


async def test_a_page_of_a_compacted_list_is_gone_but_the_rest_can_be_read_as_it_is_now(api: Any) -> None:
    for name in "abc":
        await api.config_map(name)
    _, first = await api.send("GET", f"{MAPS}?limit=1")
    await api.config_map("d")
    await api.store.compact(api.store.revision)

    status, refusal = await api.send("GET", f"{MAPS}?limit=1&continue={first['metadata']['continue']}")

    assert (status, refusal["reason"]) == (410, "Expired")
    _, rest = await api.send("GET", f"{MAPS}?continue={refusal['metadata']['continue']}")
    assert names(rest) == ["b", "c", "d"]


async def test_a_token_ends_with_the_history_even_if_nothing_in_its_list_changed(api: Any) -> None:
    for name in "abc":
        await api.config_map(name)
    _, first = await api.send("GET", f"{MAPS}?limit=1")
    await api.send("POST", "/api/v1/namespaces", {"metadata": {"name": "elsewhere"}})
    await api.store.compact(api.store.revision)

    status, _ = await api.send("GET", f"{MAPS}?limit=1&continue={first['metadata']['continue']}")

    assert status == 410


@pytest.mark.parametrize("token", ["nonsense", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MCwic3RhcnQiOiJhIn0"])
async def test_a_token_that_nobody_made_is_refused(api: Any, token: str) -> None:
    status, refusal = await api.send("GET", f"{MAPS}?limit=1&continue={token}")

    assert (status, refusal["reason"]) == (400, "BadRequest")
    assert refusal["message"].startswith("invalid continue token: continue key is not valid")


async def test_an_exact_list_shows_the_past_and_a_future_one_times_out(api: Any) -> None:
    old = await api.config_map("a")
    await api.config_map("b")
    revision = old["metadata"]["resourceVersion"]

    _, past = await api.send("GET", f"{MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact")
    status, future = await api.send("GET", f"{MAPS}?resourceVersion=100000&resourceVersionMatch=Exact")

    assert names(past) == ["a"]
    assert (status, future["reason"]) == (504, "Timeout")
    assert future["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"


async def test_lists_are_narrowed_by_labels_and_fields(api: Any) -> None:
    await api.config_map("a", labels={"x": "1"})
    await api.config_map("b", labels={"x": "2"})

    _, by_label = await api.send("GET", f"{MAPS}?labelSelector=x%3D1")
    _, by_name = await api.send("GET", f"{MAPS}?fieldSelector=metadata.name%3Db")
    status, refusal = await api.send("GET", f"{MAPS}?fieldSelector=data.k%3Dv")

    assert names(by_label) == ["a"]
    assert names(by_name) == ["b"]
    assert (status, refusal["message"]) == (
        400, '"data.k" is not a known field selector: only "metadata.name", "metadata.namespace"',
    )  # fmt: skip


async def test_items_of_a_list_do_not_repeat_their_kind(api: Any) -> None:
    await api.config_map("a")

    _, answer = await api.send("GET", MAPS)

    assert (answer["kind"], answer["apiVersion"]) == ("ConfigMapList", "v1")
    assert "kind" not in answer["items"][0]


async def test_a_watch_goes_on_from_a_version_with_every_later_change(api: Any) -> None:
    start = (await api.config_map("a"))["metadata"]["resourceVersion"]
    await api.config_map("b")
    await api.send("DELETE", f"{MAPS}/a")

    events = await events_of(api, f"{MAPS}?watch=1&timeoutSeconds=1&resourceVersion={start}")

    assert [(one["type"], one["object"]["metadata"]["name"]) for one in events] == [("ADDED", "b"), ("DELETED", "a")]


async def test_a_watch_from_before_the_cache_reads_the_store(api: Any) -> None:
    start = (await api.config_map("first"))["metadata"]["resourceVersion"]
    for number in range(20):  # More than the cache remembers.
        await api.config_map(f"p{number:02}")

    events = await events_of(api, f"{MAPS}?watch=1&timeoutSeconds=1&resourceVersion={start}")

    assert [one["object"]["metadata"]["name"] for one in events] == [f"p{number:02}" for number in range(20)]


async def test_a_watch_from_a_compacted_version_is_told_to_list_again(api: Any) -> None:
    start = (await api.config_map("first"))["metadata"]["resourceVersion"]
    for number in range(20):
        await api.config_map(f"p{number:02}")
    await api.store.compact(Revision(api.store.revision))

    (event,) = await events_of(api, f"{MAPS}?watch=1&timeoutSeconds=5&resourceVersion={start}")

    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")


async def test_initial_events_end_with_a_bookmark(api: Any) -> None:
    await api.config_map("a")
    query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"

    events = await events_of(api, f"{MAPS}?{query}&timeoutSeconds=1")

    assert [one["type"] for one in events[:2]] == ["ADDED", "BOOKMARK"]
    assert events[1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_a_live_watch_and_its_typed_twin_see_a_change_at_once(api: Any) -> None:
    from haven.api.core import v1 as core
    from haven.api.scheme import resource_of

    client = api.server.local_client()
    found: list[str] = []

    async def follow() -> None:
        async for event in client.watch(resource_of(core.ConfigMap), resource_version=str(api.store.revision)):
            found.append(f"{event.type.value} {event.object.metadata.name}")
            if len(found) == 2:
                return

    task = asyncio.create_task(follow())
    await asyncio.sleep(0)
    await api.config_map("a")
    await api.send("DELETE", f"{MAPS}/a")
    await asyncio.wait_for(task, 60)

    assert found == ["ADDED a", "DELETED a"]


async def test_a_table_and_bare_metadata_are_other_views_of_the_same_object(api: Any) -> None:
    await api.config_map("a")

    _, table = await api.send("GET", f"{MAPS}/a", accept="application/json;as=Table;v=v1;g=meta.k8s.io")
    _, partial = await api.send(
        "GET", f"{MAPS}/a", accept="application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
    )

    assert (table["kind"], table["rows"][0]["cells"][0]) == ("Table", "a")
    assert (partial["kind"], "data" in partial) == ("PartialObjectMetadata", False)

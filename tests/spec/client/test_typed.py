from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from haven.api.apps import v1 as apps_v1
from haven.api.core import v1 as core_v1
from haven.api.policy import v1 as policy_v1
from haven.api.rbac import v1 as rbac_v1
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, meta
from haven.apimachinery.names import UID
from haven.client.interface import EventType, Patch, PatchType, Unreachable
from haven.client.metadata import metadata_only
from haven.client.typed import RestClient
from haven.clock import FakeClock

PODS = resource_of(core_v1.Pod)
DEPLOYMENTS = resource_of(apps_v1.Deployment)


def pod_tree(name: str, version: str = "7") -> dict[str, Any]:
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "ns", "resourceVersion": version},
        "spec": {"containers": [{"name": "c", "image": "busybox"}]},
    }


def a_pod(name: str) -> core_v1.Pod:
    return core_v1.Pod(metadata=meta.ObjectMeta(name=name, namespace="ns"))


def query_of(path: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(path).query)


async def test_get_asks_the_path_of_the_object_and_returns_its_type(transport: Any) -> None:
    transport.answer(200, pod_tree("a"))

    pod = await RestClient(transport).get(PODS, "ns", "a")

    assert isinstance(pod, core_v1.Pod)
    assert pod.spec.containers is not None
    assert pod.spec.containers[0].image == "busybox"
    assert (transport.sent[0].method, transport.sent[0].path) == ("GET", "/api/v1/namespaces/ns/pods/a")


async def test_names_are_quoted_but_colons_stay(transport: Any) -> None:
    transport.answer(200, {"metadata": {"name": "system:node"}})

    await RestClient(transport).get(resource_of(rbac_v1.ClusterRole), "", "system:node?x")

    assert transport.sent[0].path == "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node%3Fx"


async def test_a_refusal_is_raised_as_the_error_that_the_status_names(transport: Any) -> None:
    transport.answer(404, apierrors.NotFound.of(PODS.group_resource, "a").status())

    with pytest.raises(apierrors.NotFound, match='pods "a" not found'):
        await RestClient(transport).get(PODS, "ns", "a")


async def test_list_sends_selectors_and_limits_and_returns_where_to_go_on(transport: Any) -> None:
    tree = {"metadata": {"resourceVersion": "9", "continue": "token"}, "items": [pod_tree("a"), pod_tree("b")]}
    transport.answer(200, tree)

    page = await RestClient(transport).list(
        PODS, "ns", label_selector="a=b,c", field_selector="spec.nodeName=n", resource_version="0", limit=2
    )

    assert ([pod.metadata.name for pod in page.items], page.resource_version, page.continue_) == (
        ["a", "b"],
        "9",
        "token",
    )
    assert query_of(transport.sent[0].path) == {
        "labelSelector": ["a=b,c"],
        "fieldSelector": ["spec.nodeName=n"],
        "limit": ["2"],
        "resourceVersion": ["0"],
    }


async def test_a_continued_list_names_no_version_of_its_own(transport: Any) -> None:
    transport.answer(200, {"metadata": {"resourceVersion": "9"}, "items": None})

    page = await RestClient(transport).list(PODS, resource_version="0", continue_="token")

    assert list(page.items) == []
    assert query_of(transport.sent[0].path) == {"continue": ["token"]}


async def test_a_watch_yields_typed_events_until_the_server_ends_it(transport: Any) -> None:
    transport.lines = [
        json.dumps({"type": "ADDED", "object": pod_tree("a")}).encode() + b"\n",
        b"\n",
        json.dumps({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "12"}}}).encode() + b"\n",
    ]

    events = [event async for event in RestClient(transport).watch(PODS, resource_version="7", timeout_seconds=30)]

    assert [(event.type, event.object.metadata.resource_version) for event in events] == [
        (EventType.ADDED, "7"),
        (EventType.BOOKMARK, "12"),
    ]
    assert query_of(transport.sent[0].path) == {
        "watch": ["true"],
        "allowWatchBookmarks": ["true"],
        "resourceVersion": ["7"],
        "timeoutSeconds": ["30"],
    }


async def test_an_error_event_is_raised(transport: Any) -> None:
    status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version: 1 (5)"}
    transport.lines = [json.dumps({"type": "ERROR", "object": status}).encode()]

    with pytest.raises(apierrors.Expired, match="too old"):
        async for _ in RestClient(transport).watch(PODS, resource_version="1"):
            pass


@pytest.mark.parametrize("line", [b'{"type":"ADDED","obj', b'{"type":"ADDED","object":{"metadata":3}}', b"<html>"])
async def test_a_watch_that_sends_rubbish_is_an_api_error_and_no_crash(transport: Any, line: bytes) -> None:
    transport.lines = [line]

    with pytest.raises(apierrors.InternalError, match="the server's answer"):
        async for _ in RestClient(transport).watch(PODS, resource_version="1"):
            pass


async def test_a_broken_connection_passes_through(transport: Any) -> None:
    transport.answers = [Unreachable("connection refused")]

    with pytest.raises(apierrors.ServiceUnavailable, match="refused"):
        await RestClient(transport).get(PODS, "ns", "a")


async def test_create_posts_kind_and_version_to_the_objects_namespace(transport: Any) -> None:
    transport.answer(201, pod_tree("a"))

    created = await RestClient(transport).create(PODS, a_pod("a"))

    body = json.loads(transport.sent[0].body)
    assert (transport.sent[0].method, transport.sent[0].path) == ("POST", "/api/v1/namespaces/ns/pods")
    assert (body["kind"], body["apiVersion"], body["metadata"]["name"]) == ("Pod", "v1", "a")
    assert created.metadata.resource_version == "7"
    assert transport.sent[0].headers["Content-Type"] == "application/json"


async def test_a_subresource_may_answer_with_a_bare_success(transport: Any) -> None:
    transport.answer(201, {"kind": "Status", "apiVersion": "v1", "status": "Success", "code": 201})
    eviction = policy_v1.Eviction(metadata=meta.ObjectMeta(name="a", namespace="ns"))

    answered = await RestClient(transport).create(PODS, eviction, subresource="eviction")

    assert answered is eviction
    assert transport.sent[0].path == "/api/v1/namespaces/ns/pods/a/eviction"


async def test_update_and_its_status_go_to_the_object(transport: Any) -> None:
    transport.answer(200, pod_tree("a", "8"))

    updated = await RestClient(transport).update(PODS, a_pod("a"), subresource="status")

    assert (transport.sent[0].method, transport.sent[0].path) == ("PUT", "/api/v1/namespaces/ns/pods/a/status")
    assert updated.metadata.resource_version == "8"


async def test_apply_says_who_and_whether_by_force(transport: Any) -> None:
    transport.answer(200, {"metadata": {"name": "d"}})
    patch = Patch(PatchType.APPLY, {"spec": {"replicas": 2}}, field_manager="me", force=True, query={"dryRun": "All"})

    await RestClient(transport).patch(DEPLOYMENTS, "ns", "d", patch)

    sent = transport.sent[0]
    assert sent.headers["Content-Type"] == "application/apply-patch+yaml"
    assert json.loads(sent.body) == {"spec": {"replicas": 2}}
    assert query_of(sent.path) == {"fieldManager": ["me"], "force": ["true"], "dryRun": ["All"]}


async def test_delete_sends_its_preconditions(transport: Any) -> None:
    transport.answer(200, {"kind": "Status", "status": "Success"})

    await RestClient(transport).delete(
        PODS, "ns", "a", uid=UID("u"), grace_period_seconds=0, propagation_policy="Foreground"
    )

    assert json.loads(transport.sent[0].body) == {
        "kind": "DeleteOptions",
        "apiVersion": "v1",
        "gracePeriodSeconds": 0,
        "preconditions": {"uid": "u"},
        "propagationPolicy": "Foreground",
    }


async def test_a_busy_server_is_asked_again_after_the_time_it_named(transport: Any, clock: FakeClock) -> None:
    busy = apierrors.TooManyRequests.after("busy", 3).status()
    transport.answer(429, busy, {"Retry-After": "3"})
    transport.answer(200, pod_tree("a"))
    request = asyncio.ensure_future(RestClient(transport, clock=clock).get(PODS, "ns", "a"))

    await clock.advance(0)
    await clock.advance(2.9)
    assert len(transport.sent) == 1
    await clock.advance(0.2)

    assert (await request).metadata.name == "a"


async def test_a_server_that_stays_busy_is_given_up_on(transport: Any, clock: FakeClock) -> None:
    for _ in range(11):
        transport.answer(429, apierrors.TooManyRequests.after("busy", 1).status(), {"retry-after": "1"})
    request = asyncio.ensure_future(RestClient(transport, clock=clock).get(PODS, "ns", "a"))

    await clock.advance(0)
    await clock.advance(20)

    with pytest.raises(apierrors.TooManyRequests):
        await request
    assert len(transport.sent) == 11


async def test_a_refused_eviction_without_retry_after_is_final(transport: Any) -> None:
    transport.answer(429, apierrors.TooManyRequests("disruption budget").status())

    with pytest.raises(apierrors.TooManyRequests):
        await RestClient(transport).get(PODS, "ns", "a")

    assert len(transport.sent) == 1


async def test_metadata_alone_is_asked_for_by_media_type(transport: Any) -> None:
    transport.answer(200, {"metadata": {"resourceVersion": "9"}, "items": [{"metadata": {"name": "a"}}]})

    page = await RestClient(transport).list(metadata_only(PODS))

    assert isinstance(page.items[0], meta.PartialObjectMetadata)
    assert "as=PartialObjectMetadataList" in transport.sent[0].headers["Accept"]
    assert metadata_only(PODS) != PODS
    assert metadata_only(PODS) == metadata_only(PODS)


async def test_managed_fields_can_be_left_out_to_save_memory(transport: Any) -> None:
    tree = pod_tree("a")
    tree["metadata"]["managedFields"] = [{"manager": "kubectl", "fieldsV1": {"f:metadata": {}}}]
    transport.answer(200, {"metadata": {"resourceVersion": "9"}, "items": [tree]})
    transport.lines = [json.dumps({"type": "ADDED", "object": tree}).encode()]
    client = RestClient(transport, managed_fields=False)

    page = await client.list(PODS)
    events = [event async for event in client.watch(PODS, resource_version="9")]

    assert page.items[0].metadata.managed_fields == []
    assert events[0].object.metadata.managed_fields == []

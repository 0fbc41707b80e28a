"""Writes: identity, conflicts, dry runs, deletion and what holds it up."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"


def a_pod(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}], **spec}}


async def a_service_account(api: Any) -> None:
    await api.send("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})


async def test_a_client_cannot_choose_the_identity_of_an_object(api: Any) -> None:
    made = await api.config_map(
        "a", uid="11111111-2222-3333-4444-555555555555", creationTimestamp="2001-01-01T00:00:00Z"
    )

    assert made["metadata"]["uid"] != "11111111-2222-3333-4444-555555555555"
    assert not made["metadata"]["creationTimestamp"].startswith("2001")


async def test_a_generated_name_that_is_taken_is_drawn_again(api: Any) -> None:
    made = {(await api.config_map("", generateName="x-"))["metadata"]["name"] for _ in range(50)}

    assert len(made) == 50
    assert all(name.startswith("x-") and len(name) == 7 for name in made)


async def test_an_update_with_an_old_version_is_a_conflict_and_one_without_is_not(api: Any) -> None:
    old = await api.config_map("a")
    await api.send("PUT", f"{MAPS}/a", {**old, "data": {"k": "new"}})

    stale, refusal = await api.send("PUT", f"{MAPS}/a", {**old, "data": {"k": "newer"}})
    unconditional, _ = await api.send("PUT", f"{MAPS}/a", {"metadata": {"name": "a"}, "data": {"k": "newest"}})

    assert (stale, refusal["reason"], unconditional) == (409, "Conflict", 200)


async def test_an_update_that_changes_nothing_makes_no_new_version(api: Any) -> None:
    made = await api.config_map("a")

    _, same = await api.send("PUT", f"{MAPS}/a", made)

    assert same["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_an_update_that_only_reorders_a_map_makes_no_new_version(api: Any) -> None:
    made = await api.config_map("a", labels={"a": "1", "c": "2", "b": "3"})

    same = {**made, "metadata": {**made["metadata"], "labels": {"b": "3", "a": "1", "c": "2"}}}
    _, again = await api.send("PUT", f"{MAPS}/a", same)
    other = {**made, "metadata": {**made["metadata"], "labels": {"b": "3", "a": "2", "c": "1"}}}
    _, changed = await api.send("PUT", f"{MAPS}/a", other)

    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    assert changed["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]


async def test_patches_that_meet_are_all_applied(api: Any) -> None:
    await api.config_map("a")

    answers = await asyncio.gather(
        *[api.send("PATCH", f"{MAPS}/a", {"data": {f"k{n}": "v"}}, content_type=MERGE) for n in range(20)]
    )

    assert {status for status, _ in answers} == {200}
    _, final = await api.send("GET", f"{MAPS}/a")
    assert set(final["data"]) == {"k"} | {f"k{n}" for n in range(20)}


async def test_a_dry_run_answers_and_stores_nothing(api: Any) -> None:
    status, _ = await api.send("POST", f"{MAPS}?dryRun=All", {"metadata": {"name": "a"}})

    assert status == 201
    assert (await api.send("GET", f"{MAPS}/a"))[0] == 404


async def test_an_apply_creates_and_then_refuses_a_field_of_another_manager(api: Any) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "one"}}
    other = {**body, "data": {"k": "two"}}

    created, _ = await api.send("PATCH", f"{MAPS}/a?fieldManager=one", body, content_type=APPLY)
    refused, refusal = await api.send("PATCH", f"{MAPS}/a?fieldManager=two", other, content_type=APPLY)
    forced, final = await api.send("PATCH", f"{MAPS}/a?fieldManager=two&force=true", other, content_type=APPLY)

    assert (created, refused, forced) == (201, 409, 200)
    assert refusal["details"]["causes"][0]["field"] == ".data.k"
    assert final["data"] == {"k": "two"}


async def test_a_finalizer_holds_an_object_until_it_is_taken_away(api: Any) -> None:
    await api.config_map("a", finalizers=["example.com/hold"])

    _, marked = await api.send("DELETE", f"{MAPS}/a")
    still, _ = await api.send("GET", f"{MAPS}/a")
    await api.send("PATCH", f"{MAPS}/a", {"metadata": {"finalizers": None}}, content_type=MERGE)

    assert marked["metadata"]["deletionTimestamp"]
    assert still == 200
    assert (await api.send("GET", f"{MAPS}/a"))[0] == 404


@pytest.mark.parametrize(("policy", "finalizers"), [("Foreground", ["foregroundDeletion"]), ("Orphan", ["orphan"])])
async def test_a_propagation_policy_becomes_a_finalizer(api: Any, policy: str, finalizers: list[str]) -> None:
    await api.config_map("a")

    _, marked = await api.send("DELETE", f"{MAPS}/a?propagationPolicy={policy}")

    assert marked["metadata"]["finalizers"] == finalizers


async def test_a_delete_may_demand_a_uid(api: Any) -> None:
    made = await api.config_map("a")
    wrong = {"preconditions": {"uid": "11111111-2222-3333-4444-555555555555"}}
    right = {"preconditions": {"uid": made["metadata"]["uid"]}}

    assert (await api.send("DELETE", f"{MAPS}/a", wrong))[0] == 409
    assert (await api.send("DELETE", f"{MAPS}/a", right))[0] == 200


async def test_a_pod_on_a_node_dies_gracefully_and_the_grace_may_only_shrink(api: Any) -> None:
    await a_service_account(api)
    await api.send("POST", PODS, a_pod("p", nodeName="n"))

    _, first = await api.send("DELETE", f"{PODS}/p?gracePeriodSeconds=20")
    _, longer = await api.send("DELETE", f"{PODS}/p?gracePeriodSeconds=60")
    _, shorter = await api.send("DELETE", f"{PODS}/p?gracePeriodSeconds=5")

    graces = [one["metadata"]["deletionGracePeriodSeconds"] for one in (first, longer, shorter)]
    assert graces == [20, 20, 5]
    await api.send("DELETE", f"{PODS}/p?gracePeriodSeconds=0")
    assert (await api.send("GET", f"{PODS}/p"))[0] == 404


async def test_watchers_see_a_pod_dying_before_it_is_gone_however_short_its_grace(api: Any) -> None:
    await a_service_account(api)
    _, running = await api.send("POST", PODS, a_pod("running", nodeName="n"))
    await api.send("POST", PODS, a_pod("waiting"))
    start = running["metadata"]["resourceVersion"]

    await api.send("DELETE", f"{PODS}/running?gracePeriodSeconds=0")
    await api.send("DELETE", f"{PODS}/waiting")

    answer = await api.raw("GET", f"{PODS}?watch=1&timeoutSeconds=1&resourceVersion={start}")
    events = [json.loads(line) for line in answer.body.splitlines()]
    seen = [(event["type"], event["object"]["metadata"]["name"]) for event in events]
    assert seen[1:] == [
        ("MODIFIED", "running"),
        ("DELETED", "running"),
        ("MODIFIED", "waiting"),
        ("DELETED", "waiting"),
    ]
    assert [event["object"]["metadata"]["deletionGracePeriodSeconds"] for event in events[1:]] == [0] * 4


async def test_a_pod_is_bound_once(api: Any) -> None:
    await a_service_account(api)
    await api.send("POST", PODS, a_pod("p"))
    binding = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}}

    statuses = await asyncio.gather(*[api.send("POST", f"{PODS}/p/binding", binding) for _ in range(3)])

    assert sorted(status for status, _ in statuses) == [201, 409, 409]


async def test_a_namespace_waits_in_terminating_for_its_content(api: Any) -> None:
    await api.send("POST", "/api/v1/namespaces", {"metadata": {"name": "x"}})

    _, marked = await api.send("DELETE", "/api/v1/namespaces/x")
    refused, refusal = await api.send("POST", "/api/v1/namespaces/x/configmaps", {"metadata": {"name": "a"}})
    await api.send("PUT", "/api/v1/namespaces/x/finalize", {"metadata": {"name": "x"}, "spec": {"finalizers": []}})

    assert marked["status"]["phase"] == "Terminating"
    assert (refused, refusal["details"]["causes"][0]["reason"]) == (403, "NamespaceTerminating")
    assert (await api.send("GET", "/api/v1/namespaces/x"))[0] == 404


async def test_a_user_without_rights_is_refused_in_upstreams_words(api: Any) -> None:
    status, refusal = await api.send("GET", MAPS, user="jane")

    assert status == 403
    assert refusal["message"] == (
        'configmaps is forbidden: User "jane" cannot list resource "configmaps" in API group "" '
        'in the namespace "default"'
    )


async def test_unknown_fields_are_warned_about_or_refused_or_ignored(api: Any) -> None:
    body = {"metadata": {"name": "a"}, "dota": {"k": "v"}}

    warned = await api.raw("POST", f"{MAPS}?dryRun=All", body)
    strict, refusal = await api.send("POST", f"{MAPS}?dryRun=All&fieldValidation=Strict", body)
    ignored = await api.raw("POST", f"{MAPS}?dryRun=All&fieldValidation=Ignore", body)

    assert warned.headers["Warning"] == '299 - "unknown field \\"dota\\""'
    assert (strict, 'unknown field "dota"' in refusal["message"]) == (400, True)
    assert "Warning" not in ignored.headers


@pytest.mark.parametrize(
    ("content_type", "order"),
    [
        ("application/json", ["zeta", "metadata.beta", "alpha"]),
        ("application/yaml", ["alpha", "metadata.beta", "zeta"]),
    ],
)
async def test_unknown_fields_are_named_as_they_come_but_sorted_in_yaml(
    api: Any, content_type: str, order: list[str]
) -> None:
    body = b'{"zeta": 1, "metadata": {"name": "a", "beta": 1}, "alpha": 1}'
    path = f"{MAPS}?dryRun=All&fieldValidation=Strict"

    _, refusal = await api.send("POST", path, body, content_type=content_type)

    assert refusal["message"].endswith(", ".join(f'unknown field "{name}"' for name in order))


async def test_what_is_only_posted_has_no_table(api: Any) -> None:
    review = {"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"

    answered, _ = await api.send("POST", path, review)
    refused, _ = await api.send("POST", path, review, accept="application/json;as=Table;v=v1;g=meta.k8s.io")

    assert (answered, refused) == (201, 406)

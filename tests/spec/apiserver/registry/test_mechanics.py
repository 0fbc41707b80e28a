"""Rules of the API that hold for every kind, as upstream's own server answers them."""

from __future__ import annotations

import json
from typing import Any

from tests.spec.apiserver.conftest import Api
from tests.spec.apiserver.customresources.definitions import THINGS, a_definition, a_version, established, thing

from haven.apimachinery.apierrors import GroupResource

MAPS = "/api/v1/namespaces/default/configmaps"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"


def stored(api: Api, group: str, plural: str) -> Any:
    """The object named a as the store has it, managedFields included."""
    entry = api.server.storages.of(GroupResource(group, plural)).get("default", "a")
    assert entry is not None
    return json.loads(entry.data)


async def test_an_empty_list_of_managed_fields_in_a_patch_gives_up_all_ownership(api: Api) -> None:
    await api.config_map("a")
    for value, kept in ((None, True), ([], False)):
        await api.send("PATCH", f"{MAPS}/a", {"metadata": {"managedFields": value}}, content_type=MERGE)
        assert ("managedFields" in stored(api, "", "configmaps")["metadata"]) is kept


async def test_what_a_refused_patch_made_is_shown_as_far_as_it_was_taken_apart_with_sorted_keys(api: Api) -> None:
    await api.config_map("a", labels={"z": "1", "b": "2"})
    change: Any = {"metadata": {"managedFields": {"z": 1, "a": "<"}}}
    _, merged = await api.send("PATCH", f"{MAPS}/a", change, content_type=MERGE)
    operation = {"op": "add", "path": "/data/n", "value": {"z": 1, "a": 1}}
    _, patched = await api.send("PATCH", f"{MAPS}/a", [operation], content_type=JSON_PATCH)
    assert merged["message"].startswith(r' "" is invalid: patch: Invalid value: "{\"apiVersion\":\"v1\",\"data\"')
    assert r"\"managedFields\":{\"a\":\"\\u003c\",\"z\":1}" in merged["message"]
    assert r"\"data\":{\"k\":\"v\",\"n\":{\"z\":1,\"a\":1}},\"kind\"" in patched["message"]


async def test_an_applied_body_that_is_no_object_or_names_no_kind_is_told_so(api: Api) -> None:
    async def refusal(text: str) -> str:
        path = f"{MAPS}/a?fieldManager=me"
        _, answer = await api.send("PATCH", path, text.encode(), content_type=APPLY)
        return str(answer["message"])

    assert "cannot unmarshal number into Go value" in await refusal("5")
    assert await refusal("apiVersion: 5\nkind: ConfigMap") == "invalid object type: /, Kind=ConfigMap"
    assert await refusal("apiVersion: a/b/c\nkind: ConfigMap") == "invalid object type: /, Kind="
    assert await refusal("apiVersion: v1\nkind: [a]") == "invalid object type: /v1, Kind="
    bad = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, resourceVersion: x}"
    assert await refusal(bad) == 'strconv.ParseUint: parsing "x": invalid syntax'


async def test_a_status_needs_a_version_where_its_object_does(api: Api) -> None:
    budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
    budget = {"metadata": {"name": "a"}, "spec": {"minAvailable": 1}}
    await api.send("POST", budgets, budget)
    status, answer = await api.send("PUT", f"{budgets}/a/status", budget)
    assert (status, answer["details"]["causes"][0]["field"]) == (422, "metadata.resourceVersion")


async def test_kinds_that_may_be_made_by_a_put_are_upstreams(api: Api) -> None:
    body = {"metadata": {"name": "a"}, "spec": {"limits": []}}
    status, _ = await api.send("PUT", "/api/v1/namespaces/default/limitranges/a", body)
    other, _ = await api.send("PUT", f"{MAPS}/nobody", {"metadata": {"name": "nobody"}})
    assert (status, other) == (201, 404)


async def test_a_kind_that_is_only_created_has_no_named_path(api: Api) -> None:
    reviews = "/apis/authentication.k8s.io/v1/tokenreviews"
    assert (await api.send("GET", f"{reviews}/a"))[0] == 404
    assert (await api.send("GET", reviews))[0] == 405


async def test_warnings_of_a_patch_come_with_its_refusal_too(api: Api) -> None:
    fields = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 5}}}
    schema = {"type": "object", "properties": {"spec": fields}}
    await established(api, a_definition(a_version(schema=schema)))
    await api.send("POST", THINGS, thing(spec={"a": 6}))
    change = {"spec": {"a": 1, "b": 2}}
    answer = await api.raw("PATCH", f"{THINGS}/a", change, content_type=MERGE)
    assert answer.status == 422
    assert "unknown field" in answer.headers["Warning"]


async def test_metadata_of_an_embedded_object_loses_what_is_empty(api: Api) -> None:
    embedded = {"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"e": embedded}}}}
    await established(api, a_definition(a_version(schema=schema)))
    inner = {"apiVersion": "v1", "kind": "X", "metadata": {"name": "q", "labels": {}, "generation": 0}}
    _, made = await api.send("POST", THINGS, thing(spec={"e": inner}))
    assert made["spec"]["e"]["metadata"] == {"name": "q"}
    assert "f:labels" not in json.dumps(stored(api, "example.com", "things"))


async def test_applying_another_number_to_the_scale_of_a_custom_resource_fails_as_upstream_does(api: Api) -> None:
    version = a_version(schema={"type": "object", "x-kubernetes-preserve-unknown-fields": True})
    scale = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
    version["subresources"] = {"scale": scale}
    await established(api, a_definition(version))
    await api.send("POST", THINGS, thing(spec={"replicas": 1}))

    async def applied(replicas: int) -> tuple[int, Any]:
        body = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "a"}}
        path = f"{THINGS}/a/scale?fieldManager=me&force=true"
        return await api.send("PATCH", path, {**body, "spec": {"replicas": replicas}}, content_type=APPLY)

    assert (await applied(1))[0] == 200
    status, answer = await applied(2)
    assert status == 500
    assert answer["message"].startswith("failed to convert new object (/a; autoscaling/v1, Kind=Scale) to proper")


async def test_preconditions_of_a_delete_may_come_by_query(api: Api) -> None:
    await api.config_map("a")
    for query in ("uid=other", "resourceVersion=1"):
        assert (await api.send("DELETE", f"{MAPS}/a?{query}"))[0] == 409
    assert (await api.send("DELETE", f"{MAPS}/a"))[0] == 200


async def test_who_deletes_a_job_is_told_what_becomes_of_its_pods(api: Api) -> None:
    jobs = "/apis/batch/v1/namespaces/default/jobs/nobody"
    assert "child pods are preserved" in (await api.raw("DELETE", jobs)).headers["Warning"]
    assert "Warning" not in (await api.raw("DELETE", f"{jobs}?propagationPolicy=Orphan")).headers


async def test_a_taken_name_beside_a_base_for_names_counts_as_one_that_was_generated(api: Api) -> None:
    await api.config_map("a")
    status, answer = await api.send("POST", MAPS, {"metadata": {"name": "a", "generateName": "a-"}})
    assert (status, answer["details"]["retryAfterSeconds"]) == (409, 1)
    assert answer["message"].endswith("the server was not able to generate a unique name for the object")


async def test_a_version_that_is_no_number_matters_to_updates_alone(api: Api) -> None:
    body = {"metadata": {"name": "a", "resourceVersion": "abc"}}
    assert (await api.send("PUT", f"{MAPS}/a", body))[0] == 404
    assert (await api.send("POST", MAPS, body))[0] == 201
    status, answer = await api.send("PUT", f"{MAPS}/a", body)
    assert (status, answer["message"]) == (500, 'strconv.ParseUint: parsing "abc": invalid syntax')


async def test_patches_that_are_no_patches_are_refused_in_upstreams_words(api: Api) -> None:
    await api.config_map("a")

    async def refusal(query: str, body: Any, kind: str) -> tuple[int, str]:
        status, answer = await api.send("PATCH", f"{MAPS}/a{query}", body, content_type=kind)
        return status, answer["message"]

    assert await refusal("?fieldValidation=Ignore", [5], JSON_PATCH) == (
        400, "json: cannot unmarshal number into Go value of type jsonpatch.Operation",
    )  # fmt: skip
    status, message = await refusal("?fieldValidation=Ignore", [{"a": None}], MERGE)
    assert status == 422
    assert 'Invalid value: "[{}]": couldn\'t get version/kind; json parse error' in message
    status, message = await refusal("", [{"op": "replace", "path": "/kind", "value": 5}], JSON_PATCH)
    assert message.endswith("json: cannot unmarshal number into Go struct field .kind of type string")
    status, message = await refusal("", [{"op": "test", "path": "/a", "value": None}] * 10_001, JSON_PATCH)
    assert (status, message.partition(":")[0]) == (413, "Request entity too large")


async def test_a_watch_from_a_version_to_come_waits_and_says_nothing(api: Api) -> None:
    await api.config_map("a")
    answer = await api.raw("GET", f"{MAPS}?watch=true&timeoutSeconds=1&resourceVersion=99999999")
    assert (answer.status, answer.body) == (200, b"")


async def test_old_paths_of_watches_are_read_only_and_for_what_can_be_watched(api: Api) -> None:
    assert (await api.send("POST", "/api/v1/watch/namespaces/default/configmaps"))[0] == 405
    assert (await api.send("GET", "/api/v1/watch/namespaces/default/pods/a/log"))[0] == 404


async def test_an_exact_list_of_a_version_to_come_is_not_to_be_asked_again(api: Api) -> None:
    status, answer = await api.send("GET", f"{MAPS}?resourceVersion=99999999&resourceVersionMatch=Exact")
    assert (status, "retryAfterSeconds" in answer["details"]) == (504, False)
    assert (await api.send("GET", f"{MAPS}/a?export=true"))[0] == 400


async def test_only_routed_paths_look_at_the_method_and_the_media_type(api: Api) -> None:
    assert (await api.send("POST", "/livez"))[0] == 200
    assert (await api.send("POST", "/version"))[0] == 405
    assert (await api.send("GET", "/livez/"))[0] == 404
    assert (await api.send("GET", "/version", accept="application/yaml"))[0] == 406
    assert (await api.send("GET", "/openid/v1/jwks"))[0] == 406
    assert (await api.send("GET", "/", accept="text/html"))[0] == 200
    assert (await api.send("GET", "/index.html"))[0] == 200
    assert (await api.send("GET", "/api/v1/bindings"))[0] == 404
    assert (await api.send("GET", f"{MAPS}/%2e%2e"))[0] in (400, 404)


async def test_whole_discovery_wins_over_plain_lists_wherever_it_is_named(api: Api) -> None:
    whole = "application/json;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io;q=0.5"
    _, answer = await api.send("GET", "/apis", accept=f"{whole},application/json")
    assert answer["kind"] == "APIGroupDiscoveryList"

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.spec.apiserver.conftest import Api
from tests.spec.apiserver.customresources.definitions import (
    DEFINITIONS,
    THINGS,
    a_definition,
    a_version,
    established,
    gone,
    spec_schema,
    thing,
    until,
)

from haven.apimachinery.apierrors import GroupResource

ONE = f"{DEFINITIONS}/things.example.com"


async def test_a_definition_is_served_as_soon_as_it_is_established(api: Api) -> None:
    crd = await established(api, a_definition())

    assert [(one["type"], one["status"], one["reason"]) for one in crd["status"]["conditions"]] == [
        ("NamesAccepted", "True", "NoConflicts"),
        ("Established", "True", "InitialNamesAccepted"),
    ]
    assert crd["status"]["acceptedNames"]["listKind"] == "ThingList"
    status, answer = await api.send("POST", THINGS, thing(spec={"a": [1, 2.5, {"b": None}]}))
    assert status == 201, answer
    assert answer["metadata"]["generation"] == 1
    assert answer["spec"] == {"a": [1, 2.5, {"b": None}]}
    _, listed = await api.send("GET", THINGS)
    assert (listed["kind"], [item["metadata"]["name"] for item in listed["items"]]) == ("ThingList", ["a"])


async def test_discovery_and_open_api_follow_the_definition(api: Api) -> None:
    await established(api, a_definition(a_version(schema=spec_schema(a={"type": "string"}))))

    _, groups = await api.send("GET", "/apis")
    assert "example.com" in [group["name"] for group in groups["groups"]]
    _, listed = await api.send("GET", "/apis/example.com/v1")
    assert [(item["name"], item["kind"], item["shortNames"]) for item in listed["resources"]] == [
        ("things", "Thing", ["th"])
    ]
    _, document = await api.send("GET", "/openapi/v3/apis/example.com/v1")
    assert document["components"]["schemas"]["com.example.v1.Thing"]["properties"]["spec"]["properties"] == {
        "a": {"type": "string"}
    }

    await api.send("DELETE", ONE)
    await gone(api, ONE)

    assert (await api.send("GET", "/apis/example.com"))[0] == 404
    assert (await api.send("GET", THINGS))[0] == 404
    assert (await api.send("GET", "/openapi/v3/apis/example.com/v1"))[0] == 404


async def test_deleting_a_definition_deletes_its_objects_and_ends_their_watches(api: Api) -> None:
    await established(api, a_definition())
    await api.send("POST", THINGS, thing())
    watch = asyncio.create_task(api.raw("GET", THINGS + "?watch=true"))

    status, answer = await api.send("DELETE", ONE)
    await gone(api, ONE)

    assert status == 200
    assert answer["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
    assert [one["reason"] for one in answer["status"]["conditions"]][-1] == "InstanceDeletionPending"
    events = [json.loads(line)["type"] for line in (await watch).body.splitlines()]
    assert events == ["ADDED", "DELETED"]
    await established(api, a_definition())
    assert (await api.send("GET", THINGS))[1]["items"] == []


async def test_no_objects_are_made_while_the_definition_goes(api: Api) -> None:
    await established(api, a_definition())
    await api.send("POST", THINGS, {**thing(), "metadata": {"name": "a", "finalizers": ["example.com/hold"]}})
    await api.send("DELETE", ONE)
    await until(api, ONE, "Terminating")

    status, answer = await api.send("POST", THINGS, thing("b"))

    assert status == 403
    assert "create not allowed while custom resource definition is terminating" in answer["message"]


async def test_names_that_others_have_are_not_accepted_until_they_are_free(api: Api) -> None:
    await established(api, a_definition())
    rival = a_definition()
    rival["metadata"]["name"] = "objects.example.com"
    rival["spec"]["names"] = {"plural": "objects", "singular": "object", "kind": "Thing"}
    path = f"{DEFINITIONS}/objects.example.com"
    await api.send("POST", DEFINITIONS, rival)
    for _ in range(50):
        _, answer = await api.send("GET", path)
        if answer["status"]["conditions"]:
            break
        await asyncio.sleep(0)

    conditions = {one["type"]: one for one in answer["status"]["conditions"]}
    assert conditions["NamesAccepted"]["reason"] == "ListKindConflict"
    assert conditions["NamesAccepted"]["message"] == '"ThingList" is already in use'
    assert conditions["Established"]["reason"] == "NotAccepted"
    assert (await api.send("GET", "/apis/example.com/v1/namespaces/default/objects"))[0] == 404

    await api.send("DELETE", ONE)
    await gone(api, ONE)

    await until(api, path, "Established")


async def test_another_version_shows_the_same_objects(api: Api) -> None:
    v1 = a_version(schema=spec_schema(a={"type": "string"}, b={"type": "string"}))
    v2 = a_version("v2", schema=spec_schema(a={"type": "string"}))
    await established(api, a_definition(v1, v2))
    await api.send("POST", THINGS, thing(spec={"a": "x", "b": "y"}))
    other = THINGS.replace("v1", "v2")

    _, seen = await api.send("GET", f"{other}/a")
    status, _ = await api.send("PATCH", f"{other}/a", {"spec": {"a": "z"}}, content_type="application/merge-patch+json")
    _, after = await api.send("GET", f"{THINGS}/a")

    assert (seen["apiVersion"], seen["spec"]) == ("example.com/v2", {"a": "x"})
    assert status == 200
    assert after["spec"] == {"a": "z"}  # What v2 does not know is lost when v2 is written.
    _, listed = await api.send("GET", other)
    assert [item["apiVersion"] for item in listed["items"]] == ["example.com/v2"]


async def test_objects_stored_before_a_default_came_show_it(api: Api) -> None:
    await established(api, a_definition(a_version(schema=spec_schema(a={"type": "string"}))))
    await api.send("POST", THINGS, thing(spec={"a": "x"}))
    _, crd = await api.send("GET", ONE)
    fields = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    fields["b"] = {"type": "integer", "default": 7}

    status, _ = await api.send("PUT", ONE, crd)

    assert status == 200
    _, seen = await api.send("GET", f"{THINGS}/a")
    assert seen["spec"] == {"a": "x", "b": 7}


async def test_fields_can_be_selected_by_and_objects_enter_and_leave_a_watch(api: Api) -> None:
    version = a_version(schema=spec_schema(color={"type": "string"}), selectableFields=[{"jsonPath": ".spec.color"}])
    await established(api, a_definition(version))
    await api.send("POST", THINGS, thing("red", spec={"color": "red"}))
    _, last = await api.send("POST", THINGS, thing("blue", spec={"color": "blue"}))
    revision = last["metadata"]["resourceVersion"]

    _, listed = await api.send("GET", f"{THINGS}?fieldSelector=spec.color%3Dblue")
    status, refused = await api.send("GET", f"{THINGS}?fieldSelector=spec.size%3Dbig")
    for name, color in (("red", "blue"), ("blue", "green"), ("red", "white")):
        patch = {"spec": {"color": color}}
        await api.send("PATCH", f"{THINGS}/{name}", patch, content_type="application/merge-patch+json")
    answer = await api.raw(
        "GET", f"{THINGS}?watch=true&timeoutSeconds=1&resourceVersion={revision}&fieldSelector=spec.color%3Dblue"
    )

    assert [item["metadata"]["name"] for item in listed["items"]] == ["blue"]
    assert (status, refused["message"]) == (400, "field label not supported: spec.size")
    events = [json.loads(line) for line in answer.body.splitlines()]
    assert [(event["type"], event["object"]["metadata"]["name"]) for event in events] == [
        ("ADDED", "red"),
        ("DELETED", "blue"),
        ("DELETED", "red"),
    ]


async def test_status_and_scale_are_subresources(api: Api) -> None:
    paths = {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n", "labelSelectorPath": ".status.s"}
    await established(api, a_definition(a_version(subresources={"status": {}, "scale": paths})))
    _, made = await api.send("POST", THINGS, thing(spec={"n": 1}, status={"n": 5}))
    made["status"] = {"n": 1, "s": "app=x"}
    made["spec"]["n"] = 9

    _, after = await api.send("PUT", f"{THINGS}/a/status", made)
    _, scale = await api.send("GET", f"{THINGS}/a/scale")
    scale["spec"]["replicas"] = 4
    _, scaled = await api.send("PUT", f"{THINGS}/a/scale", scale)
    _, final = await api.send("GET", f"{THINGS}/a")

    assert "status" not in made or made["metadata"]["generation"] == 1
    assert (after["spec"], after["status"]) == ({"n": 1}, {"n": 1, "s": "app=x"})
    assert scaled["spec"] == {"replicas": 4}
    assert scaled["status"] == {"replicas": 1, "selector": "app=x"}
    assert (final["spec"], final["metadata"]["generation"]) == ({"n": 4}, 2)


async def test_bodies_are_checked_as_strictly_as_asked(api: Api) -> None:
    await established(api, a_definition(a_version(schema=spec_schema(a={"type": "string"}))))
    body = (
        b'{"apiVersion":"example.com/v1","kind":"Thing","metadata":{"name":"a","no":1},"spec":{"a":"x","a":"y","b":1}}'
    )

    status, refused = await api.send("POST", f"{THINGS}?fieldValidation=Strict", body)
    answer = await api.raw("POST", THINGS, body)

    complaints = 'duplicate field "spec.a"', 'unknown field "metadata.no"', 'unknown field "spec.b"'
    assert status == 400
    assert refused["message"].endswith("strict decoding error: " + ", ".join(complaints))
    assert answer.status == 201
    assert answer.headers["Warning"] == ", ".join(
        f'299 - "{text}"'.replace('d "', 'd \\"').replace('""', '\\""') for text in complaints
    )


async def test_strategic_patches_are_refused(api: Api) -> None:
    await established(api, a_definition())
    await api.send("POST", THINGS, thing())

    status, answer = await api.send("PATCH", f"{THINGS}/a", {}, content_type="application/strategic-merge-patch+json")

    assert (status, answer["reason"]) == (415, "UnsupportedMediaType")


async def test_keyed_lists_are_merged_when_applied(api: Api) -> None:
    ports: dict[str, Any] = {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["port"],
        "items": {
            "type": "object",
            "required": ["port"],
            "properties": {"port": {"type": "integer"}, "n": {"type": "string"}},
        },
    }
    await established(api, a_definition(a_version(schema=spec_schema(ports=ports))))

    for manager, port in (("one", 80), ("two", 443)):
        body = thing(spec={"ports": [{"port": port, "n": manager}]})
        status, after = await api.send(
            "PATCH", f"{THINGS}/a?fieldManager={manager}", body, content_type="application/apply-patch+yaml"
        )

    assert status == 200
    assert [item["port"] for item in after["spec"]["ports"]] == [80, 443]


async def test_a_table_shows_the_declared_columns(api: Api) -> None:
    columns = [{"name": "Color", "type": "string", "jsonPath": ".spec.color"}]
    await established(api, a_definition(a_version(additionalPrinterColumns=columns)))
    await api.send("POST", THINGS, thing(spec={"color": "red"}))

    _, table = await api.send("GET", THINGS, accept="application/json;as=Table;g=meta.k8s.io;v=v1")

    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Color"]
    assert [row["cells"] for row in table["rows"]] == [["a", "red"]]


async def test_deprecated_versions_warn(api: Api) -> None:
    await established(api, a_definition(a_version(), a_version("v1beta1", deprecated=True)))

    answer = await api.raw("GET", "/apis/example.com/v1beta1/things")

    assert answer.headers["Warning"] == '299 - "example.com/v1beta1 Thing is deprecated; use example.com/v1 Thing"'


def owners(api: Api) -> list[str]:
    """Return who owns fields of the thing as the store has it."""
    entry = api.server.storages.of(GroupResource("example.com", "things")).get("default", "a")
    assert entry is not None
    return [owned["manager"] for owned in json.loads(entry.data)["metadata"].get("managedFields", [])]


APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"


async def test_an_apply_is_checked_before_its_nulls_go(api: Api) -> None:
    text: dict[str, Any] = {"type": "string"}
    await established(api, a_definition(a_version(schema=spec_schema(a=text, b={**text, "nullable": True}))))

    status, answer = await api.send("PATCH", f"{THINGS}/a?fieldManager=m", thing(spec={"a": None}), content_type=APPLY)
    kept, object_ = await api.send("PATCH", f"{THINGS}/a?fieldManager=m", thing(spec={"b": None}), content_type=APPLY)

    assert (status, answer["details"]["causes"][0]["message"]) == (
        422, 'Invalid value: "null": spec.a in body must be of type string: "null"',
    )  # fmt: skip
    assert (kept, object_["spec"]) == (201, {"b": None})


async def test_an_apply_may_give_unknown_fields_within_what_keeps_them(api: Api) -> None:
    inner = {"type": "object", "properties": {"a": {"type": "string"}}}
    schema = spec_schema(o=inner)
    schema["properties"]["spec"]["x-kubernetes-preserve-unknown-fields"] = True
    await established(api, a_definition(a_version(schema=schema)))

    body = thing(spec={"o": {"a": "x", "z": 1}, "y": 1})
    status, answer = await api.send("PATCH", f"{THINGS}/a?fieldManager=m", body, content_type=APPLY)

    assert (status, answer["spec"]) == (201, {"o": {"a": "x"}, "y": 1})


async def test_nobody_owns_fields_of_an_object_that_does_not_have_its_schemas_form(api: Api) -> None:
    loose = a_version(schema=spec_schema(s={"x-kubernetes-preserve-unknown-fields": True}))
    await established(api, a_definition(loose))
    await api.send("POST", THINGS, thing(spec={"s": 5}))
    strict = a_version(schema=spec_schema(s={"type": "string"}))
    await api.send("PATCH", ONE, {"spec": {"versions": [strict]}}, content_type=MERGE)

    before = owners(api)
    await api.send("PATCH", f"{THINGS}/a", {"metadata": {"labels": {"x": "y"}}}, content_type=MERGE)
    status, applied = await api.send("PATCH", f"{THINGS}/a?fieldManager=m", thing(), content_type=APPLY)

    assert (len(before), owners(api)) == (1, [])
    assert status == 500
    assert applied["message"] == (
        "failed to create manager for existing fields: failed to convert new object (default/a; example.com/v1, "
        "Kind=Thing) to smd typed: .spec.s: expected string, got &value.valueUnstructured{Value:5}"
    )


async def test_what_is_forgiven_is_told_beside_complaints_too(api: Api) -> None:
    await established(api, a_definition(a_version(schema=spec_schema(a={"type": "integer"}, b={"type": "integer"}))))
    await api.send("POST", THINGS, thing(spec={"a": 0, "b": 1}))
    rule = {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 0", "message": "m"}]}
    strict = a_version(schema=spec_schema(a=rule, b=rule))
    await api.send("PATCH", ONE, {"spec": {"versions": [strict]}}, content_type=MERGE)

    answer = await api.raw("PATCH", f"{THINGS}/a", {"spec": {"b": -1}}, content_type=MERGE)

    assert answer.status == 422
    assert answer.headers["Warning"] == '299 - "spec.a: Invalid value: 0: m"'


async def test_true_is_not_one_to_those_who_own_it(api: Api) -> None:
    await established(
        api, a_definition(a_version(schema=spec_schema(f={"x-kubernetes-preserve-unknown-fields": True})))
    )
    await api.send("POST", f"{THINGS}?fieldManager=one", thing(spec={"f": 1}))

    _, answer = await api.send("PATCH", f"{THINGS}/a?fieldManager=two", {"spec": {"f": True}}, content_type=MERGE)

    assert answer["spec"] == {"f": True}
    assert owners(api) == ["one", "two"]


async def test_replicas_of_a_scale_follow_the_rules_of_the_custom_resource(api: Api) -> None:
    scale = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
    await established(api, a_definition(a_version(subresources={"scale": scale})))
    await api.send("POST", THINGS, thing(spec={"replicas": 1}))

    status, answer = await api.send("PATCH", f"{THINGS}/a/scale", {"spec": {"replicas": -1}}, content_type=MERGE)

    assert status == 422
    assert answer["message"] == (
        'Thing.example.com "a" is invalid: .spec.replicas: Invalid value: -1: should be a non-negative integer'
    )


async def test_what_is_reset_of_a_custom_resource_is_reset_in_the_version_that_is_spoken(api: Api) -> None:
    versions = [a_version(name, subresources={"status": {}}) for name in ("v1", "v2")]
    await established(api, a_definition(*versions))
    await api.send("POST", f"{THINGS}?fieldManager=spec", thing(spec={"a": 1}))
    two, path = {"apiVersion": "example.com/v2"}, THINGS.replace("/v1/", "/v2/")
    body = {**thing(status={"b": 1}), **two}
    await api.send("PATCH", f"{path}/a/status?fieldManager=status", body, content_type=APPLY)

    _, live = await api.send("GET", f"{THINGS}/a")
    live.pop("status")
    await api.send("PUT", f"{THINGS}/a?fieldManager=spec", live)

    assert owners(api) == ["spec"]


async def test_a_definition_hides_no_built_in_version_of_its_group(api: Any) -> None:
    group = "/apis/apiextensions.k8s.io"
    definition = a_definition(a_version("v1"), a_version("vx"), group="apiextensions.k8s.io")
    definition["spec"]["names"] = {"plural": "bars", "singular": "bar", "kind": "Bar"}
    approved = {"api-approved.kubernetes.io": "https://example.com/review"}
    definition["metadata"] = {"name": "bars.apiextensions.k8s.io", "annotations": approved}
    await established(api, definition)

    names = {}
    for version in ("v1", "vx"):
        _, listed = await api.send("GET", f"{group}/{version}")
        names[version] = {one["name"] for one in listed["resources"]}
    hidden, _ = await api.send("GET", f"{group}/v1/namespaces/default/bars")
    shown, _ = await api.send("GET", f"{group}/vx/namespaces/default/bars")

    assert names == {"v1": {"customresourcedefinitions", "customresourcedefinitions/status"}, "vx": {"bars"}}
    assert (hidden, shown) == (404, 200)

"""Objects that are alike are worked out once, and nobody can tell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest

from haven.api import strategies
from haven.api.core import v1 as core
from haven.api.likeness import TEXT_OR_NOTHING, Free, Likeness
from haven.api.scheme import resource_of
from haven.apimachinery import serialization, times
from haven.apimachinery.apierrors import GroupResource
from haven.apimachinery.codecs import protobuf
from haven.apiserver.registry.outlines import Outline, take_apart
from haven.apiserver.registry.recipes import Recipes
from haven.apiserver.registry.repeating import Repeating
from haven.clock import SystemClock

PODS = "/api/v1/namespaces/default/pods"
MAPS = "/api/v1/namespaces/default/configmaps"
LESSONS = 4
"""How many go the long way: their fields are seen, they themselves, one that teaches, and one that proves."""


def body(name: str, **spec: Any) -> dict[str, Any]:
    containers = [
        {
            "name": "web",
            "image": "example.com/web:1",
            "args": ["--first", "1"],
            "env": [{"name": "A", "value": "1"}],
            "ports": [{"containerPort": 80}],
        }
    ]
    metadata = {"name": name, "labels": {"app": "web"}, "annotations": {"example.com/note": "some"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers, **spec}}


def stored(api: Any, name: str, plural: str = "pods") -> dict[str, Any]:
    """An object as the store has it, managedFields included."""
    entry = api.server.storages.of(GroupResource("", plural)).get("default", name)
    assert entry is not None
    assert entry.data == orjson.dumps(orjson.loads(entry.data))
    return dict(json.loads(entry.data))


def comparable(obj: dict[str, Any]) -> dict[str, Any]:
    """An object without what differs from one to the next."""
    volumes = obj.get("spec", {}).get("volumes")
    result = json.loads(json.dumps(obj).replace(volumes[-1]["name"], "token") if volumes else json.dumps(obj))
    for field in ("name", "uid", "resourceVersion", "creationTimestamp"):
        result["metadata"].pop(field, None)
    for entry in result["metadata"].get("managedFields", ()):
        del entry["time"]
    return dict(result)


@pytest.fixture
def moment(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds since 1970, which stand still."""
    result = [SystemClock().now_seconds()]
    monkeypatch.setattr(SystemClock, "now_seconds", lambda _: result[0])
    return result


@pytest.fixture
async def made(api: Any, moment: list[float], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An account for pods, and a note for each object that was made by a recipe."""
    await api.send("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    notes: list[str] = []
    again = Repeating.again

    async def noted(self: Repeating, request: Any, endpoint: Any, admission: Any, lesson: Any) -> Any:
        result = await again(self, request, endpoint, admission, lesson)
        if result is not None:
            notes.append(lesson.name)
        return result

    monkeypatch.setattr(Repeating, "again", noted)
    return notes


@contextmanager
def the_long_way() -> Iterator[None]:
    """No recipes inside."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recipes, "look", lambda *_: None)
        yield


async def learn(api: Any, path: str = PODS, text: Any = body) -> None:
    for number in range(LESSONS):
        status, answer = await api.send("POST", path, text(f"lesson-{number}"), content_type="application/json")
        assert status == 201, answer


async def test_the_fifth_pod_of_a_template_is_made_by_its_recipe_and_equals_the_first(
    api: Any, made: list[str]
) -> None:
    pods = []
    for name in ("a", "b", "c", "d", "e", "f"):
        status, pod = await api.send("POST", PODS, body(name), content_type="application/json")
        assert status == 201, pod
        assert pod["metadata"]["name"] == name
        pods.append(stored(api, name))
    assert made == ["e", "f"]
    assert len({pod["metadata"]["uid"] for pod in pods}) == 6
    assert len({pod["spec"]["volumes"][-1]["name"] for pod in pods}) == 6
    assert all(comparable(pod) == comparable(pods[0]) for pod in pods)


async def test_generated_names_are_made_anew(api: Any, made: list[str]) -> None:
    template = body("x")
    template["metadata"] = {"generateName": "web-"}
    names = set()
    for _ in range(6):
        status, pod = await api.send("POST", PODS, template, content_type="application/json")
        assert status == 201, pod
        assert pod["metadata"]["name"].startswith("web-")
        names.add(pod["metadata"]["name"])
    assert len(names) == 6
    assert made == ["", ""]


async def test_a_field_manager_owns_the_fields_of_its_own_pods(api: Any, made: list[str]) -> None:
    for number in range(5):
        for manager in ("one", "two"):
            path = f"{PODS}?fieldManager={manager}"
            await api.send("POST", path, body(f"{manager}-{number}"), content_type="application/json")
            pod = stored(api, f"{manager}-{number}")
            assert [entry["manager"] for entry in pod["metadata"]["managedFields"]] == [manager]
    assert made == ["two-3", "one-4", "two-4"]


async def test_a_bad_pod_is_refused_every_time(api: Any, made: list[str]) -> None:
    for number in range(6):
        status, answer = await api.send("POST", PODS, body(f"p{number}", restartPolicy="Sometimes"))
        assert status == 422
        assert answer["details"]["causes"][0]["field"] == "spec.restartPolicy"


@pytest.mark.parametrize("name", ["Upper", "-x", "x.", "a..b"])
async def test_a_bad_name_is_refused_though_the_recipe_is_known(api: Any, made: list[str], name: str) -> None:
    await learn(api)
    status, answer = await api.send("POST", PODS, body(name), content_type="application/json")
    assert status == 422
    assert answer["details"]["causes"][0]["field"] == "metadata.name"


async def test_a_name_that_is_taken_is_refused_though_the_recipe_is_known(api: Any, made: list[str]) -> None:
    await learn(api)
    assert (await api.send("POST", PODS, body("a"), content_type="application/json"))[0] == 201
    status, answer = await api.send("POST", PODS, body("a"), content_type="application/json")
    assert (status, answer["reason"], answer["message"]) == (409, "AlreadyExists", 'pods "a" already exists')
    assert made == ["a"]


async def test_warnings_come_every_time(api: Any, made: list[str]) -> None:
    for number in range(6):
        answer = await api.raw("POST", PODS, body(f"p{number}", unknown=1), content_type="application/json")
        assert 'unknown field \\"spec.unknown\\"' in answer.headers["Warning"]
    for number in range(6):
        answer = await api.raw("POST", PODS, body(f"a.p{number}"), content_type="application/json")
        assert "a DNS label is recommended" in answer.headers["Warning"]


async def test_a_name_given_twice_is_complained_of_every_time(api: Any, made: list[str]) -> None:
    for number in range(6):
        text = json.dumps(body(f"p{number}")).replace('"labels"', '"name": "last", "labels"').encode()
        status, answer = await api.send("POST", f"{PODS}?fieldValidation=Strict", text)
        assert status == 400
        assert "duplicate field" in answer["message"]
    assert made == []


NASTY = [
    "", "latest", "a:latest", "A:Latest", "example.com/b:2", "b", "b@sha256:" + "0" * 64, "b:latest@sha256:" + "0" * 64,
    " x:1", "x:1 ", "ä", "\u2028", "😀", "a\nb", 'a"b', "a\\b", "a/b", "\x7f", "x" * 63, "x" * 64, "-x", "x.y_z-1",
    "$(A)", "gap-0", "web", "kube-api-access-abcde", "1", "true", "null", "\t\r\b\f", "\x01",
]  # fmt: skip
PLACES = {
    "label": ("metadata", "labels", "app"),
    "annotation": ("metadata", "annotations", "example.com/note"),
    "image": ("spec", "containers", 0, "image"),
    "variable": ("spec", "containers", 0, "env", 0, "value"),
    "argument": ("spec", "containers", 0, "args", 1),
    "container": ("spec", "containers", 0, "name"),
}


@pytest.mark.parametrize("escaped", [False, True])
@pytest.mark.parametrize("place", PLACES)
async def test_whatever_a_value_is_the_pod_is_the_one_that_the_long_way_gives(
    api: Any, made: list[str], place: str, escaped: bool
) -> None:
    await learn(api)
    for number, value in enumerate(NASTY):
        tree: Any = body(f"by-recipe-{number}")
        at = tree
        *outer, last = PLACES[place]
        for step in outer:
            at = at[step]
        at[last] = value
        text = json.dumps(tree, ensure_ascii=escaped).encode()
        other = text.replace(b"by-recipe", b"long-way")

        answer = await api.raw("POST", PODS, text, content_type="application/json")
        with the_long_way():
            expected = await api.raw("POST", PODS, other, content_type="application/json")

        assert (answer.status, answer.headers.get("Warning")) == (expected.status, expected.headers.get("Warning"))
        if answer.status == 201:
            pods = [stored(api, f"{name}-{number}") for name in ("by-recipe", "long-way")]
            assert comparable(pods[0]) == comparable(pods[1]), value
        else:
            assert answer.body.replace(b"by-recipe", b"long-way") == expected.body
    assert len(made) == 1 if place == "container" else len(made) > 1


async def test_config_maps_are_alike_whatever_their_data(api: Any, made: list[str]) -> None:
    def text(name: str, value: str = "v") -> dict[str, Any]:
        return {"kind": "ConfigMap", "metadata": {"name": name, "labels": {"a": "b"}}, "data": {"k": value, "l": "m"}}

    await learn(api, MAPS, text)
    for number, value in enumerate(NASTY):
        status, answer = await api.send("POST", MAPS, text(f"m{number}", value), content_type="application/json")
        assert (status, answer["data"]["k"]) == (201, value)
        with the_long_way():
            assert (await api.send("POST", MAPS, text(f"n{number}", value)))[0] == 201
        one, other = (stored(api, f"{name}{number}", "configmaps") for name in "mn")
        assert comparable(one) == comparable(other)
    assert len(made) > 20


EVENT_TEXTS = [
    *NASTY, "2026-01-01T00:00:00Z", "2026-01-31T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00.5Z",
    "2026-05-05T05:05:05.123456Z",
]  # fmt: skip


@pytest.mark.parametrize("micro", [False, True])
@pytest.mark.parametrize("field", ["message", "name", "fieldPath", "time"])
async def test_events_are_alike_whatever_they_are_about(api: Any, made: list[str], field: str, micro: bool) -> None:
    def text(name: str, /, **values: str) -> dict[str, Any]:
        about = {"kind": "Pod", "namespace": "default", "name": "p", "fieldPath": "f", "uid": name}
        about |= {key: value for key, value in values.items() if key in about}
        time = values.get("time", "2026-01-02T03:04:05" + (".000006Z" if micro else "Z"))
        times = {"eventTime": time} if micro else {"firstTimestamp": time, "lastTimestamp": time}
        reported = {"reportingComponent": "example.com/c", "reportingInstance": "i", "action": "A", "reason": "R"}
        message = values.get("message", "some")
        return {"metadata": {"name": name}, "involvedObject": about, "message": message, **times, **reported}

    events = "/api/v1/namespaces/default/events"
    await learn(api, events, text)
    for number, value in enumerate([*EVENT_TEXTS, "x" * 1000, "x" * 1024, "x" * 1025]):
        name = f"by-recipe-{number}"
        body = json.dumps(text(name, **{field: value})).encode()
        answer = await api.raw("POST", events, body, content_type="application/json")
        with the_long_way():
            other = body.replace(b"by-recipe", b"long-way")
            expected = await api.raw("POST", events, other, content_type="application/json")
        assert (answer.status, answer.headers.get("Warning")) == (expected.status, expected.headers.get("Warning"))
        if answer.status == 201:
            one, two = comparable(stored(api, name, "events")), comparable(stored(api, f"long-way-{number}", "events"))
            one["involvedObject"].pop("uid"), two["involvedObject"].pop("uid")
            assert one == two, value
    assert made
    _, found = await api.send("GET", f"{events}?fieldSelector=involvedObject.uid={made[0]}")
    assert [item["metadata"]["name"] for item in found["items"]] == [made[0]]


async def test_objects_of_which_nobody_owns_anything_are_alike(api: Any, made: list[str]) -> None:
    for number in range(6):
        text = {"metadata": {"name": f"m{number}"}}
        status, answer = await api.send("POST", MAPS, text, content_type="application/json")
        assert status == 201
        assert "managedFields" not in answer["metadata"]
    assert made == ["m4", "m5"]


async def test_admission_sees_every_pod(api: Any, made: list[str]) -> None:
    await learn(api)
    quota = {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "6"}}, "status": {"hard": {"pods": "6"}}}
    quotas = "/api/v1/namespaces/default/resourcequotas"
    assert (await api.send("POST", quotas, quota))[0] == 201
    status = {"status": {"hard": {"pods": "6"}, "used": {"pods": "4"}}}
    merge = "application/merge-patch+json"
    assert (await api.send("PATCH", f"{quotas}/few/status", status, content_type=merge))[0] == 200
    for name, expected in (("a", 201), ("b", 201), ("c", 403)):
        assert (await api.send("POST", PODS, body(name), content_type="application/json"))[0] == expected
    assert made == ["a", "b"]
    assert (await api.send("GET", f"{quotas}/few"))[1]["status"]["used"] == {"pods": "6"}
    assert (await api.send("DELETE", f"{quotas}/few"))[0] == 200

    await api.send("DELETE", "/api/v1/namespaces/default/serviceaccounts/default")
    account = {"metadata": {"name": "default"}, "imagePullSecrets": [{"name": "pull"}]}
    assert (await api.send("POST", "/api/v1/namespaces/default/serviceaccounts", account))[0] == 201
    status_code, pod = await api.send("POST", PODS, body("d"), content_type="application/json")
    assert (status_code, pod["spec"]["imagePullSecrets"]) == (201, [{"name": "pull"}])

    enforced = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    assert (await api.send("PATCH", "/api/v1/namespaces/default", enforced, content_type=merge))[0] == 200
    status_code, answer = await api.send("POST", PODS, body("e"), content_type="application/json")
    assert (status_code, answer["reason"]) == (403, "Forbidden")


async def test_a_priority_class_that_comes_later_counts(api: Any, made: list[str]) -> None:
    await learn(api)
    classes = "/apis/scheduling.k8s.io/v1/priorityclasses"
    assert (await api.send("POST", classes, {"metadata": {"name": "p"}, "value": 7, "globalDefault": True}))[0] == 201
    status, pod = await api.send("POST", PODS, body("a"), content_type="application/json")
    assert (status, pod["spec"]["priority"], pod["spec"]["priorityClassName"]) == (201, 7, "p")
    assert made == []


async def test_a_policy_that_comes_later_counts(api: Any, made: list[str]) -> None:
    await learn(api)
    group = "/apis/admissionregistration.k8s.io/v1"
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]
    policy = {
        "metadata": {"name": "p"},
        "spec": {
            "matchConstraints": {"resourceRules": rules},
            "validations": [{"expression": "object.metadata.name != 'bad'"}],
        },
    }
    binding = {"metadata": {"name": "p"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}}
    assert (await api.send("POST", f"{group}/validatingadmissionpolicies", policy))[0] == 201
    assert (await api.send("POST", f"{group}/validatingadmissionpolicybindings", binding))[0] == 201
    for name, expected in (("good", 201), ("bad", 422)):
        assert (await api.send("POST", PODS, body(name), content_type="application/json"))[0] == expected
    assert made == []


async def test_only_webhooks_that_want_pods_stop_recipes(api: Any, made: list[str]) -> None:
    await learn(api)
    path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    for number, resource in enumerate(("secrets", "pods")):
        hook = {
            "name": "a.example.com",
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "failurePolicy": "Fail",
            "timeoutSeconds": 1,
            "clientConfig": {"url": "https://127.0.0.1:1/"},
            "rules": [{"apiGroups": [""], "apiVersions": ["*"], "operations": ["*"], "resources": [resource]}],
        }
        assert (await api.send("POST", path, {"metadata": {"name": resource}, "webhooks": [hook]}))[0] == 201
        status, _ = await api.send("POST", PODS, body(f"p{number}"), content_type="application/json")
        assert status == (201 if resource == "secrets" else 500)
    assert made == ["p0"]


async def test_labels_that_become_part_of_selectors_are_not_free(api: Any, made: list[str]) -> None:
    def spread(name: str, label: str = "web") -> dict[str, Any]:
        constraint = {
            "maxSkew": 1,
            "topologyKey": "zone",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"a": "b"}},
            "matchLabelKeys": ["app"],
        }
        tree = body(name, topologySpreadConstraints=[constraint])
        tree["metadata"]["labels"]["app"] = label
        return tree

    await learn(api, text=spread)
    status, pod = await api.send("POST", PODS, spread("a", "other"), content_type="application/json")
    assert status == 201
    requirement = pod["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchExpressions"][0]
    assert requirement == {"key": "app", "operator": "In", "values": ["other"]}


async def test_times_are_the_pods_own(api: Any, made: list[str], moment: list[float]) -> None:
    for number in range(6):
        moment[0] += 1
        text = body(f"p{number}", schedulingGates=[{"name": "example.com/gate"}])
        status, pod = await api.send("POST", PODS, text, content_type="application/json")
        assert status == 201
        now = times.format_time(moment[0])
        assert pod["status"]["conditions"][0]["lastTransitionTime"] == pod["metadata"]["creationTimestamp"] == now
        assert stored(api, f"p{number}")["metadata"]["managedFields"][0]["time"] == now
    assert made == ["p4", "p5"]


async def test_typed_objects_of_this_process_have_recipes_too(api: Any, made: list[str]) -> None:
    client = api.server.local_client()
    resource = resource_of(core.Pod)
    pods = []
    for number in range(6):
        pod = serialization.convert(body(f"p{number}"), core.Pod)
        pod.metadata.namespace = "default"
        pods.append(await client.create(resource, pod, namespace="default"))
    assert [pod.metadata.name for pod in pods] == [f"p{number}" for number in range(6)]
    assert made == ["p4", "p5"]
    assert all(pod.spec.containers[0].image_pull_policy == "IfNotPresent" for pod in pods)
    assert comparable(stored(api, "p5")) == comparable(stored(api, "p0"))


async def test_protobuf_has_recipes_too(api: Any, made: list[str]) -> None:
    for number in range(6):
        data = protobuf.from_json(json.dumps(body(f"p{number}")).encode())
        answer = await api.raw("POST", PODS, data, content_type="application/vnd.kubernetes.protobuf")
        assert answer.status == 201, answer.body
    assert made == ["p4", "p5"]
    assert comparable(stored(api, "p5")) == comparable(stored(api, "p0"))


async def test_selectors_find_what_recipes_made(api: Any, made: list[str]) -> None:
    await learn(api)
    other = body("other")
    other["metadata"]["labels"]["app"] = "other"
    assert (await api.send("POST", PODS, other, content_type="application/json"))[0] == 201
    assert made == ["other"]
    for query, expected in (("labelSelector=app=other", 1), ("fieldSelector=status.phase=Pending", LESSONS + 1)):
        _, found = await api.send("GET", f"{PODS}?{query}")
        assert len(found["items"]) == expected


@pytest.mark.parametrize("rest", ['"', '"x', '"x"', "x", "}", '\\"'])
async def test_what_follows_the_body_is_complained_of_though_the_recipe_is_known(
    api: Any, made: list[str], rest: str
) -> None:
    await learn(api)
    text = (json.dumps(body("a")) + rest).encode()
    status, answer = await api.send("POST", PODS, text, content_type="application/json")
    assert (status, answer["reason"]) == (400, "BadRequest")
    assert made == []


def test_a_body_taken_apart_can_be_put_together() -> None:
    text = json.dumps(body('a"b\\', unicode="ä€😀", nested=[["x"], {"y": "z\n"}])).encode()

    outline, strings = take_apart(text)

    gaps = outline.split(b'"')
    assert b"".join(b'%b"%b"' % pair for pair in zip(gaps, strings, strict=False)) + gaps[-1] == text


def test_the_place_of_every_value_is_known() -> None:
    tree = {"a": ["b", {"c": "d", "e": [["f"], 1, "g"]}], "metadata": {"name": "h"}, "i": {"j": "k:,{}[]"}}
    text, strings = take_apart(json.dumps(tree, indent=1).encode())
    likeness = Likeness(lambda _: (Free(("metadata", "name"), TEXT_OR_NOTHING), Free(("a", "*"), TEXT_OR_NOTHING)))
    outline = Outline(text)

    plan = outline.plan(strings, likeness) or outline.plan(strings, likeness)

    assert plan is not None
    places = {strings[place].decode(): path for place, path in plan.paths.items()}
    assert places == {
        "b": ("a", 0), "d": ("a", 1, "c"), "f": ("a", 1, "e", 0, 0), "g": ("a", 1, "e", 2), "h": ("metadata", "name"),
        "k:,{}[]": ("i", "j"),
    }  # fmt: skip
    assert [strings[place] for place in plan.free] == [b"b", b"h"]


@pytest.mark.parametrize("plural", ["pods", "configmaps"])
def test_rules_let_through_only_what_the_encoder_writes_in_the_same_way(plural: str) -> None:
    likeness = strategies.strategy_for(resource_of(core.Pod if plural == "pods" else core.ConfigMap)).likeness
    assert likeness is not None
    text, strings = take_apart(b'{"metadata":{"name":"n","annotations":{"a":"x"}}}')
    outline = Outline(text)
    plan = outline.plan(strings, likeness) or outline.plan(strings, likeness)
    assert plan is not None
    place = next(place for place, path in plan.paths.items() if path[1] == "annotations")
    for value in (*NASTY, *map(chr, range(1, 0x180))):
        for one in (json.dumps(value), json.dumps(value, ensure_ascii=False), json.dumps(value).replace("/", "\\/")):
            inside = one[1:-1].encode()
            if not plan.held([inside if number == place else old for number, old in enumerate(strings)]):
                assert serialization.encode(value) == b'"%b"' % inside

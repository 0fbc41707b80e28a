"""Admission webhooks, asked over TLS by a server in memory."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from haven.apiserver import patience
from haven.apiserver.request import Request, UserInfo

from ..conftest import Api
from .conftest import Hook

GROUP = "/apis/admissionregistration.k8s.io/v1"
MAPS = "/api/v1/namespaces/default/configmaps"
Judge = Callable[[dict[str, Any]], dict[str, Any]]


class Asked:
    """A webhook with an answer for each path; it remembers the requests of the reviews."""

    def __init__(self, hook: Hook) -> None:
        self.hook = hook
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.judges: dict[str, Judge] = {}
        self.version = "v1"
        hook.answer = self._answer

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        review = json.loads(self.hook.requests[-1][1])
        self.requests.append(review["request"])
        self.paths.append(request.path)
        judge = self.judges.get(request.path, lambda _: {"allowed": True})
        response = {"uid": review["request"]["uid"], **judge(review["request"])}
        return web.json_response({"kind": "AdmissionReview", "apiVersion": review["apiVersion"], "response": response})


@pytest.fixture
def asked(hook: Hook) -> Asked:
    return Asked(hook)


def a_hook(hook: Hook, name: str = "a.example.com", path: str = "/a", **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "clientConfig": {"url": hook.url(path), "caBundle": base64.b64encode(hook.ca).decode()},
        "rules": [
            {"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}
        ],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 5,
        **changes,
    }


async def configure(api: Api, kind: str, *hooks: dict[str, Any], name: str = "config") -> None:
    plural = kind.lower() + "webhookconfigurations"
    body = {"metadata": {"name": name}, "webhooks": list(hooks)}
    status, answer = await api.send("POST", f"{GROUP}/{plural}", body)
    assert status == 201, answer


def patch(*operations: dict[str, Any]) -> dict[str, Any]:
    data = base64.b64encode(json.dumps(operations).encode()).decode()
    return {"allowed": True, "patch": data, "patchType": "JSONPatch"}


def a_map(name: str = "m", **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **metadata}, "data": {"k": "v"}}


def labelled(key: str, value: str = "yes") -> Judge:
    def judge(request: dict[str, Any]) -> dict[str, Any]:
        labels = {**request["object"]["metadata"].get("labels", {}), key: value}
        return patch({"op": "add", "path": "/metadata/labels", "value": labels})

    return judge


async def test_a_review_tells_everything_about_the_request(api: Api, asked: Asked) -> None:
    await configure(api, "Validating", a_hook(asked.hook))

    status, _ = await api.send("POST", f"{MAPS}?fieldManager=me", a_map())

    assert status == 201
    request = asked.requests[0]
    uid = request.pop("uid")
    assert len(uid) == 36
    obj = request.pop("object")
    assert (obj["kind"], obj["apiVersion"], obj["data"]) == ("ConfigMap", "v1", {"k": "v"})
    assert obj["metadata"]["uid"]
    assert request == {
        "kind": {"group": "", "version": "v1", "kind": "ConfigMap"},
        "resource": {"group": "", "version": "v1", "resource": "configmaps"},
        "requestKind": {"group": "", "version": "v1", "kind": "ConfigMap"},
        "requestResource": {"group": "", "version": "v1", "resource": "configmaps"},
        "name": "m",
        "namespace": "default",
        "operation": "CREATE",
        "userInfo": {"username": "admin", "groups": ["system:masters"]},
        "oldObject": None,
        "dryRun": False,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "me"},
    }


async def test_a_denial_says_who_and_why(api: Api, asked: Asked) -> None:
    asked.judges["/a"] = lambda _: {"allowed": False, "status": {"code": 418, "message": "no tea", "reason": "Teapot"}}
    await configure(api, "Validating", a_hook(asked.hook))

    status, answer = await api.send("POST", MAPS, a_map())

    assert status == 418
    assert answer["message"] == 'admission webhook "a.example.com" denied the request: no tea'
    assert (answer["reason"], answer["code"]) == ("Teapot", 418)


@pytest.mark.parametrize(
    ("response", "text"),
    [
        ({"allowed": False}, "denied the request without explanation"),
        ({"allowed": False, "status": {"reason": "Because", "code": 200}}, "denied the request: Because"),
    ],
)
async def test_a_denial_without_a_code_is_a_bad_request(
    api: Api, asked: Asked, response: dict[str, Any], text: str
) -> None:
    asked.judges["/a"] = lambda _: response
    await configure(api, "Validating", a_hook(asked.hook))

    status, answer = await api.send("POST", MAPS, a_map())

    assert status == 400
    assert answer["message"] == f'admission webhook "a.example.com" {text}'


async def test_a_patch_changes_the_object(api: Api, asked: Asked) -> None:
    asked.judges["/a"] = labelled("touched")
    await configure(api, "Mutating", a_hook(asked.hook))

    status, answer = await api.send("POST", MAPS, a_map())

    assert status == 201
    assert answer["metadata"]["labels"] == {"touched": "yes"}


async def test_a_patched_object_is_defaulted_again(api: Api, asked: Asked) -> None:
    container = {"name": "side", "image": "side:1"}
    asked.judges["/a"] = lambda _: patch({"op": "add", "path": "/spec/containers/-", "value": container})
    rules = [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]
    await configure(api, "Mutating", a_hook(asked.hook, rules=rules))
    await api.send("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "c:1"}]}}

    status, answer = await api.send("POST", "/api/v1/namespaces/default/pods", pod)

    assert status == 201, answer
    side = answer["spec"]["containers"][1]
    assert (side["imagePullPolicy"], side["terminationMessagePath"]) == ("IfNotPresent", "/dev/termination-log")
    assert any(mount["name"].startswith("kube-api-access") for mount in side["volumeMounts"]), (
        "built-in plugins see the change as well"
    )


async def test_a_patch_that_makes_no_sense_is_an_internal_error(api: Api, asked: Asked) -> None:
    asked.judges["/a"] = lambda _: patch({"op": "replace", "path": "/data", "value": "text"})
    await configure(api, "Mutating", a_hook(asked.hook))

    status, answer = await api.send("POST", MAPS, a_map())

    assert status == 500
    assert answer["message"].startswith("Internal error occurred: ")


async def test_a_patched_object_is_validated(api: Api, asked: Asked) -> None:
    asked.judges["/a"] = labelled("bad key!")
    await configure(api, "Mutating", a_hook(asked.hook))

    status, answer = await api.send("POST", MAPS, a_map())

    assert status == 422
    assert "metadata.labels" in answer["message"]


async def test_webhooks_are_asked_by_name_of_their_configuration_and_see_changes(api: Api, asked: Asked) -> None:
    asked.judges |= {"/a": labelled("a"), "/b": labelled("b")}
    await configure(api, "Mutating", a_hook(asked.hook, "b.example.com", "/b"), name="2")
    await configure(api, "Mutating", a_hook(asked.hook, "a.example.com", "/a"), name="1")

    _, answer = await api.send("POST", MAPS, a_map())

    assert asked.paths == ["/a", "/b"]
    assert asked.requests[1]["object"]["metadata"]["labels"] == {"a": "yes"}
    assert answer["metadata"]["labels"] == {"a": "yes", "b": "yes"}


async def test_a_webhook_is_asked_again_if_it_wants_to_see_later_changes(api: Api, asked: Asked) -> None:
    asked.judges |= {"/b": labelled("b")}
    await configure(
        api,
        "Mutating",
        a_hook(asked.hook, "a.example.com", "/a", reinvocationPolicy="IfNeeded"),
        a_hook(asked.hook, "never.example.com", "/never"),
        a_hook(asked.hook, "b.example.com", "/b", reinvocationPolicy="IfNeeded"),
    )

    await api.send("POST", MAPS, a_map())

    assert asked.paths == ["/a", "/never", "/b", "/a"]
    assert asked.requests[3]["object"]["metadata"]["labels"] == {"b": "yes"}


async def test_nobody_is_asked_again_if_nothing_changed(api: Api, asked: Asked) -> None:
    asked.judges |= {"/a": labelled("a")}
    await configure(api, "Mutating", a_hook(asked.hook, "a.example.com", "/a", reinvocationPolicy="IfNeeded"))

    await api.send("POST", MAPS, a_map())

    assert asked.paths == ["/a"]


async def test_a_webhook_that_cannot_be_asked_refuses_by_default(api: Api, asked: Asked) -> None:
    away = {"url": "https://127.0.0.1:1/x"}
    await configure(api, "Validating", a_hook(asked.hook, clientConfig=away))

    status, answer = await api.send("POST", MAPS, a_map())

    text = (
        'failed calling webhook "a.example.com": failed to call webhook: Post "https://127.0.0.1:1/x?timeout=5s": '
        "dial tcp 127.0.0.1:1: connect: connection refused"
    )
    assert status == 500
    assert answer["message"] == f"Internal error occurred: {text}"
    assert answer["reason"] == "InternalError"
    assert answer["details"]["causes"] == [{"message": text}]


async def test_a_webhook_that_cannot_be_asked_may_be_ignored(api: Api, asked: Asked) -> None:
    away = {"url": "https://127.0.0.1:1/x"}
    for kind in ("Validating", "Mutating"):
        await configure(api, kind, a_hook(asked.hook, clientConfig=away, failurePolicy="Ignore"))

    request = Request("POST", MAPS, {}, {}, json.dumps(a_map()).encode(), local=True, user=_ADMIN)
    response = await api.server.chain.handle(request)

    assert response.status == 201
    assert request.audit_annotations["failed-open.validating.webhook.admission.k8s.io/round_0_index_0"] == (
        "a.example.com"
    )
    assert "failed-open.mutation.webhook.admission.k8s.io/round_0_index_0" in request.audit_annotations


_ADMIN = UserInfo("admin", groups=("system:masters",))


async def test_what_becomes_of_webhooks_is_counted(api: Api, asked: Asked) -> None:
    asked.judges["/a"] = lambda _: {"allowed": False}
    away = {"url": "https://127.0.0.1:1/x"}
    await configure(api, "Mutating", a_hook(asked.hook, "away.example.com", clientConfig=away, failurePolicy="Ignore"))
    await configure(api, "Validating", a_hook(asked.hook))

    await api.send("POST", MAPS, a_map())

    text = (await api.raw("GET", "/metrics")).body.decode()
    for line in (
        'apiserver_admission_webhook_fail_open_count{name="away.example.com",type="admit"} 1',
        'apiserver_admission_webhook_rejection_count{error_type="no_error",name="a.example.com",operation="CREATE",'
        'rejection_code="400",type="validating"} 1',
        'apiserver_admission_webhook_request_total{code="503",name="away.example.com",operation="CREATE",'
        'rejected="false",type="admit"} 1',
    ):
        assert line in text


async def test_conditions_that_do_not_hold_are_counted(api: Api, asked: Asked) -> None:
    conditions = [{"name": "fails", "expression": "object.data.no == '1'"}, {"name": "false", "expression": "false"}]
    await configure(api, "Validating", a_hook(asked.hook, matchConditions=conditions))

    await api.send("POST", MAPS, a_map())

    text = (await api.raw("GET", "/metrics")).body.decode()
    labels = '{kind="webhook",name="a.example.com",operation="CREATE",type="validate"} 1'
    for name in ("evaluation_errors_total", "evaluation_seconds_count", "exclusions_total"):
        assert f"apiserver_admission_match_condition_{name}{labels}" in text
    assert asked.requests == []


async def test_a_slow_webhook_exceeds_its_timeout(api: Api, asked: Asked) -> None:
    async def slow(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    asked.hook.answer = slow
    await configure(api, "Validating", a_hook(asked.hook, timeoutSeconds=1))

    status, answer = await api.send("POST", MAPS, a_map())

    assert status == 500
    assert answer["message"].endswith('?timeout=1s": context deadline exceeded')


@pytest.mark.parametrize(("seconds", "told"), [(20, "20s"), (50, "30s")])
async def test_no_webhook_is_asked_for_longer_than_the_client_waits(
    api: Api, asked: Asked, seconds: float, told: str
) -> None:
    await configure(api, "Validating", a_hook(asked.hook, timeoutSeconds=30))

    with patience.within(seconds):
        status, _ = await api.send("POST", MAPS, a_map())

    assert status == 201
    assert [request.path_qs for request, _ in asked.hook.requests] == [f"/a?timeout={told}"]


async def test_a_dry_run_is_not_shown_to_webhooks_with_side_effects(api: Api, asked: Asked) -> None:
    await configure(api, "Validating", a_hook(asked.hook, sideEffects="NoneOnDryRun"))
    beta = a_hook(asked.hook, sideEffects="None")

    status, _ = await api.send("POST", f"{MAPS}?dryRun=All", a_map())

    assert status == 201
    assert asked.requests[0]["dryRun"] is True
    assert beta["sideEffects"] == "None"


@pytest.mark.parametrize(
    ("selectors", "labels", "is_asked"),
    [
        ({"objectSelector": {"matchLabels": {"a": "1"}}}, {"a": "1"}, True),
        ({"objectSelector": {"matchLabels": {"a": "1"}}}, {"a": "2"}, False),
        ({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}, {}, True),
        ({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "other"}}}, {}, False),
    ],
)
async def test_selectors_choose(
    api: Api, asked: Asked, selectors: dict[str, Any], labels: dict[str, str], is_asked: bool
) -> None:
    await configure(api, "Validating", a_hook(asked.hook, **selectors))

    await api.send("POST", MAPS, a_map(labels=labels))

    assert bool(asked.requests) == is_asked


async def test_an_object_that_loses_its_label_is_still_shown(api: Api, asked: Asked) -> None:
    await configure(api, "Validating", a_hook(asked.hook, objectSelector={"matchLabels": {"a": "1"}}))
    await api.send("POST", MAPS, a_map(labels={"a": "1"}))

    await api.send("PUT", f"{MAPS}/m", a_map())

    assert [request["operation"] for request in asked.requests] == ["CREATE", "UPDATE"]
    assert asked.requests[1]["oldObject"]["metadata"]["labels"] == {"a": "1"}


async def test_an_equivalent_version_is_shown_as_the_rule_names_it(api: Api, asked: Asked) -> None:
    rules = [
        {"operations": ["CREATE"], "apiGroups": ["autoscaling"], "apiVersions": ["v1"],
         "resources": ["horizontalpodautoscalers"]}
    ]  # fmt: skip
    await configure(api, "Mutating", a_hook(asked.hook, rules=rules))
    asked.judges["/a"] = lambda _: patch({"op": "replace", "path": "/spec/targetCPUUtilizationPercentage", "value": 33})
    target = {"type": "Utilization", "averageUtilization": 50}
    metric = {"type": "Resource", "resource": {"name": "cpu", "target": target}}
    scaler = {
        "metadata": {"name": "h"},
        "spec": {
            "maxReplicas": 3,
            "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"},
            "metrics": [metric],
        },
    }

    status, answer = await api.send("POST", "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers", scaler)

    assert status == 201, answer
    request = asked.requests[0]
    assert (request["kind"]["version"], request["requestKind"]["version"]) == ("v1", "v2")
    assert request["object"]["apiVersion"] == "autoscaling/v1"
    assert answer["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 33


async def test_an_exact_rule_does_not_see_other_versions(api: Api, asked: Asked) -> None:
    rules = [{"operations": ["*"], "apiGroups": ["events.k8s.io"], "apiVersions": ["v1"], "resources": ["events"]}]
    await configure(api, "Validating", a_hook(asked.hook, rules=rules, matchPolicy="Exact"))
    event = {"metadata": {"name": "e"}, "involvedObject": {"namespace": "default"}}

    status, answer = await api.send("POST", "/api/v1/namespaces/default/events", event)

    assert status == 201, answer
    assert not asked.requests


async def test_a_delete_is_shown_with_the_old_object(api: Api, asked: Asked) -> None:
    rules = [{"operations": ["DELETE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]
    asked.judges["/a"] = lambda _: {"allowed": False, "status": {"message": "keep it"}}
    await configure(api, "Validating", a_hook(asked.hook, rules=rules))
    await api.config_map("m")

    status, _ = await api.send("DELETE", f"{MAPS}/m")

    assert status == 400
    request = asked.requests[0]
    assert (request["operation"], request["object"], request["oldObject"]["data"]) == ("DELETE", None, {"k": "v"})
    assert request["options"] == {"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"}
    assert (await api.send("GET", f"{MAPS}/m"))[0] == 200


async def test_a_namespace_is_deleted_as_the_one_that_was_there(api: Api, asked: Asked) -> None:
    rules = [{"operations": ["DELETE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["namespaces"]}]
    asked.judges["/a"] = lambda _: {"allowed": False}
    await configure(api, "Validating", a_hook(asked.hook, rules=rules))
    _, made = await api.send("POST", "/api/v1/namespaces", {"metadata": {"name": "mine"}})

    await api.send("DELETE", "/api/v1/namespaces/mine")

    assert asked.requests[0]["options"]["preconditions"] == {"uid": made["metadata"]["uid"]}


async def test_who_judges_a_scale_sees_no_owners_of_fields(api: Api, asked: Asked) -> None:
    rules = [{"operations": ["*"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments/scale"]}]
    await configure(api, "Validating", a_hook(asked.hook, rules=rules))
    path = "/apis/apps/v1/namespaces/default/deployments"
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    await api.send("POST", path, {"metadata": {"name": "d"}, "spec": spec})

    await api.send("PATCH", f"{path}/d/scale", {"spec": {"replicas": 3}}, content_type="application/merge-patch+json")

    request = asked.requests[0]
    assert ["managedFields" in request[name]["metadata"] for name in ("object", "oldObject")] == [False, False]


async def test_a_scale_is_shown_as_such(api: Api, asked: Asked) -> None:
    rules = [{"operations": ["*"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments/scale"]}]
    asked.judges["/a"] = lambda _: patch({"op": "replace", "path": "/spec/replicas", "value": 5})
    await configure(api, "Mutating", a_hook(asked.hook, rules=rules))
    path = "/apis/apps/v1/namespaces/default/deployments"
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    await api.send("POST", path, {"metadata": {"name": "d"}, "spec": spec})

    status, answer = await api.send(
        "PATCH", f"{path}/d/scale", {"spec": {"replicas": 3}}, content_type="application/merge-patch+json"
    )

    assert status == 200, answer
    request = asked.requests[0]
    assert request["kind"] == {"group": "autoscaling", "version": "v1", "kind": "Scale"}
    assert (request["subResource"], request["requestSubResource"]) == ("scale", "scale")
    assert (request["oldObject"]["spec"]["replicas"], request["object"]["spec"]["replicas"]) == (1, 3)
    assert request["options"]["kind"] == "UpdateOptions"
    assert answer["spec"]["replicas"] == 5


async def test_configurations_of_webhooks_are_never_shown(api: Api, asked: Asked) -> None:
    everything = [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]
    asked.judges["/a"] = lambda _: {"allowed": False}
    await configure(api, "Validating", a_hook(asked.hook, rules=everything))

    status, _ = await api.send("DELETE", f"{GROUP}/validatingwebhookconfigurations/config")

    assert status == 200
    assert (await api.send("POST", MAPS, a_map()))[0] == 201
    assert not asked.requests


async def test_v1beta1_is_spoken_when_it_comes_first(api: Api, asked: Asked) -> None:
    await configure(api, "Mutating", a_hook(asked.hook, admissionReviewVersions=["v1beta1", "v1"]))
    asked.judges["/a"] = lambda request: {**labelled("beta")(request), "uid": "", "patchType": None}

    status, answer = await api.send("POST", MAPS, a_map())

    assert status == 201, answer
    assert json.loads(asked.hook.requests[0][1])["apiVersion"] == "admission.k8s.io/v1beta1"
    assert answer["metadata"]["labels"] == {"beta": "yes"}


@pytest.mark.parametrize(
    ("response", "text"),
    [
        ({"uid": "wrong", "allowed": True}, 'got "wrong"'),
        ({"allowed": True, "patch": "W10="}, "validating webhook may not return response.patch"),
        ({"allowed": True, "patchType": "JSONPatch"}, "validating webhook may not return response.patchType"),
    ],
)
async def test_an_answer_that_breaks_the_rules_is_no_answer(
    api: Api, asked: Asked, response: dict[str, Any], text: str
) -> None:
    asked.judges["/a"] = lambda _: response
    await configure(api, "Validating", a_hook(asked.hook))

    status, answer = await api.send("POST", MAPS, a_map())

    assert status == 500
    assert 'failed calling webhook "a.example.com": received invalid webhook response: ' in answer["message"]
    assert answer["message"].endswith(text)


async def test_warnings_reach_the_client_and_annotations_the_audit_log(api: Api, asked: Asked) -> None:
    asked.judges["/a"] = lambda request: {
        **labelled("a")(request), "warnings": ["old field", 'a "quote"'],
        "auditAnnotations": {"seen": "1", "bad key": "2"},
    }  # fmt: skip
    await configure(api, "Mutating", a_hook(asked.hook))
    request = Request("POST", MAPS, {}, {}, json.dumps(a_map()).encode(), local=True, user=_ADMIN)

    response = await api.server.chain.handle(request)

    assert response.headers["Warning"] == '299 - "old field", 299 - "a \\"quote\\""'
    assert request.audit_annotations["a.example.com/seen"] == "1"
    assert "a.example.com/bad key" not in request.audit_annotations
    assert json.loads(request.audit_annotations["mutation.webhook.admission.k8s.io/round_0_index_0"]) == {
        "configuration": "config",
        "webhook": "a.example.com",
        "mutated": True,
    }
    detail = json.loads(request.audit_details["patch.webhook.admission.k8s.io/round_0_index_0"])
    assert detail["patchType"] == "JSONPatch"
    assert detail["patch"][0]["op"] == "add"


async def test_too_many_warnings_are_cut(api: Api, asked: Asked) -> None:
    asked.judges["/a"] = lambda _: {"allowed": True, "warnings": [f"{n}{'x' * 999}" for n in range(9)]}
    await configure(api, "Validating", a_hook(asked.hook))

    answer = await api.raw("POST", MAPS, a_map())

    texts = answer.headers["Warning"].split(", ")
    assert len(texts) == 9
    assert {len(text) for text in texts} == {256 + len('299 - ""')}


async def test_validating_webhooks_are_asked_at_the_same_time(api: Api, asked: Asked) -> None:
    both = asyncio.Event()

    async def meet(request: web.Request) -> web.StreamResponse:
        if len(asked.hook.requests) == 2:
            both.set()
        review = next(json.loads(b) for r, b in asked.hook.requests if r is request)
        await asyncio.wait_for(both.wait(), 60)
        response = {"uid": review["request"]["uid"], "allowed": True}
        return web.json_response({**review, "response": response})

    asked.hook.answer = meet
    await configure(api, "Validating", a_hook(asked.hook), a_hook(asked.hook, "b.example.com", "/b"))

    assert (await api.send("POST", MAPS, a_map()))[0] == 201


def a_definition(hook: Hook | None = None, *, group: str = "stable.example.com") -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {"size": {"type": "integer"}, "color": {"type": "string", "default": "red"}},
            }
        },
    }
    versions = [
        {"name": name, "served": True, "storage": name == "v2", "schema": {"openAPIV3Schema": schema}}
        for name in ("v1", "v2")
    ]
    spec: dict[str, Any] = {
        "group": group,
        "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": versions,
    }
    if hook is not None:
        client = {"url": hook.url("/convert"), "caBundle": base64.b64encode(hook.ca).decode()}
        webhook = {"clientConfig": client, "conversionReviewVersions": ["v1"]}
        spec["conversion"] = {"strategy": "Webhook", "webhook": webhook}
    return {"metadata": {"name": f"things.{group}"}, "spec": spec}


async def define(api: Api, definition: dict[str, Any]) -> None:
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    status, answer = await api.send("POST", path, definition)
    assert status == 201, answer
    async with asyncio.timeout(60):
        while (await api.send("GET", "/apis/stable.example.com/v2/things"))[0] != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


THINGS = [{"operations": ["*"], "apiGroups": ["stable.example.com"], "apiVersions": ["v1"], "resources": ["things"]}]


async def test_custom_resources_are_changed_and_defaulted(api: Api, asked: Asked) -> None:
    await define(api, a_definition())
    asked.judges["/a"] = lambda request: patch({"op": "add", "path": "/spec", "value": {"size": 3, "unknown": 1}})
    await configure(api, "Mutating", a_hook(asked.hook, rules=THINGS))
    thing = {"kind": "Thing", "apiVersion": "stable.example.com/v2", "metadata": {"name": "t"}}

    status, answer = await api.send("POST", "/apis/stable.example.com/v2/namespaces/default/things", thing)

    assert status == 201, answer
    assert asked.requests[0]["object"]["apiVersion"] == "stable.example.com/v1"
    assert answer["apiVersion"] == "stable.example.com/v2"
    assert answer["spec"] == {"size": 3, "color": "red"}


async def test_custom_resources_are_converted_by_their_own_webhook_first(api: Api, asked: Asked) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path != "/convert":
            return await asked._answer(request)
        review = json.loads(asked.hook.requests[-1][1])
        wanted = review["request"]["desiredAPIVersion"]
        objects = [{**one, "apiVersion": wanted, "via": wanted} for one in review["request"]["objects"]]
        response = {"uid": review["request"]["uid"], "result": {"status": "Success"}, "convertedObjects": objects}
        return web.json_response(
            {"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": response}
        )

    asked.hook.answer = answer
    definition = a_definition(asked.hook)
    for version in definition["spec"]["versions"]:
        version["schema"]["openAPIV3Schema"]["properties"]["via"] = {"type": "string"}
    await define(api, definition)
    await configure(api, "Validating", a_hook(asked.hook, rules=THINGS))
    thing = {"kind": "Thing", "apiVersion": "stable.example.com/v2", "metadata": {"name": "t"}}

    status, body = await api.send("POST", "/apis/stable.example.com/v2/namespaces/default/things", thing)

    assert status == 201, body
    assert asked.requests[0]["object"]["via"] == "stable.example.com/v1"
    assert asked.requests[0]["kind"]["version"] == "v1"

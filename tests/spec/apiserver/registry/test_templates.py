"""Pods of one template are worked out once, and nobody can tell."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from haven.api.core import v1 as core
from haven.api.core.podstrategy import alike
from haven.apimachinery.apierrors import GroupResource
from haven.apiserver.registry.templates import Templates

PODS = "/api/v1/namespaces/default/pods"


def body(name: str, **spec: Any) -> dict[str, Any]:
    containers = [{"name": "web", "image": "example.com/web:1", "ports": [{"containerPort": 80}]}]
    metadata = {"name": name, "labels": {"app": "web"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers, **spec}}


def stored(api: Any, name: str) -> dict[str, Any]:
    """A pod as the store has it, managedFields included."""
    entry = api.server.storages.of(GroupResource("", "pods")).get("default", name)
    assert entry is not None
    return dict(json.loads(entry.data))


def comparable(pod: dict[str, Any]) -> dict[str, Any]:
    """A pod without what differs from one to the next."""
    token = pod["spec"]["volumes"][-1]["name"]
    result = json.loads(json.dumps(pod).replace(token, "token"))
    for field in ("name", "uid", "resourceVersion", "creationTimestamp"):
        del result["metadata"][field]
    for entry in result["metadata"]["managedFields"]:
        del entry["time"]
    return dict(result)


@pytest.fixture
async def made(api: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An account for pods, and a note for each pod that was made of what is remembered."""
    await api.send("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    notes: list[str] = []
    make = Templates.make

    def noted(self: Templates, likeness: Any, *rest: Any) -> Any:
        obj = make(self, likeness, *rest)
        if obj is not None:
            notes.append(likeness.name)
        return obj

    monkeypatch.setattr(Templates, "make", noted)
    return notes


async def test_the_third_pod_of_a_template_is_remembered_and_equals_the_first(api: Any, made: list[str]) -> None:
    pods = []
    for name in ("a", "b", "c", "d"):
        status, pod = await api.send("POST", PODS, body(name), content_type="application/json")
        assert status == 201, pod
        assert pod["metadata"]["name"] == name
        pods.append(stored(api, name))
    assert made == ["c", "d"]
    assert len({pod["metadata"]["uid"] for pod in pods}) == 4
    assert len({pod["spec"]["volumes"][-1]["name"] for pod in pods}) == 4
    assert all(comparable(pod) == comparable(pods[0]) for pod in pods)


async def test_generated_names_are_remembered_too(api: Any, made: list[str]) -> None:
    template = body("x")
    template["metadata"] = {"generateName": "web-"}
    names = set()
    for _ in range(4):
        status, pod = await api.send("POST", PODS, template, content_type="application/json")
        assert status == 201, pod
        names.add(pod["metadata"]["name"])
    assert len(names) == 4
    assert made == ["", ""]


async def test_a_field_manager_owns_the_fields_of_its_own_pods(api: Any, made: list[str]) -> None:
    for number in range(3):
        for manager in ("one", "two"):
            path = f"{PODS}?fieldManager={manager}"
            await api.send("POST", path, body(f"{manager}-{number}"), content_type="application/json")
            pod = stored(api, f"{manager}-{number}")
            assert [entry["manager"] for entry in pod["metadata"]["managedFields"]] == [manager]
    assert made == ["one-2", "two-2"]


async def test_a_bad_pod_is_refused_every_time(api: Any, made: list[str]) -> None:
    for name in ("a", "b", "c"):
        status, answer = await api.send("POST", PODS, body(name, restartPolicy="Sometimes"))
        assert status == 422
        assert answer["details"]["causes"][0]["field"] == "spec.restartPolicy"


@pytest.mark.parametrize("name", ["Upper", "-x", "x.", "a..b"])
async def test_a_bad_name_is_refused_though_its_template_is_known(api: Any, made: list[str], name: str) -> None:
    for good in ("a", "b", "c"):
        assert (await api.send("POST", PODS, body(good)))[0] == 201
    status, answer = await api.send("POST", PODS, body(name))
    assert status == 422
    assert answer["details"]["causes"][0]["field"] == "metadata.name"


async def test_warnings_come_every_time(api: Any, made: list[str]) -> None:
    for name in ("a", "b", "c"):
        answer = await api.raw("POST", PODS, body(name, unknown=1), content_type="application/json")
        assert 'unknown field \\"spec.unknown\\"' in answer.headers["Warning"]
    for name in ("a.b", "c.d", "e.f"):
        answer = await api.raw("POST", PODS, body(name), content_type="application/json")
        assert "a DNS label is recommended" in answer.headers["Warning"]


async def test_a_name_given_twice_is_complained_of_every_time(api: Any, made: list[str]) -> None:
    for name in ("a", "b", "c"):
        text = json.dumps(body(name)).replace('"labels"', '"name": "last", "labels"').encode()
        status, answer = await api.send("POST", f"{PODS}?fieldValidation=Strict", text)
        assert status == 400
        assert "duplicate field" in answer["message"]
    assert made == []


async def test_a_name_that_is_no_metadata_of_the_pod_is_part_of_the_template(api: Any, made: list[str]) -> None:
    for name in ("a", "b", "c"):
        tree = body(name)
        tree["metadata"] = {"labels": {"name": name}, "name": "fixed"}
        text = json.dumps(tree).encode()
        await api.send("DELETE", f"{PODS}/fixed?gracePeriodSeconds=0")
        status, pod = await api.send("POST", PODS, text)
        assert (status, pod["metadata"]["name"], pod["metadata"]["labels"]) == (201, "fixed", {"name": name})
    assert made == []


async def test_admission_sees_every_pod(api: Any, made: list[str]) -> None:
    for name in ("a", "b", "c"):
        assert (await api.send("POST", PODS, body(name)))[0] == 201
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "3"}}}
    assert (await api.send("POST", "/api/v1/namespaces/default/resourcequotas", quota))[0] == 201
    await api.send("DELETE", "/api/v1/namespaces/default/serviceaccounts/default")
    status, _ = await api.send("POST", PODS, body("d", serviceAccountName="gone"))
    assert status == 403
    enforced = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    patched = await api.send(
        "PATCH", "/api/v1/namespaces/default", enforced, content_type="application/merge-patch+json"
    )
    assert patched[0] == 200
    status, answer = await api.send("POST", PODS, body("e"))
    assert (status, answer["reason"]) == (403, "Forbidden")


def pod(name: str, token: str = "", **spec: Any) -> core.Pod:
    result = core.Pod(spec=core.PodSpec(containers=[core.Container(name="c", image="i")], **spec))
    result.metadata.name = name
    if token:
        result.spec.volumes = [*result.spec.volumes, core.Volume(name=token)]
        assert result.spec.containers is not None
        result.spec.containers[0].volume_mounts = [core.VolumeMount(name=token, mount_path="/t")]
    return result


def test_pods_are_alike_that_differ_in_their_own_and_their_tokens_name() -> None:
    assert alike(pod("a", "kube-api-access-abcde")) == alike(pod("b", "kube-api-access-fghij"))


def test_everything_else_tells_pods_apart() -> None:
    one = pod("a", "kube-api-access-abcde")
    others = [pod("a"), pod("a", "kube-api-access-ABCDE"), pod("a", "kube-api-access-abcde", node_name="n")]
    for path, value in (
        ("labels", {"a": "b"}),
        ("annotations", {"a": "b"}),
        ("generate_name", "x"),
        ("namespace", "n"),
    ):
        other = copy.deepcopy(one)
        setattr(other.metadata, path, value)
        others.append(other)
    mixed = pod("a", "kube-api-access-abcde")
    assert mixed.spec.containers is not None
    mixed.spec.containers[0].volume_mounts[0].name = "kube-api-access-fghij"
    others.append(mixed)
    assert alike(one) is not None
    assert len({alike(other) for other in [one, *others]}) == len(others) + 1


@pytest.mark.parametrize("name", ["", "a.b", "A", "-a", "a-", "a" * 64])
def test_a_pod_whose_name_may_be_complained_of_is_like_no_other(name: str) -> None:
    assert alike(pod(name)) is None


def test_a_pod_whose_volumes_are_called_after_it_is_like_no_other() -> None:
    assert alike(pod("a", volumes=[core.Volume(name="v", ephemeral=core.EphemeralVolumeSource())])) is None

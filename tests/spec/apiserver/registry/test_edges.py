"""Edges of the API that only an odd client touches, each answered as upstream answers it."""

from __future__ import annotations

from typing import Any

import pytest

from ..conftest import Api

APPS = "/apis/apps/v1/namespaces/default"
SCALERS = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"
GENERATION = "deprecated.daemonset.template.generation"
ROLLBACK = "deprecated.deployment.rollback.to"
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
JSON_PATCH, APPLY = "application/json-patch+json", "application/apply-patch+yaml"


def a_workload(kind: str, annotations: dict[str, str] | None = None) -> dict[str, Any]:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "w", "annotations": annotations or {}},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template},
    }


@pytest.mark.parametrize(
    ("content_type", "code", "words"),
    [
        (MERGE, 422, 'strconv.ParseInt: parsing "x": invalid syntax'),
        (JSON_PATCH, 422, 'strconv.ParseInt: parsing "x": invalid syntax'),
        (STRATEGIC, 500, 'strconv.ParseInt: parsing "x": invalid syntax'),
        (
            APPLY,
            500,
            "failed to convert to unversioned (/w; apps/v1, Kind=DaemonSet): "
            'strconv.ParseInt: parsing "x": invalid syntax',
        ),
    ],
)
async def test_a_patch_that_makes_a_daemon_set_unreadable_is_refused_in_its_own_way(
    api: Api, content_type: str, code: int, words: str
) -> None:
    await api.send("POST", f"{APPS}/daemonsets", a_workload("DaemonSet"))
    change: Any = {"metadata": {"annotations": {GENERATION: "x"}}}
    if content_type == JSON_PATCH:
        change = [{"op": "replace", "path": f"/metadata/annotations/{GENERATION}", "value": "x"}]
    if content_type == APPLY:
        change = a_workload("DaemonSet", {GENERATION: "x"})

    query = "?fieldManager=m&force=true" if content_type == APPLY else ""
    status, answer = await api.send("PATCH", f"{APPS}/daemonsets/w{query}", change, content_type=content_type)

    assert status == code, answer
    assert answer["message"].endswith(words)
    if code == 422:
        assert answer["details"]["causes"][0]["field"] == "patch"


@pytest.mark.parametrize(("given", "kept"), [("007", "7"), ("+3", "3"), ("0", "0"), ("", None)])
async def test_a_rollback_that_an_annotation_asks_for_is_kept_as_a_number(
    api: Api, given: str, kept: str | None
) -> None:
    status, answer = await api.send("POST", f"{APPS}/deployments", a_workload("Deployment", {ROLLBACK: given}))

    assert status == 201, answer
    assert answer["metadata"].get("annotations", {}).get(ROLLBACK) == kept


async def test_a_rollback_to_no_number_cannot_be_read(api: Api) -> None:
    status, answer = await api.send("POST", f"{APPS}/deployments", a_workload("Deployment", {ROLLBACK: "x"}))

    assert status == 400
    assert answer["message"] == (
        'Deployment in version "v1" cannot be handled as a Deployment: failed to parse '
        f'annotation[{ROLLBACK}]=x as int64: strconv.ParseInt: parsing "x": invalid syntax'
    )


@pytest.mark.parametrize(("policies", "code"), [([], 422), (None, 201)])
async def test_no_policies_of_scaling_are_the_usual_ones_unless_they_were_written_down(
    api: Api, policies: Any, code: int
) -> None:
    scaler = {
        "metadata": {"name": "h"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
            "maxReplicas": 4,
            "behavior": {"scaleUp": {"policies": policies}},
        },
    }

    status, answer = await api.send("POST", SCALERS, scaler)

    assert status == code, answer
    if code == 422:
        (cause,) = answer["details"]["causes"]
        assert (cause["field"], cause["message"]) == (
            "spec.behavior.scaleUp.policies",
            "Required value: must specify at least one Policy",
        )


async def test_a_watch_for_lists_of_metadata_ends_with_the_first_change(api: Api) -> None:
    await api.config_map("one")
    accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

    answer = await api.raw("GET", "/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=0", accept=accept)

    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize(
    ("version", "labels"), [("apps/v1beta1", {"a": "b"}), ("apps/v1beta2", None), ("extensions/v1beta1", {"a": "b"})]
)
async def test_a_patch_may_speak_of_a_version_that_is_gone(
    api: Api, version: str, labels: dict[str, str] | None
) -> None:
    await api.send("POST", f"{APPS}/deployments", a_workload("Deployment"))

    change = {"apiVersion": version, "spec": {"replicas": 2}}
    status, answer = await api.send("PATCH", f"{APPS}/deployments/w", change, content_type=MERGE)

    assert status == 200, answer
    assert (answer["apiVersion"], answer["spec"]["replicas"]) == ("apps/v1", 2)
    assert answer["metadata"].get("labels") == labels  # The oldest took those of the template.


@pytest.mark.parametrize("version", ["apps/v2", "apps/v1alpha1", "batch/v1beta1"])
async def test_a_patch_to_a_version_that_never_was_is_refused(api: Api, version: str) -> None:
    await api.send("POST", f"{APPS}/deployments", a_workload("Deployment"))

    change = {"apiVersion": version}
    status, answer = await api.send("PATCH", f"{APPS}/deployments/w", change, content_type=MERGE)

    assert status == 422
    assert f'no kind "Deployment" is registered for version "{version}"' in answer["message"]


async def test_system_priority_classes_go_with_all_of_them_but_not_by_name(api: Api) -> None:
    classes = "/apis/scheduling.k8s.io/v1/priorityclasses"

    one, refused = await api.send("DELETE", f"{classes}/system-node-critical?dryRun=All")
    all_of_them, answer = await api.send("DELETE", f"{classes}?dryRun=All")

    assert (one, refused["reason"]) == (403, "Forbidden")
    assert all_of_them == 200
    assert "system-node-critical" in {item["metadata"]["name"] for item in answer["items"]}

"""Kinds that are served in several versions keep their meaning in all of them."""

from __future__ import annotations

from typing import Any

from haven.api import scheme
from haven.apiserver.registry.versions import conversion, storage_resource

AUTOSCALERS = "namespaces/default/horizontalpodautoscalers"


def test_every_served_version_has_a_stored_one_of_the_same_kind() -> None:
    for resource in scheme.table().values():
        stored = storage_resource(resource)

        assert stored.kind == resource.kind
        assert storage_resource(stored) == stored
        assert conversion(resource).is_identity == (stored == resource)


async def test_an_event_is_one_object_under_both_groups(api: Any) -> None:
    event = {
        "metadata": {"name": "e"},
        "eventTime": "2026-01-02T03:04:05.000006Z",
        "action": "Act",
        "reason": "Because",
        "type": "Normal",
        "note": "it happened",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reportingController": "example.com/c",
        "reportingInstance": "c-1",
    }

    status, _ = await api.send("POST", "/apis/events.k8s.io/v1/namespaces/default/events", event)
    _, core = await api.send("GET", "/api/v1/namespaces/default/events/e")

    assert status == 201
    assert (core["message"], core["involvedObject"]["name"], core["reportingComponent"]) == (
        "it happened", "p", "example.com/c",
    )  # fmt: skip


async def test_an_old_autoscaler_gains_and_loses_nothing_in_the_new_version(api: Any) -> None:
    old = {
        "metadata": {"name": "h"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
            "maxReplicas": 3,
            "targetCPUUtilizationPercentage": 70,
        },
    }
    status, made = await api.send("POST", f"/apis/autoscaling/v1/{AUTOSCALERS}", old)
    assert status == 201, made

    _, new = await api.send("GET", f"/apis/autoscaling/v2/{AUTOSCALERS}/h")
    _, back = await api.send("GET", f"/apis/autoscaling/v1/{AUTOSCALERS}/h")

    assert new["spec"]["metrics"] == [
        {
            "type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}},
        }
    ]
    assert back["spec"]["targetCPUUtilizationPercentage"] == 70

"""What the server writes on its own account has owners, as if it had asked itself."""

from __future__ import annotations

import asyncio
from typing import Any

from .conftest import Api

QUOTAS = "/api/v1/namespaces/default/resourcequotas"
FLOWS = "/apis/flowcontrol.apiserver.k8s.io/v1"


def owners(obj: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (entry["manager"], entry["operation"], entry.get("subresource", ""))
        for entry in obj["metadata"].get("managedFields", [])
    ]


async def listed(api: Api, collection: str, name: str) -> dict[str, Any]:
    """Return an object as a list shows it: whoever gets one in this process gets it without managedFields."""
    _, answer = await api.send("GET", f"{collection}?fieldSelector=metadata.name={name}")
    (item,) = answer["items"]
    result: dict[str, Any] = item
    return result


async def judged(api: Api, name: str) -> dict[str, Any]:
    """Return a flow schema once its status says whether its level exists."""
    async with asyncio.timeout(60):
        while not (schema := await listed(api, f"{FLOWS}/flowschemas", name))["status"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return schema


async def test_every_object_that_a_server_starts_with_has_an_owner(api: Api) -> None:
    for path in (
        "/api/v1/namespaces",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        "/apis/apiregistration.k8s.io/v1/apiservices",
        f"{FLOWS}/prioritylevelconfigurations",
        "/apis/networking.k8s.io/v1/servicecidrs",
    ):
        _, answer = await api.send("GET", path)

        assert answer["items"]
        assert all(owners(item) for item in answer["items"]), path


async def test_a_flow_schema_is_made_by_one_manager_and_judged_by_another(api: Api) -> None:
    schema = await judged(api, "probes")

    assert owners(schema) == [
        ("api-priority-and-fairness-config-consumer-v1", "Apply", "status"),
        ("api-priority-and-fairness-config-producer-v1", "Update", ""),
    ]


async def test_the_judgement_of_a_new_flow_schema_is_applied_and_leaves_its_maker_the_rest(api: Api) -> None:
    spec = {"matchingPrecedence": 7, "priorityLevelConfiguration": {"name": "nowhere"}, "rules": []}
    await api.send("POST", f"{FLOWS}/flowschemas", {"metadata": {"name": "mine"}, "spec": spec})

    schema = await judged(api, "mine")

    assert schema["status"]["conditions"][0]["status"] == "True"
    assert owners(schema) == [
        ("api-priority-and-fairness-config-consumer-v1", "Apply", "status"),
        ("spec", "Update", ""),
    ]


async def test_usage_that_admission_counts_belongs_to_the_server(api: Api) -> None:
    hard = {"count/configmaps": "9"}
    await api.send("POST", QUOTAS, {"metadata": {"name": "q"}, "spec": {"hard": hard}})
    status = {"status": {"hard": hard, "used": {"count/configmaps": "0"}}}
    merge = "application/merge-patch+json"
    await api.send("PATCH", f"{QUOTAS}/q/status?fieldManager=counter", status, content_type=merge)

    await api.config_map("one")

    quota = await listed(api, QUOTAS, "q")
    assert quota["status"]["used"] == {"count/configmaps": "1"}
    own = {entry["manager"]: entry["fieldsV1"] for entry in quota["metadata"]["managedFields"]}
    assert own["kube-apiserver"] == {"f:status": {"f:used": {"f:count/configmaps": {}}}}
    assert "f:count/configmaps" not in own["counter"]["f:status"]["f:used"]
    assert own["spec"] == {"f:spec": {"f:hard": {".": {}, "f:count/configmaps": {}}}}


async def test_an_address_that_a_service_is_given_belongs_to_the_server_and_has_no_generation(api: Api) -> None:
    service = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}
    _, made = await api.send("POST", "/api/v1/namespaces/default/services", service)

    address = await listed(api, "/apis/networking.k8s.io/v1/ipaddresses", made["spec"]["clusterIP"])

    assert owners(address) == [("kube-apiserver", "Update", "")]
    assert "generation" not in address["metadata"]


async def test_an_eviction_is_counted_against_its_budget_in_the_servers_name(api: Api) -> None:
    budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
    pods = "/api/v1/namespaces/default/pods"
    await api.send("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    pod = {"metadata": {"name": "p", "labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    await api.send("POST", pods, pod)
    merge = "application/merge-patch+json"
    running = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
    await api.send("PATCH", f"{pods}/p/status", running, content_type=merge)
    budget = {"metadata": {"name": "b"}, "spec": {"minAvailable": 0, "selector": {"matchLabels": {"a": "b"}}}}
    await api.send("POST", budgets, budget)
    counts = {"observedGeneration": 1, "disruptionsAllowed": 2, "currentHealthy": 2, "desiredHealthy": 0}
    status = {"status": {**counts, "expectedPods": 2}}
    await api.send("PATCH", f"{budgets}/b/status?fieldManager=keeper", status, content_type=merge)

    code, answer = await api.send("POST", f"{pods}/p/eviction", {"metadata": {"name": "p"}})

    assert code == 201, answer
    kept = await listed(api, budgets, "b")
    own = {entry["manager"]: entry["fieldsV1"] for entry in kept["metadata"]["managedFields"]}
    assert own["kube-apiserver"] == {"f:status": {"f:disruptedPods": {".": {}, "f:p": {}}, "f:disruptionsAllowed": {}}}
    assert "f:disruptionsAllowed" not in own["keeper"]["f:status"]

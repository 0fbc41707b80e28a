"""What a client writes down as empty is told from what it leaves out: in complaints, and in a few generations."""

from __future__ import annotations

from typing import Any

import pytest

from ..conftest import Api

POLICIES = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
MERGE = "application/merge-patch+json"


async def a_policy(api: Api, **spec: Any) -> dict[str, Any]:
    body = {"metadata": {"name": "p"}, "spec": {"podSelector": {"matchLabels": {"a": "b"}}, "ingress": [{}], **spec}}
    status, policy = await api.send("POST", POLICIES, body)
    assert status == 201, policy
    result: dict[str, Any] = policy
    return result


@pytest.mark.parametrize("empty", [{"from": []}, {"ports": []}, {"from": [{"podSelector": {"matchLabels": {}}}]}])
async def test_an_empty_list_or_map_in_a_policy_counts_as_a_change(api: Api, empty: dict[str, Any]) -> None:
    policy = await a_policy(api, ingress=[{"from": [{"podSelector": {}}]}] if empty.get("from") else [{}])

    policy["spec"]["ingress"] = [empty]
    status, changed = await api.send("PUT", f"{POLICIES}/p", policy)

    assert (status, changed["metadata"]["generation"]) == (200, 2)


async def test_an_empty_list_in_a_patch_of_a_policy_counts_as_a_change(api: Api) -> None:
    await a_policy(api)

    _, changed = await api.send("PATCH", f"{POLICIES}/p", {"spec": {"ingress": [{"from": []}]}}, content_type=MERGE)

    assert changed["metadata"]["generation"] == 2
    assert changed["spec"]["ingress"] == [{}]


async def test_a_policy_that_is_written_as_it_was_read_keeps_its_generation(api: Api) -> None:
    policy = await a_policy(api, egress=[])

    _, changed = await api.send("PUT", f"{POLICIES}/p", policy)

    assert changed["metadata"]["generation"] == 1


async def test_an_empty_authority_of_a_webhook_counts_as_a_change(api: Api) -> None:
    webhooks = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    hook = {
        "name": "a.example.com",
        "clientConfig": {"url": "https://example.com"},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    _, configuration = await api.send("POST", webhooks, {"metadata": {"name": "w"}, "webhooks": [hook]})

    configuration["webhooks"][0]["clientConfig"]["caBundle"] = ""
    _, changed = await api.send("PUT", f"{webhooks}/w", configuration)

    assert changed["metadata"]["generation"] == 2


async def test_a_patch_that_empties_a_map_is_refused_with_the_empty_map(api: Api) -> None:
    await api.send("POST", CLASSES, {"metadata": {"name": "c"}, "provisioner": "x/y", "parameters": {"a": "b"}})

    _, refused = await api.send("PATCH", f"{CLASSES}/c", {"parameters": {"a": None}}, content_type=MERGE)
    _, without = await api.send("PATCH", f"{CLASSES}/c", {"parameters": None}, content_type=MERGE)

    assert refused["details"]["causes"][0]["message"] == "Invalid value: {}: field is immutable"
    assert without["details"]["causes"][0]["message"] == "Invalid value: null: field is immutable"


@pytest.mark.parametrize(("given", "shown"), [({"request": ""}, '""'), ({"request": None}, "null"), ({}, "null")])
async def test_an_empty_signing_request_is_shown_as_it_was_given(api: Api, given: dict[str, Any], shown: str) -> None:
    body = {"metadata": {"name": "r"}, "spec": {"signerName": "a.b/c", "usages": ["client auth"], **given}}

    status, refused = await api.send("POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests", body)

    assert status == 422
    assert refused["details"]["causes"][0]["message"].startswith(f"Invalid value: {shown}: PEM block type")


@pytest.mark.parametrize(("spec", "shown"), [({"rules": []}, "[]"), ({}, "null")])
async def test_an_ingress_without_rules_is_shown_the_rules_it_gave(api: Api, spec: dict[str, Any], shown: str) -> None:
    body = {"metadata": {"name": "i"}, "spec": spec}

    _, refused = await api.send("POST", "/apis/networking.k8s.io/v1/namespaces/default/ingresses", body)

    words = "either `defaultBackend` or `rules` must be specified"
    assert refused["details"]["causes"][0]["message"] == f"Invalid value: {shown}: {words}"

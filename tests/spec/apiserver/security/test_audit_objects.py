"""What audit events show of requests, and what becomes of requests that cannot be audited."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from haven.api.core import v1 as core
from haven.api.scheme import resource_of
from haven.apiserver.audit.assembly import make_audit
from haven.apiserver.audit.webhook import fitting
from haven.apiserver.configfiles import ConfigError
from haven.apiserver.request import UserInfo
from haven.apiserver.settings import SecuritySettings
from haven.apiserver.webhooks.caller import WebhookCaller
from haven.clock import FakeClock

from .conftest import Serve

POLICY = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: RequestResponse, omitStages: [RequestReceived]}]\n"
MERGE = "application/merge-patch+json"
SERVICES = "/api/v1/namespaces/default/services"


def flags(tmp_path: Path, **more: Any) -> dict[str, Any]:
    (tmp_path / "policy.yaml").write_text(POLICY)
    return {"audit_policy_file": str(tmp_path / "policy.yaml"), "audit_log_path": str(tmp_path / "audit.log"), **more}


def events(tmp_path: Path) -> list[dict[str, Any]]:
    lines = (tmp_path / "audit.log").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event.get("userAgent") == "spec/1"]


async def test_an_object_is_shown_with_its_kind_and_its_defaults(serve: Serve, tmp_path: Path) -> None:
    client = await serve(**flags(tmp_path))

    await client.ask("POST", SERVICES, {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}})

    (event,) = events(tmp_path)
    sent = event["requestObject"]
    assert (sent["kind"], sent["apiVersion"], sent["metadata"]["name"]) == ("Service", "v1", "s")
    assert "uid" not in sent["metadata"]  # Defaults belong to what was sent, what the server adds does not.
    assert sent["spec"]["ports"] == [{"protocol": "TCP", "port": 80, "targetPort": 80}]
    assert event["objectRef"]["name"] == "s"


async def test_patches_are_shown_as_they_were_sent_and_nonsense_not_at_all(serve: Serve, tmp_path: Path) -> None:
    client = await serve(**flags(tmp_path))
    maps = "/api/v1/namespaces/default/configmaps"

    await client.ask("POST", maps, b'{"metadata":{"name":["a"]}}')
    await client.ask("PATCH", f"{maps}/a", {"data": {"k": "v"}}, content_type="application/merge-patch+json")

    refused, patched = events(tmp_path)
    assert (refused["responseStatus"]["code"], "requestObject" in refused) == (400, False)
    assert patched["requestObject"] == {"data": {"k": "v"}}


async def test_documents_that_are_no_objects_are_not_shown(serve: Serve, tmp_path: Path) -> None:
    client = await serve(**flags(tmp_path))

    await client.ask("GET", "/version")

    (event,) = events(tmp_path)
    assert "responseObject" not in event


async def test_what_tells_of_resources_and_refusals_are_shown_wherever_they_are(serve: Serve, tmp_path: Path) -> None:
    client = await serve(**flags(tmp_path))

    await client.ask("GET", "/apis/apps")
    await client.ask("GET", "/metrics", token="jane")

    shown, refused = events(tmp_path)
    assert shown["responseObject"]["kind"] == "APIGroup"
    assert refused["responseObject"]["message"] == 'forbidden: User "jane" cannot get path "/metrics"'


async def test_a_patch_that_nobody_serves_is_not_shown(serve: Serve, tmp_path: Path) -> None:
    client = await serve(**flags(tmp_path))

    patch = {"spec": {"replicas": 2}}
    await client.ask("PATCH", "/api/v1/namespaces/default/nothings/x", patch, content_type=MERGE)
    await client.ask("PATCH", "/api/v1/namespaces/default/pods/x", patch, content_type=MERGE, token="jane")
    await client.ask("PATCH", "/api/v1/namespaces/default/pods/x", patch, content_type=MERGE)

    assert ["requestObject" in event for event in events(tmp_path)] == [False, False, True]


async def test_reads_of_this_process_are_written_down_as_if_they_had_come_over_a_socket(
    serve: Serve, tmp_path: Path
) -> None:
    client = await serve(**flags(tmp_path))
    user = UserInfo("reader", groups=("system:masters",))
    local = client.server.local_client(user)
    namespaces = resource_of(core.Namespace)

    await local.get(namespaces, "", "default")
    await local.list(namespaces, label_selector="kubernetes.io/metadata.name=default")

    lines = (tmp_path / "audit.log").read_text().splitlines()
    shown = [event for event in map(json.loads, lines) if event["user"]["username"] == "reader"]
    assert [one["verb"] for one in shown] == ["get", "list"]
    assert shown[0]["objectRef"] == {
        "resource": "namespaces",
        "namespace": "default",
        "name": "default",
        "apiVersion": "v1",
    }
    assert shown[1]["requestURI"] == "/api/v1/namespaces?labelSelector=kubernetes.io%2Fmetadata.name%3Ddefault"
    assert [item["metadata"]["name"] for item in shown[1]["responseObject"]["items"]] == ["default"]
    assert shown[0]["user"]["groups"] == ["system:masters"]


async def test_what_cannot_be_audited_is_refused_if_that_is_wanted(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = flags(tmp_path, audit_log_mode="blocking-strict")
    (tmp_path / "policy.yaml").write_text(POLICY.replace(", omitStages: [RequestReceived]", ""))
    client = await serve(**settings)

    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", fail)
    status, answer = await client.json("GET", "/api/v1/namespaces/default")
    monkeypatch.undo()

    assert (status, answer["message"]) == (500, "Internal error occurred: failed to store audit event")
    assert "apiserver_audit_requests_rejected_total 1\n" in (await client.ask("GET", "/metrics")).body.decode()


def test_large_events_lose_their_objects() -> None:
    event = {"level": "Request", "requestObject": {"data": "x" * 500}, "annotations": {"a": "b"}}

    assert fitting(event, 0) is event
    assert fitting(event, 200) == {"level": "Request", "annotations": {"a": "b", "audit.k8s.io/truncated": "true"}}
    assert fitting(event, 20) is None


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ({"audit_log_mode": "x"}, 'invalid audit log mode x, allowed modes are "batch,blocking,blocking-strict"'),
        ({"audit_log_format": "x"}, 'invalid audit log format x, allowed formats are "legacy,json"'),
        ({"audit_log_maxage": -1}, "--audit-log-maxage -1 can't be a negative number"),
        ({"audit_log_version": "v9"}, 'invalid group version, allowed versions are ["audit.k8s.io/v1"]'),
        (
            {"audit_log_mode": "batch", "audit_log_batch_max_size": 0},
            "invalid audit batch log max batch size 0, must be a positive number",
        ),
        (
            {"audit_log_truncate_enabled": True, "audit_log_truncate_max_batch_size": 1},
            "invalid audit truncate log max batch size 1, must be greater than max event size (102400)",
        ),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused_in_upstreams_words(setting: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_audit(SecuritySettings(audit_log_path="-", **setting), WebhookCaller(None), FakeClock())  # type: ignore[arg-type]

    assert str(caught.value) == complaint

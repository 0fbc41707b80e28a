"""Audit: which requests, how closely, in which stages; and where the events go."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from haven.api.core import v1 as core
from haven.api.scheme import resource_of
from haven.apimachinery import meta
from haven.apiserver.audit.logfile import LogFile, LogSettings
from haven.apiserver.audit.policy import Level, parse_policy
from haven.apiserver.audit.recorder import Auditor
from haven.apiserver.audit.webhook import BatchSettings, SendFailed, WebhookLog
from haven.apiserver.configfiles import ConfigError
from haven.apiserver.request import Request, Response, UserInfo
from haven.apiserver.requestinfo import resolve
from haven.clock import FakeClock

from .conftest import Client, Serve

POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ["system:apiserver"]
- level: Metadata
  resources: [{group: "", resources: [secrets]}]
- level: RequestResponse
  omitManagedFields: true
  resources: [{group: "", resources: [configmaps]}]
- level: None
  nonResourceURLs: ["/healthz*"]
- level: Metadata
  omitStages: []
"""
MAPS = "/api/v1/namespaces/default/configmaps"


def decide(policy: str, user: UserInfo, method: str, path: str) -> Level:
    return parse_policy(policy.encode()).treatment(user, resolve(method, path, {})).level


@pytest.mark.parametrize(
    ("rule", "path", "level"),
    [
        ("users: [joe]", "/api/v1/pods", Level.NONE),
        ("userGroups: [devs]", "/api/v1/pods", Level.METADATA),
        ("verbs: [create]", "/api/v1/pods", Level.NONE),
        ("resources: [{resources: [pods]}]", "/api/v1/namespaces/a/pods/x", Level.METADATA),
        ("resources: [{resources: [pods]}]", "/api/v1/namespaces/a/pods/x/log", Level.NONE),
        ("resources: [{resources: [pods/log]}]", "/api/v1/namespaces/a/pods/x/log", Level.METADATA),
        ("resources: [{resources: ['*/log']}]", "/api/v1/namespaces/a/pods/x/log", Level.METADATA),
        ("resources: [{resources: ['pods/*']}]", "/api/v1/namespaces/a/pods/x/log", Level.METADATA),
        ("resources: [{resources: [pods], resourceNames: [other]}]", "/api/v1/namespaces/a/pods/x", Level.NONE),
        ("resources: [{group: apps}]", "/apis/apps/v1/deployments", Level.METADATA),
        ("namespaces: ['']", "/api/v1/nodes", Level.METADATA),
        ("namespaces: [b]", "/api/v1/namespaces/a/pods", Level.NONE),
        ("nonResourceURLs: ['/api*']", "/apis", Level.METADATA),
        ("nonResourceURLs: ['/api*']", "/api/v1/pods", Level.NONE),
        ("resources: [{group: ''}]", "/healthz", Level.NONE),
    ],
)
def test_a_rule_matches_what_it_names(rule: str, path: str, level: Level) -> None:
    policy = f"{{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{{level: Metadata, {rule}}}]}}"

    assert decide(policy, UserInfo("jane", groups=("devs",)), "GET", path) is level


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("rules: []", "loaded illegal policy with 0 rules"),
        ("rules: null", "loaded illegal policy with 0 rules"),
        ("rules: [{}]", r"rules\[0\].level: Required value"),
        ("rules: [{level: Much}]", 'supported values: "None", "Metadata", "Request", "RequestResponse"'),
        ("rules: [{level: None, nonResourceURLs: [x]}]", "must begin with a '/' character"),
        ("rules: [{level: None, users: 1}]", "strict decoding error"),
        ("rules: [{level: None, resources: [{group: a/v1}]}]", r"rules\[0\].resources.group: Invalid value: \"a/v1\""),
        ("rules: [{level: None, resources: [{resourceNames: [x]}]}]", "using resourceNames requires at least one"),
        ("rules: [{level: None, nonResourceURLs: [/x], namespaces: [a]}]", "both regular resources and non-resource"),
        ("omitStages: [Never]\nrules: [{level: None}]", "allowed stages are RequestReceived,ResponseStarted"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        parse_policy(f"apiVersion: audit.k8s.io/v1\nkind: Policy\n{text}".encode())


def test_what_nobody_knows_in_a_policy_is_left_out() -> None:
    rules = "rules: [{level: Metadata, bogus: 1, resources: [{group: apps, more: []}, {group: x, bogus: 2}]}]"
    policy = f"apiVersion: audit.k8s.io/v1\nkind: Policy\nomit: true\n{rules}"

    assert decide(policy, UserInfo("jane"), "GET", "/apis/apps/v1/deployments") is Level.METADATA
    assert decide(policy, UserInfo("jane"), "GET", "/api/v1/pods") is Level.NONE


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"audit_log_truncate_max_event_size": 0}, "invalid audit truncate log max event size 0, must be a positive"),
        ({"audit_log_mode": "batch", "audit_log_batch_buffer_size": 0, "audit_log_batch_max_size": 0}, "buffer size 0"),
        (
            {
                "audit_log_mode": "batch",
                "audit_log_batch_throttle_enable": True,
                "audit_log_batch_throttle_qps": 0.0,
                "audit_log_batch_throttle_burst": 0,
            },
            "^invalid audit batch log throttle QPS 0, must be a positive number$",
        ),
    ],
)
async def test_sizes_that_make_no_sense_are_refused(
    serve: Serve, tmp_path: Path, settings: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        await serve(audit_log_path=str(tmp_path / "a.log"), **settings)


async def test_an_answer_that_took_long_says_so_and_who_was_waited_for() -> None:
    clock, sink = FakeClock(), Remembered()
    policy = parse_policy(b"{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata}]}")
    auditor = Auditor(policy, clock, [sink])
    for seconds in (0.5, 1.25):
        request = Request("POST", MAPS, {}, {}, info=resolve("POST", MAPS, {}))
        auditor.begin(request)
        clock._now += seconds
        request.waits()["admit"] = 0.75
        auditor.answered(request, Response(201), long=False)

    quick, slow = (event.get("annotations") for event in sink.events if event["stage"] == "ResponseComplete")
    assert quick is None
    assert slow == {
        "apiserver.latency.k8s.io/mutating-webhook": "750ms",
        "apiserver.latency.k8s.io/total": "1.25s",
    }


class Remembered:
    """A back end that keeps what it gets."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def write(self, events: Sequence[dict[str, Any]]) -> bool:
        self.events += events
        return True


async def test_a_client_that_takes_no_form_of_ours_leaves_a_code_and_nothing_else(audited: Any) -> None:
    client, log = audited

    assert (await client.ask("GET", f"{MAPS}/a", accept="image/png")).status == 406

    (event,) = events(log)
    assert event["responseStatus"] == {"metadata": {}, "code": 406}
    assert "responseObject" not in event


async def test_a_patch_that_nobody_looked_at_is_not_shown(audited: Any) -> None:
    client, log = audited

    await client.ask("PATCH", f"{MAPS}/a", {"data": {}}, content_type="application/json")
    await client.ask("PATCH", f"{MAPS}/a", {"data": {}}, content_type="application/apply-patch+yaml")

    found = events(log)
    assert [event["responseStatus"]["code"] for event in found] == [415, 422]
    assert not any("requestObject" in event for event in found)


@pytest.fixture
async def audited(serve: Serve, tmp_path: Path) -> tuple[Client, Path]:
    policy, log = tmp_path / "policy.yaml", tmp_path / "audit.log"
    policy.write_text(POLICY)
    return await serve(audit_policy_file=str(policy), audit_log_path=str(log)), log


def events(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


async def test_a_write_is_written_down_with_what_was_sent_and_answered(audited: Any) -> None:
    client, log = audited

    response = await client.ask("POST", MAPS, {"metadata": {"name": "a"}, "data": {"k": "v"}}, audit_id="my-id")

    assert response.status == 201
    (event,) = events(log)
    assert event["kind"] == "Event"
    assert (event["level"], event["stage"], event["auditID"]) == ("RequestResponse", "ResponseComplete", "my-id")
    assert (event["verb"], event["requestURI"], event["userAgent"]) == ("create", MAPS, "spec/1")
    assert event["user"]["username"] == "root"
    assert event["user"]["groups"] == ["system:masters", "system:authenticated"]
    assert event["sourceIPs"] == ["192.0.2.7"]
    reference = {"resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1"}
    assert event["objectRef"] == reference
    assert event["responseStatus"] == {"metadata": {}, "code": 201}
    assert event["requestObject"]["data"] == {"k": "v"}
    assert "managedFields" not in event["responseObject"]["metadata"]
    assert event["responseObject"]["metadata"]["uid"]
    assert event["annotations"]["authorization.k8s.io/decision"] == "allow"
    assert event["requestReceivedTimestamp"] <= event["stageTimestamp"]


async def test_secrets_show_no_content_and_what_no_rule_wants_is_not_written(audited: Any) -> None:
    client, log = audited

    await client.ask("POST", "/api/v1/namespaces/default/secrets", {"metadata": {"name": "s"}, "data": {"k": "dg=="}})
    await client.ask("GET", "/healthz")

    (event,) = events(log)
    assert event["objectRef"]["resource"] == "secrets"
    assert not {"requestObject", "responseObject"} & event.keys()


async def test_a_refusal_is_written_down_with_its_reason(audited: Any) -> None:
    client, log = audited

    response = await client.ask("GET", f"{MAPS}/a", token="jane")

    assert response.status == 403
    (event,) = events(log)
    assert event["responseStatus"]["code"] == 403
    assert event["responseStatus"]["reason"] == "Forbidden"
    annotations = {key: value for key, value in event["annotations"].items() if ".latency." not in key}
    assert annotations == {"authorization.k8s.io/decision": "forbid", "authorization.k8s.io/reason": ""}


async def test_who_cannot_be_identified_is_written_down_once(audited: Any) -> None:
    client, log = audited

    response = await client.ask("GET", f"{MAPS}/a", token="nobody")

    assert response.status == 401
    (event,) = events(log)
    assert event["stage"] == "ResponseStarted"
    assert event["user"] == {}
    assert event["responseStatus"]["code"] == 401


async def test_impersonation_shows_both_users(audited: Any) -> None:
    client, log = audited

    await client.ask("GET", "/api/v1/nodes", impersonate_user="jane")

    (event,) = events(log)
    assert event["user"]["username"] == "root"
    assert event["impersonatedUser"] == {"username": "jane", "groups": ["system:authenticated"]}


async def test_a_watch_has_a_beginning_and_an_end(audited: Any) -> None:
    client, log = audited

    response = await client.ask("GET", f"{MAPS}?watch=1")
    begun = [event["stage"] for event in events(log)]
    for call in response.when_over:
        call()
    await response.stream.aclose()

    assert begun == ["ResponseStarted"]
    assert [event["stage"] for event in events(log)] == ["ResponseStarted", "ResponseComplete"]


async def test_without_a_policy_nothing_is_audited(serve: Serve) -> None:
    client = await serve()

    await client.ask("GET", MAPS)

    assert client.server.chain._auditor is None


def test_the_log_is_turned_over_and_old_files_go(tmp_path: Path) -> None:
    clock = FakeClock()
    path = tmp_path / "audit.log"
    log = LogFile(LogSettings(str(path), size_megabytes_max=1, backups_max=2, compress=True), clock)
    log.open()

    for _ in range(5):
        clock._now += 60
        log.write([{"filler": "x" * 600_000}])
    log.close()

    backups = sorted(tmp_path.glob("audit-*"))
    assert [backup.suffix for backup in backups] == [".gz", ".log"], "the newest is left alone for a while"
    assert json.loads(gzip.decompress(backups[0].read_bytes()))["filler"]
    assert len(path.read_text().splitlines()) == 1


def test_servers_that_share_a_log_follow_each_other_to_the_new_file(tmp_path: Path) -> None:
    clock = FakeClock()
    path = tmp_path / "audit.log"
    logs = [LogFile(LogSettings(str(path), size_megabytes_max=1), clock) for _ in range(2)]
    for log in logs:
        log.open()

    for number in range(9):
        clock._now += 1
        logs[number % 2].write([{"n": number, "filler": "x" * 300_000}])
    path.unlink()
    logs[0].write([{"n": 9}])
    for log in logs:
        log.close()

    lines = [json.loads(line)["n"] for backup in sorted(tmp_path.glob("audit-*")) for line in backup.open()]
    assert lines == [0, 1, 2, 3, 4, 5]
    assert events(path) == [{"n": 9}]


def test_the_old_text_format_has_one_line_for_each_event(tmp_path: Path) -> None:
    log = LogFile(LogSettings(str(tmp_path / "a.log"), format="legacy"), FakeClock())
    log.open()
    common = {"auditID": "1", "stage": "ResponseComplete", "verb": "get", "requestURI": "/x"}
    common["requestReceivedTimestamp"] = "T"
    other = {"username": "joe", "groups": ["a"]}

    log.write([common | {"user": {"username": "jane", "groups": ["a", "b"]}, "responseStatus": {"code": 200}}])
    log.write([common | {"user": {}, "impersonatedUser": other, "sourceIPs": ["::1"], "userAgent": 'q"'}])
    log.close()

    first, second = (tmp_path / "a.log").read_text().splitlines()
    assert first == (
        'T AUDIT: id="1" stage="ResponseComplete" ip="<unknown>" method="get" user="jane" groups="\\"a\\",\\"b\\"" '
        'as="<self>" asgroups="<lookup>" user-agent="" namespace="<none>" uri="/x" response="200"'
    )
    assert second == (
        'T AUDIT: id="1" stage="ResponseComplete" ip="::1" method="get" user="<none>" groups="<none>" '
        'as="joe" asgroups="\\"a\\"" user-agent="q\\"" namespace="<none>" uri="/x" response="<deferred>"'
    )


async def test_events_reach_a_webhook_in_batches_and_again_when_it_was_away() -> None:
    clock = FakeClock()
    sent: list[Any] = []
    failures = [SendFailed("down", again=True)]

    async def send(body: bytes) -> None:
        if failures:
            raise failures.pop()
        sent.append(json.loads(body))

    log = WebhookLog(send, BatchSettings(batch_events_max=2, event_bytes_max=200), clock)
    running = asyncio.ensure_future(log.run())
    log.write([{"kind": "Event", "n": 1}, {"n": 2, "requestObject": {"big": "x" * 500}}, {"n": 3, "x": "y" * 500}])
    for _ in range(20):
        await clock.advance(1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert [item["n"] for item in sent[0]["items"]] == [1, 2]
    assert sent[0]["items"][0] == {"n": 1}, "the list says what kind its items are of"
    assert sent[0]["items"][1]["annotations"] == {"audit.k8s.io/truncated": "true"}
    assert log.dropped == 1


async def test_a_batch_that_is_tried_again_holds_up_no_other() -> None:
    clock = FakeClock()
    sent: list[list[int]] = []
    failed = asyncio.Event()

    async def send(body: bytes) -> None:
        numbers = [item["n"] for item in json.loads(body)["items"]]
        if 1 in numbers and not failed.is_set():
            failed.set()
            raise SendFailed("down", again=True)
        sent.append(numbers)

    log = WebhookLog(send, BatchSettings(batch_events_max=1, in_order=False), clock)
    running = asyncio.ensure_future(log.run())
    log.write([{"n": 1}, {"n": 2}])
    for _ in range(30):
        await clock.advance(1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert sent == [[2], [1]]
    assert log.dropped == 0


async def test_batches_under_way_are_sent_when_the_server_ends() -> None:
    sent: list[Any] = []
    started = asyncio.Event()

    async def send(body: bytes) -> None:
        if not started.is_set():
            started.set()
            await asyncio.Event().wait()
        sent.append([item["n"] for item in json.loads(body)["items"]])

    log = WebhookLog(send, BatchSettings(batch_events_max=1, in_order=False), FakeClock())
    running = asyncio.ensure_future(log.run())
    log.write([{"n": 1}])
    async with asyncio.timeout(60):
        await started.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert sent == [[1]]


async def test_what_guards_the_server_can_be_measured(audited: Any) -> None:
    client, _ = audited
    await client.ask("GET", MAPS, token="nobody")
    await client.ask("GET", MAPS, token="jane")

    text = (await client.ask("GET", "/metrics")).body.decode()

    for line in (
        'authentication_attempts{result="error"} 1',
        'authorization_attempts_total{result="no-opinion"} 1',
        'apiserver_audit_level_total{level="RequestResponse"} 2',
        'apiserver_audit_error_total{plugin="log"} 0',
    ):
        assert line in text, line


async def test_flow_schemas_that_were_removed_come_back(serve: Serve) -> None:
    clock = FakeClock()
    client = await serve(clock=clock)
    path = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/catch-all"
    assert (await client.ask("DELETE", path)).status == 200
    assert (await client.ask("GET", path)).status == 404

    await clock.advance(61)

    assert (await client.ask("GET", path)).status == 200


async def test_what_components_of_this_process_write_is_audited_too(serve: Serve, tmp_path: Path) -> None:
    policy, log = tmp_path / "policy.yaml", tmp_path / "audit.log"
    policy.write_text(POLICY.replace('users: ["system:apiserver"]', "users: [nobody]"))
    client = await serve(audit_policy_file=str(policy), audit_log_path=str(log))
    controller = client.server.local_client(UserInfo("system:apiserver", groups=("system:masters",)))

    config_map = core.ConfigMap(metadata=meta.ObjectMeta(name="a", namespace="default"), data={"k": "v"})
    await controller.create(resource_of(core.ConfigMap), config_map)

    (event,) = events(log)
    assert event["user"]["username"] == "system:apiserver"
    assert event["requestObject"]["data"] == {"k": "v"}
    assert event["responseObject"]["metadata"]["uid"]
    assert event["objectRef"]["name"] == "a"


async def test_only_addresses_count_as_where_a_request_came_from(audited: Any) -> None:
    client, log = audited

    await client.ask(
        "POST", MAPS, {"metadata": {"name": "b"}}, x_forwarded_for="me, 2001:DB8::1,,10.0.0.1", x_real_ip="x"
    )

    assert events(log)[-1]["sourceIPs"] == ["2001:db8::1", "10.0.0.1", "192.0.2.7"]

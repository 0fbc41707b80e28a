"""Chains of authorizers: modes, files, webhooks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from haven.apiserver.authentication.interface import ALL_AUTHENTICATED
from haven.apiserver.authorization.abac import ABAC, parse_policies
from haven.apiserver.authorization.configuration import parse_authorization
from haven.apiserver.authorization.interface import Attributes, Verdict
from haven.apiserver.configfiles import ConfigError
from haven.apiserver.expressions import CelEngine
from haven.apiserver.request import UserInfo

from ..webhooks.conftest import Hook, authority_name, hook
from .conftest import Serve
from .test_authentication import kubeconfig

__all__ = ["authority_name", "hook"]

ENGINE = CelEngine()
MAPS = "/api/v1/namespaces/default/configmaps"


class Judge:
    """A webhook that decides by the verb."""

    def __init__(self, hook: Hook, **by_verb: Any) -> None:
        self.hook = hook
        self.by_verb = by_verb
        hook.answer = self.answer

    async def answer(self, request: web.Request) -> web.StreamResponse:
        review = json.loads(self.hook.requests[-1][1])
        verb = review["spec"].get("resourceAttributes", review["spec"].get("nonResourceAttributes"))["verb"]
        if verb not in self.by_verb:
            return web.Response(status=400, text="no idea")
        return web.json_response({**review, "status": self.by_verb[verb]})


def config(kubeconfig: str, **webhook: Any) -> bytes:
    own = {
        "timeout": "3s",
        "subjectAccessReviewVersion": "v1",
        "failurePolicy": "NoOpinion",
        "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": kubeconfig},
        **webhook,
    }
    if "matchConditions" in own:
        own["matchConditionSubjectAccessReviewVersion"] = "v1"
    tree = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthorizationConfiguration",
        "authorizers": [
            {"type": "Webhook", "name": "judge.example.com", "webhook": own},
            {"type": "Node", "name": "node"},
            {"type": "RBAC", "name": "rbac"},
        ],
    }
    return yaml.safe_dump(tree).encode()


async def test_a_webhook_decides_and_is_not_asked_twice(serve: Serve, hook: Hook, tmp_path: Path) -> None:
    Judge(hook, list={"allowed": True}, create={"denied": True, "reason": "not today"}, get={"allowed": False})
    flags = {"authorization_mode": ("Webhook",), "authorization_webhook_version": "v1"}
    client = await serve(authorization_webhook_config_file=kubeconfig(hook, tmp_path), **flags)

    assert (await client.ask("GET", MAPS, token="jane")).status == 200
    assert (await client.ask("GET", MAPS, token="jane")).status == 200
    status, answer = await client.json("POST", MAPS, {"metadata": {"name": "a"}}, token="jane")
    other, _ = await client.json("GET", f"{MAPS}/a", token="jane")

    assert len(hook.requests) == 3
    assert (status, other) == (403, 403)
    assert answer["message"].endswith('in the namespace "default": not today')
    spec = json.loads(hook.requests[0][1])["spec"]
    assert spec == {
        "resourceAttributes": {"namespace": "default", "verb": "list", "version": "v1", "resource": "configmaps"},
        "user": "jane",
        "groups": ["devs", "system:authenticated"],
    }


async def test_masters_pass_whatever_the_chain_says(serve: Serve) -> None:
    client = await serve(authorization_mode=("AlwaysDeny",))

    assert (await client.ask("GET", MAPS)).status == 200
    status, answer = await client.json("GET", MAPS, token="jane")
    assert status == 403
    assert answer["message"].endswith(": Everything is forbidden.")


async def test_only_what_the_conditions_name_is_asked_about(serve: Serve, hook: Hook, tmp_path: Path) -> None:
    Judge(hook, list={"denied": True})
    file = tmp_path / "authz.yaml"
    conditions = [
        {"expression": "has(request.resourceAttributes)"},
        {"expression": "request.resourceAttributes.namespace == 'kube-system'"},
    ]
    file.write_bytes(config(kubeconfig(hook, tmp_path), matchConditions=conditions))
    client = await serve(authorization_config=str(file))

    await client.ask("GET", MAPS, token="jane")
    await client.ask("GET", "/version", token="jane")
    asked = len(hook.requests)
    await client.ask("GET", "/api/v1/namespaces/kube-system/configmaps", token="jane")

    assert asked == 0
    assert len(hook.requests) == 1


@pytest.mark.parametrize(("policy", "status"), [("NoOpinion", 500), ("Deny", 500)])
async def test_a_webhook_that_fails_is_an_error(
    serve: Serve, hook: Hook, tmp_path: Path, policy: str, status: int
) -> None:
    Judge(hook)
    file = tmp_path / "authz.yaml"
    file.write_bytes(config(kubeconfig(hook, tmp_path), failurePolicy=policy))
    client = await serve(authorization_config=str(file))

    response = await client.ask("GET", MAPS, token="jane")

    assert response.status == status
    assert response.body.startswith(b'Internal Server Error: "/api/v1/namespaces/default/configmaps": ')


async def test_a_failing_webhook_without_opinion_lets_others_allow(serve: Serve, hook: Hook, tmp_path: Path) -> None:
    Judge(hook)
    statuses = {}
    for policy in ("NoOpinion", "Deny"):
        file = tmp_path / f"{policy}.yaml"
        file.write_bytes(config(kubeconfig(hook, tmp_path), failurePolicy=policy))
        client = await serve(authorization_config=str(file))
        statuses[policy] = (await client.ask("GET", "/version", token="jane")).status

    assert statuses == {"NoOpinion": 200, "Deny": 500}


async def test_reviews_and_impersonation_ask_the_webhook_too(serve: Serve, hook: Hook, tmp_path: Path) -> None:
    judge = Judge(hook, create={"allowed": True}, impersonate={"allowed": True}, get={"allowed": True, "reason": "ok"})
    for mode in ("user-info",):
        judge.by_verb[f"impersonate-on:{mode}:get"] = {"denied": True}
    client = await serve(authorization_mode=("Webhook",), authorization_webhook_config_file=kubeconfig(hook, tmp_path))
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}},
    }

    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    _, answer = await client.json("POST", path, review, token="jane")
    acting = await client.ask("GET", f"{MAPS}/x", token="jane", impersonate_user="joe")

    assert answer["status"] == {"allowed": True, "reason": "ok"}
    assert acting.status == 404


async def test_a_changed_chain_is_in_force_without_a_restart(serve: Serve, hook: Hook, tmp_path: Path) -> None:
    Judge(hook, list={"allowed": True})
    file = tmp_path / "authz.yaml"
    plain = yaml.safe_load(config("/x"))
    plain["authorizers"] = plain["authorizers"][1:]
    file.write_text(yaml.safe_dump(plain))
    client = await serve(authorization_config=str(file))
    before = (await client.ask("GET", MAPS, token="jane")).status

    file.write_bytes(config(kubeconfig(hook, tmp_path)))
    await next(iter(client.server.guard.followed.values())).look()

    assert before == 403
    assert (await client.ask("GET", MAPS, token="jane")).status == 200


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"timeout": ""}, 'time: invalid duration ""'),
        ({"timeout": "0s"}, r"authorizers\[0\].timeout: Required value"),
        ({"timeout": "31s"}, 'timeout: Invalid value: "31s": must be > 0s and <= 30s'),
        ({"authorizedTTL": "-1s"}, r'authorizers\[0\].authorizedTTL: Invalid value: "-1s": must be > 0s'),
        ({"connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": "/none"}}, "error loading file: stat /none"),
        ({"connectionInfo": {"type": "X"}}, 'Unsupported value: {"Type":"X","KubeConfigFile":null}: supported values'),
        ({"failurePolicy": "Maybe"}, 'Unsupported value: "Maybe": supported values: "NoOpinion", "Deny"'),
        ({"connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": "x"}}, "must be an absolute path"),
        ({"matchConditions": [{"expression": "request.user"}]}, "must evaluate to bool"),
        ({"matchConditions": [{"expression": "nonsense("}]}, "compilation failed: ERROR"),
        ({"retries": 3}, "unknown field"),
    ],
)
def test_a_chain_that_makes_no_sense_is_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        parse_authorization(config("/k", **change), ENGINE)


def test_the_same_mode_comes_once_and_names_differ() -> None:
    tree = yaml.safe_load(config("/k"))
    tree["authorizers"] = [{"type": "RBAC", "name": "a"}, {"type": "RBAC", "name": "b"}, {"type": "Node", "name": "a"}]

    with pytest.raises(ConfigError, match=r'type: Duplicate value: "RBAC", .*2\].name: Duplicate value: "a"'):
        parse_authorization(yaml.safe_dump(tree).encode(), ENGINE)


def test_an_authorizer_that_is_no_webhook_is_called_as_its_mode() -> None:
    tree = yaml.safe_load(config("/k"))
    tree["authorizers"] = [{"type": "Node", "name": "node"}, {"type": "RBAC", "name": "a"}]

    with pytest.raises(ConfigError, match=r"^expected name rbac for authorizer RBAC instead of a$"):
        parse_authorization(yaml.safe_dump(tree).encode(), ENGINE)


ABAC_VERSION = '"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy"'


@pytest.mark.parametrize(
    ("spec", "verb", "verdict"),
    [
        ('"user":"jane","namespace":"*","resource":"*","apiGroup":"*"', "delete", Verdict.ALLOW),
        ('"user":"jane","namespace":"*","resource":"pods","readonly":true', "get", Verdict.ALLOW),
        ('"user":"jane","namespace":"*","resource":"pods","readonly":true', "delete", Verdict.NO_OPINION),
        ('"group":"devs","namespace":"a","resource":"pods"', "get", Verdict.ALLOW),
        ('"group":"ops","namespace":"a","resource":"pods"', "get", Verdict.NO_OPINION),
        ('"user":"jane","namespace":"b","resource":"pods"', "get", Verdict.NO_OPINION),
        ('"namespace":"*","resource":"*","apiGroup":"*"', "get", Verdict.NO_OPINION),
    ],
)
def test_a_policy_line_allows_what_it_names(spec: str, verb: str, verdict: Verdict) -> None:
    policies = parse_policies(f'# a comment\n\n{{{ABAC_VERSION},"spec":{{{spec}}}}}\n')
    asked = Attributes(UserInfo("jane", groups=("devs",)), verb, namespace="a", resource="pods")

    assert ABAC(policies).authorize(asked).verdict is verdict


@pytest.mark.parametrize(
    ("line", "groups", "verdict"),
    [
        ("{}", (ALL_AUTHENTICATED,), Verdict.ALLOW),
        ("{}", (), Verdict.NO_OPINION),
        ('{"user":"jane"}', (), Verdict.ALLOW),
        ('{"user":"*","resource":"pods"}', (ALL_AUTHENTICATED,), Verdict.ALLOW),
        ('{"user":"jane","resource":"services"}', (), Verdict.NO_OPINION),
        ('{"group":"devs","namespace":"b"}', ("devs",), Verdict.NO_OPINION),
        ('{"user":"jane","readonly":true}', (), Verdict.NO_OPINION),
        (f'{{{ABAC_VERSION},"spec":{{"user":"*","group":"ops"}}}}', ("ops",), Verdict.NO_OPINION),
        (
            f'{{{ABAC_VERSION},"spec":{{"user":"*","namespace":"*","resource":"*","apiGroup":"*"}}}}',
            (ALL_AUTHENTICATED,),
            Verdict.ALLOW,
        ),
    ],
)
def test_a_policy_line_without_version_is_of_the_oldest_format(
    line: str, groups: tuple[str, ...], verdict: Verdict
) -> None:
    asked = Attributes(UserInfo("jane", groups=groups), "delete", namespace="a", resource="pods")

    assert ABAC(parse_policies(line)).authorize(asked).verdict is verdict


def test_a_broken_policy_line_is_named() -> None:
    with pytest.raises(ConfigError, match="on line 2"):
        parse_policies(f'{{{ABAC_VERSION}}}\n{{"user":1}}\n')


async def test_who_may_do_everything_has_to_be_somebody(serve: Serve) -> None:
    client = await serve(authorization_mode=("AlwaysAllow",))

    assert (await client.ask("GET", MAPS, token="jane")).status == 200
    assert (await client.ask("GET", MAPS, token="")).status == 401


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"authorization_mode": ()}, "at least one authorization-mode must be passed"),
        ({"authorization_mode": ("RBAC", "RBAC")}, "has mode specified more than once"),
        ({"authorization_mode": ("Magic",)}, "'Magic' is not a valid mode"),
        ({"authorization_mode": ("Webhook",)}, "authorization config file not passed"),
        ({"authorization_policy_file": "/x"}, "cannot specify --authorization-policy-file without mode ABAC"),
    ],
)
async def test_modes_that_make_no_sense_are_refused(serve: Serve, flags: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        await serve(**flags)

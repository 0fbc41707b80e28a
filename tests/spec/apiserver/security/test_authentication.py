"""Tokens of OpenID issuers and of webhooks, anonymous users, and the file that configures them."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from joserfc import jws
from joserfc.jwk import RSAKey

from haven.api.core import v1 as core
from haven.apimachinery import meta
from haven.apimachinery.apierrors import Unauthorized
from haven.apiserver.authentication.configuration import parse_authentication
from haven.apiserver.authentication.jwt import MappedClaim, Mapping_, Rule
from haven.apiserver.authentication.legacytracking import NAME, LegacyTracking
from haven.apiserver.configfiles import ConfigError, FollowedFile
from haven.apiserver.expressions import CelEngine
from haven.apiserver.flags import FlagError, with_flags
from haven.apiserver.settings import Settings
from haven.clock import FakeClock

from ..webhooks.conftest import Hook, authority_name, hook
from .conftest import Serve

__all__ = ["authority_name", "hook"]

ENGINE = CelEngine()


class Provider:
    """An OpenID provider behind the hook server."""

    def __init__(self, hook: Hook) -> None:
        self.hook = hook
        self.url = hook.url("").rstrip("/")
        self.key = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
        self.fetched = 0
        hook.answer = self.answer

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/.well-known/openid-configuration":
            return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys"})
        self.fetched += 1
        return web.json_response({"keys": [self.key.as_dict(private=False)]})

    def token(self, **claims: Any) -> str:
        said = {"iss": self.url, "aud": "haven", "sub": "jane", "exp": int(time.time()) + 60} | claims
        header = {"alg": "RS256", "kid": self.key.kid}
        return jws.serialize_compact(header, json.dumps(said).encode(), self.key, algorithms=["RS256"])


def config(provider: Provider, **jwt: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "jwt": [
            {
                "issuer": {
                    "url": provider.url,
                    "audiences": ["haven"],
                    "certificateAuthority": provider.hook.ca.decode(),
                },
                "claimMappings": {"username": {"claim": "sub", "prefix": "oidc:"}},
                **jwt,
            }
        ],
    }


async def who(client: Any, token: str) -> tuple[int, Any]:
    body = {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"}
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    status, answer = await client.json("POST", path, body, token=token)
    return status, answer["status"]["userInfo"] if status == 201 else answer


async def test_a_token_of_a_configured_issuer_makes_a_user(serve: Serve, hook: Hook, tmp_path: Path) -> None:
    provider = Provider(hook)
    file = tmp_path / "authn.yaml"
    file.write_text(
        yaml.safe_dump(
            config(
                provider,
                claimMappings={
                    "username": {"expression": "'jwt:' + claims.sub"},
                    "groups": {"expression": "claims.roles.split(',')"},
                    "uid": {"claim": "sub"},
                    "extra": [{"key": "example.com/tenant", "valueExpression": "claims.tenant"}],
                },
                claimValidationRules=[{"expression": "claims.hd == 'example.com'", "message": "wrong domain"}],
                userValidationRules=[{"expression": "!user.username.startsWith('system:')", "message": "reserved"}],
            )
        )
    )
    client = await serve(authentication_config=str(file))

    status, user = await who(client, provider.token(roles="a,b", tenant="t", hd="example.com", jti="7"))

    assert status == 201
    assert user["username"] == "jwt:jane"
    assert user["groups"] == ["a", "b", "system:authenticated"]
    assert user["uid"] == "jane"
    credential = {"authentication.kubernetes.io/credential-id": ["JTI=7"]}
    assert user["extra"] == {"example.com/tenant": ["t"], **credential}
    for wrong in ({"hd": "other.com"}, {"aud": "them"}, {"exp": int(time.time()) - 1}, {"iss": "https://x.example"}):
        claims = {"roles": "a", "tenant": "t", "hd": "example.com"} | wrong
        assert (await who(client, provider.token(**claims)))[0] == 401, wrong


async def test_a_key_that_is_new_is_asked_for_and_a_forged_token_is_refused(
    serve: Serve, hook: Hook, tmp_path: Path
) -> None:
    provider = Provider(hook)
    file = tmp_path / "authn.yaml"
    file.write_text(yaml.safe_dump(config(provider)))
    client = await serve(authentication_config=str(file))
    assert (await who(client, provider.token()))[1]["username"] == "oidc:jane"
    client.server.chain._identify._authenticators[-1]._trusted.clear()

    issuer = next(iter(client.server.guard.issuers._issuers.values()))
    issuer.keys._asked_at -= 60
    provider.key = RSAKey.generate_key(2048, {"kid": "two", "use": "sig"})
    status, _ = await who(client, provider.token())
    forger = RSAKey.generate_key(2048, {"kid": "two"})
    header, body, _signature = provider.token(sub="root").split(".")
    forged = jws.serialize_compact({"alg": "RS256", "kid": "two"}, b'{"iss":"' + provider.url.encode() + b'"}', forger)

    assert status == 201
    assert provider.fetched == 2
    assert (await who(client, f"{header}.{body}.{forged.split('.')[2]}"))[0] == 401


async def test_the_oidc_flags_do_the_same(serve: Serve, hook: Hook, tmp_path: Path) -> None:
    provider = Provider(hook)
    (tmp_path / "ca.pem").write_bytes(hook.ca)
    client = await serve(
        oidc_issuer_url=provider.url,
        oidc_client_id="haven",
        oidc_groups_claim="groups",
        oidc_groups_prefix="g:",
        oidc_required_claim=("hd=x",),
        oidc_ca_file=str(tmp_path / "ca.pem"),
    )

    status, user = await who(client, provider.token(groups=["a"], hd="x"))

    assert status == 201
    assert user["username"] == f"{provider.url}#jane"
    assert user["groups"] == ["g:a", "system:authenticated"]
    assert (await who(client, provider.token(groups=["a"])))[0] == 401


async def test_a_webhook_knows_tokens_and_is_not_asked_twice(serve: Serve, hook: Hook, tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        review = json.loads(hook.requests[-1][1])
        good = review["spec"]["token"] == "sesame"
        user = {"username": "ali", "groups": ["thieves"], "extra": {"cave": ["deep"]}}
        return web.json_response({**review, "status": {"authenticated": good, **({"user": user} if good else {})}})

    hook.answer = answer
    client = await serve(authentication_token_webhook_config_file=kubeconfig(hook, tmp_path))

    status, user = await who(client, "sesame")
    client.server.chain._identify._authenticators[-1]._trusted.clear()
    again, _ = await who(client, "sesame")

    assert (status, again) == (201, 201)
    assert user["username"] == "ali"
    assert user["groups"] == ["thieves", "system:authenticated"]
    assert len(hook.requests) == 1
    assert (await who(client, "open"))[0] == 401


def kubeconfig(hook: Hook, folder: Path) -> str:
    (folder / "hook-ca.pem").write_bytes(hook.ca)
    path = folder / "hook.kubeconfig"
    tree = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "h", "cluster": {"server": hook.url(), "certificate-authority": "hook-ca.pem"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "h", "user": "u"}}],
        "current-context": "c",
    }
    path.write_text(yaml.safe_dump(tree))
    return str(path)


async def test_anonymous_users_pass_only_where_conditions_let_them(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "authn.yaml"
    anonymous = {"enabled": True, "conditions": [{"path": "/livez"}]}
    tree = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "anonymous": anonymous}
    file.write_text(yaml.safe_dump(tree))
    client = await serve(authentication_config=str(file))

    assert (await client.ask("GET", "/livez", token="")).status == 200
    assert (await client.ask("GET", "/readyz", token="")).status == 401

    file.write_text(yaml.safe_dump(tree | {"anonymous": {"enabled": False}}))
    await next(iter(client.server.guard.followed.values())).look()

    assert (await client.ask("GET", "/livez", token="")).status == 401


async def test_the_anonymous_flag_turns_them_away(serve: Serve) -> None:
    client = await serve(anonymous_auth=False)

    assert (await client.ask("GET", "/livez", token="")).status == 401


async def test_the_token_file_is_read(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "tokens.csv").write_text('secret,joe,7,"a,b"\n')
    client = await serve(token_auth_file=str(tmp_path / "tokens.csv"))

    assert (await who(client, "secret"))[1]["groups"] == ["a", "b", "system:authenticated"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"issuer": {"url": "http://x", "audiences": ["a"]}}, "URL scheme must be https"),
        ({"issuer": {"url": "https://x"}}, "at least one jwt"),
        ({"issuer": {"url": "https://x", "audiences": ["a", "b"]}}, "audienceMatchPolicy must be MatchAny"),
        ({"claimMappings": {}}, "claim or expression is required"),
        ({"claimMappings": {"username": {"claim": "sub"}}}, "prefix is required when claim is set"),
        ({"claimMappings": {"username": {"expression": "claims."}}}, "compilation failed"),
        ({"claimValidationRules": [{"expression": "1"}]}, 'Invalid value: "1": must evaluate to bool'),
        ({"claimValidationRules": [{"expression": "true"}] * 2}, r'Rules\[1\].expression: Duplicate value: "true"'),
        ({"claimValidationRules": [{"claim": "a", "message": "b"}]}, "may not be specified when claim is set"),
        ({"claimMappings": {"username": {"expression": "claims.?email.orValue('')"}}}, "email_verified must be used"),
        ({"issuer": {"url": "https://x", "audiences": ["a"], "discoveryURL": "https://x/"}}, "different from URL"),
        ({"issuer": {"url": "https://x", "audiences": ["a"], "egressSelectorType": "b"}}, "controlplane or cluster"),
        ({"issuer": {"url": "https://x", "audiences": ["a"], "egressSelectorType": "cluster"}}, "lookup required"),
        ({"claimMappings": {"username": {"expression": "claims.email"}}}, "claims.email_verified must be used"),
        ({"userValidationRules": [{"expression": "user.name == ''"}]}, "undefined field 'name'"),
        ({"jwtt": 1}, r'unknown field "jwt\[0\].jwtt"'),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(change: dict[str, Any], complaint: str) -> None:
    item = {
        "issuer": {"url": "https://x", "audiences": ["a"]},
        "claimMappings": {"username": {"claim": "sub", "prefix": ""}},
        **change,
    }
    tree = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": [item]}

    with pytest.raises(ConfigError, match=complaint):
        parse_authentication(yaml.safe_dump(tree).encode(), ENGINE)


def test_the_address_of_an_email_has_to_be_verified() -> None:
    mapping = Mapping_(MappedClaim("email"))

    assert mapping.user({"email": "a@b.example"}).name == "a@b.example"
    with pytest.raises(Unauthorized, match="email not verified"):
        mapping.user({"email": "a@b.example", "email_verified": False})


def test_a_claim_that_is_required_has_to_be_there_with_its_value() -> None:
    mapping = Mapping_(MappedClaim("sub"), claim_rules=(Rule(claim="hd", required_value="x"),))

    assert mapping.user({"sub": "jane", "hd": "x"}).name == "jane"
    with pytest.raises(Unauthorized, match="required claim hd not present"):
        mapping.user({"sub": "jane"})
    with pytest.raises(Unauthorized, match="does not match"):
        mapping.user({"sub": "jane", "hd": "y"})


async def test_a_changed_file_that_is_wrong_leaves_the_old_one_in_force(tmp_path: Path) -> None:
    file, seen = tmp_path / "f", []

    def apply(data: bytes) -> None:
        if data == b"bad":
            raise ConfigError("bad")
        seen.append(data)

    file.write_bytes(b"one")
    followed = FollowedFile(file, apply, clock=FakeClock(), every_seconds=60)
    followed.load()
    for data in (b"one", b"bad", b"two"):
        file.write_bytes(data)
        await followed.look()

    assert seen == [b"one", b"two"]
    assert (followed.reloads, followed.failures) == (1, 1)


def test_flags_have_upstreams_names() -> None:
    flags = {
        "authorization-mode": "Node,RBAC,Webhook",
        "authorization-webhook-cache-authorized-ttl": "1m30s",
        "anonymous-auth": "false",
        "max-requests-inflight": "7",
        "oidc-required-claim": ["a=b", "c=d"],
    }

    settings = with_flags(Settings(), flags)

    assert settings.security.authorization_mode == ("Node", "RBAC", "Webhook")
    assert settings.security.authorization_webhook_cache_authorized_ttl_seconds == 90
    assert settings.security.anonymous_auth is False
    assert settings.requests_in_flight_max == 7
    assert settings.security.oidc_required_claim == ("a=b", "c=d")
    with pytest.raises(FlagError, match="unknown flag: --nonsense"):
        with_flags(Settings(), {"nonsense": "1"})
    with pytest.raises(FlagError, match="invalid argument"):
        with_flags(Settings(), {"audit-webhook-batch-max-wait": "soon"})


async def test_the_use_of_a_token_from_a_secret_is_noted(serve: Serve) -> None:
    client = await serve()
    await client.ask("POST", "/api/v1/namespaces/kube-system/secrets", {"metadata": {"name": "t"}})
    clock = FakeClock()
    tracking = LegacyTracking(clock)
    running = asyncio.ensure_future(tracking.run(client.server.local_client()))
    tracking.used(core.Secret(metadata=meta.ObjectMeta(name="t", namespace="kube-system")))
    tracking.used(core.Secret(metadata=meta.ObjectMeta(name="gone", namespace="kube-system")))
    for _ in range(50):
        await asyncio.sleep(0)

    _, secret = await client.json("GET", "/api/v1/namespaces/kube-system/secrets/t")
    _, since = await client.json("GET", f"/api/v1/namespaces/kube-system/configmaps/{NAME}")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert secret["metadata"]["labels"] == {"kubernetes.io/legacy-token-last-used": "2023-11-14"}
    assert since["data"] == {"since": "2023-11-14"}

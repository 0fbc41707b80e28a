"""Groups that a token only names are got from where it says they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from haven.apimachinery.apierrors import Unauthorized
from haven.apiserver.authentication.distributedclaims import ClaimSources
from haven.apiserver.authentication.issuerkeys import FetchFailed, IssuerKeys
from haven.apiserver.configfiles import ConfigError
from haven.clock import FakeClock

from ..webhooks.conftest import Hook, authority_name, hook
from .conftest import Serve
from .test_authentication import Provider, who

__all__ = ["authority_name", "hook"]


class Source(Provider):
    """A provider that also knows the groups of its users, for those who have an access token."""

    asked: tuple[str, ...] = ()
    groups: Any = ("a", "b")

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path != "/groups":
            return await super().answer(request)
        self.asked += (request.headers.get("Authorization", ""),)
        return web.Response(text=self.token(groups=self.groups))

    def names(self, **more: Any) -> dict[str, Any]:
        source = {"endpoint": f"{self.url}/groups", "access_token": "sesame"}
        return {"_claim_names": {"groups": "src"}, "_claim_sources": {"src": source}, **more}


async def test_groups_come_from_the_endpoint_that_a_token_names(serve: Serve, hook: Hook, tmp_path: Path) -> None:
    source = Source(hook)
    (tmp_path / "ca.pem").write_bytes(hook.ca)
    client = await serve(
        oidc_issuer_url=source.url,
        oidc_client_id="haven",
        oidc_groups_claim="groups",
        oidc_ca_file=str(tmp_path / "ca.pem"),
    )

    status, user = await who(client, source.token(**source.names()))
    _, own = await who(client, source.token(**source.names(groups=["mine"])))

    assert (status, user["groups"]) == (201, ["a", "b", "system:authenticated"])
    assert own["groups"] == ["mine", "system:authenticated"]  # What the token holds itself is not asked for.
    assert source.asked == ("Bearer sesame",)
    assert (await who(client, source.token(**source.names(_claim_sources={}))))[0] == 401


@pytest.mark.parametrize(
    ("claims", "complaint"),
    [
        ({"_claim_names": {"groups": "src"}}, "oidc: no claim sources"),
        ({"_claim_names": "x", "_claim_sources": {}}, "error parsing distributed claim names"),
        (
            {"_claim_names": {"groups": "src"}, "_claim_sources": {}},
            "id token _claim_names contained a source src missing in _claims_sources",
        ),
        (
            {"_claim_names": {"groups": "src"}, "_claim_sources": {"src": {"endpoint": "https://away"}}},
            'while getting distributed claim "groups": https://away: 503 Service Unavailable',
        ),
    ],
)
async def test_a_promise_that_is_not_kept_refuses_the_token(claims: dict[str, Any], complaint: str) -> None:
    async def ask(url: str, _token: str) -> bytes:
        raise FetchFailed(f"{url}: 503 Service Unavailable")

    def keys_of(issuer: str) -> IssuerKeys:
        raise AssertionError(issuer)

    sources = ClaimSources("groups", ("haven",), ("RS256",), ask, keys_of, FakeClock())

    with pytest.raises(Unauthorized) as caught:
        await sources.complete(claims)

    assert caught.value.message.startswith("oidc: could not expand distributed claims: ")
    assert complaint in caught.value.message


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "jane"},
        {"_claim_names": {"roles": "src"}, "_claim_sources": {}},
        {"_claim_names": {"groups": "src"}, "_claim_sources": {"src": {"JWT": "e30.e30.x"}}},
    ],
)
async def test_where_nothing_is_promised_nothing_is_asked(claims: dict[str, Any]) -> None:
    async def ask(url: str, _token: str) -> bytes:
        raise AssertionError(url)

    def keys_of(issuer: str) -> IssuerKeys:
        raise AssertionError(issuer)

    assert await ClaimSources("groups", ("haven",), ("RS256",), ask, keys_of, FakeClock()).complete(claims) == claims


async def test_an_issuer_is_named_together_with_what_its_tokens_are_meant_for(serve: Serve) -> None:
    with pytest.raises(ConfigError, match="oidc-issuer-url and oidc-client-id must be specified together"):
        await serve(oidc_client_id="haven")

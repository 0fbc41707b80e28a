"""Claims that a token does not hold but names: the groups of a user, got from where the token says they are.

A token has `_claim_names: {groups: src1}` and `_claim_sources: {src1: {endpoint, access_token}}`; the endpoint answers
with a token of its own, whose issuer has to vouch for it.
Source: https://openid.net/specs/openid-connect-core-1_0.html#AggregatedDistributedClaims
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from haven.apimachinery.apierrors import Unauthorized
from haven.apimachinery.goformat import quote
from haven.apiserver.authentication.issuerkeys import FetchFailed, IssuerKeys, Refused
from haven.apiserver.authentication.jwt import check_claims, claims_of, verify
from haven.clock import Clock

__all__ = ["Ask", "ClaimSources"]

Ask = Callable[[str, str], Awaitable[bytes]]
"""Returns the body of a successful GET with an access token; raises FetchFailed."""
_NAMES, _SOURCES = "_claim_names", "_claim_sources"
_ISSUERS_MAX = 100


class ClaimSources:
    """Completes the claims of tokens by one claim."""

    def __init__(
        self,
        claim: str,
        audiences: Sequence[str],
        algorithms: Sequence[str],
        ask: Ask,
        keys_of: Callable[[str], IssuerKeys],
        clock: Clock,
    ) -> None:
        self._claim = claim
        self._audiences = tuple(audiences)
        self._algorithms = tuple(algorithms)
        self._ask = ask
        self._keys_of = keys_of
        self._clock = clock
        self._keys: dict[str, IssuerKeys] = {}

    async def complete(self, claims: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a token's claims with the wanted one; raise Unauthorized if it is promised and cannot be got."""
        if self._claim in claims or _NAMES not in claims:
            return claims
        try:
            return await self._completed(claims)
        except _Failed as error:
            raise Unauthorized(f"oidc: could not expand distributed claims: {error}") from None

    async def _completed(self, claims: Mapping[str, Any]) -> Mapping[str, Any]:
        names, sources = claims[_NAMES], claims.get(_SOURCES)
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise _Failed("oidc: error parsing distributed claim names: they are no map of strings")
        if sources is None:
            raise _Failed("oidc: no claim sources")
        if not isinstance(sources, dict):
            raise _Failed("oidc: could not parse claim sources: they are no map")
        name = names.get(self._claim)
        if name is None:
            return claims
        source = sources.get(name)
        if not isinstance(source, dict):
            raise _Failed(f"id token _claim_names contained a source {name} missing in _claims_sources")
        endpoint, token = source.get("endpoint"), source.get("access_token")
        if not isinstance(endpoint, str) or not endpoint:
            return claims  # The source may hold the claim itself, which upstream does not read either.
        value = await self._value(endpoint, token if isinstance(token, str) else "")
        return {**claims, self._claim: value}

    async def _value(self, endpoint: str, access_token: str) -> Any:
        claim = quote(self._claim)
        try:
            token = (await self._ask(endpoint, access_token)).decode().strip()
        except Refused as error:
            text = "error while getting distributed claim JWT"
            raise _Failed(f"while getting distributed claim {claim}: {text}: {error}") from None
        except (FetchFailed, UnicodeDecodeError) as error:
            raise _Failed(f"while getting distributed claim {claim}: {error}") from None
        try:
            said = claims_of(token)
        except Unauthorized as error:
            text = f"getting untrusted issuer from endpoint {endpoint} failed for claim {claim}"
            raise _Failed(f"{text}: {error.message}") from None
        try:
            await self._check(token, said)
        except Unauthorized as error:
            raise _Failed(f"verify distributed claim token: {error.message}") from None
        if self._claim not in said:
            text = f"jwt returned by distributed claim endpoint {quote(endpoint)}"
            raise _Failed(f"{text} did not contain claim: {self._claim}")
        return said[self._claim]

    async def _check(self, token: str, said: Mapping[str, Any]) -> None:
        issuer = str(said.get("iss", ""))
        known = self._keys.get(issuer)
        if known is None:
            if len(self._keys) >= _ISSUERS_MAX:
                self._keys.clear()
            known = self._keys[issuer] = self._keys_of(issuer)
        if not verify(token, await known.keys(), self._algorithms):
            if not await known.refresh() or not verify(token, await known.keys(), self._algorithms):
                raise Unauthorized("failed to verify signature: failed to verify id token signature")
        check_claims(said, issuer=issuer, audiences=self._audiences, now=self._clock.now_seconds())


class _Failed(Exception):
    """A claim was not got; the message says why."""

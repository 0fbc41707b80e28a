"""Bearer tokens of configured OpenID issuers.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#openid-connect-tokens
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from haven.apimachinery.apierrors import Unauthorized
from haven.apiserver.authentication.distributedclaims import ClaimSources
from haven.apiserver.authentication.interface import TokenIdentity
from haven.apiserver.authentication.issuerkeys import IssuerKeys
from haven.apiserver.authentication.jwt import ALGORITHMS, Mapping_, check_claims, claims_of, verify
from haven.apiserver.authentication.tokenstatistics import Judgements, KeyFetches
from haven.clock import Clock

__all__ = ["Issuer", "IssuerTokens"]


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer, what its tokens must be meant for, and how they make users."""

    url: str
    audiences: tuple[str, ...]
    mapping: Mapping_
    keys: IssuerKeys
    algorithms: tuple[str, ...] = ALGORITHMS
    sources: ClaimSources | None = None
    """Where groups are got that tokens only name."""


class IssuerTokens:
    """Knows the tokens of some issuers. `replace` exchanges them while the server runs."""

    def __init__(self, issuers: Sequence[Issuer], api_audiences: Sequence[str], clock: Clock) -> None:
        self._api_audiences = tuple(api_audiences)
        self._clock = clock
        self._issuers: dict[str, Issuer] = {}
        self.judgements: dict[str, Judgements] = {}
        self.replace(issuers)

    def replace(self, issuers: Sequence[Issuer]) -> None:
        """Take tokens of these issuers from now on, and of no others."""
        self._issuers = {issuer.url: issuer for issuer in issuers}

    @property
    def fetches(self) -> dict[str, KeyFetches]:
        """How getting the keys of each issuer went, by its URL."""
        return {url: issuer.keys.fetches for url, issuer in self._issuers.items()}

    async def wait_token(self, token: str, audiences: tuple[str, ...]) -> TokenIdentity | None:
        """Return whom a token stands for, None if it is of no issuer of ours; raise Unauthorized if it is no good."""
        # Such a token is meant for this server, under any of its names.
        meant_for = tuple(audience for audience in audiences if audience in self._api_audiences)
        if not meant_for:
            return None
        try:
            claims = claims_of(token)
        except Unauthorized:
            return None
        issuer = self._issuers.get(str(claims.get("iss", "")))
        if issuer is None:
            return None
        with self.judgements.setdefault(issuer.url, Judgements()).judging():
            return await self._judge(issuer, token, claims, meant_for)

    async def _judge(
        self, issuer: Issuer, token: str, claims: dict[str, Any], meant_for: tuple[str, ...]
    ) -> TokenIdentity:
        keys = await issuer.keys.keys()
        if not verify(token, keys, issuer.algorithms):
            # The issuer may have a new key.
            if not await issuer.keys.refresh() or not verify(token, await issuer.keys.keys(), issuer.algorithms):
                raise Unauthorized(
                    "oidc: verify token: failed to verify signature: failed to verify id token signature"
                )
        now = self._clock.now_seconds()
        check_claims(claims, issuer=issuer.url, audiences=issuer.audiences, now=now)
        if issuer.sources is not None:
            claims = dict(await issuer.sources.complete(claims))
        user = issuer.mapping.user(claims)
        return TokenIdentity(user, meant_for, float(claims["exp"]))

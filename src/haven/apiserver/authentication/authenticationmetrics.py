"""What authentication counted, shown under upstream's metric names."""

from __future__ import annotations

import hashlib

from haven.apiserver.authentication.issuers import IssuerTokens
from haven.apiserver.authentication.tokenstatistics import AccountTokenUses, TokenStatistics
from haven.metrics.families import Histogram, Registry

__all__ = ["AuthenticationMetrics"]

_ACCOUNT_TOKENS = {
    "serviceaccount_legacy_tokens_total": "legacy",
    "serviceaccount_legacy_auto_token_uses_total": "generated",
    "serviceaccount_legacy_manual_token_uses_total": "manual",
    "serviceaccount_invalid_legacy_auto_token_uses_total": "invalid",
    "serviceaccount_stale_tokens_total": "stale",
    "serviceaccount_valid_tokens_total": "valid",
}
_JWT = "apiserver_authentication_jwt_authenticator_"


class AuthenticationMetrics:
    """Fills in counts when somebody asks. Issuers and the server itself are shown by hashes of their names."""

    def __init__(
        self,
        registry: Registry,
        tokens: TokenStatistics,
        accounts: AccountTokenUses,
        issuers: IssuerTokens,
        remaining: Histogram | None,
        *,
        identity: str,
    ) -> None:
        self._registry = registry
        self._tokens = tokens
        self._accounts = accounts
        self._issuers = issuers
        self._own = _hash(identity)
        if remaining is not None:
            registry["apiserver_client_certificate_expiration_seconds"].show((), remaining)
        registry.add_collector(self._collect)

    def _collect(self) -> None:
        registry, tokens, prefix = self._registry, self._tokens, "authentication_token_cache_"
        for name, attribute in _ACCOUNT_TOKENS.items():
            registry[name].set((), getattr(self._accounts, attribute))
        missed = sum(tokens.misses.counts)
        if tokens.hits:
            registry[prefix + "request_total"].set(("hit",), tokens.hits)
            hits = Histogram(tokens.misses.bounds)
            hits.add_some(0.0, tokens.hits)
            registry[prefix + "request_duration_seconds"].show(("hit",), hits)
        if missed or tokens.in_flight:
            for status in ("blocked", "in_flight"):
                registry[prefix + "active_fetch_count"].set((status,), tokens.in_flight)
        if missed:
            registry[prefix + "request_total"].set(("miss",), missed)
            registry[prefix + "request_duration_seconds"].show(("miss",), tokens.misses)
        for status, number in (("ok", tokens.fetched), ("error", tokens.failed)):
            if number:
                registry[prefix + "fetch_total"].set((status,), number)
        self._of_issuers()

    def _of_issuers(self) -> None:
        registry = self._registry
        for url, found in self._issuers.judgements.items():
            for result, spread in (("success", found.success), ("failure", found.failure)):
                if sum(spread.counts):
                    registry[_JWT + "latency_seconds"].show((_hash(url), result), spread)
        info, moments = (
            registry[_JWT + "jwks_fetch_last_key_set_info"],
            registry[_JWT + "jwks_fetch_last_timestamp_seconds"],
        )
        info.clear()
        moments.clear()
        for url, fetches in self._issuers.fetches.items():
            if fetches.digest:
                info.set((self._own, f"sha256:{fetches.digest}", _hash(url)), 1)
            for result, moment in (("success", fetches.got_at), ("failure", fetches.failed_at)):
                if moment:
                    moments.set((self._own, _hash(url), result), moment)


def _hash(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

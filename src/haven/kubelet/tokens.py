"""Service account tokens for pods: asked for by TokenRequest, bound to the pod, renewed before they expire.

Source: https://kubernetes.io/docs/concepts/storage/projected-volumes/#serviceaccounttoken
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any, cast

from haven.api.authentication.v1 import BoundObjectReference, TokenRequest, TokenRequestSpec
from haven.api.core.v1 import Pod, ServiceAccount, ServiceAccountTokenProjection
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, times
from haven.client.interface import Client
from haven.clock import Clock
from haven.telemetry import logger

__all__ = ["TokenManager"]

_log = logger("tokens")
_DEFAULT_SECONDS = 3600
_AGE_SECONDS_MAX = 24 * 3600.0
_RENEW_AT = 0.8
_JITTER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    issued: float
    expires: float
    renew_at: float


class TokenManager:
    """Tokens by pod and audience. A token that cannot be renewed is used until it expires."""

    def __init__(self, client: Client, clock: Clock, chance: Random) -> None:
        self._client = client
        self._clock = clock
        self._chance = chance
        self._tokens: dict[tuple[str, str, int], _Token] = {}

    async def token(self, pod: Pod, projection: ServiceAccountTokenProjection) -> str:
        """Return a token that is valid for a good while yet; raise ApiError."""
        seconds = projection.expiration_seconds or _DEFAULT_SECONDS
        key = (pod.metadata.uid, projection.audience, seconds)
        now = self._clock.now_seconds()
        known = self._tokens.get(key)
        if known is not None and now < known.renew_at:
            return known.text
        try:
            fresh = await self._request(pod, projection.audience, seconds)
        except apierrors.ApiError as error:
            if known is not None and now < known.expires:
                _log.warning("token cannot be renewed yet", pod=pod.metadata.name, reason=error.message)
                return known.text
            raise
        self._tokens[key] = fresh
        return fresh.text

    def forget(self, pod_uid: str) -> None:
        """Drop a pod's tokens."""
        for key in [key for key in self._tokens if key[0] == pod_uid]:
            del self._tokens[key]

    def next_renewal(self, pod_uid: str) -> float | None:
        """Return when the first of a pod's tokens has to be renewed, in seconds since 1970."""
        return min((token.renew_at for key, token in self._tokens.items() if key[0] == pod_uid), default=None)

    async def _request(self, pod: Pod, audience: str, seconds: int) -> _Token:
        request = TokenRequest(
            spec=TokenRequestSpec(
                audiences=[audience] if audience else None,
                expiration_seconds=seconds,
                bound_object_ref=BoundObjectReference(
                    kind="Pod", api_version="v1", name=pod.metadata.name, uid=pod.metadata.uid
                ),
            )
        )
        # A subresource's body and answer have a type of their own.
        resource = cast("Any", resource_of(ServiceAccount))
        answer: TokenRequest = await self._client.create(
            resource,
            request,
            namespace=pod.metadata.namespace,
            name=pod.spec.service_account_name or "default",
            subresource="token",
        )
        now = self._clock.now_seconds()
        expires = times.parse(answer.status.expiration_timestamp) if answer.status.expiration_timestamp else now
        lifetime = min((expires - now) * _RENEW_AT, _AGE_SECONDS_MAX)
        jitter = self._chance.random() * _JITTER_SECONDS
        return _Token(answer.status.token, now, expires, now + max(lifetime - jitter, 0.0))

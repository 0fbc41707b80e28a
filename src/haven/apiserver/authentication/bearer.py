"""Bearer tokens of requests: found in the Authorization header or in a WebSocket's subprotocol.

A token that proved good is not examined again for a short while, as upstream does with its token cache; a revoked
token may so live on for that long.
Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#putting-a-bearer-token-in-a-request
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from haven.apimachinery.apierrors import Unauthorized
from haven.apiserver.authentication.interface import RemoteTokenAuthenticator, TokenAuthenticator, TokenIdentity
from haven.apiserver.authentication.tokenstatistics import TokenStatistics
from haven.apiserver.request import Request, UserInfo
from haven.clock import Clock

__all__ = ["BearerTokens", "TokenUnion", "token_in"]

TRUSTED_SECONDS = 2.0
"""How long a good token is taken on trust; upstream's ten seconds only because its look-ups may cost a round trip."""
_CACHED_MAX = 16384
_SUBPROTOCOL = "base64url.bearer.authorization.k8s.io."


class TokenUnion:
    """Asks every kind of token; the first that knows the token decides, one that refuses it is outvoted by success."""

    def __init__(self, kinds: Sequence[TokenAuthenticator | RemoteTokenAuthenticator]) -> None:
        self._kinds = tuple(kinds)
        self.statistics = TokenStatistics()

    async def wait_token(self, token: str, audiences: tuple[str, ...]) -> TokenIdentity | None:
        """Return whom the token stands for, None if nobody knows it; raise Unauthorized if it is no good."""
        with self.statistics.judging():
            return await self._judge(token, audiences)

    async def _judge(self, token: str, audiences: tuple[str, ...]) -> TokenIdentity | None:
        refusals: list[str] = []
        for kind in self._kinds:
            try:
                if isinstance(kind, RemoteTokenAuthenticator):
                    identity = await kind.wait_token(token, audiences)
                else:
                    identity = kind.authenticate_token(token, audiences)
            except Unauthorized as error:
                refusals.append(error.message)
                continue
            if identity is not None:
                return identity
        if refusals:
            raise Unauthorized(", ".join(dict.fromkeys(refusals)))
        return None


class BearerTokens:
    """Authenticates requests by their bearer token, for the API server's own audiences."""

    def __init__(self, tokens: TokenUnion, audiences: Sequence[str], clock: Clock) -> None:
        self._tokens = tokens
        self._audiences = tuple(audiences)
        self._clock = clock
        self._statistics = tokens.statistics
        self._trusted: dict[str, tuple[TokenIdentity, float]] = {}
        self._by_header: dict[str, tuple[UserInfo, float]] = {}

    async def authenticate(self, request: Request) -> UserInfo | None:
        header = request.headers.get("authorization", "")
        known = self._by_header.get(header)
        if known is not None and self._clock.now_seconds() < known[1]:
            self._statistics.hits += 1
            return known[0]
        token = token_in(header, request.warnings)
        if token is None and "sec-websocket-protocol" in request.headers:
            token = _from_subprotocols(request)
        if token is None:
            return None
        identity, until = await self._identify(token)
        request.warnings.extend(identity.warnings)
        request.audit_annotations.update(identity.audit_annotations)
        if header and not identity.warnings and not identity.audit_annotations:
            if len(self._by_header) >= _CACHED_MAX:
                self._by_header.clear()
            self._by_header[header] = (identity.user, until)
        return identity.user

    async def _identify(self, token: str) -> tuple[TokenIdentity, float]:
        """Return whom a token stands for, and until when that may be taken on trust."""
        now = self._clock.now_seconds()
        known = self._trusted.get(token)
        if known is not None and now < known[1]:
            self._statistics.hits += 1
            return known
        self._trusted.pop(token, None)
        identity = await self._tokens.wait_token(token, self._audiences)
        if identity is None:
            raise Unauthorized("invalid bearer token")
        until = now + TRUSTED_SECONDS
        if len(self._trusted) >= _CACHED_MAX:
            self._trusted.clear()
        found = self._trusted[token] = (identity, min(until, identity.expires) if identity.expires else until)
        return found


def token_in(header: str, warnings: list[str]) -> str | None:
    """Return the token of an Authorization header, None if there is none; a warning may tell why."""
    parts = header.strip().split(" ", 2)
    if len(parts) < 2 or parts[0].lower() != "bearer":
        return None
    if not parts[1] and len(parts) > 2:
        warnings.append(
            "the provided Authorization header contains extra space before the bearer token, and is ignored"
        )
    return parts[1] or None


def _from_subprotocols(request: Request) -> str | None:
    """Return the token among the offered subprotocols, and take it out, as it is none to agree on."""
    offered = [part.strip() for part in request.headers["sec-websocket-protocol"].split(",")]
    tokens = [part for part in offered if part.startswith(_SUBPROTOCOL)]
    if not tokens:
        return None
    if len(tokens) > 1:
        raise Unauthorized("multiple base64.bearer.authorization tokens specified")
    encoded = tokens[0].removeprefix(_SUBPROTOCOL)
    try:
        token = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise Unauthorized("invalid base64.bearer.authorization token encoding") from error
    if not token:
        return None
    remaining = [part for part in offered if part not in tokens]
    if not remaining:
        raise Unauthorized("missing additional subprotocol")
    request.headers = {**request.headers, "sec-websocket-protocol": ", ".join(remaining)}
    return token

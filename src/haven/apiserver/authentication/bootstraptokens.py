"""Bootstrap tokens: short credentials of joining nodes, kept as secrets in kube-system.

Source: https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence

from haven.api import scheme
from haven.api.core import v1 as core
from haven.apimachinery import times
from haven.apiserver.authentication.interface import Lookup, TokenIdentity
from haven.apiserver.request import UserInfo
from haven.clock import Clock

__all__ = ["BootstrapTokens"]

SECRET_TYPE = "bootstrap.kubernetes.io/token"
USER_PREFIX = "system:bootstrap:"
DEFAULT_GROUP = "system:bootstrappers"
_TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})", re.ASCII)
_GROUP = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]", re.ASCII)


class BootstrapTokens:
    """Knows the tokens in kube-system's secrets bootstrap-token-…, good for every audience."""

    def __init__(self, objects: Lookup, clock: Clock, api_audiences: Sequence[str]) -> None:
        self._objects = objects
        self._clock = clock
        self._api_audiences = tuple(api_audiences)
        self._secrets = scheme.resource_of(core.Secret)

    def authenticate_token(self, token: str, audiences: tuple[str, ...]) -> TokenIdentity | None:
        match = _TOKEN.fullmatch(token)
        if match is None:
            return None
        token_id, token_secret = match.groups()
        secret = self._objects.get(self._secrets, "kube-system", f"bootstrap-token-{token_id}")
        if secret is None or secret.metadata.deletion_timestamp is not None or secret.type != SECRET_TYPE:
            return None
        if not hmac.compare_digest(secret.data.get("token-secret", b""), token_secret.encode()):
            return None
        if _text(secret, "token-id") != token_id or _text(secret, "usage-bootstrap-authentication") != "true":
            return None
        groups = _groups(_text(secret, "auth-extra-groups"))
        if groups is None:
            return None
        expires = _expiry(_text(secret, "expiration"))
        if expires is None or (expires and expires <= self._clock.now_seconds()):
            return None
        meant_for = tuple(audience for audience in audiences if audience in self._api_audiences)
        if not meant_for:
            return None
        return TokenIdentity(UserInfo(USER_PREFIX + token_id, groups=groups), meant_for, expires)


def _text(secret: core.Secret, key: str) -> str:
    return secret.data.get(key, b"").decode(errors="replace")


def _groups(text: str) -> tuple[str, ...] | None:
    """Return the groups, sorted, without repeats; None if one is not allowed."""
    groups = {DEFAULT_GROUP}
    for group in text.split(",") if text else ():
        if _GROUP.fullmatch(group) is None:
            return None
        groups.add(group)
    return tuple(sorted(groups))


def _expiry(text: str) -> float | None:
    """Return when the token ends, 0 for never; None if the time makes no sense, which counts as ended."""
    if not text:
        return 0.0
    try:
        return times.parse(text)
    except ValueError:
        return None

"""Bearer tokens that a webhook knows: it is sent a TokenReview, and its answer counts for a while.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#webhook-token-authentication
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import orjson

from haven.apimachinery.apierrors import Unauthorized
from haven.apiserver.authentication.interface import TokenIdentity
from haven.apiserver.request import UserInfo
from haven.apiserver.webhooks.answers import NoAnswer, status_of
from haven.apiserver.webhooks.caller import CallFailed
from haven.apiserver.webhooks.retrying import Post
from haven.clock import Clock

__all__ = ["WebhookTokens"]

_CACHED_MAX = 4096


class WebhookTokens:
    """Asks a webhook about tokens that nobody else knows. What it says is remembered, but for errors."""

    def __init__(
        self, post: Post, clock: Clock, *, version: str, ttl_seconds: float, implicit_audiences: Sequence[str]
    ) -> None:
        self._post = post
        self._clock = clock
        self._version = f"authentication.k8s.io/{version}"
        self._ttl_seconds = ttl_seconds
        self._implicit = tuple(implicit_audiences)
        self._known: OrderedDict[tuple[str, tuple[str, ...]], tuple[TokenIdentity | str, float]] = OrderedDict()

    async def wait_token(self, token: str, audiences: tuple[str, ...]) -> TokenIdentity | None:
        """Return whom a token stands for, None if the webhook does not know it; raise Unauthorized."""
        key = (token, audiences)
        now = self._clock.monotonic_seconds()
        known = self._known.get(key)
        if known is None or known[1] < now:
            known = (await self._ask(token, audiences), now + self._ttl_seconds)
            self._known[key] = known
            self._known.move_to_end(key)
            while len(self._known) > _CACHED_MAX:
                self._known.popitem(last=False)
        answer = known[0]
        if isinstance(answer, TokenIdentity):
            return answer
        if answer:
            raise Unauthorized(answer)
        return None

    async def _ask(self, token: str, audiences: tuple[str, ...]) -> TokenIdentity | str:
        """Return the identity, or why there is none ("": the webhook does not know the token)."""
        spec: dict[str, Any] = {"token": token}
        if audiences:
            spec["audiences"] = list(audiences)
        empty: dict[str, Any] = {"user": {}}
        review = {"kind": "TokenReview", "apiVersion": self._version, "metadata": {}, "spec": spec, "status": empty}
        try:
            body = await self._post(orjson.dumps(review))
            status = status_of(body, "TokenReview", self._version)
        except (CallFailed, NoAnswer) as error:
            raise Unauthorized(str(error)) from None  # Not remembered: the webhook may be back at once.
        try:
            meant_for = tuple(status.get("audiences") or self._implicit)
            common = tuple(one for one in meant_for if one in audiences)
            if audiences and not common:
                return ""
            if not status.get("authenticated"):
                return str(status.get("error", ""))
            user = status.get("user") or {}
            found = UserInfo(
                str(user.get("username", "")),
                str(user.get("uid", "")),
                tuple(user.get("groups") or ()),
                {name: tuple(values) for name, values in (user.get("extra") or {}).items()},
            )
        except (TypeError, AttributeError):
            raise Unauthorized("the token webhook's answer makes no sense") from None
        return TokenIdentity(found, common)

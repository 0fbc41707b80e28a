"""Calls of webhooks that decide about requests: again and again for a short while, when the callee is away.

Source: upstream's webhook clients of authentication and authorization: five tries, half a second and growing.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

from haven.apiserver.webhooks.caller import CallFailed, WebhookCaller
from haven.apiserver.webhooks.target import Target
from haven.clock import Clock

__all__ = ["Post", "retrying"]

Post = Callable[[bytes], Awaitable[bytes]]
_TRIES = 5
_FIRST_SECONDS = 0.5
_FACTOR = 1.5
_JITTER = 0.2


def retrying(
    caller: WebhookCaller,
    target: Target,
    clock: Clock,
    chance: random.Random,
    *,
    timeout_seconds: float,
    first_seconds: float = _FIRST_SECONDS,
) -> Post:
    """Return how to post to a target; it raises CallFailed when the last try failed."""

    async def post(body: bytes) -> bytes:
        pause = first_seconds
        for left in range(_TRIES - 1, -1, -1):
            try:
                return await caller.post(target, body, timeout_seconds=timeout_seconds)
            except CallFailed as error:
                refused = error.status is not None and error.status.code not in (429, 500, 502, 503, 504)
                if refused or not left:
                    raise
            await clock.sleep(pause * (1 + _JITTER * chance.random()))
            pause *= _FACTOR
        raise AssertionError("the last try returns or raises")

    return post

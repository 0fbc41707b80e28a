"""How long the client of the request that is being served still waits, for those who are asked on its behalf.

Only what a client asks for (?timeout=10s) counts: no other limit is shorter than that of a webhook.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar
from time import monotonic

__all__ = ["remaining_seconds", "within"]

_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Let what is called inside the block, and tasks made there, have this long."""
    token = _deadline.set(monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def remaining_seconds() -> float:
    """Return how long the client still waits; infinity if it did not say."""
    return max(_deadline.get() - monotonic(), 0.0)

"""Counts connections that broke off before TLS was agreed.

The event loop makes a protocol for each connection that comes in, says `connection_made` to it once TLS is agreed, and
otherwise drops it without a word: a connection that is gone, or should be by now, and was never made has failed.
"""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

__all__ = ["Handshakes"]

SECONDS_MAX = 60.0
"""For how long the event loop waits for a handshake."""


class Handshakes:
    """Keeps account of connections."""

    def __init__(self) -> None:
        self._begun = self._done = 0
        self._under_way: WeakKeyDictionary[asyncio.Protocol, float] = WeakKeyDictionary()

    def begun(self, connection: asyncio.Protocol, now: float) -> None:
        """A connection came in."""
        self._begun += 1
        self._under_way[connection] = now

    def done(self, connection: asyncio.Protocol) -> None:
        """It is private."""
        self._done += 1
        self._under_way.pop(connection, None)

    def failed(self, now: float) -> int:
        """Return how many failed so far."""
        waiting = sum(1 for since in self._under_way.values() if now - since <= SECONDS_MAX)
        return self._begun - self._done - waiting

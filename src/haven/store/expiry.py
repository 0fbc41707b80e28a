"""When keys with a time to live vanish: a pure queue.

Overwriting or deleting a key cancels its expiry; entries that were cancelled stay in the heap until they surface or
are more than the living ones, then the heap is rebuilt. So memory is bounded by the number of keys that can expire.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import NamedTuple

from haven.apimachinery.names import Revision

__all__ = ["Expiries", "Expiry"]

CANCELLED_MAX = 1024  # Below this, rebuilding the heap costs more than it saves.


class Expiry(NamedTuple):
    """At this second since 1970 the key vanishes, if it is still at this revision."""

    at_seconds: int
    key: bytes
    revision: Revision


class Expiries:
    """Which keys expire, soonest first."""

    def __init__(self, expiries: Iterable[Expiry] = ()) -> None:
        self._current: dict[bytes, Expiry] = {expiry.key: expiry for expiry in expiries}
        self._heap = list(self._current.values())
        heapq.heapify(self._heap)

    def __len__(self) -> int:
        return len(self._current)

    def all(self) -> tuple[Expiry, ...]:
        """Return every expiry that holds, in no order."""
        return tuple(self._current.values())

    def put(self, expiry: Expiry) -> None:
        """Let a key expire; an earlier arrangement for it is cancelled."""
        self._current[expiry.key] = expiry
        heapq.heappush(self._heap, expiry)
        if len(self._heap) > 2 * len(self._current) + CANCELLED_MAX:
            self._heap = list(self._current.values())
            heapq.heapify(self._heap)

    def cancel(self, key: bytes) -> None:
        """Let a key live on; it may be one that never expires."""
        self._current.pop(key, None)

    def next_seconds(self) -> int | None:
        """Return when the next key expires, None if none does."""
        while self._heap:
            first = self._heap[0]
            if self._current.get(first.key) == first:
                return first.at_seconds
            heapq.heappop(self._heap)
        return None

    def take_due(self, now_seconds: float, limit: int) -> list[Expiry]:
        """Remove and return at most `limit` expiries that are due, soonest first."""
        due: list[Expiry] = []
        while len(due) < limit:
            at_seconds = self.next_seconds()
            if at_seconds is None or at_seconds > now_seconds:
                break
            expiry = heapq.heappop(self._heap)
            del self._current[expiry.key]
            due.append(expiry)
        return due

"""How long refused clients are asked to stay away: longer while many requests of their level are dropped. Pure.

The advice doubles, up to about half a minute, when three requests per second of it were dropped, and shrinks by a
second for each quiet period.
Source: the Retry-After of upstream's priority and fairness filter.
"""

from __future__ import annotations

from collections import deque

__all__ = ["DroppedRequests"]

RETRY_AFTER_SECONDS_MAX = 32


class DroppedRequests:
    """Counts the drops of one priority level, second by second."""

    def __init__(self) -> None:
        self.retry_after_seconds = 1
        self._history: deque[tuple[int, int]] = deque()
        self._second = 0
        self._count = 0
        self._raised = 0

    def record(self, now: int) -> None:
        """Note a drop at a second."""
        if now == self._second:
            self._count += 1
            return
        self._history.append((self._second, self._count))
        kept = min(2 * self.retry_after_seconds, RETRY_AFTER_SECONDS_MAX)
        while self._history and self._second - self._history[0][0] > kept:
            self._history.popleft()
        self._second, self._count = now, 1
        self._update(now)

    def _update(self, now: int) -> None:
        advice = self.retry_after_seconds
        dropped = sum(count for second, count in self._history if now - advice <= second < now)
        if now - self._raised >= advice and dropped >= 3 * advice:
            self.retry_after_seconds = min(advice * 2, RETRY_AFTER_SECONDS_MAX)
            self._raised = now
        elif dropped < advice and advice > 1:
            self.retry_after_seconds = advice - 1

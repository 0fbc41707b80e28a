"""Exponential back-off per key, measured from when things ended: crash loops and image pulls.

A key whose last failure is longer ago than twice the maximum starts anew (10 minutes for containers).
Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Backoff"]


@dataclass(slots=True)
class _Entry:
    seconds: float
    updated: float


class Backoff:
    """The delays of keys. Times are seconds of one clock, passed in."""

    def __init__(self, *, initial_seconds: float, max_seconds: float) -> None:
        self._initial = initial_seconds
        self._max = max_seconds
        self._entries: dict[str, _Entry] = {}

    def seconds(self, key: str) -> float:
        """Return the present delay of a key, 0 if it has none."""
        entry = self._entries.get(key)
        return entry.seconds if entry else 0.0

    def remaining(self, key: str, since: float, now: float) -> float:
        """Return how much longer to wait after something that ended at `since`; 0 means go."""
        entry = self._entries.get(key)
        if entry is None or self._is_stale(entry, since):
            return 0.0
        return max(0.0, since + entry.seconds - now)

    def next(self, key: str, now: float) -> None:
        """Note a failure (or the start that follows one): the delay doubles."""
        entry = self._entries.get(key)
        if entry is None or self._is_stale(entry, now):
            self._entries[key] = _Entry(self._initial, now)
        else:
            entry.seconds = min(entry.seconds * 2, self._max)
            entry.updated = now

    def forget(self, prefix: str) -> None:
        """Drop every key that begins so."""
        for key in [key for key in self._entries if key.startswith(prefix)]:
            del self._entries[key]

    def collect(self, now: float) -> None:
        """Drop keys that start anew anyway."""
        for key in [key for key, entry in self._entries.items() if self._is_stale(entry, now)]:
            del self._entries[key]

    def _is_stale(self, entry: _Entry, now: float) -> bool:
        return now - entry.updated > 2 * self._max

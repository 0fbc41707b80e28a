"""Growing waits between attempts, with chance mixed in so that a crowd of clients spreads out."""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["Backoff", "BackoffLimits"]


@dataclass(frozen=True, slots=True)
class BackoffLimits:
    """The shape of the waits. Defaults are those of client-go's reflector."""

    first_seconds: float = 0.8
    seconds_max: float = 30.0
    factor: float = 2.0
    jitter: float = 1.0  # A wait is stretched by up to this share of itself.
    reset_after_seconds: float = 120.0  # So long without a failure, and the next one is a first one.


class Backoff:
    """Waits for one thing that keeps failing."""

    def __init__(self, chance: random.Random, limits: BackoffLimits | None = None) -> None:
        self._chance = chance
        self._limits = limits or BackoffLimits()
        self._wait_seconds = self._limits.first_seconds
        self._last_seconds = float("-inf")

    def next_seconds(self, now_seconds: float) -> float:
        """Note a failure; return how long to wait before the next attempt."""
        limits = self._limits
        if now_seconds - self._last_seconds > limits.reset_after_seconds:
            self._wait_seconds = limits.first_seconds
        wait = self._wait_seconds
        self._wait_seconds = min(wait * limits.factor, limits.seconds_max)
        self._last_seconds = now_seconds
        return wait * (1 + self._chance.random() * limits.jitter)

"""How many seats a priority level could have used: average, spread and peak over a period, and smoothed. Pure.

Source: KEP-1040, "Dispatching": the envelope of average plus one deviation, which falls slowly and rises at once.
"""

from __future__ import annotations

from math import sqrt

__all__ = ["Demand"]

_SMOOTHING = 0.977


class Demand:
    """Follows a number of seats over time."""

    __slots__ = (
        "_began",
        "_peak",
        "_since",
        "_square",
        "_sum",
        "_value",
        "average",
        "deviation",
        "high_watermark",
        "smoothed",
    )  # fmt: skip

    def __init__(self, now: float = 0.0) -> None:
        self.average = self.deviation = self.smoothed = 0.0
        self.high_watermark = 0
        self._value = self._peak = 0
        self._began = self._since = now
        self._sum = self._square = 0.0

    def set(self, seats: int, now: float) -> None:
        """The demand is so many seats from now on."""
        value = self._value
        if value:
            span = now - self._since
            self._sum += value * span
            self._square += value * value * span
        self._since = now
        self._value = seats
        if seats > self._peak:
            self._peak = seats

    def settle(self, now: float) -> None:
        """End a period: work out its figures, and begin the next one."""
        self.set(self._value, now)
        self.high_watermark = self._peak
        span = now - self._began
        if span > 0:
            self.average = self._sum / span
            self.deviation = sqrt(max(0.0, self._square / span - self.average**2))
            envelope = self.average + self.deviation
            self.smoothed = max(envelope, _SMOOTHING * self.smoothed + (1 - _SMOOTHING) * envelope)
        self._began = now
        self._sum = self._square = 0.0
        self._peak = self._value

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
        "_start",
        "_sum",
        "_times",
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
        self._began = self._since = self._start = now
        self._sum = self._square = 0.0
        self._times: dict[int, float] = {}

    def times(self, now: float) -> dict[int, float]:
        """Return for how many seconds the demand was how many seats, from the first time on that there was any."""
        if not self._times:
            return {}
        result = dict(self._times)
        result[0] = max(0.0, now - self._start - sum(result.values()))
        return result

    def set(self, seats: int, now: float) -> None:
        """The demand is so many seats from now on."""
        value = self._value
        if value:
            span = now - self._since
            if not self._start:
                self._start = self._since
            self._times[value] = self._times.get(value, 0.0) + span
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

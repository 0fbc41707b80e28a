"""A token bucket: so many at once, so many per second. Pure; the caller waits."""

from __future__ import annotations

__all__ = ["TokenBucket"]


class TokenBucket:
    """Holds up to `burst` tokens and gains `per_second`. Time must not go back."""

    def __init__(self, *, per_second: float, burst: int, now_seconds: float) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._tokens = float(burst)
        self._at_seconds = now_seconds

    def reserve(self, now_seconds: float) -> float:
        """Take a token, if need be one that does not exist yet; return how long to wait for it."""
        self._refill(now_seconds)
        self._tokens -= 1
        return max(-self._tokens / self._per_second, 0.0)

    def try_take(self, now_seconds: float) -> bool:
        """Take a token if there is one; return whether there was."""
        self._refill(now_seconds)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _refill(self, now_seconds: float) -> None:
        gained = (now_seconds - self._at_seconds) * self._per_second
        self._tokens = min(self._tokens + gained, self._burst)
        self._at_seconds = now_seconds

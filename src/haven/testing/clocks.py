"""The cluster's clock in a test's hands."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from haven.testing.cluster import Cluster

__all__ = ["ClusterClock", "span_seconds"]


def span_seconds(seconds: float = 0.0, *, minutes: float = 0.0, hours: float = 0.0, days: float = 0.0) -> float:
    """Return a span in seconds."""
    return seconds + 60 * (minutes + 60 * (hours + 24 * days))


class ClusterClock:
    """Time as controllers, server and kubelets see it. It runs with the machine's clock unless it is frozen."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._clock = cluster.world.clock

    @property
    def now(self) -> datetime:
        """The cluster's time, in UTC."""
        return datetime.fromtimestamp(self._clock.now_seconds(), UTC)

    def advance(self, seconds: float = 0.0, *, minutes: float = 0.0, hours: float = 0.0, days: float = 0.0) -> datetime:
        """Let time pass at once: what is due happens in order, each time until the cluster rests; return the time."""
        span = span_seconds(seconds, minutes=minutes, hours=hours, days=days)
        self._cluster.run(self._clock.advance(span))
        return self.now

    def advance_to(self, moment: datetime) -> datetime:
        """Let time pass up to a moment that is still to come."""
        if moment.tzinfo is None:
            raise ValueError("say which time zone: datetime(…, tzinfo=UTC)")
        return self.advance(moment.timestamp() - self._clock.now_seconds())

    def freeze(self) -> None:
        """Stand still from now on, except for `advance`. Retries of the cluster's own parts stand still too."""
        self._cluster.run(self._do(self._clock.freeze))

    def resume(self) -> None:
        """Run again."""
        self._cluster.run(self._do(self._clock.resume))

    @staticmethod
    async def _do(action: object) -> None:
        assert callable(action)
        action()

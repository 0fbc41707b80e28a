"""How fast nodes of a zone may lose their Pods: slower the more of the zone is down, not at all if everything is.

When no node anywhere is ready, the fault is probably the control plane's own network: then nothing is evicted.
Source: https://kubernetes.io/docs/concepts/architecture/nodes/#rate-limits-on-eviction
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

__all__ = ["EvictionRates", "Limiter", "Verdict", "ZoneState", "Zones", "zone_state"]


class ZoneState(Enum):
    """How a zone is."""

    INITIAL = "Initial"
    NORMAL = "Normal"
    PARTIAL_DISRUPTION = "PartialDisruption"
    FULL_DISRUPTION = "FullDisruption"


class Verdict(Enum):
    """What changed for the whole cluster in one look."""

    NOTHING = "nothing"
    ALL_DOWN = "every node is down"
    BACK = "some node is back"


@dataclass(frozen=True, slots=True)
class EvictionRates:
    """Nodes per second that may be emptied; the defaults are upstream's."""

    normal: float = 0.1
    secondary: float = 0.01
    large_zone_nodes: int = 50
    unhealthy_fraction: float = 0.55


class Limiter:
    """A token bucket that holds one token."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._next_seconds = 0.0

    def set_rate(self, rate: float) -> None:
        """Set tokens per second; a token already spent comes back at the new speed."""
        self._rate = rate

    def wait_seconds(self, now_seconds: float) -> float | None:
        """Return in how many seconds there is a token, None if there will be none."""
        return None if self._rate <= 0 else max(0.0, self._next_seconds - now_seconds)

    def take(self, now_seconds: float) -> bool:
        """Take a token if there is one."""
        if self.wait_seconds(now_seconds) != 0.0:
            return False
        self._next_seconds = now_seconds + 1 / self._rate
        return True


def zone_state(are_ready: Sequence[bool], unhealthy_fraction: float) -> ZoneState:
    """Return the state of a zone from its nodes."""
    down = are_ready.count(False)
    if down and down == len(are_ready):
        return ZoneState.FULL_DISRUPTION
    if down > 2 and down / len(are_ready) >= unhealthy_fraction:
        return ZoneState.PARTIAL_DISRUPTION
    return ZoneState.NORMAL


class Zones:
    """The zones of the cluster with their states and limiters."""

    def __init__(self, rates: EvictionRates) -> None:
        self._rates = rates
        self._states: dict[str, ZoneState] = {}
        self._limiters: dict[str, Limiter] = {}

    def limiter(self, zone: str) -> Limiter:
        """Return the limiter of a zone, which starts at the normal rate."""
        return self._limiters.setdefault(zone, Limiter(self._rates.normal))

    def state(self, zone: str) -> ZoneState:
        """Return what a zone was at the last look."""
        return self._states.get(zone, ZoneState.INITIAL)

    def judge(self, are_ready: Mapping[str, Sequence[bool]]) -> Verdict:
        """Take in which nodes of each zone are ready, set the limiters, and tell what that means for the cluster."""
        new = {zone: zone_state(ready, self._rates.unhealthy_fraction) for zone, ready in are_ready.items()}
        old = {zone: self.state(zone) for zone in are_ready}
        full = ZoneState.FULL_DISRUPTION
        all_are_down = all(state is full for state in new.values())
        all_were_down = all(state is full for state in {**self._states, **old}.values())
        self._states = new
        if all_are_down and all_were_down:
            return Verdict.NOTHING
        if all_are_down:
            for zone in new:
                self.limiter(zone).set_rate(0)
            return Verdict.ALL_DOWN
        for zone, state in new.items():
            if all_were_down or state is not old[zone]:
                self.limiter(zone).set_rate(self._rate(state, len(are_ready[zone])))
        return Verdict.BACK if all_were_down else Verdict.NOTHING

    def _rate(self, state: ZoneState, nodes: int) -> float:
        if state is not ZoneState.PARTIAL_DISRUPTION:
            return self._rates.normal
        return self._rates.secondary if nodes > self._rates.large_zone_nodes else 0.0

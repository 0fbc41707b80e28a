"""How often requests were believed and allowed: what the chain counts for each of them, as cheaply as it can."""

from __future__ import annotations

from haven.apiserver.authorization.interface import Verdict
from haven.metrics.families import Histogram

__all__ = ["DOUBLED", "Decisions"]

DOUBLED = tuple(0.001 * 2**power for power in range(15))
"""Bounds of the durations of authentication and authorization."""
FILTER = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 5.0, 10.0, 15.0, 30.0)
_SHORTEST = FILTER[0]
_FINE = tuple(sorted({*DOUBLED, *FILTER}))
_KNOWN_NAMES = frozenset({"admin", "client", "kube_proxy", "kubelet", "system:serviceaccount:kube-system:default"})


class Decisions:
    """Counters. Durations are kept in buckets of both metrics that show them."""

    def __init__(self) -> None:
        self.identified = self.unidentified = 0
        self.users = dict.fromkeys(sorted(_KNOWN_NAMES), 0)
        self.identifying = Histogram(_FINE)
        self.identifying_failed = Histogram(_FINE)
        self.allowed, self.denied, self.undecided = Histogram(_FINE), Histogram(_FINE), Histogram(_FINE)
        """How long each verdict took; attributes, as an enum is a slow key."""
        self.impersonations: dict[tuple[str, str], Histogram] = {}
        self.impersonation_checks: dict[tuple[str, str], Histogram] = {}
        """How long impersonations took, and the questions to authorizers in them, by (mode, decision)."""

    def believed(self, name: str, seconds: float) -> None:
        """Count a request whose sender is known."""
        self.identified += 1
        if name in _KNOWN_NAMES:
            self.users[name] += 1
        found = self.identifying
        if seconds < _SHORTEST:  # As good as always.
            found.counts[0] += 1
            found.total += seconds
        else:
            found.add(seconds)

    def disbelieved(self, seconds: float) -> None:
        """Count a request whose sender is not known."""
        self.unidentified += 1
        self.identifying_failed.add(seconds)

    def impersonated(self, mode: str, seconds: float, *, allowed: bool) -> None:
        """Count an impersonation; a refused one has no mode."""
        _add(self.impersonations, mode, seconds, allowed=allowed)

    def asked_to_impersonate(self, mode: str, seconds: float, *, allowed: bool) -> None:
        """Count a question to the authorizers about an impersonation."""
        _add(self.impersonation_checks, mode, seconds, allowed=allowed)

    def count(self, verdict: Verdict, seconds: float) -> None:
        """Count an authorizer's verdict."""
        found = self.allowed if verdict is Verdict.ALLOW else self.denied if verdict is Verdict.DENY else self.undecided
        if seconds < _SHORTEST:
            found.counts[0] += 1
            found.total += seconds
        else:
            found.add(seconds)


def _add(counted: dict[tuple[str, str], Histogram], mode: str, seconds: float, *, allowed: bool) -> None:
    key = (mode, "allowed" if allowed else "denied")
    counted.setdefault(key, Histogram(DOUBLED)).add(seconds)

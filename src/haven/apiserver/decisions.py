"""How often requests were believed and allowed: what the chain counts for each of them, as cheaply as it can."""

from __future__ import annotations

from haven.apiserver.authorization.interface import Verdict

__all__ = ["Decisions"]


class Decisions:
    """Counters."""

    def __init__(self) -> None:
        self.identified = self.unidentified = 0
        self.allowed = self.denied = self.undecided = 0

    def count(self, verdict: Verdict) -> None:
        """Count an authorizer's verdict."""
        if verdict is Verdict.ALLOW:
            self.allowed += 1
        elif verdict is Verdict.DENY:
            self.denied += 1
        else:
            self.undecided += 1

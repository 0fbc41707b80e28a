"""How often policies are asked, how long that takes and what comes of it, under upstream's metric names."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TypeVar

from haven.metrics.families import Registry

__all__ = ["PolicyMeter"]

P = TypeVar("P")
E = TypeVar("E")


_CONDITIONS = "apiserver_admission_match_condition_evaluation_"


class PolicyMeter:
    """Counts checks of policies, and how long their expressions take."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def compiling(self, compile_: Callable[[P], E]) -> Callable[[P], E]:
        """Return the same compiler, timed."""

        def timed(policy: P) -> E:
            began = perf_counter()
            try:
                return compile_(policy)
            finally:
                self._registry["apiserver_cel_compilation_duration_seconds"].histogram().add(perf_counter() - began)

        return timed

    def condition(self, name: str, operation: str) -> Callable[[float, int], None]:
        """Return what counts the conditions of a policy that did not hold."""
        labels = ("policy", name, operation, "validate")

        def told(seconds: float, failed: int) -> None:
            if failed:
                self._registry[_CONDITIONS + "errors_total"].child(*labels).value += failed
            self._registry[_CONDITIONS + "seconds"].histogram(*labels).add(seconds)

        return told

    def evaluated(self, seconds: float) -> None:
        """Count the evaluation of all expressions of a policy."""
        self._registry["apiserver_cel_evaluation_duration_seconds"].histogram().add(seconds)

    def checked(self, policy: str, binding: str, action: str, message: str, seconds: float) -> None:
        """Count one thing that a validating policy does not like, or cannot tell.

        `action` is what comes of it: Deny, Audit, Warn, or Allow if it cannot tell and does not mind.
        """
        prefix = "apiserver_validating_admission_policy_check_"
        labels = (action.lower(), _error_type(message), policy, binding)
        self._registry[prefix + "total"].child(*labels).value += 1
        self._registry[prefix + "duration_seconds"].histogram(*labels).add(seconds)

    def mutated(self, policy: str, binding: str, error_type: str, seconds: float) -> None:
        """Count one check of a mutating policy."""
        self.evaluated(seconds)
        prefix, labels = "apiserver_mutating_admission_policy_check_", (error_type, policy, binding)
        self._registry[prefix + "total"].child(*labels).value += 1
        self._registry[prefix + "duration_seconds"].histogram(*labels).add(seconds)


def _error_type(message: str) -> str:
    """Return what upstream counts a refusal as; an expression that is false is an invalid_error, too."""
    if message.startswith("compilation error"):
        return "compile_error"
    return "out_of_budget" if "exceeded budget" in message or "out of budget" in message else "invalid_error"

"""How long conversions and comparisons of custom resources take, under upstream's metric names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter

from haven.metrics.families import Registry

__all__ = ["CALL", "EMPTY", "INVALID", "MALFORMED", "PARTIAL", "ConversionProblem", "CustomMeter"]

CALL, MALFORMED, PARTIAL, INVALID, EMPTY = (
    f"conversion_webhook_{kind}_failure"
    for kind in ("call", "malformed_response", "partial_response", "invalid_converted_object", "no_objects_returned")
)
"""What can be wrong with a webhook's conversion."""
_ASKED, _CONVERTED = "apiserver_conversion_webhook_", "apiserver_crd_conversion_webhook_duration_seconds"


class ConversionProblem:
    """What a conversion that is under way would fail of, if it failed now."""

    __slots__ = ("kind",)

    def __init__(self) -> None:
        self.kind = CALL


class CustomMeter:
    """Counts; not at all without a registry."""

    def __init__(self, registry: Registry | None = None) -> None:
        self._registry = registry

    def compared(self, seconds: float) -> None:
        """Count an update, and how long its old and new values were compared."""
        if self._registry is not None:
            self._registry["apiextensions_apiserver_validation_ratcheting_seconds"].histogram().add(seconds)

    def described(self, definition: str, reason: str, versions: Iterable[tuple[str, str]]) -> None:
        """Count that a definition's part of OpenAPI changed, in these versions; why is add, update or remove."""
        if self._registry is None:
            return
        self._registry["apiextensions_openapi_v2_regeneration_count"].child(definition, reason).value += 1
        for group, version in versions:
            family = self._registry["apiextensions_openapi_v3_regeneration_count"]
            family.child(definition, group, reason, version).value += 1

    @contextmanager
    def converting(self, definition: str, before: str, after: str) -> Iterator[ConversionProblem]:
        """Count a webhook that is asked inside, between two versions."""
        began, problem, succeeded = perf_counter(), ConversionProblem(), False
        try:
            yield problem
            succeeded = True
        finally:
            if self._registry is not None:
                seconds = perf_counter() - began
                result = ("", "success") if succeeded else (problem.kind, "failure")
                self._registry[_ASKED + "request_total"].child(*result).value += 1
                self._registry[_ASKED + "duration_seconds"].histogram(*result).add(seconds)
                flag = "true" if succeeded else "false"
                self._registry[_CONVERTED].histogram(definition, before, flag, after).add(seconds)

"""How often webhooks are asked, how long they take and what comes of it, under upstream's metric names.

Source: https://kubernetes.io/docs/reference/instrumentation/metrics/ (apiserver_admission_webhook_…)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from haven.apiserver.admission.interface import AdmissionRequest
from haven.apiserver.admission.webhooks.dispatch import CannotAsk, ConditionNotes
from haven.apiserver.admission.webhooks.hooks import Hook
from haven.apiserver.admission.webhooks.review import Denied
from haven.clock import Clock
from haven.metrics.families import Registry

__all__ = ["ADMIT", "VALIDATING", "WebhookMetrics"]

ADMIT, VALIDATING = "admit", "validating"
_PREFIX = "apiserver_admission_webhook_"
_CONDITIONS = "apiserver_admission_match_condition_"
_CODE_MAX = 600


class WebhookMetrics:
    """Counts calls of webhooks."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock

    def conditions(self, hook: Hook, kind: str, request: AdmissionRequest) -> ConditionNotes:
        """Return what counts a webhook's conditions that do not hold."""
        labels = ("webhook", hook.name, request.operation, kind)

        def told(seconds: float, failed: int) -> None:
            if failed:
                self._registry[_CONDITIONS + "evaluation_errors_total"].child(*labels).value += failed
            self._registry[_CONDITIONS + "evaluation_seconds"].histogram(*labels).add(seconds)

        def excluded() -> None:
            self._registry[_CONDITIONS + "exclusions_total"].child(*labels).value += 1

        return ConditionNotes(told, excluded)

    @contextmanager
    def asking(self, hook: Hook, kind: str, request: AdmissionRequest) -> Iterator[None]:
        """Count what becomes of asking a webhook; errors pass through."""
        began = self._clock.monotonic_seconds()
        code, rejected, error_type = 200, False, ""
        try:
            yield
        except CannotAsk as error:
            code, rejected, error_type = error.code, not hook.fails_open, "calling_webhook_error"
            if hook.fails_open:
                self._registry[_PREFIX + "fail_open_count"].child(hook.name, kind).value += 1
            raise
        except Denied as error:
            code, rejected, error_type = error.code, True, "no_error"
            raise
        except Exception:
            code, rejected, error_type = 0, True, "apiserver_internal_error"
            raise
        finally:
            seconds = self._clock.monotonic_seconds() - began
            before = request.delays.get(kind, 0.0)  # Those that only judge are asked at the same time.
            request.delays[kind] = max(before, seconds) if kind == VALIDATING else before + seconds
            self._count(hook.name, kind, request.operation, code, seconds, rejected=rejected, error_type=error_type)

    def _count(
        self, name: str, kind: str, operation: str, code: int, seconds: float, *, rejected: bool, error_type: str
    ) -> None:
        shown, flag = str(min(code, _CODE_MAX)), "true" if rejected else "false"
        registry = self._registry
        registry[_PREFIX + "admission_duration_seconds"].histogram(name, operation, flag, kind).add(seconds)
        registry[_PREFIX + "request_total"].child(shown, name, operation, flag, kind).value += 1
        if rejected:
            registry[_PREFIX + "rejection_count"].child(error_type, name, operation, shown, kind).value += 1

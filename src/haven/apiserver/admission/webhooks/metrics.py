"""How often webhooks are asked, how long they take and what comes of it, under upstream's metric names.

Source: https://kubernetes.io/docs/reference/instrumentation/metrics/ (apiserver_admission_webhook_…)
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from haven.apiserver.admission.webhooks.dispatch import CannotAsk
from haven.apiserver.admission.webhooks.hooks import Hook
from haven.apiserver.admission.webhooks.review import Denied
from haven.clock import Clock

__all__ = ["ADMIT", "VALIDATING", "WebhookMetrics"]

ADMIT, VALIDATING = "admit", "validating"
Labels = tuple[str, ...]
_SECONDS = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0)
_CODE_MAX = 600


class WebhookMetrics(Collector):
    """Counts calls of webhooks."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._requests: Counter[Labels] = Counter()
        self._rejections: Counter[Labels] = Counter()
        self._failed_open: Counter[Labels] = Counter()
        self._durations: dict[Labels, tuple[list[int], list[float]]] = {}

    @contextmanager
    def asking(self, hook: Hook, kind: str, operation: str) -> Iterator[None]:
        """Count what becomes of asking a webhook; errors pass through."""
        began = self._clock.monotonic_seconds()
        code, rejected, error_type = 200, False, ""
        try:
            yield
        except CannotAsk as error:
            code, rejected, error_type = error.code, not hook.fails_open, "calling_webhook_error"
            if hook.fails_open:
                self._failed_open[(hook.name, kind)] += 1
            raise
        except Denied as error:
            code, rejected, error_type = error.code, True, "no_error"
            raise
        except Exception:
            code, rejected, error_type = 0, True, "apiserver_internal_error"
            raise
        finally:
            self._count(hook.name, kind, operation, code, rejected=rejected, error_type=error_type)
            self._time((hook.name, kind, operation, _flag(rejected)), self._clock.monotonic_seconds() - began)

    def _count(self, name: str, kind: str, operation: str, code: int, *, rejected: bool, error_type: str) -> None:
        shown = str(min(code, _CODE_MAX))
        self._requests[(name, kind, operation, shown, _flag(rejected))] += 1
        if rejected:
            self._rejections[(name, kind, operation, error_type, shown)] += 1

    def _time(self, labels: Labels, seconds: float) -> None:
        counts, total = self._durations.setdefault(labels, ([0] * (len(_SECONDS) + 1), [0.0]))
        counts[bisect_left(_SECONDS, seconds)] += 1
        total[0] += seconds

    def collect(self) -> Iterator[Metric]:
        """Yield what was counted."""
        prefix = "apiserver_admission_webhook"
        durations = HistogramMetricFamily(
            f"{prefix}_admission_duration_seconds",
            "Time that webhooks took.",
            labels=("name", "type", "operation", "rejected"),
        )
        bounds = [floatToGoString(bound) for bound in (*_SECONDS, float("inf"))]  # type: ignore[no-untyped-call]
        for labels, (counts, total) in self._durations.items():
            durations.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), total[0])
        yield durations
        requests = CounterMetricFamily(
            f"{prefix}_request", "Calls of webhooks.", labels=("name", "type", "operation", "code", "rejected")
        )
        for labels, count in self._requests.items():
            requests.add_metric(labels, count)
        yield requests
        yield _counted(
            f"{prefix}_rejection_count",
            "Requests that webhooks refused.",
            ("name", "type", "operation", "error_type", "rejection_code"),
            self._rejections,
        )
        yield _counted(
            f"{prefix}_fail_open_count",
            "Requests that passed although a webhook could not be asked.",
            ("name", "type"),
            self._failed_open,
        )


def _counted(name: str, text: str, names: Labels, values: Counter[Labels]) -> Metric:
    """Return a counter whose name does not end as the library wants it to."""
    metric = Metric(name, text, "unknown")
    for labels, count in values.items():
        metric.add_sample(name, dict(zip(names, labels, strict=True)), count)
    return metric


def _flag(value: bool) -> str:
    return "true" if value else "false"

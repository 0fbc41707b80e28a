"""What priority and fairness counts, under upstream's metric names, collected when somebody asks.

Source: https://kubernetes.io/docs/concepts/cluster-administration/flow-control/#observability
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from haven.apiserver.flowcontrol.levels import Buckets, Level
from haven.apiserver.flowcontrol.runner import FlowControl
from haven.clock import Clock

__all__ = ["FlowMetrics"]

_PREFIX = "apiserver_flowcontrol_"
_BOTH = ("priority_level", "flow_schema")
_Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


class FlowMetrics(Collector):
    """Reads the figures of a FlowControl."""

    def __init__(self, flows: FlowControl, clock: Clock) -> None:
        self._flows = flows
        self._clock = clock

    def collect(self) -> Iterator[_Family]:
        yield from self._of_schemas()
        yield from self._of_levels()
        fraction = GaugeMetricFamily(_PREFIX + "seat_fair_frac", "The multiple of its target that each level may use.")
        fraction.add_metric((), self._flows.fair_fraction)
        yield fraction
        yield from self._of_kinds()

    def _of_schemas(self) -> Iterator[_Family]:
        counts = self._flows.counts
        dispatched = CounterMetricFamily(_PREFIX + "dispatched_requests", "Requests that were let in.", labels=_BOTH)
        rejected = CounterMetricFamily(
            _PREFIX + "rejected_requests", "Requests that were refused.", labels=(*_BOTH, "reason")
        )
        executing = _gauge("current_executing_requests", "Requests that run.")
        seats = _gauge("current_executing_seats", "Seats that are taken.")
        in_use = _gauge("request_concurrency_in_use", "Seats that are taken.")
        waiting = _gauge("current_inqueue_requests", "Requests that wait.")
        waits = HistogramMetricFamily(
            _PREFIX + "request_wait_duration_seconds", "How long requests waited.", labels=(*_BOTH, "execute")
        )
        execution = HistogramMetricFamily(
            _PREFIX + "request_execution_seconds", "How long requests ran.", labels=(*_BOTH, "type")
        )
        for labels, one in sorted(counts.items(), key=lambda item: item[0]):
            dispatched.add_metric(labels, one.dispatched)
            for reason, number in one.rejected.items():
                rejected.add_metric((*labels, reason), number)
            executing.add_metric(labels, one.executing)
            seats.add_metric(labels, one.seats)
            in_use.add_metric(labels, one.seats)
            waiting.add_metric(labels, one.waiting)
            _histogram(waits, (*labels, "true"), one.waits, missing=one.dispatched)
            if sum(one.waits_refused.counts):
                _histogram(waits, (*labels, "false"), one.waits_refused)
            _histogram(execution, (*labels, "regular"), one.execution)
        yield from (dispatched, rejected, executing, seats, in_use, waiting, waits, execution)

    def _of_levels(self) -> Iterator[_Family]:
        gauges = {
            "nominal_limit_seats": lambda level: level.nominal,
            "lower_limit_seats": lambda level: level.seats_min,
            "upper_limit_seats": lambda level: level.seats_max,
            "current_limit_seats": lambda level: level.limit,
            "request_concurrency_limit": lambda level: level.nominal,
            "demand_seats_high_watermark": lambda level: level.demand.high_watermark,
            "demand_seats_average": lambda level: level.demand.average,
            "demand_seats_stdev": lambda level: level.demand.deviation,
            "demand_seats_smoothed": lambda level: level.demand.smoothed,
            "target_seats": _target,
        }
        for name, read in gauges.items():
            family = GaugeMetricFamily(_PREFIX + name, "Seats of a priority level.", labels=("priority_level",))
            for level in self._flows.levels.values():
                family.add_metric((level.name,), float(read(level)))
            yield family

    def _of_kinds(self) -> Iterator[_Family]:
        running = {"mutating": 0, "readOnly": 0}
        queued = {"mutating": 0, "readOnly": 0}
        for level in self._flows.levels.values():
            for ticket in level.running:
                running[_kind(ticket.request)] += 1
            for _, ticket in level.tickets_waiting():
                queued[_kind(ticket.request)] += 1
        for name, found in (("current_inflight_requests", running), ("current_inqueue_requests", queued)):
            family = GaugeMetricFamily(f"apiserver_{name}", "Requests by kind.", labels=("request_kind",))
            for kind, number in found.items():
                family.add_metric((kind,), number)
            yield family


def _kind(request: object) -> str:
    info = getattr(request, "info", None)
    return "readOnly" if info is None or info.verb in ("get", "list", "watch", "head", "proxy") else "mutating"


def _target(level: Level) -> float:
    return max(level.seats_min, min(level.nominal, level.demand.high_watermark), level.demand.smoothed)


def _gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(_PREFIX + name, text, labels=_BOTH)


def _histogram(family: HistogramMetricFamily, labels: tuple[str, ...], found: Buckets, missing: int = 0) -> None:
    """Add a histogram; `missing` is how many there are in all, those that were not measured having been 0."""
    total = 0
    extra = max(0, missing - sum(found.counts))
    buckets = []
    for bound, number in zip((*found.bounds, None), found.counts, strict=True):
        total += number
        buckets.append(("+Inf" if bound is None else str(float(bound)), total + extra))
    family.add_metric(labels, buckets, found.total)

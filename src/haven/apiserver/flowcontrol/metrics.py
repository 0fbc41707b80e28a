"""What priority and fairness counts, under upstream's metric names, collected when somebody asks.

Source: https://kubernetes.io/docs/concepts/cluster-administration/flow-control/#observability
"""

from __future__ import annotations

from collections.abc import Callable

from haven.apiserver.flowcontrol.levels import Level, SchemaCounts
from haven.apiserver.flowcontrol.runner import FlowControl
from haven.clock import Clock
from haven.metrics.families import Histogram, Registry

__all__ = ["FlowMetrics"]

_PREFIX = "apiserver_flowcontrol_"
_NANOSECONDS = 1e9
_BY_SCHEMA = (
    "dispatched_requests_total", "rejected_requests_total", "current_executing_requests", "current_executing_seats",
    "request_concurrency_in_use", "current_inqueue_requests", "current_inqueue_seats",
    "request_wait_duration_seconds", "request_execution_seconds", "work_estimated_seats",
    "request_queue_length_after_enqueue", "watch_count_samples",
)  # fmt: skip
_OF_LEVELS: dict[str, Callable[[Level], float]] = {
    "nominal_limit_seats": lambda level: level.nominal,
    "lower_limit_seats": lambda level: level.seats_min,
    "upper_limit_seats": lambda level: level.seats_max,
    "current_limit_seats": lambda level: level.limit,
    "request_concurrency_limit": lambda level: level.nominal,
    "demand_seats_high_watermark": lambda level: level.demand.high_watermark,
    "demand_seats_average": lambda level: level.demand.average,
    "demand_seats_stdev": lambda level: level.demand.deviation,
    "demand_seats_smoothed": lambda level: level.demand.smoothed,
    "target_seats": lambda level: max(
        level.seats_min, min(level.nominal, level.demand.high_watermark), level.demand.smoothed
    ),
    "current_r": lambda level: level.progress,
    "dispatch_r": lambda level: level.progress,
    "latest_s": lambda level: level.progress,
}


class FlowMetrics:
    """Reads the figures of a FlowControl."""

    def __init__(self, registry: Registry, flows: FlowControl, clock: Clock) -> None:
        self._registry = registry
        self._flows = flows
        self._clock = clock
        registry.add_collector(self._collect)

    def _collect(self) -> None:
        registry, flows = self._registry, self._flows
        for name in (*_BY_SCHEMA, *_OF_LEVELS, "demand_seats", "next_s_bounds", "next_discounted_s_bounds"):
            registry[_PREFIX + name].clear()
        waiting_seats: dict[tuple[str, str], int] = {}
        for level in flows.levels.values():
            for _, ticket in level.tickets_waiting():
                key = (level.name, ticket.schema)
                waiting_seats[key] = waiting_seats.get(key, 0) + ticket.seats_held
        for (level_name, schema), one in flows.counts.items():
            self._of_schema(level_name, schema, one, waiting_seats.get((level_name, schema), 0))
        for level in flows.levels.values():
            self._of_level(level)
        registry[_PREFIX + "seat_fair_frac"].set((), flows.fair_fraction)
        self._of_kinds()

    def _of_schema(self, level: str, schema: str, one: SchemaCounts, waiting_seats: int) -> None:
        registry = self._registry
        both = (schema, level)
        for name, number in (
            ("dispatched_requests_total", one.dispatched),
            ("current_executing_requests", one.executing),
            ("current_executing_seats", one.seats),
            ("request_concurrency_in_use", one.seats),
            ("current_inqueue_requests", one.waiting),
            ("current_inqueue_seats", waiting_seats),
        ):
            registry[_PREFIX + name].set(both, number)
        for reason, number in one.rejected.items():
            registry[_PREFIX + "rejected_requests_total"].set((*both, reason), number)
        waits = registry[_PREFIX + "request_wait_duration_seconds"]
        waits.show(("true", *both), _with_more(one.waits, 0.0, one.dispatched - sum(one.waits.counts)))
        if sum(one.waits_refused.counts):
            waits.show(("false", *both), one.waits_refused)
        registry[_PREFIX + "request_execution_seconds"].show((*both, "regular"), one.execution)
        estimated = registry[_PREFIX + "work_estimated_seats"]
        narrow = one.dispatched + one.waiting - sum(one.widths.counts)
        estimated.show(both, _with_more(one.widths, 1.0, narrow))
        if sum(one.lengths.counts):
            registry[_PREFIX + "request_queue_length_after_enqueue"].show(both, one.lengths)
        if sum(one.watches.counts):
            registry[_PREFIX + "watch_count_samples"].show(both, one.watches)

    def _of_level(self, level: Level) -> None:
        registry = self._registry
        for name, read in _OF_LEVELS.items():
            registry[_PREFIX + name].set((level.name,), float(read(level)))
        demand = registry[_PREFIX + "demand_seats"].histogram(level.name)
        for seats, seconds in level.demand.times(self._clock.monotonic_seconds()).items():
            demand.add_some(seats / max(level.nominal, 1), round(seconds * _NANOSECONDS))
        places = [queue.place for queue in level.queues if queue.waiting]
        if places:
            discounted = [queue.place - queue.work for queue in level.queues if queue.waiting]
            for name, found in (("next_s_bounds", places), ("next_discounted_s_bounds", discounted)):
                registry[_PREFIX + name].set(("min", level.name), min(found))
                registry[_PREFIX + name].set(("max", level.name), max(found))

    def _of_kinds(self) -> None:
        running = {"mutating": 0, "readOnly": 0}
        queued = {"mutating": 0, "readOnly": 0}
        for level in self._flows.levels.values():
            for ticket in level.running:
                running[_kind(ticket.request)] += 1
            for _, ticket in level.tickets_waiting():
                queued[_kind(ticket.request)] += 1
        for name, found in (("current_inflight_requests", running), ("current_inqueue_requests", queued)):
            for kind, number in found.items():
                self._registry[f"apiserver_{name}"].set((kind,), number)


def _kind(request: object) -> str:
    info = getattr(request, "info", None)
    return "readOnly" if info is None or info.verb in ("get", "list", "watch", "head", "proxy") else "mutating"


def _with_more(found: Histogram, value: float, number: int) -> Histogram:
    """Return what was measured, and as many more of a value that all others had."""
    result = Histogram(found.bounds)
    result.counts, result.total = list(found.counts), found.total
    if number > 0:
        result.add_some(value, number)
    return result

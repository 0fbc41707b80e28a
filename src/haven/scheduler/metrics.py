"""What the scheduler counts, under upstream's metric names.

Source: https://kubernetes.io/docs/reference/instrumentation/metrics/ (scheduler_…)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from haven.metrics.families import Histogram, Registry
from haven.scheduler.course import Course

if TYPE_CHECKING:
    from haven.scheduler.runner import Statistics

__all__ = ["AttemptTimes", "show_scheduler"]

_FROM_MILLISECOND = tuple(0.001 * 2**power for power in range(15))
_ATTEMPTS = (1.0, 2.0, 4.0, 8.0, 16.0)
_POINTS = tuple(0.0001 * 2**power for power in range(12))
_SINCE_FIRST = tuple(0.01 * 2**power for power in range(20))
_MANY = 15
_VICTIMS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


class AttemptTimes:
    """How long attempts took and what they needed."""

    __slots__ = ("algorithm", "attempts", "course", "first", "points", "scheduled", "unschedulable", "victims")

    def __init__(self) -> None:
        self.algorithm = Histogram(_FROM_MILLISECOND)
        self.scheduled = Histogram(_FROM_MILLISECOND)
        self.unschedulable = Histogram(_FROM_MILLISECOND)
        self.attempts = Histogram(_ATTEMPTS)
        self.victims = Histogram(_VICTIMS)
        self.course = Course()
        self.points: dict[tuple[str, str], Histogram] = {}
        """How long upstream's extension points took, by (name, status)."""
        self.first: dict[str, Histogram] = {}
        """How long after the first attempt Pods were placed, by the number of attempts."""

    def point(self, name: str, seconds: float, status: str = "Success") -> None:
        """Count an extension point that was gone through."""
        key = (name, status)
        found = self.points.get(key)
        if found is None:
            found = self.points[key] = Histogram(_POINTS)
        found.add(seconds)

    def chosen(self, *, fits: bool) -> None:
        """Count the steps of choosing a node, as the course has them."""
        course = self.course
        if course.filter_seconds is not None:
            self.point("Filter", course.filter_seconds, "Success" if fits else "Unschedulable")
        if course.score_seconds is not None:
            self.point("Score", course.score_seconds)

    def placed(self, attempts: int, seconds: float) -> None:
        """Count how long after the first attempt a Pod was placed."""
        label = str(attempts) if attempts < _MANY else f"{_MANY}+"
        self.first.setdefault(label, Histogram(_SINCE_FIRST)).add(seconds)


def show_scheduler(registry: Registry, profile: str, read: Callable[[], Statistics], times: AttemptTimes) -> None:
    """Have a scheduler's figures shown among a process's metrics."""

    def collect() -> None:
        found = read()
        registry["scheduler_cache_size"].set(("nodes",), found.nodes)
        registry["scheduler_cache_size"].set(("pods",), found.pods)
        registry["scheduler_cache_size"].set(("assumed_pods",), found.assumed)
        for queue, number in (
            ("active", found.queue.active),
            ("backoff", found.queue.backoff),
            ("unschedulable", found.queue.waiting),
            ("gated", found.gated),
        ):
            registry["scheduler_pending_pods"].set((queue,), number)
        attempts = registry["scheduler_schedule_attempts_total"]
        attempts.set((profile, "scheduled"), found.placed)
        attempts.set((profile, "unschedulable"), found.failed)
        attempts.set((profile, "error"), found.errors)
        registry["scheduler_preemption_attempts_total"].set((), sum(times.victims.counts))
        registry["scheduler_preemption_victims"].show((), times.victims)
        registry["scheduler_pod_scheduling_attempts"].show((), times.attempts)
        registry["scheduler_scheduling_algorithm_duration_seconds"].show((), times.algorithm)
        durations = registry["scheduler_scheduling_attempt_duration_seconds"]
        durations.show((profile, "scheduled"), times.scheduled)
        durations.show((profile, "unschedulable"), times.unschedulable)

        for (event, queue), number in found.incoming.items():
            registry["scheduler_queue_incoming_pods_total"].set((event, queue), number)
        registry["scheduler_unschedulable_pods"].clear()
        for plugin, number in found.ruled_out.items():
            registry["scheduler_unschedulable_pods"].set((plugin, profile), number)
        for point, names in (("Filter", times.course.filters), ("Score", times.course.scorers)):
            for plugin, number in names.items():
                registry["scheduler_plugin_evaluation_total"].set((point, plugin, profile), number)
        for (point, status), spread in times.points.items():
            family = registry["scheduler_framework_extension_point_duration_seconds"]
            family.show((point, profile, status), spread)
        for attempts_made, spread in times.first.items():
            registry["scheduler_pod_scheduling_sli_duration_seconds"].show((attempts_made,), spread)

    registry.add_collector(collect)

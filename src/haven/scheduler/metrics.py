"""What the scheduler counts, under upstream's metric names.

Source: https://kubernetes.io/docs/reference/instrumentation/metrics/ (scheduler_…)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from haven.metrics.families import Histogram, Registry

if TYPE_CHECKING:
    from haven.scheduler.runner import Statistics

__all__ = ["AttemptTimes", "show_scheduler"]

_FROM_MILLISECOND = tuple(0.001 * 2**power for power in range(15))
_ATTEMPTS = (1.0, 2.0, 4.0, 8.0, 16.0)
_VICTIMS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


class AttemptTimes:
    """How long attempts took and what they needed."""

    __slots__ = ("algorithm", "attempts", "scheduled", "unschedulable", "victims")

    def __init__(self) -> None:
        self.algorithm = Histogram(_FROM_MILLISECOND)
        self.scheduled = Histogram(_FROM_MILLISECOND)
        self.unschedulable = Histogram(_FROM_MILLISECOND)
        self.attempts = Histogram(_ATTEMPTS)
        self.victims = Histogram(_VICTIMS)


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

    registry.add_collector(collect)

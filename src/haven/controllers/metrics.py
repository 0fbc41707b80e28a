"""What the controllers count, under upstream's metric names: their work queues, and which of them run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from haven.controllers.counts import counted_metrics
from haven.controllers.runner import ControllerStatistics
from haven.metrics.families import Registry

__all__ = ["show_controllers"]


def show_controllers(
    registry: Registry, read: Callable[[], Sequence[ControllerStatistics]], measure: Callable[[Registry], None]
) -> None:
    """Have the controllers' figures shown among a process's metrics; `measure` adds those of single controllers."""
    registry.extend(counted_metrics().values())

    def collect() -> None:
        for one in read():
            labels, queue = (one.name,), one.queue
            registry["running_managed_controllers"].set(("kube-controller-manager", one.name), int(one.running))
            registry["workqueue_adds_total"].set(labels, queue.added)
            registry["workqueue_depth"].set(labels, queue.waiting)
            registry["workqueue_retries_total"].set(labels, queue.retried)
            registry["workqueue_unfinished_work_seconds"].set(labels, queue.unfinished_seconds)
            registry["workqueue_longest_running_processor_seconds"].set(labels, queue.longest_seconds)
            registry["workqueue_queue_duration_seconds"].show(labels, one.waits)
            registry["workqueue_work_duration_seconds"].show(labels, one.work)
            if one.counts is not None:
                one.counts.show(registry)

        measure(registry)

    registry.add_collector(collect)

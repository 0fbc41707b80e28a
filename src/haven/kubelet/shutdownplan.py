"""In which order pods end when the machine shuts down, and how long each group of them gets. Pure.

Pods are grouped by priority, the least important end first, and each group has seconds of its own; a pod whose priority
lies between two groups belongs to the lower one.
Source: https://kubernetes.io/docs/concepts/cluster-administration/node-shutdown/ and KEP-2000, KEP-2712
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from haven.api.core.v1 import Pod

__all__ = ["PriorityGrace", "ShutdownSettings", "grace_of", "graces", "group"]

CRITICAL_PRIORITY = 2_000_000_000


@dataclass(frozen=True, slots=True)
class PriorityGrace:
    """Pods of this priority, and of higher ones up to the next group, get so many seconds."""

    priority: int
    seconds: int


@dataclass(frozen=True, slots=True)
class ShutdownSettings:
    """All zero: the node does not delay the machine's shutdown, as upstream's does not unless told to."""

    grace_seconds: int = 0
    """For all pods together (shutdownGracePeriod)."""
    grace_critical_seconds: int = 0
    """The part of it that is kept for critical pods (shutdownGracePeriodCriticalPods)."""
    by_priority: tuple[PriorityGrace, ...] = ()
    """Replaces the other two (shutdownGracePeriodByPodPriority)."""

    def complaints(self) -> list[str]:
        """Return what is wrong with the settings."""
        wrong = []
        if not 0 <= self.grace_critical_seconds <= self.grace_seconds:
            wrong.append("the grace of critical pods at shutdown is a part of the whole: choose 0 to that many seconds")
        if any(each.seconds < 0 for each in self.by_priority):
            wrong.append("a grace period at shutdown is negative")
        if len({each.priority for each in self.by_priority}) < len(self.by_priority):
            wrong.append("a priority has two grace periods at shutdown")
        return wrong


def graces(settings: ShutdownSettings) -> list[PriorityGrace]:
    """Return the groups in the order in which they end; none if nothing is to be delayed."""
    if settings.by_priority:
        return sorted(settings.by_priority, key=lambda each: each.priority)
    if not settings.grace_seconds:
        return []
    critical = settings.grace_critical_seconds
    return [PriorityGrace(0, settings.grace_seconds - critical), PriorityGrace(CRITICAL_PRIORITY, critical)]


def group(steps: Sequence[PriorityGrace], pods: Iterable[Pod]) -> list[tuple[PriorityGrace, list[Pod]]]:
    """Part pods into the groups, in their order; `steps` must not be empty."""
    parted: list[tuple[PriorityGrace, list[Pod]]] = [(step, []) for step in steps]
    for pod in pods:
        priority = pod.spec.priority or 0
        index = max((index for index, step in enumerate(steps) if step.priority <= priority), default=0)
        parted[index][1].append(pod)
    return parted


def grace_of(pod: Pod, step: PriorityGrace) -> int:
    """Return the seconds that a pod gets to end: its own if they are fewer than its group's."""
    own = pod.spec.termination_grace_period_seconds
    return step.seconds if own is None else min(own, step.seconds)

"""DefaultPreemption: make room for an important Pod by evicting less important ones.

On each candidate node all Pods of lower priority are thought away; if the Pod fits then, as many as possible are put
back, most important first, those that a PodDisruptionBudget protects before the others. The best node breaks the
fewest budgets, then evicts the least important Pods, then the fewest.
Source: https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from haven.api.policy import v1 as policy
from haven.apimachinery.names import UID
from haven.apimachinery.selectors import from_label_selector
from haven.scheduler.cycle import Failure, Profile, fit_message
from haven.scheduler.podinfo import PodInfo
from haven.scheduler.snapshot import NodeRow, Snapshot

__all__ = ["Preemption", "find_preemption", "is_eligible"]


@dataclass(frozen=True, slots=True)
class Preemption:
    """Evict these Pods and the node will do. `message` explains it when there is none (`node_name` is "")."""

    node_name: str
    victims: tuple[PodInfo, ...]
    message: str = ""


@dataclass(frozen=True, slots=True)
class _Candidate:
    row: NodeRow
    victims: tuple[PodInfo, ...]
    violations: int

    def order(self) -> tuple[int, int, int, int, float]:
        """Smaller is better. Of equals the one whose most important victim started last is taken."""
        highest = max(victim.priority for victim in self.victims)
        total = sum(victim.priority + 2**31 for victim in self.victims)
        latest = min(victim.created_seconds for victim in self.victims if victim.priority == highest)
        return (self.violations, highest, total, len(self.victims), -latest)


def is_eligible(info: PodInfo, snapshot: Snapshot) -> tuple[bool, str]:
    """Tell whether a Pod may evict others now: not by its policy, not while its last victims are still going."""
    spec = info.pod.spec
    if spec.preemption_policy == "Never":
        return False, "not eligible due to preemptionPolicy=Never."
    nominated = snapshot.by_name.get(info.pod.status.nominated_node_name)
    if nominated is not None:
        for other in nominated.pods.values():
            if other.is_terminating and other.priority < info.priority:
                return False, "not eligible due to a terminating pod on the nominated node."
    return True, ""


def find_preemption(
    info: PodInfo,
    failure: Failure,
    snapshot: Snapshot,
    profile: Profile,
    budgets: Callable[[str], Sequence[policy.PodDisruptionBudget]],
) -> Preemption:
    """Return whom to evict where, or why evicting nobody helps."""
    eligible, why = is_eligible(info, snapshot)
    if not eligible:
        return Preemption("", (), f"preemption: {why}")
    found = [
        candidate
        for row in failure.candidates
        if (candidate := _dry_run(info, row, snapshot, profile, budgets)) is not None
    ]
    if not found:
        reasons: Counter[str] = Counter()
        reasons["No preemption victims found for incoming pod"] = len(failure.candidates)
        reasons["Preemption is not helpful for scheduling"] = failure.nodes - len(failure.candidates)
        message = fit_message(failure.nodes, {text: count for text, count in reasons.items() if count})
        return Preemption("", (), f"preemption: {message}")
    best = min(found, key=lambda candidate: (candidate.order(), candidate.row.name))
    return Preemption(best.row.name, best.victims)


def _dry_run(
    info: PodInfo,
    row: NodeRow,
    snapshot: Snapshot,
    profile: Profile,
    budgets: Callable[[str], Sequence[policy.PodDisruptionBudget]],
) -> _Candidate | None:
    lower = [other for other in row.pods.values() if other.priority < info.priority]
    gone: set[UID] = {other.uid for other in lower}
    if not lower or not _fits(info, row, snapshot, profile, gone):
        return None
    # Most important, then longest running, are put back first.
    lower.sort(key=lambda other: (-other.priority, other.created_seconds, other.uid))
    protected, free = _by_budget(lower, budgets)
    violations = 0
    for other in (*protected, *free):
        gone.discard(other.uid)
        if not _fits(info, row, snapshot, profile, gone):
            gone.add(other.uid)
            violations += other in protected
    victims = tuple(other for other in lower if other.uid in gone)
    return _Candidate(row, victims, violations) if victims else None


def _fits(info: PodInfo, row: NodeRow, snapshot: Snapshot, profile: Profile, gone: set[UID]) -> bool:
    return all(plugin.fits_without(info, row, snapshot, gone) for plugin in profile.filters)


def _by_budget(
    pods: Sequence[PodInfo], budgets: Callable[[str], Sequence[policy.PodDisruptionBudget]]
) -> tuple[list[PodInfo], list[PodInfo]]:
    """Part Pods into those whose eviction would break a budget and the others."""
    left: dict[tuple[str, str], int] = {}
    protected: list[PodInfo] = []
    free: list[PodInfo] = []
    for info in pods:
        breaks = False
        for budget in budgets(info.namespace):
            selector = from_label_selector(budget.spec.selector)
            labels = info.pod.metadata.labels
            if not labels or not selector.matches(labels) or info.name in budget.status.disrupted_pods:
                continue
            key = (info.namespace, budget.metadata.name)
            left.setdefault(key, budget.status.disruptions_allowed)
            left[key] -= 1
            breaks = breaks or left[key] < 0
        (protected if breaks else free).append(info)
    return protected, free

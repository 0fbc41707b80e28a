"""Which pods must go so that a critical pod fits on this node. Pure.

The scheduler is not asked: a static or critical pod may be bound to a node that is full. Pods that guarantee nothing go
before burstable ones, those before guaranteed ones; within a tier the pod that covers most of what is missing goes
first, the smaller one of equals.
Source: https://kubernetes.io/docs/tasks/administer-cluster/guaranteed-scheduling-critical-addon-pods/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from haven.api.core.podresources import pod_requests
from haven.api.core.v1 import Pod
from haven.apimachinery.quantity import Quantity
from haven.kubelet.podspec import is_critical

__all__ = ["choose_victims", "request_of"]

TIERS = ("BestEffort", "Burstable", "Guaranteed")


def request_of(pod: Pod, resource: str) -> int:
    """Return what a pod takes of a resource: thousandths of CPUs, one pod, units of everything else."""
    if resource == "pods":
        return 1
    amount = pod_requests(pod).get(resource, Quantity.ZERO)
    return amount.milli_value if resource == "cpu" else amount.value


def choose_victims(
    pod: Pod, active: Sequence[Pod], missing: Mapping[str, int], tier_of: Callable[[Pod], str]
) -> list[Pod] | None:
    """Return the pods whose end frees what is missing for a critical pod; None if no set of them does."""
    tiers = {tier: [other for other in active if _may_go(pod, other) and tier_of(other) == tier] for tier in TIERS}
    best_effort, burstable, guaranteed = (tiers[tier] for tier in TIERS)
    if _left(missing, (*best_effort, *burstable, *guaranteed)):
        return None
    last = _cover(guaranteed, _left(missing, (*best_effort, *burstable)))
    middle = _cover(burstable, _left(missing, (*best_effort, *last)))
    first = _cover(best_effort, _left(missing, (*middle, *last)))
    return [*first, *middle, *last]


def _may_go(preemptor: Pod, other: Pod) -> bool:
    if is_critical(preemptor) and not is_critical(other):
        return True
    mine, theirs = preemptor.spec.priority, other.spec.priority
    return mine is not None and theirs is not None and mine > theirs


def _left(missing: Mapping[str, int], gone: Iterable[Pod]) -> dict[str, int]:
    """Return what would still be missing."""
    pods = list(gone)
    after = {name: amount - sum(request_of(pod, name) for pod in pods) for name, amount in missing.items()}
    return {name: amount for name, amount in after.items() if amount > 0}


def _cover(pods: Sequence[Pod], missing: Mapping[str, int]) -> list[Pod]:
    """Return few pods that together cover what is missing; all of them do."""
    candidates, chosen, left = list(pods), [], dict(missing)
    while left:
        best = min(candidates, key=lambda pod: (_distance(pod, left), *_size(pod)))
        candidates.remove(best)
        chosen.append(best)
        left = _left(left, (best,))
    return chosen


def _distance(pod: Pod, missing: Mapping[str, int]) -> float:
    """Return how much a pod leaves uncovered; each resource weighs the same, whatever its unit."""
    return sum((max(amount - request_of(pod, name), 0) / amount) ** 2 for name, amount in missing.items())


def _size(pod: Pod) -> tuple[int, int]:
    return (request_of(pod, "memory"), request_of(pod, "cpu"))

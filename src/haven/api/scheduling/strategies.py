"""PriorityClasses: defaults, what is wrong with them, how they are written.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/ and the behaviour of
pkg/apis/scheduling.
"""

from __future__ import annotations

from typing import Any

from haven.api.core.validation.pod import validate_preemption_policy
from haven.api.kinds import UpdateOrder, kind_strategy
from haven.api.scheduling import v1
from haven.api.strategy import Strategy
from haven.apimachinery.fielderrors import ErrorList, Path, forbidden
from haven.apimachinery.validation.objectmeta import validate_immutable

__all__ = ["HIGHEST_USER_PRIORITY", "STRATEGIES", "SYSTEM_PRIORITIES"]

HIGHEST_USER_PRIORITY = 1_000_000_000
SYSTEM_PRIORITIES = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}


def _default(priority: v1.PriorityClass) -> None:
    if priority.preemption_policy is None:
        priority.preemption_policy = "PreemptLowerPriority"


def _check(priority: v1.PriorityClass) -> ErrorList:
    errors: ErrorList = []
    name = priority.metadata.name
    if name.startswith("system-"):
        if why := _system_complaint(name, priority):
            words = f"priority class names with 'system-' prefix are reserved for system use only. error: {why}"
            errors.append(forbidden(Path("metadata", "name"), words))
    elif priority.value > HIGHEST_USER_PRIORITY:
        words = f"maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}"
        errors.append(forbidden(Path("value"), words))
    if priority.preemption_policy is not None:
        errors += validate_preemption_policy(priority.preemption_policy, Path("preemptionPolicy"))
    return errors


def _system_complaint(name: str, priority: v1.PriorityClass) -> str:
    value = SYSTEM_PRIORITIES.get(name)
    if value is None:
        return f"{name} is not a known system priority class"
    if priority.value != value:
        return f"value of {name} PriorityClass must be {value}"
    return f"globalDefault of {name} PriorityClass must be false" if priority.global_default else ""


def _check_update(new: v1.PriorityClass, old: v1.PriorityClass) -> ErrorList:
    errors: ErrorList = []
    if new.value != old.value:
        errors.append(forbidden(Path("value"), "may not be changed in an update."))
    return errors + validate_immutable(new.preemption_policy, old.preemption_policy, Path("preemptionPolicy"))


def _create(new: v1.PriorityClass) -> None:
    new.metadata.generation = 1


STRATEGIES: dict[str, Strategy[Any]] = {
    "priorityclasses": kind_strategy(
        namespaced=False,
        default=_default,
        check=_check,
        check_update=_check_update,
        create=_create,
        order=UpdateOrder.META_ONLY,
    )
}

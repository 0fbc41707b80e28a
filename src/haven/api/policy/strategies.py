"""PodDisruptionBudgets: what is wrong with them, how they are written.

Source: https://kubernetes.io/docs/tasks/run-application/configure-pdb/ and the behaviour of pkg/apis/policy.
"""

from __future__ import annotations

from typing import Any

from haven.api.internalform import internal_form
from haven.api.intorpercent import validate_at_most_100_percent, validate_positive_int_or_percent
from haven.api.kinds import kind_strategy, status_strategy
from haven.api.policy import v1
from haven.api.strategy import Strategy
from haven.apimachinery.fielderrors import ErrorList, Path, invalid, not_supported
from haven.apimachinery.validation.labels import (
    selector_has_invalid_value,
    validate_conditions,
    validate_label_selector,
)
from haven.apimachinery.validation.objectmeta import validate_not_negative

__all__ = ["STRATEGIES"]

_SPEC = Path("spec")
_POLICIES = ("AlwaysAllow", "IfHealthyBudget")


def _check(budget: v1.PodDisruptionBudget, old: v1.PodDisruptionBudget | None = None) -> ErrorList:
    spec = budget.spec
    errors: ErrorList = []
    if spec.min_available is not None and spec.max_unavailable is not None:
        words = "minAvailable and maxUnavailable cannot be both set"
        errors.append(invalid(_SPEC, internal_form(spec), words))
    for name, value in (("minAvailable", spec.min_available), ("maxUnavailable", spec.max_unavailable)):
        if value is not None:
            errors += validate_positive_int_or_percent(value, _SPEC.child(name))
            errors += validate_at_most_100_percent(value, _SPEC.child(name))
    forgive = old is not None and selector_has_invalid_value(old.spec.selector)
    errors += validate_label_selector(spec.selector, _SPEC.child("selector"), allow_invalid_values=forgive)
    policy = spec.unhealthy_pod_eviction_policy
    if policy is not None and policy not in _POLICIES:
        errors.append(not_supported(_SPEC.child("unhealthyPodEvictionPolicy"), policy, _POLICIES))
    return errors


def _check_status(new: v1.PodDisruptionBudget, _old: v1.PodDisruptionBudget) -> ErrorList:
    status, path = new.status, Path("status")
    errors = validate_conditions(status.conditions, path.child("conditions"))
    for name, value in (
        ("disruptionsAllowed", status.disruptions_allowed),
        ("currentHealthy", status.current_healthy),
        ("desiredHealthy", status.desired_healthy),
        ("expectedPods", status.expected_pods),
    ):
        errors += validate_not_negative(value, path.child(name))
    return errors


STRATEGIES: dict[str, Strategy[Any]] = {
    "poddisruptionbudgets": kind_strategy(
        namespaced=True,
        name_rule=None,
        check=_check,
        check_old=_check,
        has_generation=True,
        has_status=True,
        allow_unconditional_update=False,
        subresources={"status": status_strategy(check_update=_check_status, checks_metadata=False)},
    )
}

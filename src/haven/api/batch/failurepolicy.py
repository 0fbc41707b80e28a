"""What is wrong with the policies by which a Job fails or succeeds.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy and the behaviour of
pkg/apis/batch/validation.
"""

from __future__ import annotations

from haven.api.batch import v1
from haven.api.batch.indexes import MalformedIndexes, count_indexes
from haven.api.core.validation.metadata import validate_qualified_name
from haven.apimachinery.fielderrors import (
    OMIT,
    ErrorList,
    Path,
    duplicate,
    invalid,
    not_supported,
    required,
    too_long,
    too_many,
)
from haven.apimachinery.goformat import quote
from haven.apimachinery.validation.names import byte_length
from haven.apimachinery.validation.objectmeta import validate_not_negative

__all__ = ["validate_pod_failure_policy", "validate_success_policy"]

_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
_OPERATORS = ("In", "NotIn")
_STATUSES = ("False", "True", "Unknown")
_RULES_MAX = 20
_PATTERNS_MAX = 20
_EXIT_CODES_MAX = 255
_INDEXES_BYTES_MAX = 64 * 1024


def _valid_values(values: tuple[str, ...]) -> str:
    return f"valid values: [{' '.join(quote(value) for value in values)}]"


def validate_pod_failure_policy(spec: v1.JobSpec, policy: v1.PodFailurePolicy, path: Path) -> ErrorList:
    """Check which failures of Pods mean what."""
    errors: ErrorList = []
    rules = policy.rules or []
    if len(rules) > _RULES_MAX:
        errors.append(too_many(path.child("rules"), len(rules), _RULES_MAX))
    pod = spec.template.spec
    names = {container.name for container in (*(pod.containers or ()), *pod.init_containers)}
    for index, rule in enumerate(rules):
        errors += _rule(spec, rule, names, path.child("rules").index(index))
    return errors


def _rule(spec: v1.JobSpec, rule: v1.PodFailurePolicyRule, names: set[str], path: Path) -> ErrorList:
    errors: ErrorList = []
    action = path.child("action")
    if not rule.action:
        errors.append(required(action, _valid_values(_ACTIONS)))
    elif rule.action == "FailIndex":
        if spec.backoff_limit_per_index is None:
            errors.append(invalid(action, rule.action, "requires the backoffLimitPerIndex to be set"))
    elif rule.action not in _ACTIONS:
        errors.append(not_supported(action, rule.action, _ACTIONS))
    if rule.on_exit_codes is not None:
        errors += _exit_codes(rule.on_exit_codes, names, path.child("onExitCodes"))
    if rule.on_pod_conditions:
        errors += _conditions(rule.on_pod_conditions, path.child("onPodConditions"))
    if rule.on_exit_codes is not None and rule.on_pod_conditions:
        errors.append(invalid(path, OMIT, "specifying both OnExitCodes and OnPodConditions is not supported"))
    if rule.on_exit_codes is None and not rule.on_pod_conditions:
        errors.append(invalid(path, OMIT, "specifying one of OnExitCodes and OnPodConditions is required"))
    return errors


def _conditions(patterns: list[v1.PodFailurePolicyOnPodConditionsPattern], path: Path) -> ErrorList:
    errors: ErrorList = []
    if len(patterns) > _PATTERNS_MAX:
        errors.append(too_many(path, len(patterns), _PATTERNS_MAX))
    for index, pattern in enumerate(patterns):
        place = path.index(index)
        errors += validate_qualified_name(pattern.type, place.child("type"))
        if not pattern.status:
            errors.append(required(place.child("status"), _valid_values(_STATUSES)))
        elif pattern.status not in _STATUSES:
            errors.append(not_supported(place.child("status"), pattern.status, _STATUSES))
    return errors


def _exit_codes(codes: v1.PodFailurePolicyOnExitCodesRequirement, names: set[str], path: Path) -> ErrorList:
    errors: ErrorList = []
    if not codes.operator:
        errors.append(required(path.child("operator"), _valid_values(_OPERATORS)))
    elif codes.operator not in _OPERATORS:
        errors.append(not_supported(path.child("operator"), codes.operator, _OPERATORS))
    if codes.container_name is not None and codes.container_name not in names:
        words = "must be one of the container or initContainer names in the pod template"
        errors.append(invalid(path.child("containerName"), codes.container_name, words))
    place = path.child("values")
    values = codes.values or []
    if not values:
        errors.append(invalid(place, codes.values, "at least one value is required"))
    elif len(values) > _EXIT_CODES_MAX:
        errors.append(too_many(place, len(values), _EXIT_CODES_MAX))
    seen: set[int] = set()
    for index, value in enumerate(values):
        if codes.operator == "In" and value == 0:
            errors.append(invalid(place.index(index), value, "must not be 0 for the In operator"))
        if value in seen:
            errors.append(duplicate(place.index(index), value))
        seen.add(value)
    if values != sorted(values):
        errors.append(invalid(place, values, "must be ordered"))
    return errors


def validate_success_policy(spec: v1.JobSpec, policy: v1.SuccessPolicy, path: Path) -> ErrorList:
    """Check when an Indexed Job succeeds before all is done."""
    errors: ErrorList = []
    rules, place = policy.rules or [], path.child("rules")
    if not rules:
        words = "at least one rules must be specified when the successPolicy is specified"
        errors.append(required(place, words))
    if len(rules) > _RULES_MAX:
        errors.append(too_many(place, len(rules), _RULES_MAX))
    for index, rule in enumerate(rules):
        errors += _success_rule(spec.completions or 0, rule, place.index(index))
    return errors


def _success_rule(completions: int, rule: v1.SuccessPolicyRule, path: Path) -> ErrorList:
    errors: ErrorList = []
    count, indexes = rule.succeeded_count, rule.succeeded_indexes
    if count is None and indexes is None:
        errors.append(required(path, "at least one of succeededCount or succeededIndexes must be specified"))
    total = 0
    if indexes is not None:
        place = path.child("succeededIndexes")
        if byte_length(indexes) > _INDEXES_BYTES_MAX:
            errors.append(too_long(place, "", _INDEXES_BYTES_MAX))
        try:
            total = count_indexes(indexes, completions)
        except MalformedIndexes as error:
            errors.append(invalid(place, indexes, f"error parsing succeededIndexes: {error}"))
    if count is not None:
        place = path.child("succeededCount")
        errors += validate_not_negative(count, place)
        if count > completions:
            words = f"must be less than or equal to {completions} (the number of specified completions)"
            errors.append(invalid(place, count, words))
        if indexes is not None and count > total:
            where = "the number of indexes in the specified succeededIndexes field"
            errors.append(invalid(place, count, f"must be less than or equal to {total} ({where})"))
    return errors

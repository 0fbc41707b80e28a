"""Workloads and PodGroups: defaults, what is wrong with them, how they are written.

Source: https://kubernetes.io/docs/concepts/workloads/workload-api/ and the behaviour of pkg/apis/scheduling (v1alpha2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from haven.api.kinds import kind_strategy, status_strategy
from haven.api.scheduling import v1alpha2
from haven.api.strategy import Strategy
from haven.apimachinery import serialization
from haven.apimachinery.fielderrors import (
    ErrorList,
    Path,
    duplicate,
    invalid,
    not_supported,
    required,
    too_many,
)
from haven.apimachinery.validation.labels import validate_conditions
from haven.apimachinery.validation.names import (
    dns1123_label_errors,
    dns1123_subdomain_errors,
    dns_subdomain_name,
    path_segment_name,
    qualified_name_errors,
)
from haven.apimachinery.validation.objectmeta import IMMUTABLE

__all__ = ["STRATEGIES"]

CLAIMS_MAX, TEMPLATES_MAX, CONSTRAINTS_MAX = 4, 8, 1
PRIORITY_MAX = 1_000_000_000
_MODES = ("Pod", "PodGroup")
_SPEC = Path("spec")
Complaints = Callable[[str], Iterable[str]]


def _formatted(value: str, path: Path, complaints: Complaints, *, is_required: bool = True) -> ErrorList:
    if not value:
        return [required(path, "")] if is_required else []
    return [invalid(path, value, text) for text in complaints(value)]


def _union(path: Path, members: Sequence[tuple[str, bool]]) -> ErrorList:
    """Complain unless exactly one member is there."""
    there = [name for name, is_there in members if is_there]
    names = ", ".join(f"`{name}`" for name, _ in members)
    if not there:
        return [invalid(path, "", f"must specify one of: {names}")]
    if len(there) > 1:
        return [invalid(path, f"{{{', '.join(there)}}}", f"must specify exactly one of: {names}")]
    return []


def _policy(policy: v1alpha2.PodGroupSchedulingPolicy, path: Path) -> ErrorList:
    errors = _union(path, [("basic", policy.basic is not None), ("gang", policy.gang is not None)])
    if policy.gang is not None:
        place = path.child("gang", "minCount")
        if policy.gang.min_count == 0:
            errors.append(required(place, ""))
        elif policy.gang.min_count < 1:
            errors.append(invalid(place, policy.gang.min_count, "must be greater than or equal to 1"))
    return errors


def _constraints(constraints: v1alpha2.PodGroupSchedulingConstraints | None, path: Path) -> ErrorList:
    if constraints is None:
        return []
    place = path.child("topology")
    if len(constraints.topology) > CONSTRAINTS_MAX:
        return [too_many(place, len(constraints.topology), CONSTRAINTS_MAX)]
    errors: ErrorList = []
    for index, one in enumerate(constraints.topology):
        errors += _formatted(one.key, place.index(index).child("key"), qualified_name_errors)
    return errors


def _claims(claims: Sequence[v1alpha2.PodGroupResourceClaim], path: Path) -> ErrorList:
    if len(claims) > CLAIMS_MAX:
        return [too_many(path, len(claims), CLAIMS_MAX)]
    errors = _unique(claims, path)
    for index, claim in enumerate(claims):
        place = path.index(index)
        named, made = claim.resource_claim_name, claim.resource_claim_template_name
        members = [("resourceClaimName", named is not None), ("resourceClaimTemplateName", made is not None)]
        errors += _union(place, members)
        errors += _formatted(claim.name, place.child("name"), dns1123_label_errors)
        for name, value in (("resourceClaimName", named), ("resourceClaimTemplateName", made)):
            if value is not None:
                errors += [invalid(place.child(name), value, text) for text in dns1123_subdomain_errors(value)]
    return errors


def _unique(items: Sequence[Any], path: Path) -> ErrorList:
    names = [item.name for item in items]
    return [
        duplicate(path.index(index), msgspec.Raw(serialization.encode(item)))
        for index, item in enumerate(items)
        if item.name in names[:index]
    ]


def _priority(spec: Any, path: Path) -> ErrorList:
    errors: ErrorList = []
    if spec.disruption_mode is not None and spec.disruption_mode not in _MODES:
        errors.append(not_supported(path.child("disruptionMode"), spec.disruption_mode, _MODES))
    errors += _formatted(
        spec.priority_class_name, path.child("priorityClassName"), dns1123_subdomain_errors, is_required=False
    )
    if spec.priority is not None and spec.priority > PRIORITY_MAX:
        text = f"must be less than or equal to {PRIORITY_MAX}"
        errors.append(invalid(path.child("priority"), spec.priority, text))
    return errors


# ---- groups


def _default_group(group: v1alpha2.PodGroup) -> None:
    if group.spec.disruption_mode is None:
        group.spec.disruption_mode = "Pod"


def _template_reference(reference: v1alpha2.PodGroupTemplateReference | None, path: Path) -> ErrorList:
    if reference is None:
        return []
    workload = reference.workload
    errors = _union(path, [("workload", workload is not None)])
    if workload is not None:
        place = path.child("workload")
        errors += _formatted(workload.workload_name, place.child("workloadName"), dns1123_subdomain_errors)
        name = workload.pod_group_template_name
        errors += _formatted(name, place.child("podGroupTemplateName"), dns1123_label_errors)
    return errors


def _check_group(group: v1alpha2.PodGroup) -> ErrorList:
    spec = group.spec
    return (
        _template_reference(spec.pod_group_template_ref, _SPEC.child("podGroupTemplateRef"))
        + _policy(spec.scheduling_policy, _SPEC.child("schedulingPolicy"))
        + _constraints(spec.scheduling_constraints, _SPEC.child("schedulingConstraints"))
        + _claims(spec.resource_claims, _SPEC.child("resourceClaims"))
        + _priority(spec, _SPEC)
    )


_GROUP_FIELDS = (
    ("pod_group_template_ref", "podGroupTemplateRef"),
    ("scheduling_policy", "schedulingPolicy"),
    ("scheduling_constraints", "schedulingConstraints"),
    ("resource_claims", "resourceClaims"),
    ("disruption_mode", "disruptionMode"),
    ("priority_class_name", "priorityClassName"),
    ("priority", "priority"),
)


def _same(new: Any, old: Any, fields: Iterable[tuple[str, str]]) -> ErrorList:
    """Complain about fields that changed although they may not."""
    errors: ErrorList = []
    for name, shown in fields:
        if getattr(new.spec, name) != getattr(old.spec, name):
            errors.append(invalid(_SPEC.child(shown), None, IMMUTABLE))
    return errors


def _check_group_status(new: v1alpha2.PodGroup, _old: v1alpha2.PodGroup) -> ErrorList:
    path = Path("status")
    errors = validate_conditions(new.status.conditions, path.child("conditions"))
    place, statuses = path.child("resourceClaimStatuses"), new.status.resource_claim_statuses
    known = {claim.name for claim in new.spec.resource_claims}
    for index, status in enumerate(statuses):
        if status.name not in known:
            text = "must match the name of an entry in `spec.resourceClaims`"
            errors.append(invalid(place.index(index).child("name"), status.name, text))
    if len(statuses) > CLAIMS_MAX:
        return [*errors, too_many(place, len(statuses), CLAIMS_MAX)]
    errors += _unique(statuses, place)
    for index, status in enumerate(statuses):
        if status.resource_claim_name is not None:
            name, at = status.resource_claim_name, place.index(index).child("resourceClaimName")
            errors += [invalid(at, name, text) for text in dns1123_subdomain_errors(name)]
    return errors


# ---- workloads


def _check_workload(workload: v1alpha2.Workload) -> ErrorList:
    errors: ErrorList = []
    reference = workload.spec.controller_ref
    if reference is not None:
        place = _SPEC.child("controllerRef")
        group = reference.api_group
        errors += _formatted(group, place.child("apiGroup"), dns1123_subdomain_errors, is_required=False)
        errors += _formatted(reference.kind, place.child("kind"), path_segment_name)
        errors += _formatted(reference.name, place.child("name"), path_segment_name)
    place, templates = _SPEC.child("podGroupTemplates"), workload.spec.pod_group_templates or []
    if len(templates) > TEMPLATES_MAX:
        return [*errors, too_many(place, len(templates), TEMPLATES_MAX)]
    if not templates:
        return [*errors, required(place, "")]
    errors += _unique(templates, place)
    for index, template in enumerate(templates):
        at = place.index(index)
        errors += _formatted(template.name, at.child("name"), dns1123_label_errors)
        errors += _policy(template.scheduling_policy, at.child("schedulingPolicy"))
        errors += _constraints(template.scheduling_constraints, at.child("schedulingConstraints"))
        errors += _claims(template.resource_claims, at.child("resourceClaims"))
        errors += _priority(template, at)
    return errors


_WORKLOAD_FIELDS = (("controller_ref", "controllerRef"), ("pod_group_templates", "podGroupTemplates"))


STRATEGIES: dict[str, Strategy[Any]] = {
    "podgroups": kind_strategy(
        namespaced=True,
        name_rule=dns_subdomain_name,
        default=_default_group,
        check=_check_group,
        check_old=lambda new, old: [],  # What is unchanged is not looked at again, and nothing may change.
        check_update=lambda new, old: _same(new, old, _GROUP_FIELDS),
        has_status=True,
        subresources={
            "status": status_strategy(default=_default_group, check_update=_check_group_status, resets_metadata=True)
        },
    ),
    "workloads": kind_strategy(
        namespaced=True,
        name_rule=dns_subdomain_name,
        check=_check_workload,
        check_old=lambda new, old: [],
        check_update=lambda new, old: _same(new, old, _WORKLOAD_FIELDS),
    ),
}

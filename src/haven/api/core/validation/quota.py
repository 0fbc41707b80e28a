"""What is wrong with a ResourceQuota or a LimitRange.

Source: https://kubernetes.io/docs/concepts/policy/ and the behaviour of pkg/apis/core/validation.
"""

from __future__ import annotations

from haven.api.core import v1
from haven.api.core.resources import (
    QUOTA_SCOPES,
    is_overcommit_allowed,
    is_standard_limit_range_type,
    is_standard_quota_resource,
)
from haven.api.core.validation.metadata import validate_meta, validate_meta_update
from haven.api.core.validation.quantities import (
    validate_container_resource_name,
    validate_resource_name,
    validate_resource_quantity,
)
from haven.api.givenempty import given
from haven.api.internalform import internal_form
from haven.apimachinery.fielderrors import ErrorList, Path, duplicate, forbidden, invalid, required
from haven.apimachinery.quantity import Quantity
from haven.apimachinery.validation.names import qualified_name_errors
from haven.apimachinery.validation.objectmeta import IMMUTABLE

__all__ = [
    "validate_limit_range",
    "validate_limit_range_update",
    "validate_resource_quota",
    "validate_resource_quota_status_update",
    "validate_resource_quota_update",
]

_POD_RESOURCES = frozenset(("pods", "cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"))
_CLAIM_RESOURCES = frozenset(("persistentvolumeclaims", "requests.storage"))
_EXISTS_SCOPES = ("BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity")
_EXISTS_WORDS = (
    "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, "
    "ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"
)
_MILLI_SAFE_MAX = (2**63 - 1) // 1000


def validate_resource_quota(quota: v1.ResourceQuota) -> ErrorList:
    """Check a ResourceQuota."""
    errors = validate_meta(quota.metadata, namespaced=True)
    errors += _quota_spec(quota.spec)
    return errors + _quota_status(quota.status)


def _amounts(amounts: dict[str, Quantity], path: Path) -> ErrorList:
    errors: ErrorList = []
    for name in sorted(amounts):
        place = path.key(name)
        errors += validate_resource_name(name, place)
        if "/" not in name and not is_standard_quota_resource(name):
            errors.append(invalid(place, name, "must be a standard resource for quota"))
        errors += validate_resource_quantity(name, amounts[name], place)
    return errors


def _quota_status(status: v1.ResourceQuotaStatus) -> ErrorList:
    return _amounts(status.hard, Path("status", "hard")) + _amounts(status.used, Path("status", "used"))


def _is_scope_valid(scope: str, resource: str) -> bool:
    if scope == "BestEffort":
        return resource == "pods"
    if scope == "VolumeAttributesClass":
        return resource in _CLAIM_RESOURCES
    return resource in _POD_RESOURCES if scope in QUOTA_SCOPES else True


def _conflicting(scopes: set[str], shown: list[str], path: Path) -> ErrorList:
    errors: ErrorList = []
    for pair in ({"BestEffort", "NotBestEffort"}, {"Terminating", "NotTerminating"}):
        if pair <= scopes:
            errors.append(invalid(path, shown or None, "conflicting scopes"))
    return errors


def _quota_spec(spec: v1.ResourceQuotaSpec) -> ErrorList:
    errors = _amounts(spec.hard, Path("spec", "hard"))
    standard = [name for name in sorted(spec.hard) if is_standard_quota_resource(name)]
    path = Path("spec", "scopes")
    for scope in spec.scopes:
        if scope not in QUOTA_SCOPES:
            errors.append(invalid(path, spec.scopes, "unsupported scope"))
        for name in standard:
            if not _is_scope_valid(scope, name):
                errors.append(invalid(path, spec.scopes, "unsupported scope applied to resource"))
    errors += _conflicting(set(spec.scopes), spec.scopes, path)
    selector = spec.scope_selector
    if selector is None:
        return errors
    path = Path("spec", "scopeSelector", "matchExpressions")
    for requirement in selector.match_expressions:
        errors += _scope_requirement(requirement, selector, standard, path)
    names = {requirement.scope_name for requirement in selector.match_expressions}
    return errors + _conflicting(names, spec.scopes, path)


def _scope_requirement(
    requirement: v1.ScopedResourceSelectorRequirement, selector: v1.ScopeSelector, standard: list[str], path: Path
) -> ErrorList:
    errors: ErrorList = []
    scope, operator, values = requirement.scope_name, requirement.operator, requirement.values
    if scope not in QUOTA_SCOPES:
        errors.append(invalid(path.child("scopeName"), scope, "unsupported scope"))
    for name in standard:
        if not _is_scope_valid(scope, name):
            errors.append(invalid(path, internal_form(selector), "unsupported scope applied to resource"))
    if scope in _EXISTS_SCOPES and operator != "Exists":
        errors.append(invalid(path.child("operator"), operator, _EXISTS_WORDS))
    if operator in ("In", "NotIn"):
        if not values:
            words = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
            errors.append(required(path.child("values"), words))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            words = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
            errors.append(invalid(path.child("values"), values, words))
    else:
        errors.append(invalid(path.child("operator"), operator, "not a valid selector operator"))
    return errors


def validate_resource_quota_update(new: v1.ResourceQuota, old: v1.ResourceQuota) -> ErrorList:
    """Check a changed ResourceQuota: its scopes stay."""
    errors = validate_meta_update(new.metadata, old.metadata)
    errors += _quota_spec(new.spec)
    if set(new.spec.scopes) != set(old.spec.scopes):
        errors.append(invalid(Path("spec", "scopes"), given(new.spec.scopes), IMMUTABLE))
    return errors


def validate_resource_quota_status_update(new: v1.ResourceQuota, old: v1.ResourceQuota) -> ErrorList:
    """Check a changed status."""
    errors = validate_meta_update(new.metadata, old.metadata)
    if not new.metadata.resource_version:
        errors.append(required(Path("resourceVersion"), ""))
    return errors + _quota_status(new.status)


def validate_limit_range_update(new: v1.LimitRange, _old: v1.LimitRange) -> ErrorList:
    """Check a changed LimitRange: as a new one."""
    return validate_limit_range(new)


def validate_limit_range(limits: v1.LimitRange) -> ErrorList:
    """Check a LimitRange."""
    errors = validate_meta(limits.metadata, namespaced=True)
    seen: set[str] = set()
    for index, item in enumerate(limits.spec.limits or ()):
        path = Path("spec", "limits").index(index)
        found = [invalid(path.child("type"), item.type, text) for text in qualified_name_errors(item.type)]
        if not found and "/" not in item.type and not is_standard_limit_range_type(item.type):
            words = "must be a standard limit type or fully qualified"
            found.append(invalid(path.child("type"), item.type, words))
        errors += found
        if item.type in seen:
            errors.append(duplicate(path.child("type"), item.type))
        seen.add(item.type)
        errors += _limit_item(item, path)
    return errors


def _limit_item(item: v1.LimitRangeItem, path: Path) -> ErrorList:
    errors = _limit_names(item, item.max, path.child("max"))
    errors += _limit_names(item, item.min, path.child("min"))
    keys = {*item.max, *item.min}
    defaults, requests = item.default, item.default_request
    if item.type == "Pod":
        words = "may not be specified when `type` is 'Pod'"
        if defaults:
            errors.append(forbidden(path.child("default"), words))
        if requests:
            errors.append(forbidden(path.child("defaultRequest"), words))
        defaults, requests = {}, {}
    else:
        errors += _limit_names(item, defaults, path.child("default"))
        errors += _limit_names(item, requests, path.child("defaultRequest"))
        keys |= {*defaults, *requests}
    if item.type == "PersistentVolumeClaim" and "storage" not in item.min and "storage" not in item.max:
        words = "either minimum or maximum storage value is required, but neither was provided"
        errors.append(required(path.child("limits"), words))
    errors += _limit_names(item, item.max_limit_request_ratio, path.child("maxLimitRequestRatio"))
    for key in sorted(keys | item.max_limit_request_ratio.keys()):
        errors += _limit_relations(item, key, defaults.get(key), requests.get(key), path)
    return errors


def _limit_names(item: v1.LimitRangeItem, amounts: dict[str, Quantity], path: Path) -> ErrorList:
    check = validate_container_resource_name if item.type in ("Pod", "Container") else validate_resource_name
    errors: ErrorList = []
    for name in sorted(amounts):
        errors += check(name, path.key(name))
    return errors


def _limit_relations(
    item: v1.LimitRangeItem, key: str, default: Quantity | None, request: Quantity | None, path: Path
) -> ErrorList:
    errors: ErrorList = []
    low, high, ratio = item.min.get(key), item.max.get(key), item.max_limit_request_ratio.get(key)

    def complain(field: str, value: Quantity, words: str) -> None:
        errors.append(invalid(path.child(field).key(key), str(value), words))

    if low is not None and high is not None and low > high:
        complain("min", low, f"min value {low} is greater than max value {high}")
    if request is not None:
        if low is not None and low > request:
            complain("defaultRequest", request, f"min value {low} is greater than default request value {request}")
        if high is not None and request > high:
            complain("defaultRequest", request, f"default request value {request} is greater than max value {high}")
        if default is not None and request > default:
            words = f"default request value {request} is greater than default limit value {default}"
            complain("defaultRequest", request, words)
    if default is not None:
        if low is not None and low > default:
            complain("default", low, f"min value {low} is greater than default value {default}")
        if high is not None and default > high:
            complain("default", high, f"default value {default} is greater than max value {high}")
    if ratio is not None and ratio < Quantity.of(1):
        complain("maxLimitRequestRatio", ratio, f"ratio {ratio} is less than 1")
    if ratio is not None and low is not None and high is not None:
        share = _share(high, low)
        exact = max(ratio.value, low.value, high.value) < _MILLI_SAFE_MAX
        if (ratio.milli_value / 1000 if exact else ratio.value) > share:
            shown = "+Inf" if share == float("inf") else f"{share:f}"
            complain("maxLimitRequestRatio", ratio, f"ratio {ratio} is greater than max/min = {shown}")
    if not is_overcommit_allowed(key) and default is not None and request is not None and default != request:
        words = f"default value {default} must equal to defaultRequest value {request} in {key}"
        complain("defaultRequest", request, words)
    return errors


def _share(high: Quantity, low: Quantity) -> float:
    return high.milli_value / low.milli_value if low.milli_value else float("inf")

"""What the kinds of resource.k8s.io have in common: names of drivers and pools, selectors, configurations, taints."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from haven.api.core.validation.metadata import validate_dns1123_subdomain
from haven.api.core.validation.volumes import validate_csi_driver_name
from haven.api.givenempty import given
from haven.api.resource import v1
from haven.apimachinery.fielderrors import (
    ErrorList,
    Path,
    duplicate,
    invalid,
    not_supported,
    required,
    too_long,
    too_many,
)
from haven.apimachinery.validation.labels import validate_label_name
from haven.apimachinery.validation.names import byte_length, c_identifier_errors, label_value_errors

__all__ = [
    "MAX_CONFIGS",
    "MAX_REQUESTS",
    "MAX_SELECTORS",
    "TAINT_EFFECTS",
    "validate_binding_conditions",
    "validate_configuration",
    "validate_items",
    "validate_json_object",
    "validate_pool_name",
    "validate_qualified_id",
    "validate_selectors",
    "validate_set",
    "validate_taint",
    "validate_toleration",
]

MAX_REQUESTS = MAX_CONFIGS = MAX_SELECTORS = 32
TAINT_EFFECTS = ("NoExecute", "NoSchedule", "None")
_MAX_EXPRESSION = _MAX_PARAMETERS = 10 * 1024
_MAX_POOL_NAME = 253
_MAX_ID = 32
_MAX_BINDING_CONDITIONS = 4

T = TypeVar("T")


def validate_items(items: Sequence[T], most: int, check: Callable[[T, Path], ErrorList], path: Path) -> ErrorList:
    """Check a list's length, then its items."""
    if 0 <= most < len(items):
        return [too_many(path, len(items), most)]
    return [error for index, item in enumerate(items) for error in check(item, path.index(index))]


def validate_set(
    items: Sequence[T],
    most: int,
    check: Callable[[T, Path], ErrorList],
    key: Callable[[T], Any],
    path: Path,
) -> ErrorList:
    """Check a list's length, its items, and that no two are alike."""
    if 0 <= most < len(items):
        return [too_many(path, len(items), most)]
    errors = validate_items(items, most, check, path)
    keys = [key(item) for item in items]
    return errors + [duplicate(path.index(index), one) for index, one in enumerate(keys) if one in keys[:index]]


def validate_pool_name(name: str, path: Path) -> ErrorList:
    """Check a pool's name: DNS subdomains with slashes between."""
    if not name:
        return [required(path, "")]
    errors: ErrorList = []
    if byte_length(name) > _MAX_POOL_NAME:
        errors.append(too_long(path, "", _MAX_POOL_NAME))
    for part in name.split("/"):
        errors += validate_dns1123_subdomain(part, path)
    return errors


def validate_selectors(selectors: Sequence[v1.DeviceSelector], path: Path) -> ErrorList:
    """Check choices of devices."""
    return validate_items(selectors, MAX_SELECTORS, _selector, path)


def _selector(selector: v1.DeviceSelector, path: Path) -> ErrorList:
    if selector.cel is None:
        return [required(path.child("cel"), "")]
    if byte_length(selector.cel.expression) > _MAX_EXPRESSION:
        return [too_long(path.child("cel", "expression"), "", _MAX_EXPRESSION)]
    from haven.api.resource.selectors import validate_expression  # Expressions are rare, their engine is large.

    return validate_expression(selector.cel.expression, path.child("cel", "expression"))


def validate_configuration(config: v1.DeviceConfiguration, path: Path) -> ErrorList:
    """Check the parameters for a driver."""
    opaque = config.opaque
    if opaque is None:
        return [required(path.child("opaque"), "")]
    errors = validate_csi_driver_name(opaque.driver, path.child("opaque", "driver"))
    return errors + validate_json_object(opaque.parameters, path.child("opaque", "parameters"), _MAX_PARAMETERS)


def validate_json_object(value: Any, path: Path, most: int) -> ErrorList:
    """Check a field that holds any object."""
    if value is None:
        return [required(path, "")]
    if byte_length(json.dumps(value, separators=(",", ":"), ensure_ascii=False)) > most:
        return [too_long(path, "", most)]
    return [] if isinstance(value, dict) else [invalid(path, "<value omitted>", "must be a valid JSON object")]


def validate_qualified_id(name: str, path: Path) -> ErrorList:
    """Check the name of an attribute or capacity: an identifier, perhaps after a driver's domain."""
    parts = name.split("/")
    if len(parts) > 2:
        return []
    errors: ErrorList = []
    if len(parts) == 2:
        if parts[0]:
            errors += validate_csi_driver_name(parts[0], path)
        else:
            errors.append(invalid(path, "", "the domain must not be empty"))
        if not parts[1]:
            return [*errors, invalid(path, "", "the name must not be empty")]
    own = parts[-1]
    if byte_length(own) > _MAX_ID:
        errors.append(too_long(path, "", _MAX_ID))
    return errors + [invalid(path, own, text) for text in c_identifier_errors(own)]


def _label_value(value: str, path: Path) -> ErrorList:
    return [invalid(path, value, text) for text in label_value_errors(value)]


def validate_taint(taint: v1.DeviceTaint, path: Path) -> ErrorList:
    """Check what keeps a device from use."""
    errors = validate_label_name(taint.key, path.child("key"))
    if taint.value:
        errors += _label_value(taint.value, path.child("value"))
    if not taint.effect:
        errors.append(required(path.child("effect"), ""))
    elif taint.effect not in TAINT_EFFECTS:
        errors.append(not_supported(path.child("effect"), taint.effect, TAINT_EFFECTS))
    return errors


def validate_toleration(toleration: v1.DeviceToleration, path: Path) -> ErrorList:
    """Check which taints a request bears."""
    errors: ErrorList = []
    if toleration.key:
        errors += validate_label_name(toleration.key, path.child("key"))
    operator, value = toleration.operator, toleration.value
    if operator == "Exists":
        if value:
            errors.append(invalid(path.child("value"), value, "must be empty for operator `Exists`"))
    elif operator == "Equal":
        errors += _label_value(value, path.child("value"))
    elif not operator:
        errors.append(required(path.child("operator"), ""))
    else:
        errors.append(not_supported(path.child("operator"), operator, ("Equal", "Exists")))
    if toleration.effect and toleration.effect not in TAINT_EFFECTS:
        errors.append(not_supported(path.child("effect"), toleration.effect, TAINT_EFFECTS))
    return errors


def validate_binding_conditions(conditions: Sequence[str], failures: Sequence[str], path: Path) -> ErrorList:
    """Check the conditions that a scheduler waits for."""
    place, spot = path.child("bindingConditions"), path.child("bindingFailureConditions")
    errors = validate_items(conditions, _MAX_BINDING_CONDITIONS, validate_label_name, place)
    errors += validate_items(failures, _MAX_BINDING_CONDITIONS, validate_label_name, spot)
    errors += [duplicate(place.index(i), one) for i, one in enumerate(conditions) if one in conditions[:i]]
    for index, one in enumerate(failures):
        if one in failures[:index]:
            errors.append(duplicate(spot.index(index), one))
        if one in conditions:
            words = "bindingFailureConditions must not overlap with bindingConditions"
            errors.append(invalid(spot.index(index), one, words))
    if failures and not conditions:
        words = "bindingConditions are required to use bindingFailureConditions"
        errors.append(invalid(place, given(conditions), words))
    if conditions and not failures:
        words = "bindingFailureConditions are required to use bindingConditions"
        errors.append(invalid(spot, given(failures), words))
    return errors

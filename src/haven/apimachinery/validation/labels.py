"""What is wrong with labels, label selectors, conditions and managed fields.

Source: the behaviour of k8s.io/apimachinery/pkg/apis/meta/v1/validation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from haven.apimachinery import meta
from haven.apimachinery.fielderrors import (
    ErrorList,
    Path,
    duplicate,
    forbidden,
    invalid,
    not_supported,
    required,
    too_long,
)
from haven.apimachinery.validation.names import (
    byte_length,
    label_value_errors,
    qualified_name_errors,
    regex_text,
)

__all__ = [
    "FIELD_MANAGER_MAX",
    "selector_has_invalid_value",
    "validate_conditions",
    "validate_field_manager",
    "validate_label_name",
    "validate_label_selector",
    "validate_label_selector_requirement",
    "validate_labels",
    "validate_managed_fields",
]

FIELD_MANAGER_MAX = 128
_SUBRESOURCE_MAX = 256
_REASON_BYTES_MAX = 1024
_MESSAGE_BYTES_MAX = 32 * 1024
_REASON = "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?"
_reason = re.compile(_REASON).fullmatch
_IN_WORDS = "must be specified when `operator` is 'In' or 'NotIn'"
_EXISTS_WORDS = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"


def validate_label_name(name: str, path: Path) -> ErrorList:
    """Check a label's key."""
    return [invalid(path, name, text) for text in qualified_name_errors(name)]


def validate_labels(labels: Mapping[str, str], path: Path) -> ErrorList:
    """Check labels, in the order of their keys (upstream: any order)."""
    if not labels:
        return []
    if not any(qualified_name_errors(key) or label_value_errors(value) for key, value in labels.items()):
        return []
    errors: ErrorList = []
    for key in sorted(labels):
        errors += validate_label_name(key, path)
        errors += [invalid(path, labels[key], text) for text in label_value_errors(labels[key])]
    return errors


def selector_has_invalid_value(selector: meta.LabelSelector | None) -> bool:
    """Tell whether an expression compares with something that is no label value."""
    return selector is not None and any(
        label_value_errors(value) for expression in selector.match_expressions for value in expression.values
    )


def validate_label_selector(
    selector: meta.LabelSelector | None,
    path: Path,
    *,
    allow_invalid_values: bool = False,
    allow_unknown_operator: bool = False,
) -> ErrorList:
    """Check a label selector; none at all is fine."""
    if selector is None:
        return []
    errors = validate_labels(selector.match_labels, path.child("matchLabels"))
    for index, expression in enumerate(selector.match_expressions):
        errors += validate_label_selector_requirement(
            expression,
            path.child("matchExpressions").index(index),
            allow_invalid_values=allow_invalid_values,
            allow_unknown_operator=allow_unknown_operator,
        )
    return errors


def validate_label_selector_requirement(
    requirement: meta.LabelSelectorRequirement,
    path: Path,
    *,
    allow_invalid_values: bool = False,
    allow_unknown_operator: bool = False,
) -> ErrorList:
    """Check one expression of a label selector."""
    errors: ErrorList = []
    if requirement.operator in ("In", "NotIn"):
        if not requirement.values:
            errors.append(required(path.child("values"), _IN_WORDS))
    elif requirement.operator in ("Exists", "DoesNotExist"):
        if requirement.values:
            errors.append(forbidden(path.child("values"), _EXISTS_WORDS))
    elif not allow_unknown_operator:
        errors.append(invalid(path.child("operator"), requirement.operator, "not a valid selector operator"))
    errors += validate_label_name(requirement.key, path.child("key"))
    if not allow_invalid_values:
        for index, value in enumerate(requirement.values):
            errors += [invalid(path.child("values").index(index), value, text) for text in label_value_errors(value)]
    return errors


def validate_field_manager(manager: str, path: Path) -> ErrorList:
    """Check the name of a field manager."""
    if manager.isascii() and manager.isprintable() and len(manager) <= FIELD_MANAGER_MAX:
        return []
    errors: ErrorList = []
    if byte_length(manager) > FIELD_MANAGER_MAX:
        errors.append(too_long(path, "", FIELD_MANAGER_MAX))
    position = 0
    for char in manager:
        if not char.isprintable():
            shown = f"U+{ord(char):04X}"
            errors.append(invalid(path, manager, f"invalid character {shown} (at position {position})"))
        position += len(char.encode("utf-8", "surrogatepass"))
    return errors


def validate_managed_fields(entries: Sequence[meta.ManagedFieldsEntry], path: Path) -> ErrorList:
    """Check metadata.managedFields."""
    errors: ErrorList = []
    for index, entry in enumerate(entries):
        if entry.operation not in ("Apply", "Update"):
            errors.append(invalid(path.index(index).child("operation"), entry.operation, "must be `Apply` or `Update`"))
        if entry.fields_type and entry.fields_type != "FieldsV1":
            errors.append(invalid(path.index(index).child("fieldsType"), entry.fields_type, "must be `FieldsV1`"))
        if complaints := validate_field_manager(entry.manager, path.index(index).child("manager")):
            errors += complaints
        if byte_length(entry.subresource) > _SUBRESOURCE_MAX:
            errors.append(too_long(path.index(index).child("subresource"), "", _SUBRESOURCE_MAX))
    return errors


def validate_conditions(conditions: Sequence[meta.Condition], path: Path) -> ErrorList:
    """Check conditions of the common type."""
    errors: ErrorList = []
    seen: set[str] = set()
    for index, condition in enumerate(conditions):
        if condition.type in seen:
            errors.append(duplicate(path.index(index).child("type"), condition.type))
        seen.add(condition.type)
        errors += _validate_condition(condition, path.index(index))
    return errors


def _validate_condition(condition: meta.Condition, path: Path) -> ErrorList:
    errors = validate_label_name(condition.type, path.child("type"))
    if condition.status not in ("False", "True", "Unknown"):
        errors.append(not_supported(path.child("status"), condition.status, ["False", "True", "Unknown"]))
    if condition.observed_generation < 0:
        words = "must be greater than or equal to zero"
        errors.append(invalid(path.child("observedGeneration"), condition.observed_generation, words))
    if not condition.last_transition_time:
        errors.append(required(path.child("lastTransitionTime"), ""))
    if not condition.reason:
        errors.append(required(path.child("reason"), ""))
    else:
        if not _reason(condition.reason):
            words = (
                "a condition reason must start with alphabetic character, optionally followed by a string of "
                "alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'"
            )
            text = regex_text(words, _REASON, "my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB")
            errors.append(invalid(path.child("reason"), condition.reason, text))
        if byte_length(condition.reason) > _REASON_BYTES_MAX:
            errors.append(too_long(path.child("reason"), "", _REASON_BYTES_MAX))
    if byte_length(condition.message) > _MESSAGE_BYTES_MAX:
        errors.append(too_long(path.child("message"), "", _MESSAGE_BYTES_MAX))
    return errors

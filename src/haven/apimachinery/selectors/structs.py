"""What the LabelSelector of an API object means, and what is wrong with one."""

from __future__ import annotations

from haven.apimachinery import meta
from haven.apimachinery.fielderrors import ErrorList, FieldError, Path, forbidden, invalid, required
from haven.apimachinery.goformat import quote
from haven.apimachinery.selectors.errors import SelectorError
from haven.apimachinery.selectors.labels import EVERYTHING, NOTHING, Labels, LabelSelector, requirement
from haven.apimachinery.selectors.names import label_key_errors, label_value_errors

__all__ = ["format_label_selector", "from_label_selector", "validate_label_selector", "validate_labels"]

_STRUCT_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}


def from_label_selector(selector: meta.LabelSelector | None) -> LabelSelector:
    """Return what an API object's LabelSelector means: None selects nothing, an empty one everything.

    Raise SelectorError if it is malformed.
    """
    if selector is None:
        return NOTHING
    if not selector.match_labels and not selector.match_expressions:
        return EVERYTHING
    items = [requirement(key, "=", [value]) for key, value in selector.match_labels.items()]
    for expression in selector.match_expressions:
        operator = _STRUCT_OPERATORS.get(expression.operator)
        if operator is None:
            raise SelectorError(f"{quote(expression.operator)} is not a valid label selector operator")
        items.append(requirement(expression.key, operator, expression.values))
    return LabelSelector(items)


def format_label_selector(selector: meta.LabelSelector | None) -> str:
    """Return a LabelSelector as tables show it."""
    try:
        return str(from_label_selector(selector)) or "<none>"
    except SelectorError:
        return "<error>"


def validate_labels(labels: Labels, path: Path) -> ErrorList:
    """Return what is wrong with a map of labels."""
    errors: ErrorList = []
    for key, value in labels.items():
        errors += [invalid(path, key, message) for message in label_key_errors(key)]
        errors += [invalid(path, value, message) for message in label_value_errors(value)]
    return errors


def validate_label_selector(
    selector: meta.LabelSelector | None,
    path: Path,
    *,
    allow_invalid_values: bool = False,
    allow_unknown_operators: bool = False,
) -> ErrorList:
    """Return what is wrong with an API object's LabelSelector."""
    if selector is None:
        return []
    errors = validate_labels(selector.match_labels, path.child("matchLabels"))
    for index, expression in enumerate(selector.match_expressions):
        place = path.child("matchExpressions").index(index)
        errors += _expression_errors(expression, place, allow_unknown_operators)
        errors += [invalid(place.child("key"), expression.key, message) for message in label_key_errors(expression.key)]
        if not allow_invalid_values:
            errors += [
                invalid(place.child("values").index(number), value, message)
                for number, value in enumerate(expression.values)
                for message in label_value_errors(value)
            ]
    return errors


def _expression_errors(
    expression: meta.LabelSelectorRequirement, path: Path, allow_unknown_operators: bool
) -> list[FieldError]:
    if expression.operator in ("In", "NotIn"):
        if not expression.values:
            return [required(path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'")]
    elif expression.operator in ("Exists", "DoesNotExist"):
        if expression.values:
            text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            return [forbidden(path.child("values"), text)]
    elif not allow_unknown_operators:
        return [invalid(path.child("operator"), expression.operator, "not a valid selector operator")]
    return []

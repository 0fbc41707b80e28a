"""Which requests a webhook or policy is about: rules, selectors, conditions; defaults and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from haven.api.admissionregistration import v1
from haven.api.admissionregistration.expressionchecks import condition_errors
from haven.api.core.validation.metadata import validate_qualified_name
from haven.apimachinery import meta
from haven.apimachinery.fielderrors import (
    ErrorList,
    Path,
    duplicate,
    invalid,
    not_supported,
    required,
    too_many,
)
from haven.apimachinery.validation.labels import validate_label_selector
from haven.apimachinery.validation.names import path_segment_name

__all__ = [
    "FAILURE_POLICIES",
    "MATCH_POLICIES",
    "REINVOCATION_POLICIES",
    "default_match_resources",
    "default_rules",
    "validate_match_conditions",
    "validate_match_resources",
    "validate_rule",
]

FAILURE_POLICIES = ("Fail", "Ignore")
MATCH_POLICIES = ("Equivalent", "Exact")
REINVOCATION_POLICIES = ("IfNeeded", "Never")
_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_SCOPES = ("*", "Cluster", "Namespaced")
_MAX_CONDITIONS = 64
_ALL = "*"


def default_rules(rules: Iterable[v1.Rule]) -> None:
    """Fill the rules' scope in."""
    for rule in rules:
        if rule.scope is None:
            rule.scope = _ALL


def default_match_resources(resources: v1.MatchResources | None) -> None:
    """Fill the selectors in."""
    if resources is None:
        return
    if resources.match_policy is None:
        resources.match_policy = "Equivalent"
    if resources.namespace_selector is None:
        resources.namespace_selector = meta.LabelSelector()
    if resources.object_selector is None:
        resources.object_selector = meta.LabelSelector()
    default_rules(resources.resource_rules)
    default_rules(resources.exclude_resource_rules)


def validate_rule(rule: v1.RuleWithOperations, path: Path) -> ErrorList:
    """Check a choice of operations, groups, versions and resources."""
    errors: ErrorList = []
    operations, place = rule.operations, path.child("operations")
    if not operations:
        errors.append(required(place, ""))
    if len(operations) > 1 and _ALL in operations:
        errors.append(invalid(place, operations, "if '*' is present, must not specify other operations"))
    for index, operation in enumerate(operations):
        if operation not in _OPERATIONS:
            errors.append(not_supported(place.index(index), operation, _OPERATIONS))
    for name, values, words in (
        ("apiGroups", rule.api_groups, "API groups"),
        ("apiVersions", rule.api_versions, "API versions"),
    ):
        if not values:
            errors.append(required(path.child(name), ""))
        if len(values) > 1 and _ALL in values:
            errors.append(invalid(path.child(name), values, f"if '*' is present, must not specify other {words}"))
    place = path.child("apiVersions")
    errors += [required(place.index(index), "") for index, version in enumerate(rule.api_versions) if not version]
    errors += _resources(rule.resources, path.child("resources"))
    if rule.scope is not None and rule.scope not in _SCOPES:
        errors.append(not_supported(path.child("scope"), rule.scope, _SCOPES))
    return errors


def _resources(resources: Sequence[str], path: Path) -> ErrorList:
    errors: ErrorList = [] if resources else [required(path, "")]
    all_subresources: set[str] = set()
    all_resources: set[str] = set()
    last_is_plain = False
    for index, text in enumerate(resources):
        place = path.index(index)
        if not text:
            errors.append(required(place, ""))
            continue
        resource, slash, subresource = text.partition("/")
        if not slash:
            last_is_plain = text != _ALL
            continue
        if resource in all_subresources:
            errors.append(invalid(place, text, f"if '{resource}/*' is present, must not specify {text}"))
        if subresource in all_resources:
            errors.append(invalid(place, text, f"if '*/{subresource}' is present, must not specify {text}"))
        if subresource == _ALL:
            all_subresources.add(resource)
        if resource == _ALL:
            all_resources.add(subresource)
    if len(resources) > 1 and "*/*" in resources:
        errors.append(invalid(path, list(resources), "if '*/*' is present, must not specify other resources"))
    if _ALL in resources and last_is_plain:
        words = "if '*' is present, must not specify other resources without subresources"
        errors.append(invalid(path, list(resources), words))
    return errors


def validate_match_resources(resources: v1.MatchResources | None, path: Path) -> ErrorList:
    """Check which objects a policy is about."""
    if resources is None:
        return []
    errors: ErrorList = []
    policy, place = resources.match_policy, path.child("matchPolicy")
    if policy is None:
        errors.append(required(place, ""))
    elif policy not in MATCH_POLICIES:
        errors.append(not_supported(place, policy, MATCH_POLICIES))
    for name, selector in (
        ("namespaceSelector", resources.namespace_selector),
        ("objectSelector", resources.object_selector),
    ):
        if selector is None:
            errors.append(required(path.child(name), ""))
        else:
            errors += validate_label_selector(selector, path.child(name))
    for name, rules in (
        ("resourceRules", resources.resource_rules),
        ("excludeResourceRules", resources.exclude_resource_rules),
    ):
        for index, rule in enumerate(rules):
            errors += _named_rule(rule, path.child(name).index(index))
    return errors


def _named_rule(rule: v1.NamedRuleWithOperations, path: Path) -> ErrorList:
    errors: ErrorList = []
    for index, name in enumerate(rule.resource_names):
        place = path.child("resourceNames").index(index)
        errors += [invalid(place, name, text) for text in path_segment_name(name, False)]
        if name in rule.resource_names[:index]:
            errors.append(duplicate(place, name))
    return errors + validate_rule(rule, path)


def validate_match_conditions(
    conditions: Sequence[v1.MatchCondition], path: Path, *, params: bool = False
) -> ErrorList:
    """Check the names of conditions and their expressions, which may use params if the policy has some."""
    errors: ErrorList = []
    if len(conditions) > _MAX_CONDITIONS:
        errors.append(too_many(path, len(conditions), _MAX_CONDITIONS))
    names: set[str] = set()
    for index, condition in enumerate(conditions):
        place = path.index(index)
        if not condition.expression.strip():
            errors.append(required(place.child("expression"), ""))
        else:
            errors += condition_errors(condition.expression, place.child("expression"), params=params)
        name = condition.name
        if not name:
            errors.append(required(place.child("name"), ""))
            continue
        errors += validate_qualified_name(name, place.child("name"))
        if name in names:
            errors.append(duplicate(place.child("name"), name))
        names.add(name)
    return errors

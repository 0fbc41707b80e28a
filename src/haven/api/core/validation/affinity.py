"""What is wrong with rules about where a Pod may run: affinity, tolerations, topology spread, node selectors.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/ and the behaviour of
pkg/apis/core/validation.
"""

from __future__ import annotations

from collections.abc import Sequence

from haven.api.core import v1
from haven.apimachinery import meta
from haven.apimachinery.fielderrors import (
    ErrorList,
    Path,
    duplicate,
    forbidden,
    invalid,
    not_supported,
    required,
)
from haven.apimachinery.gonumbers import NotANumber, parse_int
from haven.apimachinery.validation.labels import (
    selector_has_invalid_value,
    validate_label_name,
    validate_label_selector,
)
from haven.apimachinery.validation.names import (
    decimal_integer_errors,
    dns1123_label_errors,
    dns1123_subdomain_errors,
    label_value_errors,
)

__all__ = [
    "TAINT_EFFECTS",
    "has_invalid_required_node_values",
    "has_invalid_selector_values",
    "has_invalid_spread_keys",
    "legacy_match_label_keys_errors",
    "validate_affinity",
    "validate_node_selector",
    "validate_taint_effect",
    "validate_tolerations",
    "validate_topology_spread",
]

TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_IN_WORDS = "must be specified when `operator` is 'In' or 'NotIn'"
_EXISTS_WORDS = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"


def validate_affinity(
    affinity: v1.Affinity, path: Path, *, allow_invalid_selector: bool = False, allow_invalid_node: bool = False
) -> ErrorList:
    """Check which nodes, and which neighbours, a Pod wants."""
    errors: ErrorList = []
    if (node := affinity.node_affinity) is not None:
        place = path.child("nodeAffinity")
        if node.required_during_scheduling_ignored_during_execution is not None:
            errors += validate_node_selector(
                node.required_during_scheduling_ignored_during_execution,
                place.child("requiredDuringSchedulingIgnoredDuringExecution"),
                allow_invalid_values=allow_invalid_node,
            )
        preferred = place.child("preferredDuringSchedulingIgnoredDuringExecution")
        for index, term in enumerate(node.preferred_during_scheduling_ignored_during_execution):
            errors += _weight(term.weight, preferred.index(index))
            errors += _node_selector_term(term.preference, preferred.index(index).child("preference"), True)
    for name, pods in (("podAffinity", affinity.pod_affinity), ("podAntiAffinity", affinity.pod_anti_affinity)):
        if pods is None:
            continue
        place = path.child(name).child("requiredDuringSchedulingIgnoredDuringExecution")
        for index, pod_term in enumerate(pods.required_during_scheduling_ignored_during_execution):
            errors += _pod_affinity_term(pod_term, place.index(index), allow_invalid_selector)
        place = path.child(name).child("preferredDuringSchedulingIgnoredDuringExecution")
        for index, weighted in enumerate(pods.preferred_during_scheduling_ignored_during_execution):
            errors += _weight(weighted.weight, place.index(index))
            inside = place.index(index).child("podAffinityTerm")
            errors += _pod_affinity_term(weighted.pod_affinity_term, inside, allow_invalid_selector)
    return errors


def _weight(weight: int, path: Path) -> ErrorList:
    return [] if 0 < weight <= 100 else [invalid(path.child("weight"), weight, "must be in the range 1-100")]


def validate_node_selector(selector: v1.NodeSelector, path: Path, *, allow_invalid_values: bool = False) -> ErrorList:
    """Check a choice of nodes."""
    terms = path.child("nodeSelectorTerms")
    if not selector.node_selector_terms:
        return [required(terms, "must have at least one node selector term")]
    errors: ErrorList = []
    for index, term in enumerate(selector.node_selector_terms):
        errors += _node_selector_term(term, terms.index(index), allow_invalid_values)
    return errors


def _node_selector_term(term: v1.NodeSelectorTerm, path: Path, allow_invalid_values: bool) -> ErrorList:
    errors: ErrorList = []
    for index, requirement in enumerate(term.match_expressions):
        place = path.child("matchExpressions").index(index)
        errors += _node_requirement(requirement, place, allow_invalid_values)
    for index, requirement in enumerate(term.match_fields):
        errors += _node_field_requirement(requirement, path.child("matchFields").index(index))
    return errors


def _node_requirement(requirement: v1.NodeSelectorRequirement, path: Path, allow_invalid_values: bool) -> ErrorList:
    errors: ErrorList = []
    values = requirement.values
    if requirement.operator in ("In", "NotIn"):
        if not values:
            errors.append(required(path.child("values"), _IN_WORDS))
    elif requirement.operator in ("Exists", "DoesNotExist"):
        if values:
            errors.append(forbidden(path.child("values"), _EXISTS_WORDS))
    elif requirement.operator in ("Gt", "Lt"):
        if len(values) != 1:
            words = "must be specified single value when `operator` is 'Lt' or 'Gt'"
            errors.append(required(path.child("values"), words))
    else:
        errors.append(invalid(path.child("operator"), requirement.operator, "not a valid selector operator"))
    errors += validate_label_name(requirement.key, path.child("key"))
    if not allow_invalid_values:
        for index, value in enumerate(values):
            errors += [invalid(path.child("values").index(index), value, text) for text in label_value_errors(value)]
    return errors


def _node_field_requirement(requirement: v1.NodeSelectorRequirement, path: Path) -> ErrorList:
    errors: ErrorList = []
    if requirement.operator in ("In", "NotIn"):
        if len(requirement.values) != 1:
            words = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
            errors.append(required(path.child("values"), words))
    else:
        errors.append(invalid(path.child("operator"), requirement.operator, "not a valid selector operator"))
    if requirement.key != "metadata.name":
        errors.append(invalid(path.child("key"), requirement.key, "not a valid field selector key"))
    else:
        for index, value in enumerate(requirement.values):
            for text in dns1123_subdomain_errors(value):
                errors.append(invalid(path.child("values").index(index), value, text))
    return errors


def _pod_affinity_term(term: v1.PodAffinityTerm, path: Path, allow_invalid_values: bool) -> ErrorList:
    errors = validate_label_selector(
        term.label_selector, path.child("labelSelector"), allow_invalid_values=allow_invalid_values
    )
    errors += validate_label_selector(
        term.namespace_selector, path.child("namespaceSelector"), allow_invalid_values=allow_invalid_values
    )
    for name in term.namespaces:
        errors += [invalid(path.child("namespace"), name, text) for text in dns1123_label_errors(name)]
    errors += _match_and_mismatch_keys(path, term.match_label_keys, term.mismatch_label_keys, term.label_selector)
    if not term.topology_key:
        errors.append(required(path.child("topologyKey"), "can not be empty"))
    return errors + validate_label_name(term.topology_key, path.child("topologyKey"))


def _match_and_mismatch_keys(
    path: Path, match: Sequence[str], mismatch: Sequence[str], selector: meta.LabelSelector | None
) -> ErrorList:
    errors = _label_keys(match, selector, path.child("matchLabelKeys"))
    errors += _label_keys(mismatch, selector, path.child("mismatchLabelKeys"))
    if selector is not None:
        places = {key: index for index, key in enumerate(match)}
        seen = set(selector.match_labels)
        for expression in selector.match_expressions:
            key = expression.key
            if key in places and key in seen:
                words = "exists in both matchLabelKeys and labelSelector"
                errors.append(invalid(path.index(places[key]), key, words))
            seen.add(key)
    for index, key in enumerate(match):
        if key in mismatch:
            words = "exists in both matchLabelKeys and mismatchLabelKeys"
            errors.append(invalid(path.child("matchLabelKeys").index(index), key, words))
    return errors


def _label_keys(keys: Sequence[str], selector: meta.LabelSelector | None, path: Path) -> ErrorList:
    if not keys:
        return []
    if selector is None:
        return [forbidden(path, "must not be specified when labelSelector is not set")]
    errors: ErrorList = []
    for index, key in enumerate(keys):
        errors += validate_label_name(key, path.index(index))
    return errors


def validate_taint_effect(effect: str, path: Path) -> ErrorList:
    """Check what a taint does."""
    return [] if effect in TAINT_EFFECTS else [not_supported(path, effect, TAINT_EFFECTS)]


def validate_tolerations(
    tolerations: Sequence[v1.Toleration], path: Path, *, allow_comparison: bool = False
) -> ErrorList:
    """Check which taints a Pod bears."""
    errors: ErrorList = []
    for index, toleration in enumerate(tolerations):
        place = path.index(index)
        if toleration.key:
            errors += validate_label_name(toleration.key, place.child("key"))
        if not toleration.key and toleration.operator != "Exists":
            words = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            errors.append(invalid(place.child("operator"), toleration.operator, words))
        if toleration.toleration_seconds is not None and toleration.effect != "NoExecute":
            words = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            errors.append(invalid(place.child("effect"), toleration.effect, words))
        errors += _toleration_operator(toleration, place, allow_comparison)
        if toleration.effect:
            errors += validate_taint_effect(toleration.effect, place.child("effect"))
    return errors


def _toleration_operator(toleration: v1.Toleration, path: Path, allow_comparison: bool) -> ErrorList:
    operator, value = toleration.operator, toleration.value
    place = path.child("operator")
    if operator in ("Equal", ""):
        if found := label_value_errors(value):
            return [invalid(place, value, ";".join(found))]
    elif operator == "Exists":
        if value:
            return [invalid(place, value, "value must be empty when `operator` is 'Exists'")]
    elif operator in ("Lt", "Gt"):
        if not allow_comparison:
            return [not_supported(place, operator, ("Equal", "Exists", "Lt", "Gt"))]
        return _comparison_value(value, path.child("value"))
    else:
        return [not_supported(place, operator, ("Equal", "Exists"))]
    return []


def _comparison_value(value: str, path: Path) -> ErrorList:
    errors = [invalid(path, value, text) for text in decimal_integer_errors(value)]
    try:
        parse_int(value)
    except NotANumber as error:
        errors.append(invalid(path, value, str(error)))
    return errors


def validate_topology_spread(
    constraints: Sequence[v1.TopologySpreadConstraint],
    path: Path,
    *,
    allow_invalid_selector: bool = False,
    legacy_keys: bool = False,
) -> ErrorList:
    """Check how evenly Pods are to be spread; `legacy_keys` is for Pods that break the newer rule already."""
    errors: ErrorList = []
    for index, constraint in enumerate(constraints):
        place = path.index(index)
        if constraint.max_skew <= 0:
            errors.append(invalid(place.child("maxSkew"), constraint.max_skew, "must be greater than zero"))
        if not constraint.topology_key:
            errors.append(required(place.child("topologyKey"), "can not be empty"))
        action = constraint.when_unsatisfiable
        if action not in ("DoNotSchedule", "ScheduleAnyway"):
            actions = ("DoNotSchedule", "ScheduleAnyway")
            errors.append(not_supported(place.child("whenUnsatisfiable"), action, actions))
        for other in constraints[index + 1 :]:
            if (other.topology_key, other.when_unsatisfiable) == (constraint.topology_key, action):
                where = place.child("{topologyKey, whenUnsatisfiable}")
                errors.append(duplicate(where, f"{{{constraint.topology_key}, {action}}}"))
                break
        if constraint.min_domains is not None:
            where = place.child("minDomains")
            if constraint.min_domains <= 0:
                errors.append(invalid(where, constraint.min_domains, "must be greater than zero"))
            if action != "DoNotSchedule":
                words = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
                errors.append(invalid(where, constraint.min_domains, words))
        for name, policy in (
            ("nodeAffinityPolicy", constraint.node_affinity_policy),
            ("nodeTaintsPolicy", constraint.node_taints_policy),
        ):
            if policy is not None and policy not in ("Honor", "Ignore"):
                errors.append(not_supported(place.child(name), policy, ("Honor", "Ignore")))
        if legacy_keys:
            where = place.child("matchLabelKeys")
            errors += legacy_match_label_keys_errors(constraint.match_label_keys, constraint.label_selector, where)
        else:
            errors += _match_and_mismatch_keys(place, constraint.match_label_keys, (), constraint.label_selector)
        if not allow_invalid_selector:
            errors += validate_label_selector(constraint.label_selector, place.child("labelSelector"))
    return errors


def legacy_match_label_keys_errors(keys: Sequence[str], selector: meta.LabelSelector | None, path: Path) -> ErrorList:
    """The older rule: no key of matchLabelKeys may be in the selector at all."""
    if not keys:
        return []
    errors: ErrorList = []
    used: set[str] = set()
    if selector is None:
        errors.append(forbidden(path, "must not be specified when labelSelector is not set"))
    else:
        used = {*selector.match_labels, *(expression.key for expression in selector.match_expressions)}
    for index, key in enumerate(keys):
        errors += validate_label_name(key, path.index(index))
        if key in used:
            words = "exists in both matchLabelKeys and labelSelector"
            errors.append(invalid(path.index(index), key, words))
    return errors


def has_invalid_spread_keys(constraints: Sequence[v1.TopologySpreadConstraint]) -> bool:
    """Tell whether a Pod breaks the newer rule about matchLabelKeys."""
    nowhere = Path("")
    return any(
        _match_and_mismatch_keys(nowhere, constraint.match_label_keys, (), constraint.label_selector)
        for constraint in constraints
    )


def has_invalid_selector_values(affinity: v1.Affinity | None) -> bool:
    """Tell whether a Pod compares labels of other Pods with something that is no label value."""
    if affinity is None:
        return False
    terms: list[v1.PodAffinityTerm] = []
    for pods in (affinity.pod_affinity, affinity.pod_anti_affinity):
        if pods is not None:
            terms += pods.required_during_scheduling_ignored_during_execution
            terms += [
                weighted.pod_affinity_term for weighted in pods.preferred_during_scheduling_ignored_during_execution
            ]
    return any(
        selector_has_invalid_value(term.label_selector) or selector_has_invalid_value(term.namespace_selector)
        for term in terms
    )


def has_invalid_required_node_values(selector: v1.NodeSelector | None) -> bool:
    """Tell whether a choice of nodes compares with something that is no label value."""
    return selector is not None and any(
        label_value_errors(value)
        for term in selector.node_selector_terms or ()
        for requirement in term.match_expressions
        for value in requirement.values
    )

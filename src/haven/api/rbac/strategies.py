"""Roles and bindings: defaults, what is wrong with them, how they are written.

Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/ and the behaviour of pkg/apis/rbac.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from haven.api.core.validation.metadata import validate_dns1123_subdomain
from haven.api.internalform import internal_form
from haven.api.kinds import UpdateOrder, kind_strategy
from haven.api.rbac import v1
from haven.api.strategy import Strategy
from haven.apimachinery.fielderrors import ErrorList, Path, invalid, not_supported, required
from haven.apimachinery.selectors import SelectorError, from_label_selector
from haven.apimachinery.validation.labels import validate_label_selector
from haven.apimachinery.validation.names import path_segment_name

__all__ = ["STRATEGIES"]

_GROUP = "rbac.authorization.k8s.io"
_SUBJECTS = ("ServiceAccount", "User", "Group")


def _rules(rules: list[v1.PolicyRule], *, namespaced: bool) -> ErrorList:
    errors: ErrorList = []
    for index, rule in enumerate(rules):
        path = Path("rules").index(index)
        if not rule.verbs:
            errors.append(required(path.child("verbs"), "verbs must contain at least one value"))
        if rule.non_resource_urls:
            place = path.child("nonResourceURLs")
            if namespaced:
                words = "namespaced rules cannot apply to non-resource URLs"
                errors.append(invalid(place, rule.non_resource_urls, words))
            if rule.api_groups or rule.resources or rule.resource_names:
                words = "rules cannot apply to both regular resources and non-resource URLs"
                errors.append(invalid(place, rule.non_resource_urls, words))
            continue
        if not rule.api_groups:
            words = "resource rules must supply at least one api group"
            errors.append(required(path.child("apiGroups"), words))
        if not rule.resources:
            words = "resource rules must supply at least one resource"
            errors.append(required(path.child("resources"), words))
    return errors


def _check_role(role: v1.Role) -> ErrorList:
    return _rules(role.rules or [], namespaced=True)


def _selectors(role: v1.ClusterRole, allow_invalid_values: bool) -> ErrorList:
    if role.aggregation_rule is None:
        return []
    path = Path("aggregationRule", "clusterRoleSelectors")
    selectors = role.aggregation_rule.cluster_role_selectors
    errors: ErrorList = []
    if not selectors:
        words = "at least one clusterRoleSelector required if aggregationRule is non-nil"
        errors.append(required(path, words))
    for index, selector in enumerate(selectors):
        place = path.index(index)
        errors += validate_label_selector(selector, place, allow_invalid_values=allow_invalid_values)
        try:
            from_label_selector(selector)
        except SelectorError:
            errors.append(invalid(place, None, "invalid label selector."))  # What it became: none.
    return errors


def _check_cluster_role(role: v1.ClusterRole) -> ErrorList:
    return _rules(role.rules or [], namespaced=False) + _selectors(role, False)


def _check_old_cluster_role(role: v1.ClusterRole, old: v1.ClusterRole) -> ErrorList:
    selectors = old.aggregation_rule.cluster_role_selectors if old.aggregation_rule is not None else []
    forgive = any(validate_label_selector(selector, Path("")) for selector in selectors)
    return _rules(role.rules or [], namespaced=False) + _selectors(role, forgive)


def _default_binding(binding: v1.RoleBinding | v1.ClusterRoleBinding) -> None:
    if not binding.role_ref.api_group:
        binding.role_ref.api_group = _GROUP
    for subject in binding.subjects:
        if not subject.api_group and subject.kind in ("User", "Group"):
            subject.api_group = _GROUP


def _check_binding(kinds: tuple[str, ...], *, namespaced: bool) -> Callable[[Any], ErrorList]:
    def check(binding: v1.RoleBinding | v1.ClusterRoleBinding) -> ErrorList:
        reference, path = binding.role_ref, Path("roleRef")
        errors: ErrorList = []
        if reference.api_group != _GROUP:
            errors.append(not_supported(path.child("apiGroup"), reference.api_group, (_GROUP,)))
        if reference.kind not in kinds:
            errors.append(not_supported(path.child("kind"), reference.kind, kinds))
        if not reference.name:
            errors.append(required(path.child("name"), ""))
        else:
            errors += [invalid(path.child("name"), reference.name, text) for text in path_segment_name(reference.name)]
        for index, subject in enumerate(binding.subjects):
            errors += _subject(subject, Path("subjects").index(index), namespaced=namespaced)
        return errors

    return check


def _subject(subject: v1.Subject, path: Path, *, namespaced: bool) -> ErrorList:
    errors: ErrorList = []
    if not subject.name:
        errors.append(required(path.child("name"), ""))
    if subject.kind == "ServiceAccount":
        if subject.name:
            errors += validate_dns1123_subdomain(subject.name, path.child("name"))
        if subject.api_group:
            errors.append(not_supported(path.child("apiGroup"), subject.api_group, ("",)))
        if not namespaced and not subject.namespace:
            errors.append(required(path.child("namespace"), ""))
    elif subject.kind in ("User", "Group"):
        if subject.api_group != _GROUP:
            errors.append(not_supported(path.child("apiGroup"), subject.api_group, (_GROUP,)))
    else:
        errors.append(not_supported(path.child("kind"), subject.kind, _SUBJECTS))
    return errors


def _same_role(new: Any, old: Any) -> ErrorList:
    if new.role_ref == old.role_ref:
        return []
    return [invalid(Path("roleRef"), internal_form(new.role_ref), "cannot change roleRef")]


_WHOLE = UpdateOrder.WHOLE_THEN_META
STRATEGIES: dict[str, Strategy[Any]] = {
    "roles": kind_strategy(
        namespaced=True, name_rule=path_segment_name, check=_check_role, order=_WHOLE, allow_create_on_update=True
    ),
    "clusterroles": kind_strategy(
        namespaced=False,
        name_rule=path_segment_name,
        check=_check_cluster_role,
        check_old=_check_old_cluster_role,
        order=_WHOLE,
        allow_create_on_update=True,
    ),
    "rolebindings": kind_strategy(
        namespaced=True,
        name_rule=path_segment_name,
        default=_default_binding,
        check=_check_binding(("Role", "ClusterRole"), namespaced=True),
        check_update=_same_role,
        order=_WHOLE,
        allow_create_on_update=True,
    ),
    "clusterrolebindings": kind_strategy(
        namespaced=False,
        name_rule=path_segment_name,
        default=_default_binding,
        check=_check_binding(("ClusterRole",), namespaced=False),
        check_update=_same_role,
        order=_WHOLE,
        allow_create_on_update=True,
    ),
}

"""Which requests a policy or a binding is about.

Source:
https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/#matching-requests-matchconstraints
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from haven.api.admissionregistration import v1
from haven.api.scheme import Resource
from haven.apimachinery import apierrors, meta
from haven.apimachinery.selectors import SelectorError, from_label_selector
from haven.apiserver.admission.interface import AdmissionRequest, Objects
from haven.apiserver.admission.matching import namespace_matches, object_matches, rule_matches
from haven.apiserver.admission.policies.params import Misconfigured
from haven.apiserver.admission.versions import Versions

__all__ = ["selected"]


def selected(
    resources: v1.MatchResources | None, request: AdmissionRequest, objects: Objects, versions: Versions
) -> Resource[Any] | None:
    """Return as which resource a request is matched; None if it is not; raise Misconfigured."""
    if resources is None:
        return request.resource
    missing: apierrors.ApiError | None = None
    try:
        namespaces = from_label_selector(resources.namespace_selector or meta.LabelSelector())
        labels = from_label_selector(resources.object_selector or meta.LabelSelector())
    except SelectorError as error:
        raise Misconfigured(str(error)) from None
    try:
        if not namespace_matches(namespaces, request, objects):
            return None
    except apierrors.NotFound as error:
        missing = error  # It only matters if the policy cares about such requests.
    if not object_matches(labels, request.object, request.old):
        return None
    if _named(resources.exclude_resource_rules, resources, request, versions) is not None:
        return None
    found = request.resource
    if resources.resource_rules:
        matched = _named(resources.resource_rules, resources, request, versions)
        if matched is None:
            return None
        found = matched
    if missing is not None:
        raise Misconfigured(missing.message)
    return found


def _named(
    rules: Sequence[v1.NamedRuleWithOperations],
    resources: v1.MatchResources,
    request: AdmissionRequest,
    versions: Versions,
) -> Resource[Any] | None:
    """Return the resource as which a rule names a request: its own if one does, else an equivalent one."""
    if any(_matches(rule, request, request.resource) for rule in rules):
        return request.resource
    if not rules or resources.match_policy != "Equivalent":
        return None
    for rule in rules:
        for resource in versions.equivalents(request.resource, request.subresource):
            if _matches(rule, request, resource):
                return resource
    return None


def _matches(rule: v1.NamedRuleWithOperations, request: AdmissionRequest, resource: Resource[Any]) -> bool:
    return rule_matches(rule, request, resource) and (not rule.resource_names or request.name in rule.resource_names)

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
    equivalents: Sequence[Resource[Any]] = ()
    if resources.match_policy == "Equivalent":
        equivalents = versions.equivalents(request.resource, request.subresource)
    if _named(resources.exclude_resource_rules, request, equivalents) is not None:
        return None
    found = _named(resources.resource_rules, request, equivalents) if resources.resource_rules else request.resource
    if found is not None and missing is not None:
        raise Misconfigured(missing.message)
    return found


def _named(
    rules: Sequence[v1.NamedRuleWithOperations], request: AdmissionRequest, equivalents: Sequence[Resource[Any]]
) -> Resource[Any] | None:
    for resource in (request.resource, *equivalents):
        for rule in rules:
            if rule_matches(rule, request, resource) and (
                not rule.resource_names or request.name in rule.resource_names
            ):
                return resource
    return None

"""Which requests a webhook is about: its rules, its selectors, and requests for the same objects by other names.

Source: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#matching-requests-rules
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from haven.api import scheme
from haven.api.admissionregistration import v1
from haven.api.core import v1 as core
from haven.api.scheme import Resource
from haven.apimachinery import apierrors, meta
from haven.apimachinery.selectors import LabelSelector, from_label_selector
from haven.apiserver.admission.interface import CREATE, UPDATE, AdmissionRequest, Objects

__all__ = ["Criteria", "first_matching_rule", "is_exempt", "namespace_matches", "object_matches", "rule_matches"]

_ALL = "*"
_NAMESPACES = scheme.resource_of(core.Namespace)
_CONFIGURATION_GROUP = "admissionregistration.k8s.io"
_CONFIGURATIONS = frozenset(
    {
        "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration", "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding", "MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Criteria:
    """What a webhook says about the requests it wants, its selectors parsed."""

    rules: tuple[v1.RuleWithOperations, ...]
    is_equivalent: bool
    """Whether a request for the same object by another version (or group) counts as well."""
    namespace_selector: LabelSelector
    object_selector: LabelSelector

    @classmethod
    def of(
        cls,
        rules: Sequence[v1.RuleWithOperations],
        match_policy: str | None,
        namespace_selector: meta.LabelSelector | None,
        object_selector: meta.LabelSelector | None,
    ) -> Criteria:
        """Return criteria; raise SelectorError."""
        return cls(
            tuple(rules),
            match_policy == "Equivalent",
            from_label_selector(namespace_selector or meta.LabelSelector()),
            from_label_selector(object_selector or meta.LabelSelector()),
        )


def is_exempt(request: AdmissionRequest) -> bool:
    """Tell whether a request is to an object that configures admission: else a mistake could not be undone."""
    resource = request.resource
    return resource.group == _CONFIGURATION_GROUP and resource.kind in _CONFIGURATIONS


def rule_matches(rule: v1.RuleWithOperations, request: AdmissionRequest, resource: Resource[Any]) -> bool:
    """Tell whether a rule is about a request, or would be if it came by way of another `resource`."""
    return (
        _scope(rule.scope, request, resource)
        and (_ALL in rule.operations or request.operation in rule.operations)
        and (_ALL in rule.api_groups or resource.group in rule.api_groups)
        and (_ALL in rule.api_versions or resource.version in rule.api_versions)
        and _resource(rule.resources, resource.plural, request.subresource)
    )


def _scope(scope: str | None, request: AdmissionRequest, resource: Resource[Any]) -> bool:
    if scope in (None, _ALL):
        return True
    # A request for a Namespace counts as being in it, but a Namespace is in none.
    is_cluster_wide = not request.namespace or resource == _NAMESPACES
    return is_cluster_wide == (scope == "Cluster") if scope in ("Cluster", "Namespaced") else False


def _resource(patterns: Iterable[str], plural: str, subresource: str) -> bool:
    for pattern in patterns:
        name, _, part = pattern.partition("/")
        if name in (_ALL, plural) and part in (_ALL, subresource):
            return True
    return False


def first_matching_rule(
    criteria: Criteria, request: AdmissionRequest, equivalents: Sequence[Resource[Any]]
) -> Resource[Any] | None:
    """Return the resource as which a request is matched: its own, or the first equivalent that a rule names."""
    for rule in criteria.rules:
        if rule_matches(rule, request, request.resource):
            return request.resource
    if criteria.is_equivalent:
        for rule in criteria.rules:
            for resource in equivalents:
                if rule_matches(rule, request, resource):
                    return resource
    return None


def namespace_matches(selector: LabelSelector, request: AdmissionRequest, objects: Objects) -> bool:
    """Tell whether the labels of a request's namespace match; raise NotFound if the namespace does not exist.

    What is in no namespace always matches. A Namespace that is written is judged by its new labels.
    """
    if selector.is_empty:
        return True
    resource = request.resource
    if not request.namespace and resource.plural != "namespaces":
        return True
    is_namespace = resource.plural == "namespaces" and not request.subresource
    if is_namespace and request.operation in (CREATE, UPDATE):
        return selector.matches(_labels(request.object) or {})
    namespace = objects.get(_NAMESPACES, "", request.namespace)
    if namespace is None:
        raise apierrors.NotFound.of(_NAMESPACES.group_resource, request.namespace)
    return selector.matches(namespace.metadata.labels)


def object_matches(selector: LabelSelector, *objects: Any) -> bool:
    """Tell whether the labels of any of the objects (the new one, the old one) match."""
    if selector.is_empty:
        return True
    return any(labels is not None and selector.matches(labels) for labels in map(_labels, objects))


def _labels(obj: Any) -> Mapping[str, str] | None:
    """Return an object's labels; None for one that can carry none, such as PodExecOptions."""
    metadata = getattr(obj, "metadata", None)
    return metadata.labels if isinstance(metadata, meta.ObjectMeta) else None

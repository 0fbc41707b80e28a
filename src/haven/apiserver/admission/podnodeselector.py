"""PodNodeSelector: which nodes the Pods of a namespace run on, by an annotation of the namespace or for all of them.

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#podnodeselector
"""

from __future__ import annotations

from collections.abc import Mapping

from haven.api import scheme
from haven.api.core import v1 as core
from haven.apimachinery.apierrors import Forbidden, GroupResource
from haven.apimachinery.codecs import yaml
from haven.apimachinery.fielderrors import Path, invalid
from haven.apimachinery.validation.names import label_value_errors, qualified_name_errors
from haven.apiserver.admission.interface import (
    CREATE,
    AdmissionRequest,
    Objects,
    PluginFailure,
    namespace_of,
)

__all__ = ["PodNodeSelector", "parse_selectors"]

ANNOTATION = "scheduler.alpha.kubernetes.io/node-selector"
DEFAULT = "clusterDefaultNodeSelector"
Labels = dict[str, str]


def parse_selectors(document: bytes | None) -> dict[str, str]:
    """Return the selectors of a configuration by namespace. What is no such text is passed over, as upstream does."""
    if not document:
        return {}
    try:
        tree, _ = yaml.parse(document)
    except yaml.InvalidYAML:
        return {}
    found = tree.get("podNodeSelectorPluginConfig") if isinstance(tree, dict) else None
    if not isinstance(found, dict):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)}


def _labels(selector: str) -> Labels:
    result: Labels = {}
    for part in selector.split(",") if selector else ():
        pieces = part.split("=")
        if len(pieces) != 2:
            raise PluginFailure(f"invalid selector: [{' '.join(pieces)}]")
        key, value = pieces[0].strip(), pieces[1].strip()
        if complaints := list(qualified_name_errors(key)):
            # Upstream names no field here.
            raise PluginFailure(str(invalid(Path("<nil>"), key, "; ".join(complaints))))
        if complaints := list(label_value_errors(value)):
            raise PluginFailure(str(invalid(Path("").key(key), value, "; ".join(complaints))))
        result[key] = value
    return result


class PodNodeSelector:
    """Adds the namespace's labels to a Pod's node selector, and refuses labels that the namespace may not ask for."""

    name = "PodNodeSelector"
    resources = frozenset({GroupResource("", "pods")})

    def __init__(self, objects: Objects, selectors: Mapping[str, str]) -> None:
        self._objects = objects
        self._selectors = selectors
        self._namespaces = scheme.resource_of(core.Namespace)

    def handles(self, operation: str) -> bool:
        return operation == CREATE

    async def admit(self, request: AdmissionRequest) -> None:
        if request.subresource:
            return
        spec: core.PodSpec = request.object.spec
        of_namespace = self._of_namespace(request)
        spec.node_selector = {**of_namespace, **spec.node_selector}
        self._check_whitelist(request)

    async def validate(self, request: AdmissionRequest) -> None:
        if request.subresource:
            return
        self._of_namespace(request)
        self._check_whitelist(request)

    def _of_namespace(self, request: AdmissionRequest) -> Labels:
        """Return the labels that a namespace wants; raise Forbidden if the Pod wants other values."""
        namespace = namespace_of(self._objects, request.namespace)
        text = namespace.metadata.annotations.get(ANNOTATION)
        found = _labels(self._selectors.get(DEFAULT, "") if text is None else text)
        wanted: Labels = request.object.spec.node_selector
        if any(found.get(key, value) != value for key, value in wanted.items()):
            raise self._refusal(request, "pod node label selector conflicts with its namespace node label selector")
        return found

    def _check_whitelist(self, request: AdmissionRequest) -> None:
        allowed = _labels(self._selectors.get(request.namespace, ""))
        wanted: Labels = request.object.spec.node_selector
        if allowed and any(allowed.get(key) != value for key, value in wanted.items()):
            raise self._refusal(request, "pod node label selector labels conflict with its namespace whitelist")

    @staticmethod
    def _refusal(request: AdmissionRequest, because: str) -> Forbidden:
        return Forbidden.of(request.resource.group_resource, request.object.metadata.name, because)

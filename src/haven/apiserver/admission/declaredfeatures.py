"""NodeDeclaredFeatureValidator: a Pod is not changed into one that its node does not know how to run.

Nodes say in status.declaredFeatures which features they have.
Source: https://github.com/kubernetes/enhancements/tree/master/keps/sig-node/5328-node-declared-features
"""

from __future__ import annotations

from haven.api import scheme
from haven.api.core import v1 as core
from haven.apimachinery.apierrors import GroupResource
from haven.apimachinery.goformat import quote
from haven.apiserver.admission.interface import UPDATE, AdmissionRequest, Objects, forbidden

__all__ = ["NodeDeclaredFeatureValidator", "features_of_update"]


class NodeDeclaredFeatureValidator:
    """Refuses updates of bound Pods that need a feature which their node does not declare."""

    name = "NodeDeclaredFeatureValidator"
    resources = frozenset({GroupResource("", "pods")})

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._nodes = scheme.resource_of(core.Node)

    def handles(self, operation: str) -> bool:
        return operation == UPDATE

    async def validate(self, request: AdmissionRequest) -> None:
        if request.subresource not in ("", "resize"):
            return
        new: core.Pod = request.object
        old: core.Pod = request.old
        name = new.spec.node_name
        if not name or old.metadata.generation == new.metadata.generation:
            return
        needed = features_of_update(new.spec, old.spec)
        if not needed:
            return
        node = self._objects.get(self._nodes, "", name)
        if node is None:
            raise forbidden(request, f"node {quote(name)} not found")
        missing = [one for one in needed if one not in node.status.declared_features]
        if missing:
            text = f"pod update requires features {', '.join(missing)} which are not available on node {quote(name)}"
            raise forbidden(request, text)


def features_of_update(new: core.PodSpec, old: core.PodSpec) -> list[str]:
    """Return the features that a node needs for a change, sorted."""
    needed = []
    if new.resources != old.resources:
        needed.append("InPlacePodLevelResourcesVerticalScaling")
    if any(
        before.restart_policy != "Always" and now.resources != before.resources
        for now, before in zip(new.init_containers, old.init_containers, strict=False)
    ):
        needed.append("InPlacePodVerticalScalingInitContainers")
    return needed

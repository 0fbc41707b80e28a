"""RuntimeClass: what a pod's runtime costs, and on which nodes it is to be found.

Source: https://kubernetes.io/docs/concepts/containers/runtime-class/
"""

from __future__ import annotations

from haven.api import scheme
from haven.api.core import v1 as core
from haven.api.node import v1 as node
from haven.apimachinery.apierrors import GroupResource
from haven.apimachinery.goformat import quote
from haven.apiserver.admission.interface import CREATE, AdmissionRequest, Objects, forbidden
from haven.apiserver.admission.lookups import ImpossibleName, impossible_name
from haven.apiserver.admission.tolerations import merge_tolerations

__all__ = ["RuntimeClass"]


class RuntimeClass:
    """Copies overhead and scheduling from the class into the pod."""

    name = "RuntimeClass"
    resources = frozenset({GroupResource("", "pods")})
    is_steady = True

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._classes = scheme.resource_of(node.RuntimeClass)

    def handles(self, operation: str) -> bool:
        return operation == CREATE

    async def admit(self, request: AdmissionRequest) -> None:
        if request.subresource:
            return
        spec: core.PodSpec = request.object.spec
        found = await self._find(request, spec)
        if found is None:
            return
        if found.overhead is not None:
            if spec.overhead and spec.overhead != found.overhead.pod_fixed:
                raise forbidden(request, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
            spec.overhead = dict(found.overhead.pod_fixed)
        if found.scheduling is None:
            return
        for key, value in found.scheduling.node_selector.items():
            own = spec.node_selector.get(key, value)
            if own != value:
                raise forbidden(
                    request,
                    f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value};"
                    f" pod.spec.nodeSelector[{key}] = {own}",
                )
        spec.node_selector = spec.node_selector | found.scheduling.node_selector
        spec.tolerations = merge_tolerations(spec.tolerations, found.scheduling.tolerations)

    async def validate(self, request: AdmissionRequest) -> None:
        if request.subresource:
            return
        spec: core.PodSpec = request.object.spec
        found = await self._find(request, spec)
        if found is not None and found.overhead is not None:
            if spec.overhead != found.overhead.pod_fixed:
                raise forbidden(request, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
        elif spec.overhead:
            raise forbidden(
                request, "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
            )

    async def _find(self, request: AdmissionRequest, spec: core.PodSpec) -> node.RuntimeClass | None:
        name = spec.runtime_class_name
        if name is None:
            return None
        found = self._objects.get(self._classes, "", name)
        if found is None:
            found = await self._objects.get_fresh(self._classes, "", name)
        if found is None and (because := impossible_name(name)):
            raise ImpossibleName(because)
        if found is None:
            raise forbidden(request, f"pod rejected: RuntimeClass {quote(name)} not found")
        return found

"""NamespaceLifecycle: nothing is created in a namespace that does not exist or is going away.

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#namespacelifecycle
"""

from __future__ import annotations

from haven.api import scheme
from haven.api.core import v1 as core
from haven.apimachinery import meta
from haven.apimachinery.apierrors import Forbidden, GroupResource, NotFound
from haven.apiserver.admission.interface import CREATE, DELETE, UPDATE, AdmissionRequest, Objects, forbidden

__all__ = ["IMMORTAL", "NamespaceLifecycle"]

IMMORTAL = frozenset({"default", "kube-system", "kube-public"})
_ACCESS_REVIEW = GroupResource("authorization.k8s.io", "localsubjectaccessreviews")


class NamespaceLifecycle:
    """Judges before others do, so that later plugins find the namespace."""

    name = "NamespaceLifecycle"
    resources = None
    is_steady = True

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._namespaces = scheme.resource_of(core.Namespace)

    def handles(self, operation: str) -> bool:
        return operation in (CREATE, UPDATE, DELETE)

    async def admit(self, request: AdmissionRequest) -> None:
        of_namespaces = request.resource.plural == "namespaces" and not request.resource.group
        if of_namespaces:
            if request.operation == DELETE and request.name in IMMORTAL:
                because = "this namespace may not be deleted"
                raise Forbidden.of(request.resource.group_resource, request.name, because)
            return
        if not request.namespace or request.operation == DELETE:
            return
        # What a review would say about the namespace is none of this plugin's business.
        if request.resource.group_resource == _ACCESS_REVIEW:
            return
        name = request.namespace
        namespace = self._objects.get(self._namespaces, "", name)
        if namespace is None:
            namespace = await self._objects.get_fresh(self._namespaces, "", name)
        if namespace is None:
            raise NotFound.of(self._namespaces.group_resource, name)
        if request.operation != CREATE or namespace.status.phase != "Terminating":
            return
        error = forbidden(request, f"unable to create new content in namespace {name} because it is being terminated")
        assert error.details is not None
        error.details.causes = [
            meta.StatusCause(
                reason="NamespaceTerminating",
                message=f"namespace {name} is being terminated",
                field="metadata.namespace",
            )
        ]
        raise error

"""Plugins that are mostly switches: refuse nothing, refuse all, insist on namespaces.

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/
"""

from __future__ import annotations

from haven.api import scheme
from haven.api.core import v1 as core
from haven.apimachinery.apierrors import GroupResource, NotFound
from haven.apiserver.admission.interface import CONNECT, CREATE, DELETE, UPDATE, AdmissionRequest, Objects, forbidden

__all__ = ["AlwaysAdmit", "AlwaysDeny", "NamespaceExists"]


class AlwaysAdmit:
    """Refuses nothing; it is as if it were not there."""

    name = "AlwaysAdmit"
    resources: frozenset[GroupResource] | None = frozenset()

    def handles(self, operation: str) -> bool:
        return operation in (CREATE, UPDATE, DELETE, CONNECT)


class AlwaysDeny:
    """Refuses everything; for tests of clients."""

    name = "AlwaysDeny"
    resources: frozenset[GroupResource] | None = None

    def handles(self, operation: str) -> bool:
        return operation in (CREATE, UPDATE, DELETE, CONNECT)

    async def validate(self, request: AdmissionRequest) -> None:
        raise forbidden(request, "admission control is denying all modifications")


class NamespaceExists:
    """Insists that the namespace of any write exists."""

    name = "NamespaceExists"
    resources: frozenset[GroupResource] | None = None

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._namespaces = scheme.resource_of(core.Namespace)

    def handles(self, operation: str) -> bool:
        return operation in (CREATE, UPDATE, DELETE)

    async def validate(self, request: AdmissionRequest) -> None:
        if not request.namespace or request.is_for("", "namespaces"):
            return
        if self._objects.get(self._namespaces, "", request.namespace) is None:
            raise NotFound.of(self._namespaces.group_resource, request.namespace)

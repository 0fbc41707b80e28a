"""NamespaceAutoProvision: whoever writes into a namespace that there is not makes it by that.

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#namespaceautoprovision
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from haven.api import scheme
from haven.api.core import v1 as core
from haven.apimachinery import meta
from haven.apimachinery.apierrors import AlreadyExists, ApiError, GroupResource
from haven.apiserver.admission.interface import CREATE, AdmissionRequest, Objects, forbidden

__all__ = ["NamespaceAutoProvision"]


class NamespaceAutoProvision:
    """Makes the namespace of a new object; `create` stores one as the server itself would."""

    name = "NamespaceAutoProvision"
    resources: frozenset[GroupResource] | None = None

    def __init__(self, objects: Objects, create: Callable[[core.Namespace], Awaitable[object]]) -> None:
        self._objects = objects
        self._create = create
        self._namespaces = scheme.resource_of(core.Namespace)

    def handles(self, operation: str) -> bool:
        return operation == CREATE

    async def admit(self, request: AdmissionRequest) -> None:
        name = request.namespace
        if request.dry_run or not name or request.is_for("", "namespaces"):
            return
        if self._objects.get(self._namespaces, "", name) is not None:
            return
        try:
            await self._create(core.Namespace(metadata=meta.ObjectMeta(name=name)))
        except AlreadyExists:
            return  # Somebody was faster.
        except ApiError as error:
            raise forbidden(request, error.message) from error

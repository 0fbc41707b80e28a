"""DELETE of an object that cannot be read: it goes as it is, without finalizers, preconditions and admission.

Only who may do unsafe-delete-ignore-read-errors on it can have that, and only while it really cannot be read.
Source: KEP-3926, https://kubernetes.io/docs/reference/using-api/api-concepts/#force-deletion
"""

from __future__ import annotations

from haven.apimachinery import apierrors, meta
from haven.apimachinery.apierrors import GroupResource
from haven.apimachinery.fielderrors import Path, invalid
from haven.apiserver.authorization.interface import Attributes, Authorizer, Verdict, decide
from haven.apiserver.registry.endpoint import Endpoint
from haven.apiserver.registry.options import UNREAD
from haven.apiserver.registry.storage import Storages, Write
from haven.apiserver.request import Request
from haven.store.interface import TransactionFailed

__all__ = ["UnreadDeletion"]

_VERB = "unsafe-delete-ignore-read-errors"
_WITHOUT = frozenset(
    {
        GroupResource("", "namespaces"),
        GroupResource("rbac.authorization.k8s.io", "clusterrolebindings"),
        GroupResource("rbac.authorization.k8s.io", "clusterroles"),
        GroupResource("rbac.authorization.k8s.io", "rolebindings"),
        GroupResource("rbac.authorization.k8s.io", "roles"),
    }
)
"""Where upstream has none: their deletion is wrapped by something that does not hand it out."""


class UnreadDeletion:
    """Deletes what cannot be read."""

    def __init__(self, storages: Storages, authorizer: Authorizer) -> None:
        self._storages = storages
        self._authorizer = authorizer

    async def delete(self, request: Request, endpoint: Endpoint) -> meta.Status:
        """Delete the object of a request; raise ApiError."""
        request.audit_annotations["apiserver.k8s.io/unsafe-delete-ignore-read-error"] = ""
        resource, info = endpoint.resource.group_resource, request.info
        if resource in _WITHOUT:
            raise apierrors.InternalError.because(f"no unsafe deleter provided, can not honor {UNREAD}")
        await self._authorize(request, endpoint)
        storage = endpoint.storage
        while True:
            damage = storage.damage_of(info.namespace, info.name)
            if damage is None:
                text = "is exclusively used to delete corrupt object(s), try again by removing this option"
                kind = apierrors.GroupKind(resource.group, resource.resource)
                raise apierrors.Invalid.of(kind, info.name, [invalid(Path(UNREAD), True, text)])
            write = Write(storage, damage.key.encode(), None, expected=damage.revision)
            try:
                await self._storages.commit([write])
            except TransactionFailed:
                await self._storages.store.catch_up()  # It changed meanwhile: look again.
                continue
            details = meta.StatusDetails(name=info.name, kind=endpoint.resource.kind)
            return meta.Status(status="Success", details=details, code=200)

    async def _authorize(self, request: Request, endpoint: Endpoint) -> None:
        info = request.info
        attributes = Attributes(
            user=request.user,
            verb=_VERB,
            group=info.group,
            version=info.version,
            resource=info.resource,
            namespace=info.namespace,
            name=info.name,
            is_resource=True,
        )
        decision = await decide(self._authorizer, attributes)
        if decision.verdict is not Verdict.ALLOW:
            text = f'not permitted to do "{_VERB}", reason: {decision.reason}'
            raise apierrors.Forbidden.of(endpoint.resource.group_resource, info.name, text)

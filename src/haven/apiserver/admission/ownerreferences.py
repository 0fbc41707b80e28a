"""OwnerReferencesPermissionEnforcement: who ties an object to an owner must be allowed to delete the one, and to hold
up the deletion of the other.

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/
"""

from __future__ import annotations

from collections.abc import Iterator

from haven.api import scheme
from haven.apimachinery import meta
from haven.apimachinery.apierrors import GroupResource
from haven.apiserver.admission.interface import CREATE, UPDATE, AdmissionRequest, forbidden
from haven.apiserver.authorization.interface import Attributes, Authorizer, Decision, Verdict, decide

__all__ = ["OwnerReferencesPermissionEnforcement"]


class OwnerReferencesPermissionEnforcement:
    """Judges changes of owner references. Not on by default."""

    name = "OwnerReferencesPermissionEnforcement"
    resources: frozenset[GroupResource] | None = None

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    def handles(self, operation: str) -> bool:
        return operation in (CREATE, UPDATE)

    async def validate(self, request: AdmissionRequest) -> None:
        if request.is_for("", "pods", "status"):
            return
        new, old = _owners(request.object), _owners(request.old)
        if new == old:
            return
        resource = request.resource
        if request.operation != CREATE:
            decision = await self._ask(
                Attributes(
                    request.user,
                    "delete",
                    namespace=request.namespace,
                    group=resource.group,
                    version=resource.version,
                    resource=resource.plural,
                    subresource=request.subresource,
                    name=request.name,
                )
            )
            if decision.verdict is not Verdict.ALLOW:
                text = f"cannot set an ownerRef on a resource you can't delete: {decision.reason}, <nil>"
                raise forbidden(request, text)
        blocking = {owner.uid for owner in old if owner.block_owner_deletion}
        added = [owner for owner in new if owner.block_owner_deletion and owner.uid not in blocking]
        if not added or await self._may_finalize_anything(request):
            return
        for owner in added:
            for question in _finalizing(request, owner):
                decision = await self._ask(question)
                if decision.verdict is not Verdict.ALLOW:
                    raise forbidden(
                        request,
                        "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set"
                        f" finalizers on: {decision.reason}, <nil>",
                    )

    async def _ask(self, attributes: Attributes) -> Decision:
        return await decide(self._authorizer, attributes)

    async def _may_finalize_anything(self, request: AdmissionRequest) -> bool:
        everything = Attributes(
            request.user, "update", group="*", version="*", resource="*", subresource="finalizers", name="*"
        )
        return (await self._ask(everything)).verdict is Verdict.ALLOW


def _owners(obj: object) -> list[meta.OwnerReference]:
    metadata = getattr(obj, "metadata", None)
    return list(metadata.owner_references) if metadata is not None else []


def _finalizing(request: AdmissionRequest, owner: meta.OwnerReference) -> Iterator[Attributes]:
    group, _, version = owner.api_version.rpartition("/")
    found = False
    for resource in scheme.table().values():
        if (resource.group, resource.version, resource.kind) == (group, version, owner.kind):
            found = True
            yield Attributes(
                request.user,
                "update",
                namespace=request.namespace if resource.namespaced else "",
                group=group,
                version=version,
                resource=resource.plural,
                subresource="finalizers",
                name=owner.name,
            )
    if not found:
        raise forbidden(
            request,
            "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion"
            f' {owner.api_version} Kind {owner.kind}: no matches for kind "{owner.kind}" in version'
            f' "{owner.api_version}"',
        )

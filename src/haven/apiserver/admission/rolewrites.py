"""The guard of roles and bindings, where upstream's registry has it: behind what changes objects, before validation.

Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping
"""

from __future__ import annotations

from haven.apimachinery.apierrors import GroupResource
from haven.apiserver.admission.interface import CREATE, UPDATE, AdmissionRequest
from haven.apiserver.authorization.escalation import GROUP, EscalationGuard

__all__ = ["RoleWrites"]


class RoleWrites:
    """Refuses writes that would give away more than the writer has. Not an admission plugin that one could turn off."""

    name = "RoleWrites"
    resources = frozenset(
        GroupResource(GROUP, plural) for plural in ("roles", "clusterroles", "rolebindings", "clusterrolebindings")
    )

    def __init__(self, guard: EscalationGuard) -> None:
        self._guard = guard

    def handles(self, operation: str) -> bool:
        return operation in (CREATE, UPDATE)

    async def admit(self, request: AdmissionRequest) -> None:
        await self._guard.check(request.user, request.object, request.old, requested_name=request.path_name)

"""Devices with administrative access are for namespaces that say so: a check of upstream's registry.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/#admin-access
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from haven.api.core import v1 as core
from haven.api.resource import v1 as resource
from haven.api.scheme import resource_of
from haven.apimachinery.apierrors import GroupKind, GroupResource, Invalid
from haven.apimachinery.fielderrors import Path, forbidden
from haven.apiserver.admission.interface import CREATE, UPDATE, AdmissionRequest, Objects

__all__ = ["LABEL", "AdminAccess"]

LABEL = "resource.kubernetes.io/admin-access"
_NAMESPACES = resource_of(core.Namespace)


class AdminAccess:
    """Refuses claims that ask for, or are given, administrative access in a namespace without the label."""

    name = "AdminAccess"
    resources = frozenset(
        GroupResource("resource.k8s.io", plural) for plural in ("resourceclaims", "resourceclaimtemplates")
    )

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def handles(self, operation: str) -> bool:
        return operation in (CREATE, UPDATE)

    async def validate(self, request: AdmissionRequest) -> None:
        path = _asked(request)
        if path is None:
            return
        namespace = self._objects.get(_NAMESPACES, "", request.namespace)
        if namespace is not None and namespace.metadata.labels.get(LABEL) == "true":
            return
        text = f"admin access to devices requires the `{LABEL}: true` label on the containing namespace"
        kind = GroupKind(request.resource.group, request.resource.kind)
        raise Invalid.of(kind, request.name, [forbidden(path, text)])


def _asked(request: AdmissionRequest) -> Path | None:
    """Return the field by which a request asks for access, None if it does not."""
    if request.operation == CREATE:
        spec = request.object.spec.spec if request.resource.kind == "ResourceClaimTemplate" else request.object.spec
        for index, asked in enumerate(spec.devices.requests or ()):
            if asked.exactly is not None and asked.exactly.admin_access:
                return Path("spec", "devices", "requests").index(index).child("adminAccess")
        return None
    if request.subresource != "status" or _granted(_results(request.old)) is not None:
        return None
    found = _granted(_results(request.object))
    if found is None:
        return None
    return Path("status", "allocation", "devices", "results").index(found).child("adminAccess")


def _results(claim: Any) -> Sequence[resource.DeviceRequestAllocationResult]:
    allocation = claim.status.allocation
    return (allocation.devices.results or ()) if allocation is not None else ()


def _granted(results: Sequence[resource.DeviceRequestAllocationResult]) -> int | None:
    return next((index for index, one in enumerate(results) if one.admin_access), None)

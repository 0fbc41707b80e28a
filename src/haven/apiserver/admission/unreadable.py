"""What configures admission but cannot be read: until it can, nothing is admitted that it might have refused.

Objects that configure admission themselves are let through, so that it can be mended.
Source: k8s.io/apiserver's admission plugins, which refuse until their informers have synced
"""

from __future__ import annotations

from collections.abc import Callable

from haven.apimachinery import apierrors
from haven.apimachinery.apierrors import GroupResource
from haven.apiserver.admission.interface import AdmissionRequest
from haven.apiserver.admission.matching import is_exempt

__all__ = ["CONFIGURATIONS", "UnreadableConfiguration"]

CONFIGURATIONS = frozenset(
    GroupResource("admissionregistration.k8s.io", plural)
    for plural in (
        "mutatingadmissionpolicies", "mutatingadmissionpolicybindings", "mutatingwebhookconfigurations",
        "validatingadmissionpolicies", "validatingadmissionpolicybindings", "validatingwebhookconfigurations",
    )
)  # fmt: skip


class UnreadableConfiguration:
    """Refuses what webhooks or policies might, while some of them are unknown; asked only then."""

    name = "UnreadableConfiguration"
    resources: frozenset[GroupResource] | None = None
    only_refuses = True

    def __init__(self, is_known: Callable[[], bool]) -> None:
        self._is_known = is_known

    def handles(self, operation: str) -> bool:
        return True

    def is_idle(self, request: AdmissionRequest) -> bool:
        return self._is_known() or is_exempt(request)

    async def validate(self, request: AdmissionRequest) -> None:
        if not self.is_idle(request):
            raise apierrors.Forbidden.of(
                request.resource.group_resource, request.name, "not yet ready to handle request"
            )

"""Who asks for a certificate, and when its conditions changed: known to the API server alone, whatever clients say.

Source: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/
"""

from __future__ import annotations

from haven.api.certificates import v1 as certificates
from haven.apimachinery import times
from haven.apimachinery.apierrors import GroupResource
from haven.apiserver.admission.interface import CREATE, UPDATE, AdmissionRequest
from haven.clock import Clock

__all__ = ["SigningRequests"]


class SigningRequests:
    """Fills in requests, behind the plugins and before validation."""

    name = "SigningRequests"
    resources = frozenset({GroupResource("certificates.k8s.io", "certificatesigningrequests")})

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def handles(self, operation: str) -> bool:
        return operation in (CREATE, UPDATE)

    async def admit(self, request: AdmissionRequest) -> None:
        asked: certificates.CertificateSigningRequest = request.object
        if request.operation == CREATE:
            user, spec = request.user, asked.spec
            spec.username, spec.uid, spec.groups = user.name, user.uid, list(user.groups)
            spec.extra = {key: list(values) for key, values in user.extra.items()}
        elif request.subresource in ("status", "approval"):
            self._date(asked, request.old)

    def _date(self, new: certificates.CertificateSigningRequest, old: certificates.CertificateSigningRequest) -> None:
        now = times.format_time(self._clock.now_seconds())
        since = {
            (condition.type, condition.status): condition.last_transition_time for condition in old.status.conditions
        }
        for condition in new.status.conditions:
            condition.last_update_time = condition.last_update_time or now
            if condition.last_transition_time is None:
                condition.last_transition_time = since.get((condition.type, condition.status)) or now

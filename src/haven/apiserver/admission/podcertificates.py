"""Who answers a PodCertificateRequest, and when: known to the API server alone. Behind the kind's own validation.

Source: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#pod-certificate-requests
"""

from __future__ import annotations

from datetime import UTC, datetime

from haven.api.certificates import v1beta1 as certificates
from haven.apimachinery import times
from haven.apimachinery.apierrors import GroupKind, GroupResource, Invalid
from haven.apimachinery.fielderrors import Path, forbidden, invalid
from haven.apimachinery.goformat import quote
from haven.apiserver.admission.certificates import is_allowed_for_signer
from haven.apiserver.admission.interface import UPDATE, AdmissionRequest
from haven.apiserver.authorization.interface import Authorizer
from haven.clock import Clock

__all__ = ["PodCertificateAnswers"]

SKEW_SECONDS = 300.0


class PodCertificateAnswers:
    """Lets only those answer who may sign for the signer, with certificates of this moment."""

    name = "PodCertificateAnswers"
    resources = frozenset({GroupResource("certificates.k8s.io", "podcertificaterequests")})

    def __init__(self, authorizer: Authorizer, clock: Clock) -> None:
        self._authorizer = authorizer
        self._clock = clock

    def handles(self, operation: str) -> bool:
        return operation == UPDATE

    async def validate(self, request: AdmissionRequest) -> None:
        new: certificates.PodCertificateRequest = request.object
        old: certificates.PodCertificateRequest = request.old
        if request.subresource != "status" or new.status == old.status:
            return
        kind = GroupKind("certificates.k8s.io", "PodCertificateRequest")
        since = new.status.not_before
        if since is not None and abs(times.parse(since) - self._clock.now_seconds()) > SKEW_SECONDS:
            shown = datetime.fromtimestamp(times.parse(since), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            text = "must be set to within 5 minutes of kube-apiserver's current time"
            raise Invalid.of(kind, request.name, [invalid(Path("status", "notBefore"), shown, text)])
        signer = old.spec.signer_name
        if not await is_allowed_for_signer(self._authorizer, request.user, "sign", signer):
            text = f'User {quote(request.user.name)} is not permitted to "sign" for signer {quote(signer)}'
            raise Invalid.of(kind, request.name, [forbidden(Path("spec", "signerName"), text)])

"""Plugins of certificates: who may approve, sign and attest, and which groups nobody may ask to be in.

Source: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/
"""

from __future__ import annotations

from cryptography.x509.oid import NameOID

from haven.api.certificates import v1 as certificates
from haven.api.certificates.strategies import BadRequestPem, parse_request
from haven.apimachinery.apierrors import GroupResource
from haven.apimachinery.goformat import quote
from haven.apiserver.admission.interface import CREATE, UPDATE, AdmissionRequest, forbidden
from haven.apiserver.authentication.interface import MASTERS
from haven.apiserver.authorization.escalation import only_changes_collection
from haven.apiserver.authorization.interface import Attributes, Authorizer, Verdict, decide
from haven.apiserver.request import UserInfo

__all__ = [
    "CertificateApproval",
    "CertificateSigning",
    "CertificateSubjectRestriction",
    "ClusterTrustBundleAttest",
    "is_allowed_for_signer",
]

CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"
_REQUESTS = frozenset({GroupResource("certificates.k8s.io", "certificatesigningrequests")})


async def is_allowed_for_signer(authorizer: Authorizer, user: UserInfo, verb: str, signer: str) -> bool:
    """Tell whether a user may act for a signer, or for all signers of its domain."""
    domain = signer.split("/")[0]
    for name in (signer, f"{domain}/*"):
        question = Attributes(user, verb, group="certificates.k8s.io", version="*", resource="signers", name=name)
        if (await decide(authorizer, question)).verdict is Verdict.ALLOW:
            return True
    return False


class CertificateApproval:
    """Only who may approve for the signer approves."""

    name = "CertificateApproval"
    resources = _REQUESTS

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    def handles(self, operation: str) -> bool:
        return operation == UPDATE

    async def validate(self, request: AdmissionRequest) -> None:
        if request.subresource != "approval":
            return
        signer = request.old.spec.signer_name
        if not await is_allowed_for_signer(self._authorizer, request.user, "approve", signer):
            raise forbidden(request, f"user not permitted to approve requests with signerName {quote(signer)}")


class CertificateSigning:
    """Only who may sign for the signer issues certificates or says that they failed."""

    name = "CertificateSigning"
    resources = _REQUESTS

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    def handles(self, operation: str) -> bool:
        return operation == UPDATE

    async def validate(self, request: AdmissionRequest) -> None:
        if request.subresource != "status":
            return
        new: certificates.CertificateSigningRequest = request.object
        old: certificates.CertificateSigningRequest = request.old
        if new.status.certificate == old.status.certificate and new.status.conditions == old.status.conditions:
            return
        signer = old.spec.signer_name
        if not await is_allowed_for_signer(self._authorizer, request.user, "sign", signer):
            raise forbidden(request, f"user not permitted to sign requests with signerName {quote(signer)}")


class ClusterTrustBundleAttest:
    """Only who may attest for a signer writes down whom that signer trusts."""

    name = "ClusterTrustBundleAttest"
    resources = frozenset({GroupResource("certificates.k8s.io", "clustertrustbundles")})

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    def handles(self, operation: str) -> bool:
        return operation in (CREATE, UPDATE)

    async def validate(self, request: AdmissionRequest) -> None:
        signer = request.object.spec.signer_name
        if not signer:
            return
        if request.operation == UPDATE and only_changes_collection(request.object, request.old):
            return
        if not await is_allowed_for_signer(self._authorizer, request.user, "attest", signer):
            raise forbidden(request, f"user not permitted to attest for signerName {quote(signer)}")


class CertificateSubjectRestriction:
    """Nobody becomes a master by asking for a certificate."""

    name = "CertificateSubjectRestriction"
    resources = _REQUESTS

    def handles(self, operation: str) -> bool:
        return operation == CREATE

    async def validate(self, request: AdmissionRequest) -> None:
        asked: certificates.CertificateSigningRequest = request.object
        if request.subresource or asked.spec.signer_name != CLIENT_SIGNER:
            return
        try:
            subject = parse_request(asked.spec.request).subject
        except BadRequestPem as error:
            raise forbidden(request, f"failed to parse CSR: {error}") from error
        if any(part.value == MASTERS for part in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)):
            raise forbidden(request, f"use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed")

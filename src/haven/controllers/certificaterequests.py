"""Approve certificate requests of kubelets, sign what is approved, forget what is old.

Source: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cryptography import x509
from cryptography.x509.oid import NameOID

from haven.api.authorization import v1 as authorization
from haven.api.certificates import v1 as certificates
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, serialization, times
from haven.controllers.actions import Create, Delete, Requeue, Retry, Steps, Update, Wiring
from haven.controllers.certificateauthority import BadRequest, lifetime_seconds

__all__ = [
    "RequestApprover",
    "RequestCleaner",
    "RequestSigner",
    "Sign",
    "complaint_of",
    "is_outdated",
    "kubelet_client_complaint",
    "kubelet_serving_complaint",
]

Sign = Callable[[bytes, Sequence[str], int, float], bytes]
"""Signs a request: (request PEM, usages, life in seconds, now in seconds) -> certificate PEM; raises BadRequest."""

CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY = (
    "kubernetes.io/kube-apiserver-client",
    "kubernetes.io/kube-apiserver-client-kubelet",
    "kubernetes.io/kubelet-serving",
    "kubernetes.io/legacy-unknown",
)
CLEAN_SECONDS = 3600.0
DECIDED_SECONDS_MAX = 3600.0
PENDING_SECONDS_MAX = 24 * 3600.0

_REQUESTS = resource_of(certificates.CertificateSigningRequest)
_Request = certificates.CertificateSigningRequest
_NODE = "system:node:"


def has_condition(request: certificates.CertificateSigningRequest, type: str) -> bool:
    """Tell whether a request was Approved, Denied or Failed."""
    return any(each.type == type for each in request.status.conditions)


def kubelet_client_complaint(asked: x509.CertificateSigningRequest, usages: Sequence[str]) -> str:
    """Return why a request is none for a kubelet's client certificate, "" if it is one."""
    if _organizations(asked) != ["system:nodes"]:
        return "subject organization is not system:nodes"
    for kind, name in ((x509.DNSName, "DNS"), (x509.RFC822Name, "Email"), (x509.IPAddress, "IP"), (_URI, "URI")):
        if _names(asked, kind):
            return f"{name} subjectAltNames are not allowed"
    if not _common_name(asked).startswith(_NODE):
        return "subject common name does not begin with system:node:"
    return _usage_complaint(usages, "client auth")


def kubelet_serving_complaint(asked: x509.CertificateSigningRequest, usages: Sequence[str]) -> str:
    """Return why a request is none for a kubelet's serving certificate, "" if it is one."""
    if _organizations(asked) != ["system:nodes"]:
        return "subject organization is not system:nodes"
    if not _names(asked, x509.DNSName) and not _names(asked, x509.IPAddress):
        return "DNS or IP subjectAltName is required"
    for kind, name in ((x509.RFC822Name, "Email"), (_URI, "URI")):
        if _names(asked, kind):
            return f"{name} subjectAltNames are not allowed"
    complaint = _usage_complaint(usages, "server auth")
    if complaint:
        return complaint
    return "" if _common_name(asked).startswith(_NODE) else "subject common name does not begin with system:node:"


def complaint_of(signer: str, asked: x509.CertificateSigningRequest, usages: Sequence[str]) -> str | None:
    """Return why one of Kubernetes' own signers refuses a request, "" if it does not; None for signers of others."""
    if signer == KUBELET_CLIENT:
        return kubelet_client_complaint(asked, usages)
    if signer == KUBELET_SERVING:
        return kubelet_serving_complaint(asked, usages)
    if signer == LEGACY:
        return ""
    if signer != CLIENT:
        return None
    for usage in usages:
        if usage not in ("digital signature", "key encipherment", "client auth"):
            return f"invalid usage for client certificate: {usage}"
    return "" if "client auth" in usages else "missing required usage for client certificate: client auth"


def is_outdated(request: certificates.CertificateSigningRequest, now_seconds: float) -> bool:
    """Tell whether nobody needs a request any more."""
    created = request.metadata.creation_timestamp
    if not request.status.conditions:
        return created is not None and now_seconds - times.parse(created) > PENDING_SECONDS_MAX
    is_issued = bool(request.status.certificate)
    for each in request.status.conditions:
        age = now_seconds - times.parse(each.last_update_time) if each.last_update_time else 0.0
        if each.type in ("Denied", "Failed") and age > DECIDED_SECONDS_MAX:
            return True
        if each.type == "Approved" and age > (DECIDED_SECONDS_MAX if is_issued else PENDING_SECONDS_MAX):
            return True
        if each.type == "Approved" and is_issued and _is_expired(request.status.certificate, now_seconds):
            return True
    return False


def _is_expired(certificate_pem: bytes, now_seconds: float) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
    except ValueError:
        return False
    return certificate.not_valid_after_utc.timestamp() < now_seconds


class _Requests:
    """What the approver and the signer share: keys are names of requests that have no certificate."""

    workers = 5

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._requests = wiring.reader(certificates.CertificateSigningRequest)
        self._requests.add_handler(self._request_changed)

    def _request_changed(self, old: _Request | None, new: _Request | None) -> None:
        if new is not None and not new.status.certificate:
            self._wiring.enqueue(new.metadata.name)


class RequestApprover(_Requests):
    """Approves client certificates of kubelets, if their makers may have such ones without asking a human."""

    def sync(self, key: str) -> Steps[None]:
        request = self._requests.get("", key)
        if request is None or request.status.certificate or request.spec.signer_name != KUBELET_CLIENT:
            return
        if has_condition(request, "Approved") or has_condition(request, "Denied"):
            return
        asked = _parse(request)
        if kubelet_client_complaint(asked, request.spec.usages):
            return
        is_own = request.spec.username == _common_name(asked)
        kinds = ["selfnodeclient", "nodeclient"] if is_own else ["nodeclient"]
        for kind in kinds:
            review = yield Create(_review(request, kind))
            if review.status.allowed:
                whose = "self kubelet" if kind == "selfnodeclient" else "kubelet"
                message = f"Auto approving {whose} client certificate after SubjectAccessReview."
                changed = serialization.copy(request)
                changed.status.conditions.append(_condition("Approved", "AutoApproved", message))
                yield Update(changed, "approval")
                return
        raise Retry(f'recognized csr "{key}" as {kinds} but subject access review was not approved')


class RequestSigner(_Requests):
    """Signs what is approved, if the request keeps the rules of its signer."""

    def __init__(self, wiring: Wiring, *, sign: Sign, life_seconds: int) -> None:
        super().__init__(wiring)
        self._sign = sign
        self._life_seconds = life_seconds

    def sync(self, key: str) -> Steps[None]:
        request = self._requests.get("", key)
        if request is None or request.status.certificate or not has_condition(request, "Approved"):
            return
        if has_condition(request, "Denied") or has_condition(request, "Failed"):
            return
        asked = _parse(request)
        complaint = complaint_of(request.spec.signer_name, asked, request.spec.usages)
        if complaint is None:
            return
        changed = serialization.copy(request)
        now = self._wiring.now_seconds()
        if complaint:
            failed = _condition("Failed", "SignerValidationFailure", complaint)
            failed.last_update_time = times.format_time(now)
            changed.status.conditions.append(failed)
        else:
            life = lifetime_seconds(request.spec.expiration_seconds, self._life_seconds)
            try:
                changed.status.certificate = self._sign(request.spec.request, request.spec.usages, life, now)
            except BadRequest as error:
                raise Retry(f"error auto signing csr: {error}") from error
        yield Update(changed, "status")


class RequestCleaner:
    """Deletes requests that nobody needs any more. One key, worked on every hour."""

    workers = 1

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._requests = wiring.reader(certificates.CertificateSigningRequest)
        wiring.enqueue("")

    def sync(self, key: str) -> Steps[None]:
        yield Requeue(CLEAN_SECONDS)
        for request in self._requests.list():
            if is_outdated(request, self._wiring.now_seconds()):
                try:
                    yield Delete(_REQUESTS, "", request.metadata.name, uid=request.metadata.uid)
                except apierrors.ApiError:
                    continue  # The next round is an hour away; one that resists must not hold up the others.


_URI = x509.UniformResourceIdentifier


def _parse(request: certificates.CertificateSigningRequest) -> x509.CertificateSigningRequest:
    try:
        return x509.load_pem_x509_csr(request.spec.request)
    except ValueError as error:
        raise Retry(f'unable to parse csr "{request.metadata.name}": {error}') from error


def _organizations(asked: x509.CertificateSigningRequest) -> list[str]:
    return [str(each.value) for each in asked.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]


def _common_name(asked: x509.CertificateSigningRequest) -> str:
    found = asked.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[-1].value) if found else ""


def _names(asked: x509.CertificateSigningRequest, kind: type[x509.GeneralName]) -> bool:
    try:
        names = asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return any(isinstance(each, kind) for each in names)


def _usage_complaint(usages: Sequence[str], purpose: str) -> str:
    needed = {"digital signature", purpose}
    if set(usages) in (needed, needed | {"key encipherment"}):
        return ""
    return f"usages did not match [{' '.join(sorted(needed | {'key encipherment'}))}]"


def _condition(type: str, reason: str, message: str) -> certificates.CertificateSigningRequestCondition:
    return certificates.CertificateSigningRequestCondition(type=type, status="True", reason=reason, message=message)


def _review(request: certificates.CertificateSigningRequest, kind: str) -> authorization.SubjectAccessReview:
    return authorization.SubjectAccessReview(
        spec=authorization.SubjectAccessReviewSpec(
            user=request.spec.username,
            uid=request.spec.uid,
            groups=request.spec.groups,
            extra=request.spec.extra,
            resource_attributes=authorization.ResourceAttributes(
                group="certificates.k8s.io",
                version="*",
                resource="certificatesigningrequests",
                subresource=kind,
                verb="create",
            ),
        )
    )

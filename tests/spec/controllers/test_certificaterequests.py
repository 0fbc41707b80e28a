from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests.spec.controllers.world import START, World

from haven.api.certificates import v1 as certificates
from haven.apimachinery import meta, times
from haven.controllers.certificateauthority import BadRequest, CertificateAuthority, lifetime_seconds
from haven.controllers.certificaterequests import RequestApprover, RequestCleaner, RequestSigner

KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
CLIENT = "kubernetes.io/kube-apiserver-client"
CLIENT_USAGES = ["digital signature", "client auth"]
SERVER_USAGES = ["digital signature", "server auth"]
DAY = 24 * 3600


def a_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def an_authority(*, days: int = 3650) -> CertificateAuthority:
    key, now = a_key(), datetime.fromtimestamp(START, UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return CertificateAuthority(certificate.public_bytes(serialization.Encoding.PEM), pem)


def a_pem(
    name: str = "system:node:n", *, groups: tuple[str, ...] = ("system:nodes",), dns: tuple[str, ...] = ()
) -> bytes:
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    names.append(x509.NameAttribute(NameOID.COMMON_NAME, name))
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
    if dns:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(each) for each in dns])
        builder = builder.add_extension(alternatives, critical=False)
    return builder.sign(a_key(), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def a_request(
    pem: bytes, *, signer: str = KUBELET_CLIENT, usages: list[str] = CLIENT_USAGES, approved: bool = False, **spec: Any
) -> certificates.CertificateSigningRequest:
    conditions = [certificates.CertificateSigningRequestCondition(type="Approved", status="True")] if approved else []
    return certificates.CertificateSigningRequest(
        metadata=meta.ObjectMeta(name="r"),
        spec=certificates.CertificateSigningRequestSpec(request=pem, signer_name=signer, usages=usages, **spec),
        status=certificates.CertificateSigningRequestStatus(conditions=conditions),
    )


def the_request(world: World) -> certificates.CertificateSigningRequest:
    return world.get(certificates.CertificateSigningRequest, "", "r")  # type: ignore[no-any-return]


def after_approver(request: certificates.CertificateSigningRequest, *allowed: str) -> list[str]:
    def review(obj: Any) -> Any:
        obj.status.allowed = obj.spec.resource_attributes.subresource in allowed
        return obj

    world = World()
    world.review = review
    world.put(request)
    world.start(RequestApprover)
    return [condition.message for condition in the_request(world).status.conditions]


def after_signer(request: certificates.CertificateSigningRequest) -> certificates.CertificateSigningRequestStatus:
    world = World()
    world.put(request)
    world.start(lambda wiring: RequestSigner(wiring, sign=an_authority().sign, life_seconds=365 * DAY))
    return the_request(world).status


def test_a_kubelet_that_may_gets_its_client_certificate_approved() -> None:
    own = a_request(a_pem(), username="system:node:n")
    first = a_request(a_pem(), username="system:bootstrap:abcdef")

    assert after_approver(own, "selfnodeclient") == [
        "Auto approving self kubelet client certificate after SubjectAccessReview."
    ]
    assert after_approver(own, "nodeclient") == after_approver(first, "nodeclient")
    assert after_approver(first, "nodeclient") == [
        "Auto approving kubelet client certificate after SubjectAccessReview."
    ]
    assert after_approver(first, "selfnodeclient") == []


@pytest.mark.parametrize(
    "request_",
    [
        a_request(a_pem("admin")),
        a_request(a_pem(groups=("system:masters",))),
        a_request(a_pem(dns=("evil.example.com",))),
        a_request(a_pem(), usages=[*CLIENT_USAGES, "cert sign"]),
        a_request(a_pem(), signer=CLIENT),
    ],
)
def test_nothing_but_client_certificates_of_kubelets_is_approved(
    request_: certificates.CertificateSigningRequest,
) -> None:
    assert after_approver(request_, "nodeclient", "selfnodeclient") == []


def test_an_approved_request_is_signed_with_what_it_asked_for() -> None:
    pem = a_pem(dns=("node.example.com",))
    status = after_signer(a_request(pem, signer=KUBELET_SERVING, usages=SERVER_USAGES, approved=True))

    certificate = x509.load_pem_x509_certificate(status.certificate)
    assert certificate.subject.rfc4514_string() == "CN=system:node:n,O=system:nodes"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["node.example.com"]
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.SERVER_AUTH]
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.digital_signature, usage.key_encipherment, usage.key_cert_sign) == (True, False, False)
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert certificate.not_valid_after_utc == datetime.fromtimestamp(START + 365 * DAY - 300, UTC)


@pytest.mark.parametrize(
    ("signer", "pem", "usages", "message"),
    [
        (KUBELET_SERVING, a_pem(), SERVER_USAGES, "DNS or IP subjectAltName is required"),
        (KUBELET_SERVING, a_pem(groups=()), SERVER_USAGES, "subject organization is not system:nodes"),
        (
            KUBELET_CLIENT,
            a_pem(),
            ["client auth"],
            "usages did not match [client auth digital signature key encipherment]",
        ),
        (CLIENT, a_pem(), SERVER_USAGES, "invalid usage for client certificate: server auth"),
        (CLIENT, a_pem(), ["digital signature"], "missing required usage for client certificate: client auth"),
    ],
)
def test_an_approved_request_that_breaks_its_signers_rules_fails(
    signer: str, pem: bytes, usages: list[str], message: str
) -> None:
    status = after_signer(a_request(pem, signer=signer, usages=usages, approved=True))

    assert status.certificate == b""
    failed = status.conditions[-1]
    assert (failed.type, failed.reason, failed.message) == ("Failed", "SignerValidationFailure", message)


def test_what_is_not_approved_or_has_another_signer_is_left_alone() -> None:
    for request in (a_request(a_pem()), a_request(a_pem(), signer="example.com/signer", approved=True)):
        status = after_signer(request)
        assert status.certificate == b""
        assert len(status.conditions) == len(request.status.conditions)


def test_a_short_life_is_given_in_full_and_none_is_longer_than_the_authority() -> None:
    asked = a_request(a_pem(), approved=True, expiration_seconds=3600)
    certificate = x509.load_pem_x509_certificate(after_signer(asked).certificate)
    assert certificate.not_valid_after_utc == datetime.fromtimestamp(START + 3600, UTC)

    signed = an_authority(days=10).sign(a_pem(), CLIENT_USAGES, 365 * DAY, START)
    limit = datetime.fromtimestamp(START + 10 * DAY, UTC)
    assert x509.load_pem_x509_certificate(signed).not_valid_after_utc == limit
    with pytest.raises(BadRequest):
        an_authority(days=1).sign(a_pem(), CLIENT_USAGES, 365 * DAY, START + 2 * DAY)


def test_a_life_is_bounded_on_both_sides() -> None:
    assert [lifetime_seconds(asked, 1000) for asked in (None, 1, 700, 5000)] == [1000, 600, 700, 1000]


@pytest.mark.parametrize(
    ("type", "is_issued", "hours", "goes"),
    [
        ("", False, 23, False),
        ("", False, 25, True),
        ("Denied", False, 2, True),
        ("Failed", False, 2, True),
        ("Approved", True, 2, True),
        ("Approved", True, 0, False),
        ("Approved", False, 2, False),
        ("Approved", False, 25, True),
    ],
)
def test_old_requests_are_forgotten(type: str, is_issued: bool, hours: int, goes: bool) -> None:
    request = a_request(a_pem())
    request.metadata.creation_timestamp = times.format_time(START)
    if type:
        condition = certificates.CertificateSigningRequestCondition(
            type=type, status="True", last_update_time=times.format_time(START)
        )
        request.status.conditions = [condition]
    if is_issued:
        request.status.certificate = an_authority().sign(request.spec.request, CLIENT_USAGES, 365 * DAY, START)
    world = World()
    world.put(request)
    world.start(RequestCleaner)

    world.wait(hours * 3600 + 1)

    assert (world.all(certificates.CertificateSigningRequest) == []) == goes


def test_a_certificate_is_laid_out_as_gos_library_does_it() -> None:
    odd = x509.ObjectIdentifier("1.3.6.1.4.1.57683.2")
    asked = [(NameOID.COMMON_NAME, "a"), (NameOID.ORGANIZATION_NAME, "o"), (odd, "u"), (NameOID.COMMON_NAME, "b")]
    asked += [(NameOID.ORGANIZATION_NAME, "p"), (NameOID.COUNTRY_NAME, "DE"), (NameOID.ORGANIZATION_NAME, "o")]
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier("a://b"), x509.DNSName("n")]
    pem = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(oid, text) for oid, text in asked]))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(a_key(), hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )

    made = x509.load_pem_x509_certificate(an_authority().sign(pem, ["client auth"], 3600, 1_700_000_000.0))

    assert [sorted(str(one.value) for one in part) for part in made.subject.rdns] == [["DE"], ["o", "p"], ["b"]]
    extensions = [type(part.value).__name__ for part in made.extensions]
    assert extensions[-2:] == ["AuthorityKeyIdentifier", "SubjectAlternativeName"]
    assert list(made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value) == names[::-1]

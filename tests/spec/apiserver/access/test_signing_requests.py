"""Certificate signing requests: who asks, who approves, who signs."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from haven.api import scheme
from haven.api.certificates import v1
from haven.api.certificates.strategies import STRATEGIES
from haven.api.rbac import v1 as rbac
from haven.apimachinery import meta
from haven.apimachinery import serialization as objects_serialization
from haven.apimachinery.apierrors import ApiError
from haven.apiserver.admission.certificates import (
    CertificateApproval,
    CertificateSigning,
    CertificateSubjectRestriction,
)
from haven.apiserver.admission.chain import AdmissionChain
from haven.apiserver.admission.interface import CREATE, UPDATE, AdmissionRequest
from haven.apiserver.admission.signingrequests import SigningRequests
from haven.apiserver.authorization.rbac import RBAC
from haven.apiserver.request import UserInfo
from haven.clock import FakeClock

STRATEGY = STRATEGIES["certificatesigningrequests"]
RESOURCE = scheme.resource_of(v1.CertificateSigningRequest)


def a_pem(name: str = "someone", *groups: str) -> bytes:
    subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    subject.append(x509.NameAttribute(NameOID.COMMON_NAME, name))
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    return request.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(
        serialization.Encoding.PEM
    )


PEM = a_pem()


def a_csr(**spec: Any) -> v1.CertificateSigningRequest:
    values: dict[str, Any] = {"request": PEM, "signer_name": "example.com/s", "usages": ["client auth"], **spec}
    return v1.CertificateSigningRequest(
        metadata=meta.ObjectMeta(name="c", resource_version="1"), spec=v1.CertificateSigningRequestSpec(**values)
    )


def with_condition(old: v1.CertificateSigningRequest, kind: str, **more: Any) -> v1.CertificateSigningRequest:
    new = objects_serialization.copy(old)
    condition = v1.CertificateSigningRequestCondition(type=kind, status="True", **more)
    new.status.conditions = [*new.status.conditions, condition]
    return new


def a_request(new: Any, old: Any = None, *, user: str = "jane", subresource: str = "") -> AdmissionRequest:
    operation = CREATE if old is None else UPDATE
    groups = ("system:authenticated",)
    info = UserInfo(user, "7", groups, {"k": ("v",)})
    return AdmissionRequest(operation, RESOURCE, subresource, "", "c", info, object=new, old=old)


@pytest.fixture
def chain() -> AdmissionChain:
    index = RBAC()
    rules = [
        rbac.PolicyRule(
            verbs=["approve", "sign"],
            api_groups=["certificates.k8s.io"],
            resources=["signers"],
            resource_names=["example.com/*"],
        )
    ]
    role = rbac.ClusterRole(metadata=meta.ObjectMeta(name="signers"), rules=rules)
    binding = rbac.ClusterRoleBinding(
        metadata=meta.ObjectMeta(name="signers"),
        role_ref=rbac.RoleRef(kind="ClusterRole", name="signers"),
        subjects=[rbac.Subject(kind="User", name="ca")],
    )
    for obj in (role, binding):
        index.changed(scheme.resource_of(type(obj)), None, obj)
    plugins = [CertificateApproval(index), CertificateSigning(index), CertificateSubjectRestriction()]
    return AdmissionChain(plugins, guards=[SigningRequests(FakeClock())])


def messages(errors: Any) -> list[str]:
    return [str(error) for error in errors]


async def test_the_asker_is_who_the_server_says(chain: AdmissionChain) -> None:
    request = a_request(a_csr(username="root", groups=["system:masters"]))

    await chain.admit(request)

    spec = request.object.spec
    assert (spec.username, spec.uid, spec.groups, spec.extra) == ("jane", "7", ["system:authenticated"], {"k": ["v"]})


def test_requests_are_checked_in_upstreams_words() -> None:
    assert messages(STRATEGY.validate(a_csr())) == []
    assert messages(STRATEGY.validate(a_csr(request=b"", signer_name="", usages=[]))) == [
        "spec.request: Invalid value: null: PEM block type must be CERTIFICATE REQUEST",
        "spec.usages: Required value",
        "spec.signerName: Required value",
    ]
    assert messages(STRATEGY.validate(a_csr(request=b"not pem"))) == [
        'spec.request: Invalid value: "bm90IHBlbQ==": PEM block type must be CERTIFICATE REQUEST'
    ]
    assert messages(STRATEGY.validate(a_csr(signer_name="x", expiration_seconds=5))) == [
        'spec.signerName: Invalid value: "x": must be a fully qualified domain and path of the form'
        " 'example.com/signer-name'",
        "spec.expirationSeconds: Invalid value: 5: may not specify a duration less than 600 seconds (10 minutes)",
    ]
    assert messages(STRATEGY.validate(a_csr(usages=["client auth", "client auth"]))) == [
        'spec.usages[1]: Duplicate value: "client auth"'
    ]


async def test_only_approvers_of_the_signer_approve_and_times_are_filled_in(chain: AdmissionChain) -> None:
    old = a_csr()
    request = a_request(with_condition(old, "Approved"), old, user="ca", subresource="approval")

    await chain.admit(request)
    await chain.validate(request)

    assert request.object.status.conditions[0].last_transition_time is not None
    refused = a_request(with_condition(old, "Approved"), old, subresource="approval")
    with pytest.raises(ApiError, match=r'user not permitted to approve requests with signerName "example.com/s"'):
        await chain.validate(refused)


async def test_only_the_signer_issues(chain: AdmissionChain) -> None:
    old = a_csr()
    new = objects_serialization.copy(old)
    new.status.certificate = b"x"

    await chain.validate(a_request(new, old, user="ca", subresource="status"))
    with pytest.raises(ApiError, match=r'user not permitted to sign requests with signerName "example.com/s"'):
        await chain.validate(a_request(new, old, subresource="status"))


async def test_nobody_becomes_a_master_by_asking(chain: AdmissionChain) -> None:
    asked = a_csr(request=a_pem("eve", "system:masters"), signer_name="kubernetes.io/kube-apiserver-client")

    with pytest.raises(ApiError, match="with system:masters group is not allowed"):
        await chain.validate(a_request(asked))


def test_approvals_are_added_by_their_endpoint_only_and_never_taken_back() -> None:
    old = a_csr()
    approved = with_condition(old, "Approved")

    assert messages(STRATEGY.subresources["approval"].validate_update(approved, old)) == []
    assert messages(STRATEGY.subresources["status"].validate_update(approved, old)) == [
        'status.conditions: Forbidden: updates may not add a condition of type "Approved"'
    ]
    assert messages(STRATEGY.subresources["approval"].validate_update(old, approved)) == [
        'status.conditions: Forbidden: updates may not remove a condition of type "Approved"'
    ]
    both = with_condition(approved, "Denied")
    assert messages(STRATEGY.subresources["approval"].validate_update(both, approved)) == [
        'status.conditions: Invalid value: "Denied": Approved and Denied conditions are mutually exclusive'
    ]

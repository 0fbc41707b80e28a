"""What is wrong with kinds of alpha and beta groups, in upstream's words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from haven.api import scheme
from haven.api.apiserverinternal import v1alpha1 as internal
from haven.api.certificates import v1beta1 as certificates
from haven.api.resource import v1alpha3, v1beta2
from haven.api.scheduling import v1alpha2 as scheduling
from haven.api.strategies import strategy_for
from haven.apimachinery import meta, times
from haven.apimachinery import serialization as wire

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "me")])


@cache
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def a_certificate(*, authority: bool = True, hours: int = 24) -> str:
    made = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(key().public_key())
        .serial_number(7)
        .not_valid_before(BEGAN)
        .not_valid_after(BEGAN + timedelta(hours=hours))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    return made.sign(key(), hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def complaints(obj: Any) -> list[str]:
    strategy = strategy_for(scheme.resource_of(type(obj)), frozenset())
    obj = wire.copy(obj)
    strategy.default(obj)
    strategy.prepare_for_create(obj)
    return [str(error) for error in strategy.validate(obj)]


def complaints_of_update(new: Any, old: Any, subresource: str = "") -> list[str]:
    strategy = strategy_for(scheme.resource_of(type(new)), frozenset())
    strategy = strategy.subresources[subresource] if subresource else strategy
    new, old = wire.copy(new), wire.copy(old)
    for one in (new, old):
        one.metadata.resource_version = "1"
        strategy.default(one)
    strategy.prepare_for_update(new, old)
    return [str(error) for error in strategy.validate_update(new, old)]


def named(name: str = "a", namespace: str = "") -> meta.ObjectMeta:
    return meta.ObjectMeta(name=name, namespace=namespace)


# ---- trust bundles


def a_bundle(text: str, name: str = "a", signer: str = "") -> certificates.ClusterTrustBundle:
    spec = certificates.ClusterTrustBundleSpec(signer_name=signer, trust_bundle=text)
    return certificates.ClusterTrustBundle(metadata=named(name), spec=spec)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "at least one trust anchor must be provided"),
        ("-----BEGIN X-----\nAAAA\n-----END X-----\n", "entry 0 has bad block type: X"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "entry 0 does not parse as X.509"),
    ],
)
def test_a_bundle_holds_certificates(text: str, complaint: str) -> None:
    assert complaints(a_bundle(text)) == [f'spec.trustBundle: Invalid value: "<value omitted>": {complaint}']


def test_a_bundle_holds_each_authority_once() -> None:
    assert complaints(a_bundle(a_certificate())) == []
    assert "does not have the CA bit set" in complaints(a_bundle(a_certificate(authority=False)))[0]
    assert "duplicate trust anchor (indices [0 1])" in complaints(a_bundle(a_certificate() * 2))[0]


def test_a_bundle_is_called_after_its_signer_and_keeps_it() -> None:
    assert complaints(a_bundle(a_certificate(), "example.com:s:a", "example.com/s")) == []
    assert "must be named with prefix example.com:s:" in complaints(a_bundle(a_certificate(), "a", "example.com/s"))[0]
    old = a_bundle(a_certificate(), "example.com:s:a", "example.com/s")
    new = a_bundle("", "example.com:s:a", "example.com/s")
    assert complaints_of_update(old, old) == []
    assert "at least one trust anchor" in complaints_of_update(new, old)[0]


# ---- certificates of Pods


def a_pod_request(**fields: Any) -> certificates.PodCertificateRequest:
    stub = x509.CertificateSigningRequestBuilder().subject_name(NAME).sign(key(), hashes.SHA256())
    values: dict[str, Any] = {
        "signer_name": "example.com/s",
        "pod_name": "p",
        "pod_uid": "u",
        "service_account_name": "sa",
        "service_account_uid": "su",
        "node_name": "n",
        "node_uid": "nu",
        "max_expiration_seconds": 86400,
        "stub_pkcs10_request": stub.public_bytes(serialization.Encoding.DER),
    }
    spec = certificates.PodCertificateRequestSpec(**(values | fields))
    return certificates.PodCertificateRequest(metadata=named("r", "ns"), spec=spec)


def answered(kind: str, **status: Any) -> certificates.PodCertificateRequest:
    request = a_pod_request()
    at = times.format_time(BEGAN.timestamp())
    condition = meta.Condition(type=kind, status="True", reason="R", message="m", last_transition_time=at)
    request.status = certificates.PodCertificateRequestStatus(conditions=[condition], **status)
    return request


def issued(**status: Any) -> certificates.PodCertificateRequest:
    def at(hours: float) -> Any:
        return times.format_time((BEGAN + timedelta(hours=hours)).timestamp())

    values = {
        "certificate_chain": a_certificate(),
        "not_before": at(0),
        "begin_refresh_at": at(12),
        "not_after": at(24),
    }
    return answered("Issued", **(values | status))


def test_a_pods_key_is_proven_one_way_or_the_other() -> None:
    public = key().public_key()
    encoded = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    proof = key().sign(b"u", ec.ECDSA(hashes.SHA256()))
    assert complaints(a_pod_request()) == []
    by_proof = {"stub_pkcs10_request": b"", "pkix_public_key": encoded, "proof_of_possession": proof}
    assert complaints(a_pod_request(**by_proof)) == []
    wrong = a_pod_request(**(by_proof | {"pod_uid": "other"}))
    assert complaints(wrong) == [
        "spec.proofOfPossession: Invalid value: could not verify proof-of-possession signature"
    ]
    assert "exactly one of (stubPKCS10Request)" in complaints(a_pod_request(stub_pkcs10_request=b""))[0]
    assert "must be a valid PKCS#10 CSR" in complaints(a_pod_request(stub_pkcs10_request=b"x"))[0]


def test_how_long_a_pods_certificate_lasts_is_bounded() -> None:
    short = a_pod_request(max_expiration_seconds=60)
    assert complaints(short) == ["spec.maxExpirationSeconds: Invalid value: 60: must be in the range [3600, 7862400]"]
    own = a_pod_request(signer_name="kubernetes.io/kube-apiserver-client-pod", max_expiration_seconds=90000)
    assert "must be in the range [3600, 86400]" in complaints(own)[0]


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (issued(), ""),
        (issued(certificate_chain=""), "must contain at least one certificate"),
        (issued(not_before=None), "status.notBefore: Required value"),
        (issued(not_after="2026-01-03T00:00:00Z"), "must be set to the NotAfter time encoded in the leaf"),
        (issued(begin_refresh_at="2026-01-01T00:01:00Z"), "at least 10 minutes after status.notBefore"),
        (answered("Denied"), ""),
        (answered("Denied", certificate_chain="x"), "non-condition status fields must be empty"),
        (answered("Approved"), 'Unsupported value: "Approved"'),
    ],
)
def test_a_signers_answer_fits_the_request(answer: certificates.PodCertificateRequest, complaint: str) -> None:
    found = complaints_of_update(answer, a_pod_request(), "status")

    assert complaint in found[0] if complaint else not found


def test_an_answer_is_final() -> None:
    assert (
        "immutable after PodCertificateRequest is issued"
        in complaints_of_update(answered("Failed"), issued(), "status")[0]
    )


# ---- workloads


def basic() -> scheduling.PodGroupSchedulingPolicy:
    return scheduling.PodGroupSchedulingPolicy(basic=scheduling.BasicSchedulingPolicy())


def a_workload(*templates: scheduling.PodGroupTemplate) -> scheduling.Workload:
    spec = scheduling.WorkloadSpec(pod_group_templates=list(templates))
    return scheduling.Workload(metadata=named("w", "ns"), spec=spec)


def test_a_workload_has_templates_with_one_policy_each() -> None:
    template = scheduling.PodGroupTemplate(name="t", scheduling_policy=basic())
    assert complaints(a_workload(template)) == []
    assert complaints(a_workload()) == ["spec.podGroupTemplates: Required value"]
    assert complaints(a_workload(scheduling.PodGroupTemplate(name="t"))) == [
        'spec.podGroupTemplates[0].schedulingPolicy: Invalid value: "": must specify one of: `basic`, `gang`'
    ]
    twice = complaints(a_workload(template, template))
    assert twice[0].startswith('spec.podGroupTemplates[1]: Duplicate value: {"name":"t","schedulingPolicy":')
    gang = scheduling.PodGroupSchedulingPolicy(gang=scheduling.GangSchedulingPolicy())
    empty = a_workload(scheduling.PodGroupTemplate(name="t", scheduling_policy=gang))
    assert complaints(empty) == ["spec.podGroupTemplates[0].schedulingPolicy.gang.minCount: Required value"]


def test_what_a_group_is_made_of_does_not_change() -> None:
    old = scheduling.PodGroup(metadata=named("g", "ns"), spec=scheduling.PodGroupSpec(scheduling_policy=basic()))
    new = wire.copy(old)
    new.spec.disruption_mode = "PodGroup"

    assert complaints(old) == []
    assert complaints_of_update(new, old) == ["spec.disruptionMode: Invalid value: null: field is immutable"]


def test_a_groups_status_speaks_of_its_own_claims() -> None:
    old = scheduling.PodGroup(metadata=named("g", "ns"))
    new = wire.copy(old)
    new.status.resource_claim_statuses = [scheduling.PodGroupResourceClaimStatus(name="x")]

    assert "must match the name of an entry in `spec.resourceClaims`" in complaints_of_update(new, old, "status")[0]


# ---- storage versions, taints, pools


def test_servers_agree_on_a_storage_version_or_there_is_none() -> None:
    def server(name: str, version: str) -> internal.ServerStorageVersion:
        return internal.ServerStorageVersion(
            api_server_id=name, encoding_version=version, decodable_versions=["apps/v1", "apps/v2"]
        )

    old = internal.StorageVersion(metadata=named("apps.deployments"))
    new = wire.copy(old)
    new.status.storage_versions = [server("a", "apps/v1"), server("b", "apps/v2")]
    assert complaints_of_update(new, old, "status") == []
    new.status.common_encoding_version = "apps/v1"
    assert "should be nil if servers do not agree" in complaints_of_update(new, old, "status")[0]
    new.status.storage_versions = [server("a", "apps/v3")]
    assert "decodableVersions must include encodingVersion apps/v3" in complaints_of_update(new, old, "status")[0]
    assert "name must be in the form of <group>.<resource>" in complaints(internal.StorageVersion(metadata=named()))[0]


def test_a_taint_rule_says_since_when_its_effect_holds() -> None:
    rule = v1beta2.DeviceTaintRule(metadata=named())
    rule.spec.taint = v1beta2.DeviceTaint(key="k", effect="NoSchedule")
    strategy = strategy_for(scheme.resource_of(v1beta2.DeviceTaintRule))
    strategy.default(rule)
    assert complaints(rule) == []
    rule.spec.taint.time_added = "2020-01-01T00:00:00Z"
    changed = wire.copy(rule)
    changed.spec.taint.effect = "NoExecute"

    strategy.prepare_for_update(changed, rule)

    assert changed.spec.taint.time_added != "2020-01-01T00:00:00Z"
    rule.spec.taint.effect = "Nothing"
    assert "spec.taint.effect: Unsupported value" in complaints(rule)[0]


def test_a_question_about_pools_is_asked_once() -> None:
    request = v1alpha3.ResourcePoolStatusRequest(metadata=named())
    assert complaints(request) == ["spec.driver: Required value"]
    request.spec.driver = "d.example"
    request.spec.pool_name = "a//b"
    assert complaints(request) == ['spec.poolName: Invalid value: "a//b": segment 1: must not be empty']
    answer = wire.copy(request)
    answer.status = v1alpha3.ResourcePoolStatusRequestStatus(pool_count=1)
    other = wire.copy(request)
    other.status = v1alpha3.ResourcePoolStatusRequestStatus(pool_count=2)
    assert complaints_of_update(answer, request, "status") == []
    assert "field is immutable" in complaints_of_update(other, answer, "status")[0]

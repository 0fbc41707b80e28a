"""Rows of the group certificates.k8s.io."""

from __future__ import annotations

from typing import Any

from haven.api.certificates import v1 as certificates_v1
from haven.api.certificates import v1beta1 as certificates_v1beta1
from haven.apiserver.printers.format import NONE, age, human_duration, labels

__all__ = ["ROWS"]

_REQUEST_STATES = ("Issued", "Denied", "Failed")


def _signing_request(item: certificates_v1.CertificateSigningRequest, now: float) -> list[Any]:
    seconds = item.spec.expiration_seconds
    return [
        item.metadata.name,
        age(item.metadata.creation_timestamp, now),
        item.spec.signer_name or NONE,
        item.spec.username,
        NONE if seconds is None else human_duration(seconds),
        _condition(item.status),
    ]


def _condition(status: certificates_v1.CertificateSigningRequestStatus) -> str:
    found = {condition.type for condition in status.conditions}
    text = "Denied" if "Denied" in found else "Approved" if "Approved" in found else "Pending"
    if "Failed" in found:
        text += ",Failed"
    return text + ",Issued" if status.certificate else text


def _trust_bundle(item: certificates_v1beta1.ClusterTrustBundle, _now: float) -> list[Any]:
    return [item.metadata.name, item.spec.signer_name or NONE]


def _pod_request(item: certificates_v1beta1.PodCertificateRequest, _now: float) -> list[Any]:
    spec = item.spec
    states = [condition.type for condition in item.status.conditions if condition.type in _REQUEST_STATES]
    return [
        item.metadata.name,
        spec.pod_name,
        spec.service_account_name,
        spec.node_name,
        spec.signer_name,
        states[-1] if states else "Pending",
        labels(spec.unverified_user_annotations),
    ]


ROWS = {
    "CertificateSigningRequest": _signing_request,
    "ClusterTrustBundle": _trust_bundle,
    "PodCertificateRequest": _pod_request,
}

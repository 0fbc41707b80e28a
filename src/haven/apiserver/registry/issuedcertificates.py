"""Counts certificates that were issued and had been asked for with a duration, and whether they have it."""

from __future__ import annotations

from cryptography import x509

from haven.api.certificates import v1 as certificates
from haven.apimachinery.apierrors import GroupResource
from haven.apiserver.registry.storage import Storage
from haven.apiserver.watchcache import DELETED, Watched
from haven.metrics.families import Registry

__all__ = ["IssuedCertificates"]

_REQUESTS = GroupResource("certificates.k8s.io", "certificatesigningrequests")
_PREFIX = "apiserver_certificates_registry_csr_"
_LEEWAY_SECONDS = 5 * 60.0
"""Short-lived certificates begin a little earlier."""


class IssuedCertificates:
    """Follows what is stored; only signers of Kubernetes itself are told apart."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def follow(self, storage: Storage, event: Watched) -> None:
        """Take note of a change."""
        if storage.resource.group_resource != _REQUESTS or event.previous is None or event.type == DELETED:
            return
        before: certificates.CertificateSigningRequest = event.previous.glimpse
        after: certificates.CertificateSigningRequest = event.entry.glimpse
        wanted = before.spec.expiration_seconds
        if before.status.certificate or not after.status.certificate or wanted is None:
            return
        signer = before.spec.signer_name if before.spec.signer_name.startswith("kubernetes.io/") else "other"
        self._registry[_PREFIX + "requested_duration_total"].child(signer).value += 1
        if is_honored(bytes(after.status.certificate), float(wanted)):
            self._registry[_PREFIX + "honored_duration_total"].child(signer).value += 1


def is_honored(pem: bytes, wanted_seconds: float) -> bool:
    """Tell whether the first certificate lasts about as long as was wanted."""
    try:
        issued = x509.load_pem_x509_certificates(pem)[0]
    except (ValueError, IndexError):
        return False
    lasts = (issued.not_valid_after_utc - issued.not_valid_before_utc).total_seconds()
    return abs(wanted_seconds - lasts) < _LEEWAY_SECONDS + wanted_seconds / 20

"""Publish the authority of API servers as a ClusterTrustBundle; remove certificate requests of Pods that are old.

Source: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#cluster-trust-bundles
"""

from __future__ import annotations

import hashlib

from haven.api.certificates import v1beta1 as certificates
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, meta, serialization, times
from haven.controllers.actions import Create, Delete, Requeue, Steps, Update, Wiring

__all__ = ["PodCertificateRequestCleaner", "ServingTrustBundlePublisher", "bundle_name"]

SIGNER = "kubernetes.io/kube-apiserver-serving"
REQUEST_SECONDS_MAX = 15 * 60.0
CLEAN_SECONDS = 5 * 60.0
_BUNDLES = resource_of(certificates.ClusterTrustBundle)
_REQUESTS = resource_of(certificates.PodCertificateRequest)


def bundle_name(signer: str, pem: str) -> str:
    """Return what a bundle with this content is called: new content has a new name."""
    digest = hashlib.sha256(pem.encode()).digest()[:12].hex()
    return f"{signer.replace('/', ':')}:{digest}"


class ServingTrustBundlePublisher:
    """One key. The signer's bundles are all this controller's: others of them are deleted."""

    workers = 1

    def __init__(self, wiring: Wiring, *, root_ca_pem: str) -> None:
        self._wiring = wiring
        self._pem = root_ca_pem
        self._name = bundle_name(SIGNER, root_ca_pem)
        self._bundles = wiring.reader(certificates.ClusterTrustBundle, field_selector=f"spec.signerName={SIGNER}")
        self._bundles.add_handler(self._changed)
        wiring.enqueue("")

    def _changed(
        self, _old: certificates.ClusterTrustBundle | None, _new: certificates.ClusterTrustBundle | None
    ) -> None:
        self._wiring.enqueue("")

    def sync(self, key: str) -> Steps[None]:
        own = self._bundles.get("", self._name)
        if own is None:
            spec = certificates.ClusterTrustBundleSpec(signer_name=SIGNER, trust_bundle=self._pem)
            yield Create(certificates.ClusterTrustBundle(metadata=meta.ObjectMeta(name=self._name), spec=spec))
        elif own.spec.trust_bundle != self._pem:
            changed = serialization.copy(own)
            changed.spec.trust_bundle = self._pem
            yield Update(changed)
        for bundle in self._bundles.list():
            if bundle.metadata.name != self._name and bundle.spec.signer_name == SIGNER:
                yield Delete(_BUNDLES, "", bundle.metadata.name)


class PodCertificateRequestCleaner:
    """Deletes requests that are older than any way of them should take. One key, worked on every five minutes."""

    workers = 1

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._requests = wiring.reader(certificates.PodCertificateRequest)
        wiring.enqueue("")

    def sync(self, key: str) -> Steps[None]:
        yield Requeue(CLEAN_SECONDS)
        now = self._wiring.now_seconds()
        for request in self._requests.list():
            metadata = request.metadata
            made = metadata.creation_timestamp
            if made is None or now < times.parse(made) + REQUEST_SECONDS_MAX:
                continue
            try:
                yield Delete(_REQUESTS, metadata.namespace, metadata.name, uid=metadata.uid)
            except apierrors.ApiError:
                continue  # The next round is near; one that resists must not hold up the others.

"""What is wrong with a projected volume.

Source: https://kubernetes.io/docs/concepts/storage/projected-volumes/ and the behaviour of
pkg/apis/core/validation.
"""

from __future__ import annotations

from haven.api.core import v1
from haven.api.core.validation.paths import validate_local_unreserved_path
from haven.api.core.validation.signers import (
    cluster_trust_bundle_name_errors,
    is_kubernetes_signer,
    signer_of_bundle,
    validate_signer_name,
)
from haven.api.core.validation.volumefiles import validate_downward_file, validate_file_mode, validate_key_to_path
from haven.api.internalform import internal_form
from haven.apimachinery.fielderrors import ErrorList, Path, forbidden, invalid, not_supported, required
from haven.apimachinery.validation.labels import validate_label_selector
from haven.apimachinery.validation.names import validate_domain_prefixed_key
from haven.apimachinery.validation.objectmeta import validate_annotations_size

__all__ = ["validate_projected"]

_KEY_TYPES = ("RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519")
_CONFLICT = "conflicting duplicate paths"
_WEEK_SECONDS_13 = 91 * 86400
_DAY_SECONDS = 86400


def validate_projected(source: v1.ProjectedVolumeSource, path: Path) -> ErrorList:
    """Check a volume made of several sources; no two of them write one file."""
    errors = validate_file_mode(source.default_mode, path.child("defaultMode"))
    taken: set[str] = set()
    for index, item in enumerate(source.sources or ()):
        errors += _validate_source(item, path, path.child("sources").index(index), taken)
    return errors


def _take(name: str, shown: str, path: Path, taken: set[str]) -> ErrorList:
    if name in taken:
        return [invalid(path, shown, _CONFLICT)]
    taken.add(name)
    return []


def _validate_source(item: v1.VolumeProjection, path: Path, place: Path, taken: set[str]) -> ErrorList:
    errors: ErrorList = []
    sources = 0
    for name, keyed in (("secret", item.secret), ("configMap", item.config_map)):
        if keyed is None:
            continue
        sources += 1
        if not keyed.name:
            errors.append(required(place.child(name).child("name"), ""))
        for index, key in enumerate(keyed.items):
            errors += validate_key_to_path(key, place.child(name).child("items").index(index))
            if key.path:
                errors += _take(key.path, keyed.name, path, taken)
    if item.downward_api is not None:
        sources += 1
        for file in item.downward_api.items:
            errors += validate_downward_file(file, place.child("downwardAPI"))
            if file.path:
                errors += _take(file.path, file.path, path, taken)
    if item.service_account_token is not None:
        sources += 1
        errors += _token(item.service_account_token, path, place.child("serviceAccountToken"))
    if item.cluster_trust_bundle is not None:
        sources += 1
        bundle = item.cluster_trust_bundle
        errors += _trust_bundle(bundle, place.child("clusterTrustBundle"))
        errors += _take(bundle.path, bundle.path, path, taken)
    if item.pod_certificate is not None:
        sources += 1
        errors += _certificate(item.pod_certificate, path, place.child("podCertificate"), taken)
    if sources > 1:
        errors.append(forbidden(place, "may not specify more than 1 volume type per source"))
    return errors


def _token(token: v1.ServiceAccountTokenProjection, path: Path, place: Path) -> ErrorList:
    errors: ErrorList = []
    seconds = token.expiration_seconds or 0
    if seconds < 600:
        words = "may not specify a duration less than 10 minutes"
        errors.append(invalid(place.child("expirationSeconds"), seconds, words))
    if seconds > 1 << 32:
        words = "may not specify a duration larger than 2^32 seconds"
        errors.append(invalid(place.child("expirationSeconds"), seconds, words))
    if not token.path:
        errors.append(required(path.child("path"), ""))
    else:
        errors += validate_local_unreserved_path(token.path, path.child("path"))
    return errors


def _trust_bundle(bundle: v1.ClusterTrustBundleProjection, place: Path) -> ErrorList:
    errors: ErrorList = []
    if bundle.name is not None and bundle.signer_name is not None:
        errors.append(invalid(place, internal_form(bundle), "only one of name and signerName may be used"))
    elif bundle.name is not None:
        if not bundle.name:
            errors.append(required(place.child("name"), "must be a valid object name"))
        for text in cluster_trust_bundle_name_errors(bundle.name, signer_of_bundle(bundle.name)):
            words = f"not a valid clustertrustbundlename: {text}"
            errors.append(invalid(place.child("name"), bundle.name, words))
        if bundle.label_selector is not None:
            words = "labelSelector must be unset if name is specified"
            errors.append(invalid(place.child("labelSelector"), bundle.label_selector, words))
    elif bundle.signer_name is not None:
        if not bundle.signer_name:
            errors.append(required(place.child("signerName"), "must be a valid signer name"))
        errors += validate_signer_name(bundle.signer_name, place.child("signerName"))
        errors += validate_label_selector(bundle.label_selector, place.child("labelSelector"))
    else:
        errors.append(required(place, "either name or signerName must be specified"))
    if not bundle.path:
        errors.append(required(place.child("path"), ""))
    return errors + validate_local_unreserved_path(bundle.path, place.child("path"))


def _certificate(certificate: v1.PodCertificateProjection, path: Path, place: Path, taken: set[str]) -> ErrorList:
    errors = validate_signer_name(certificate.signer_name, place.child("signerName"))
    annotations = certificate.user_annotations
    for key in sorted(annotations):
        errors += validate_domain_prefixed_key(key.lower(), place.child("userAnnotations"))
    errors += validate_annotations_size(annotations, place.child("userAnnotations"))
    if certificate.key_type not in _KEY_TYPES:
        errors.append(not_supported(place.child("keyType"), certificate.key_type, _KEY_TYPES))
    seconds = certificate.max_expiration_seconds
    if seconds is not None:
        where = place.child("maxExpirationSeconds")
        if seconds < 3600:
            errors.append(invalid(where, seconds, "if provided, maxExpirationSeconds must be >= 3600"))
        most = _DAY_SECONDS if is_kubernetes_signer(certificate.signer_name) else _WEEK_SECONDS_13
        if seconds > most:
            errors.append(invalid(where, seconds, f"if provided, maxExpirationSeconds must be <= {most}"))
    paths = (
        ("credentialBundlePath", certificate.credential_bundle_path),
        ("keyPath", certificate.key_path),
        ("certificateChainPath", certificate.certificate_chain_path),
    )
    for name, target in paths:
        if target:
            errors += validate_local_unreserved_path(target, place.child(name))
            errors += _take(target, target, path, taken)
    if not any(target for _, target in paths):
        words = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath"
        errors.append(required(place, words))
    return errors

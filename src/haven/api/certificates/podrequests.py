"""PodCertificateRequests: what kubelets may ask for, and what signers may answer.

Who answers, and whether the answer is of this moment, is not known here: the API server looks at it behind this.
Source: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#pod-certificate-requests
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from haven.api.certificates import v1beta1
from haven.api.core.validation.metadata import validate_meta, validate_meta_update
from haven.api.core.validation.signers import is_kubernetes_signer, validate_signer_name
from haven.api.internalform import internal_form
from haven.api.kinds import keep_metadata
from haven.api.strategy import Strategy
from haven.apimachinery import times
from haven.apimachinery.fielderrors import OMIT, ErrorList, Path, invalid, not_supported, required, too_long
from haven.apimachinery.validation.labels import validate_conditions
from haven.apimachinery.validation.names import dns1123_subdomain_errors, qualified_name_errors
from haven.apimachinery.validation.objectmeta import IMMUTABLE

__all__ = ["POD_REQUESTS"]

UID_MAX, KEY_BYTES_MAX, CHAIN_BYTES_MAX = 128, 10 * 1024, 100 * 1024
EXPIRATION_MIN, EXPIRATION_MAX, OWN_EXPIRATION_MAX = 3600, 91 * 24 * 3600, 24 * 3600
REFRESH_SECONDS = 600.0
OUTCOMES = ("Denied", "Failed", "Issued")
_ORDER = ("Issued", "Denied", "Failed")
_SPEC, _STATUS = Path("spec"), Path("status")
_KEY, _PROOF, _STUB = _SPEC.child("pkixPublicKey"), _SPEC.child("proofOfPossession"), _SPEC.child("stubPKCS10Request")
_CHAIN = _STATUS.child("certificateChain")
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_UNKNOWN_KEY = "unknown public key type; supported types are Ed25519, ECDSA, and RSA"
Request = v1beta1.PodCertificateRequest


def _check(request: Request) -> ErrorList:
    spec = request.spec
    errors = validate_meta(request.metadata, namespaced=True)
    errors += validate_signer_name(spec.signer_name, _SPEC.child("signerName"))
    for annotation in sorted(spec.unverified_user_annotations):
        place = _SPEC.child("unverifiedUserAnnotations")
        key = annotation.lower()
        errors += [invalid(place, key, text) for text in _prefixed_key_errors(key)]
    for name, value, uid in (
        ("pod", spec.pod_name, spec.pod_uid),
        ("serviceAccount", spec.service_account_name, spec.service_account_uid),
        ("node", spec.node_name, spec.node_uid),
    ):
        place = _SPEC.child(f"{name}Name")
        errors += [invalid(place, value, text) for text in dns1123_subdomain_errors(value)]
        place = _SPEC.child(f"{name}UID")
        if not uid:
            errors.append(invalid(place, uid, "must not be empty"))
        if len(uid) > UID_MAX:
            errors.append(too_long(place, "", UID_MAX))
    place, seconds = _SPEC.child("maxExpirationSeconds"), spec.max_expiration_seconds
    if seconds is None:
        return [*errors, required(place, "must be set")]
    longest = OWN_EXPIRATION_MAX if is_kubernetes_signer(spec.signer_name) else EXPIRATION_MAX
    if not EXPIRATION_MIN <= seconds <= longest:
        errors.append(invalid(place, seconds, f"must be in the range [{EXPIRATION_MIN}, {longest}]"))
    given = (bool(spec.stub_pkcs10_request), bool(spec.pkix_public_key), bool(spec.proof_of_possession))
    if given == (True, False, False):
        return errors + _check_stub(spec.stub_pkcs10_request)
    if given == (False, True, True):
        return errors + _check_proof(spec)
    text = "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set"
    return [*errors, invalid(_SPEC, OMIT, text)]


def _prefixed_key_errors(key: str) -> list[str]:
    prefix, slash, _ = key.partition("/")
    if not slash or not prefix:
        return ['must be a domain-prefixed key (such as "acme.io/foo")']
    return list(qualified_name_errors(key))


def _check_stub(data: bytes) -> ErrorList:
    if len(data) > KEY_BYTES_MAX:
        return [too_long(_STUB, "", KEY_BYTES_MAX)]
    try:
        stub = x509.load_der_x509_csr(data)
        key = stub.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return [invalid(_STUB, OMIT, "must be a valid PKCS#10 CSR")]
    errors = _check_key(key, _STUB, OMIT, "elliptic public keys must use curve P256, P384, or P521")
    if not errors and not stub.is_signature_valid:
        errors = [invalid(_STUB, OMIT, "invalid signature")]
    return errors


def _check_key(key: Any, path: Path, shown: Any, curves: str) -> ErrorList:
    if isinstance(key, ed25519.Ed25519PublicKey):
        return []
    if isinstance(key, ec.EllipticCurvePublicKey):
        if isinstance(key.curve, _CURVES):
            return []
        return [invalid(path, f"curve P-{key.curve.key_size}", curves)]
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size in (3072, 4096):
            return []
        return [invalid(path, f"{key.key_size}-bit modulus", "RSA keys must have modulus size 3072 or 4096")]
    return [invalid(path, shown, _UNKNOWN_KEY)]


def _check_proof(spec: v1beta1.PodCertificateRequestSpec) -> ErrorList:
    for path, data in ((_KEY, spec.pkix_public_key), (_PROOF, spec.proof_of_possession)):
        if len(data) > KEY_BYTES_MAX:
            return [too_long(path, "", KEY_BYTES_MAX)]
    shown = internal_form(spec.pkix_public_key)
    try:
        key = serialization.load_der_public_key(spec.pkix_public_key)
    except (ValueError, UnsupportedAlgorithm):
        return [invalid(_KEY, shown, "must be a valid PKIX-serialized public key")]
    errors = _check_key(key, _KEY, shown, "elliptic public keys must use curve P256 or P384")
    if errors:
        return errors
    try:
        _verify(key, spec.pod_uid.encode(), spec.proof_of_possession)
    except InvalidSignature:
        return [invalid(_PROOF, OMIT, "could not verify proof-of-possession signature")]
    return []


def _verify(key: Any, message: bytes, signature: bytes) -> None:
    if isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, message)
        return
    digest, known = hashlib.sha256(message).digest(), utils.Prehashed(hashes.SHA256())
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, digest, padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO), known)
    else:
        key.verify(signature, digest, ec.ECDSA(known))


def _check_update(new: Request, old: Request) -> ErrorList:
    errors = validate_meta_update(new.metadata, old.metadata)
    if new.spec != old.spec:
        errors.append(invalid(_SPEC, internal_form(new.spec), IMMUTABLE))
    return errors


def _outcome(request: Request) -> str:
    return next((one.type for one in request.status.conditions if one.type in OUTCOMES), "")


def _check_status(new: Request, old: Request) -> ErrorList:
    errors = validate_meta_update(new.metadata, old.metadata)
    if errors:
        return errors
    path, known = _STATUS.child("conditions"), 0
    for index, condition in enumerate(new.status.conditions):
        place = _STATUS.child("conditions", f"[{index}]")
        if condition.type not in OUTCOMES:
            errors.append(not_supported(place.child("type"), condition.type, _ORDER))
            continue
        known += 1
        if known > 1:
            text = 'There may be at most one condition with type "Issued", "Denied", or "Failed"'
            errors.append(invalid(place.child("type"), condition.type, text))
        if condition.status != "True":
            errors.append(not_supported(place.child("status"), condition.status, ["True"]))
    errors += validate_conditions(new.status.conditions, path)
    if errors:
        return errors
    if _outcome(old):
        return _same(new.status, old.status, "immutable after PodCertificateRequest is issued, denied, or failed")
    outcome = _outcome(new)
    if outcome in ("Denied", "Failed"):
        bare = v1beta1.PodCertificateRequestStatus(conditions=new.status.conditions)
        text = "non-condition status fields must be empty when denying or failing the PodCertificateRequest"
        return _same(new.status, bare, text)
    if outcome == "Issued":
        return _check_issued(new, old)
    text = 'status is immutable unless transitioning to "Issued", "Denied", or "Failed"'
    return _same(new.status, old.status, text)


def _same(new: Any, old: Any, text: str) -> ErrorList:
    return [] if new == old else [invalid(_STATUS, OMIT, text)]


def _check_issued(new: Request, old: Request) -> ErrorList:
    status = new.status
    chain = status.certificate_chain
    if len(chain.encode()) > CHAIN_BYTES_MAX:
        return [too_long(_CHAIN, "", CHAIN_BYTES_MAX)]
    if "-----BEGIN " not in chain:
        return [invalid(_CHAIN, chain, "issued certificate chain must contain at least one certificate")]
    if chain.count("-----BEGIN ") != chain.count("-----BEGIN CERTIFICATE-----"):
        return [invalid(_CHAIN, chain, "issued certificate chain must consist entirely of CERTIFICATE PEM blocks")]
    blocks = [f"-----BEGIN CERTIFICATE-----{part}" for part in chain.split("-----BEGIN CERTIFICATE-----")[1:]]
    try:
        leaf = x509.load_pem_x509_certificate(blocks[0].encode())
    except ValueError:
        return [invalid(_CHAIN, chain, "leaf certificate does not parse as valid X.509")]
    if _encoded(leaf.public_key()) != _encoded(_requested_key(old)):
        return [invalid(_CHAIN, chain, "leaf certificate was not issued to the requested public key")]
    errors: ErrorList = []
    texts = {
        "notBefore": "must be present and consistent with the issued certificate",
        "notAfter": "must be present and consistent with the issued certificate",
        "beginRefreshAt": "must be present and in the range [notbefore+10min, notafter-10min]",
    }
    found = {
        "notBefore": status.not_before,
        "notAfter": status.not_after,
        "beginRefreshAt": status.begin_refresh_at,
    }
    errors += [required(_STATUS.child(name), text) for name, text in texts.items() if found[name] is None]
    if errors:
        return errors
    seconds = {name: times.parse(value) for name, value in found.items() if value is not None}
    first, last, refresh = seconds["notBefore"], seconds["notAfter"], seconds["beginRefreshAt"]
    start, end = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    lifetime, longest = end - start, new.spec.max_expiration_seconds or 0
    rules: tuple[tuple[bool, str, Any, str], ...] = (
        (first != start, "notBefore", first, "must be set to the NotBefore time encoded in the leaf certificate"),
        (last != end, "notAfter", last, "must be set to the NotAfter time encoded in the leaf certificate"),
        (lifetime < EXPIRATION_MIN, "certificateChain", None, "leaf certificate lifetime must be >= 1 hour"),
        (
            lifetime > longest,
            "certificateChain",
            None,
            f"leaf certificate lifetime must be <= spec.maxExpirationSeconds ({longest})",
        ),
        (
            refresh < first + REFRESH_SECONDS,
            "beginRefreshAt",
            refresh,
            "must be at least 10 minutes after status.notBefore",
        ),
        (
            refresh > last - REFRESH_SECONDS,
            "beginRefreshAt",
            refresh,
            "must be at least 10 minutes before status.notAfter",
        ),
    )
    for is_wrong, name, value, text in rules:
        if is_wrong:
            shown = _duration(lifetime) if value is None else _instant(value)
            return [invalid(_STATUS.child(name), shown, text)]
    for block in blocks[1:]:
        try:
            x509.load_pem_x509_certificate(block.encode())
        except ValueError:
            return [invalid(_CHAIN, chain, "intermediate certificate does not parse as valid X.509")]
    return []


def _encoded(key: Any) -> bytes:
    data: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return data


def _requested_key(request: Request) -> Any:
    if request.spec.stub_pkcs10_request:
        return x509.load_der_x509_csr(request.spec.stub_pkcs10_request).public_key()
    return serialization.load_der_public_key(request.spec.pkix_public_key)


def _instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _default(request: Request) -> None:
    if request.spec.max_expiration_seconds is None:
        request.spec.max_expiration_seconds = OWN_EXPIRATION_MAX


def _create(new: Request) -> None:
    new.status = v1beta1.PodCertificateRequestStatus()


def _update(new: Request, old: Request) -> None:
    new.status = old.status


def _update_status(new: Request, old: Request) -> None:
    new.spec = old.spec
    keep_metadata(new, old)


_FIELDS: dict[str, Callable[[Any], str]] = {
    "spec.signerName": lambda request: request.spec.signer_name,
    "spec.podName": lambda request: request.spec.pod_name,
    "spec.nodeName": lambda request: request.spec.node_name,
}
POD_REQUESTS: Strategy[Any] = Strategy(
    default=_default,
    prepare_for_create=_create,
    validate=_check,
    prepare_for_update=_update,
    validate_update=_check_update,
    name_errors=lambda name: list(dns1123_subdomain_errors(name)),
    allow_unconditional_update=False,
    selectable_fields=_FIELDS,
    subresources={
        "status": Strategy(default=_default, prepare_for_update=_update_status, validate_update=_check_status)
    },
)

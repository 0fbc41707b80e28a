"""ClusterTrustBundles and PodCertificateRequests (v1beta1): what is wrong with them, how they are written.

Source: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#cluster-trust-bundles
"""

from __future__ import annotations

import re
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from haven.api.certificates import v1beta1
from haven.api.certificates.podrequests import POD_REQUESTS
from haven.api.core.validation.metadata import validate_meta, validate_meta_update
from haven.api.core.validation.signers import cluster_trust_bundle_name_errors, validate_signer_name
from haven.api.strategy import Strategy
from haven.apimachinery.fielderrors import ErrorList, Path, invalid, too_long
from haven.apimachinery.validation.objectmeta import validate_immutable

__all__ = ["STRATEGIES", "validate_trust_anchors"]

BUNDLE_BYTES_MAX = 1024 * 1024
_SPEC = Path("spec")
_OMITTED = "<value omitted>"
_BLOCK = re.compile(rb"^-----BEGIN ([^\n]*?)-----\s*\n(.*?)^-----END \1-----\s*?$", re.MULTILINE | re.DOTALL)


def validate_trust_anchors(text: str, path: Path) -> ErrorList:
    """Check certificates of authorities in PEM: each once, at least one."""
    if len(text.encode()) > BUNDLE_BYTES_MAX:
        return [too_long(path, "", BUNDLE_BYTES_MAX)]
    errors: ErrorList = []
    seen: dict[bytes, list[int]] = {}
    for index, match in enumerate(_BLOCK.finditer(text.encode())):
        kind = match[1].decode(errors="replace")
        if kind != "CERTIFICATE":
            errors.append(invalid(path, _OMITTED, f"entry {index} has bad block type: {kind}"))
            continue
        if b":" in match[2]:
            errors.append(invalid(path, _OMITTED, f"entry {index} has PEM block headers"))
            continue
        try:
            certificate = x509.load_pem_x509_certificate(match[0].rstrip() + b"\n")
        except ValueError:
            errors.append(invalid(path, _OMITTED, f"entry {index} does not parse as X.509"))
            continue
        if not _is_authority(certificate):
            errors.append(invalid(path, _OMITTED, f"entry {index} does not have the CA bit set"))
            continue
        seen.setdefault(certificate.public_bytes(Encoding.DER), []).append(index)
    if errors:
        return errors
    if not seen:
        return [invalid(path, _OMITTED, "at least one trust anchor must be provided")]
    return [
        invalid(path, _OMITTED, f"duplicate trust anchor (indices [{' '.join(map(str, places))}])")
        for places in seen.values()
        if len(places) > 1
    ]


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _check(bundle: v1beta1.ClusterTrustBundle, *, is_parsed: bool = True) -> ErrorList:
    signer = bundle.spec.signer_name

    def name_rule(name: str, prefix: bool = False) -> tuple[str, ...]:
        return cluster_trust_bundle_name_errors(name, signer, prefix)

    errors = validate_meta(bundle.metadata, namespaced=False, name_rule=name_rule)
    if signer:
        errors += validate_signer_name(signer, _SPEC.child("signerName"))
    if is_parsed:
        errors += validate_trust_anchors(bundle.spec.trust_bundle, _SPEC.child("trustBundle"))
    return errors


def _check_update(new: v1beta1.ClusterTrustBundle, old: v1beta1.ClusterTrustBundle) -> ErrorList:
    errors = _check(new, is_parsed=new.spec.trust_bundle != old.spec.trust_bundle)
    errors += validate_meta_update(new.metadata, old.metadata)
    return errors + validate_immutable(new.spec.signer_name, old.spec.signer_name, _SPEC.child("signerName"))


STRATEGIES: dict[str, Strategy[Any]] = {
    "clustertrustbundles": Strategy(
        validate=_check,
        validate_update=_check_update,
        name_errors=lambda name: [],
        allow_unconditional_update=False,
        selectable_fields={"spec.signerName": lambda bundle: bundle.spec.signer_name},
    ),
    "podcertificaterequests": POD_REQUESTS,
}

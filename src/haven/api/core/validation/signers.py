"""What is wrong with the name of a certificate signer, or of a ClusterTrustBundle.

Source: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/ and the behaviour of
pkg/apis/core/validation (names).
"""

from __future__ import annotations

from haven.apimachinery.fielderrors import ErrorList, Path, invalid, required, too_long
from haven.apimachinery.goformat import quote
from haven.apimachinery.validation.names import (
    byte_length,
    dns1123_label_errors,
    dns1123_subdomain_errors,
    dns_subdomain_name,
)

__all__ = ["cluster_trust_bundle_name_errors", "is_kubernetes_signer", "signer_of_bundle", "validate_signer_name"]

_DOMAIN_MAX = 253
_SIGNER_MAX = 253 + (253 + 63 + 1) + 1


def validate_signer_name(name: str, path: Path) -> ErrorList:
    """Check a name of the form example.com/signer-name."""
    if not name:
        return [required(path, "")]
    parts = name.split("/")
    if len(parts) != 2:
        words = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        return [invalid(path, name, words)]
    domain, rest = parts
    errors: ErrorList = []
    if byte_length(domain) > _DOMAIN_MAX:
        errors.append(too_long(path, "", _DOMAIN_MAX))
    labels = domain.split(".")
    for label in labels:
        if found := dns1123_label_errors(label):
            errors += [invalid(path, domain, f"validating label {quote(label)}: {text}") for text in found]
            break
    if len(labels) < 2:
        errors.append(invalid(path, domain, "should be a domain with at least two segments separated by dots"))
    for label in rest.split("."):
        if found := dns1123_subdomain_errors(label):
            errors += [invalid(path, rest, f"validating label {quote(label)}: {text}") for text in found]
            break
    if byte_length(name) > _SIGNER_MAX:
        errors.append(too_long(path, "", _SIGNER_MAX))
    return errors


def is_kubernetes_signer(name: str) -> bool:
    """Tell signers of Kubernetes itself."""
    host = name.partition("/")[0]
    return host == "kubernetes.io" or host.endswith(".kubernetes.io")


def signer_of_bundle(name: str) -> str:
    """Return the signer that a ClusterTrustBundle's name speaks of, "" for none."""
    signer, colon, _ = name.rpartition(":")
    return signer.replace(":", "/") if colon else ""


def cluster_trust_bundle_name_errors(name: str, signer: str, prefix: bool = False) -> tuple[str, ...]:
    """A bundle of a signer is named signer.domain:signer-path:name; others have no colon."""
    if not signer:
        if ":" in name:
            return ('ClusterTrustBundle without signer name must not have ":" in its name',)
        return dns_subdomain_name(name, prefix)
    needed = signer.replace("/", ":") + ":"
    if not name.startswith(needed):
        return (f"ClusterTrustBundle for signerName {signer} must be named with prefix {needed}",)
    return dns_subdomain_name(name.removeprefix(needed), prefix)

"""CertificateSigningRequests: what may be asked for, and which endpoint may change what.

Who asks, and when conditions changed, is not known here: the API server fills it in before.
Source: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from cryptography import x509

from haven.api.certificates import v1
from haven.api.certificates.signatures import signature_complaint
from haven.api.core.validation.metadata import validate_meta, validate_meta_update
from haven.api.givenempty import given
from haven.api.strategy import Strategy
from haven.apimachinery.fielderrors import (
    ErrorList,
    Path,
    duplicate,
    forbidden,
    invalid,
    not_supported,
    required,
    too_long,
)
from haven.apimachinery.goformat import quote
from haven.apimachinery.validation.names import dns1123_label_errors, dns1123_subdomain_errors

__all__ = ["STRATEGIES", "BadRequestPem", "parse_request", "signer_name_errors"]

EXPIRATION_SECONDS_MIN = 600
LEGACY_SIGNER = "kubernetes.io/legacy-unknown"
APPROVED, DENIED, FAILED = "Approved", "Denied", "Failed"
_DOMAIN_LENGTH_MAX, _LABEL_LENGTH_MAX = 253, 63
USAGES = (
    "any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment",
    "decipher only", "digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel",
    "ipsec user", "key agreement", "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime",
    "server auth", "signing", "timestamping",
)  # fmt: skip
_Request = v1.CertificateSigningRequest


class BadRequestPem(ValueError):
    """Not one sound certificate request in PEM."""


def parse_request(pem: bytes) -> x509.CertificateSigningRequest:
    """Return the certificate request in a PEM block; raise BadRequestPem."""
    if b"-----BEGIN CERTIFICATE REQUEST-----" not in pem:
        raise BadRequestPem("PEM block type must be CERTIFICATE REQUEST")
    try:
        request = x509.load_pem_x509_csr(pem)
    except ValueError as error:
        raise BadRequestPem(str(error)) from error
    return request


def signer_name_errors(path: Path, name: str) -> ErrorList:
    """Return what is wrong with the name of a signer: a domain, a slash and a path."""
    if not name:
        return [required(path, "")]
    domain, slash, rest = name.partition("/")
    if not slash or "/" in rest:
        text = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        return [invalid(path, name, text)]
    errors: ErrorList = []
    if len(domain) > _DOMAIN_LENGTH_MAX:
        errors.append(too_long(path, "", _DOMAIN_LENGTH_MAX))
    labels = domain.split(".")
    for label in labels:
        if found := dns1123_label_errors(label):
            errors += [invalid(path, domain, f"validating label {quote(label)}: {text}") for text in found]
            break  # One bad label is enough: the complaints would all look alike.
    if len(labels) < 2:
        errors.append(invalid(path, domain, "should be a domain with at least two segments separated by dots"))
    for label in rest.split("."):
        if found := dns1123_subdomain_errors(label):
            errors += [invalid(path, rest, f"validating label {quote(label)}: {text}") for text in found]
            break
    length_max = 2 * _DOMAIN_LENGTH_MAX + _LABEL_LENGTH_MAX + 2
    if len(name) > length_max:
        errors.append(too_long(path, "", length_max))
    return errors


def _any_name(_name: str, _prefix: bool = False) -> tuple[str, ...]:
    return ()


def _check(new: _Request, old: _Request | None) -> ErrorList:
    """Complain about a request; what the old one was let off with is not held against the new one."""
    path, spec = Path("spec"), new.spec
    errors = validate_meta(new.metadata, namespaced=False, name_rule=_any_name)
    try:
        if complaint := signature_complaint(parse_request(spec.request)):
            raise BadRequestPem(complaint)
    except BadRequestPem as error:
        shown = given(spec.request)
        shown = shown if shown is None else base64.b64encode(shown).decode()
        errors.append(invalid(path.child("request"), shown, str(error)))
    usages = path.child("usages")
    if not spec.usages:
        errors.append(required(usages, ""))
    if old is None or set(old.spec.usages) <= set(USAGES):
        errors += [
            not_supported(usages.index(index), usage, USAGES)
            for index, usage in enumerate(spec.usages)
            if usage not in USAGES
        ]
    if old is None or len(set(old.spec.usages)) == len(old.spec.usages):
        errors += [
            duplicate(usages.index(index), usage)
            for index, usage in enumerate(spec.usages)
            if usage in spec.usages[:index]
        ]
    signer = path.child("signerName")
    if spec.signer_name == LEGACY_SIGNER and (old is None or old.spec.signer_name != LEGACY_SIGNER):
        text = "the legacy signerName is not allowed via this API version"
        errors.append(invalid(signer, spec.signer_name, text))
    else:
        errors += signer_name_errors(signer, spec.signer_name)
    seconds = spec.expiration_seconds
    if seconds is not None and seconds < EXPIRATION_SECONDS_MIN:
        text = "may not specify a duration less than 600 seconds (10 minutes)"
        errors.append(invalid(path.child("expirationSeconds"), seconds, text))
    errors += _check_conditions(new.status.conditions, old.status.conditions if old is not None else [])
    certificate = new.status.certificate
    if old is None or (certificate != old.status.certificate and not _certificate_error(old.status.certificate)):
        wrong = _certificate_error(certificate)
        if wrong:
            errors.append(invalid(Path("status", "certificate"), "<certificate data>", wrong))
    return errors


def _check_conditions(
    new: Sequence[v1.CertificateSigningRequestCondition], old: Sequence[v1.CertificateSigningRequestCondition]
) -> ErrorList:
    path = Path("status", "conditions")
    old_types = [condition.type for condition in old]
    allows_both = {APPROVED, DENIED} <= set(old_types)
    allows_repeats = len(set(old_types)) < len(old_types)
    errors: ErrorList = []
    seen: set[str] = set()
    for index, condition in enumerate(new):
        at, kind = path.index(index), condition.type
        if not kind and "" not in old_types:
            errors.append(required(at.child("type"), ""))
        allowed = ("True",) if kind in (APPROVED, DENIED, FAILED) else ("False", "True", "Unknown")
        if not condition.status:
            errors.append(required(at.child("status"), ""))
        elif condition.status not in allowed:
            errors.append(not_supported(at.child("status"), condition.status, allowed))
        opposite = {APPROVED: DENIED, DENIED: APPROVED}.get(kind)
        if opposite in seen and not allows_both:
            errors.append(invalid(path, kind, "Approved and Denied conditions are mutually exclusive"))
        if kind in seen and not allows_repeats:
            errors.append(duplicate(at.child("type"), kind))
        seen.add(kind)
    return errors


def _certificate_error(pem: bytes) -> str:
    """Return what is wrong with issued certificates, "" if nothing."""
    if not pem:
        return ""
    for line in pem.splitlines():
        if line.startswith(b"-----BEGIN ") and line.rstrip() != b"-----BEGIN CERTIFICATE-----":
            kind = line.rstrip().removeprefix(b"-----BEGIN ").removesuffix(b"-----").decode(errors="replace")
            return f"only CERTIFICATE PEM blocks are allowed, found {quote(kind)}"
        if b": " in line:
            return "no PEM block headers are permitted"
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        return "must contain at least one CERTIFICATE PEM block"
    try:
        x509.load_pem_x509_certificates(pem)
    except ValueError:
        return "x509: malformed certificate"
    return ""


def _check_update(new: _Request, old: _Request, *, approves: bool = False, signs: bool = False) -> ErrorList:
    errors = _check(new, old)
    path = Path("status", "conditions")
    for kind in (APPROVED, DENIED, FAILED):
        before, after = _of_type(old, kind), _of_type(new, kind)
        if len(after) < len(before):
            errors.append(forbidden(path, f'updates may not remove a condition of type "{kind}"'))
    if not approves:
        for kind in (APPROVED, DENIED):
            before, after = _of_type(old, kind), _of_type(new, kind)
            if len(after) > len(before):
                errors.append(forbidden(path, f'updates may not add a condition of type "{kind}"'))
            elif len(after) == len(before) and after != before:
                errors.append(forbidden(path, f'updates may not modify a condition of type "{kind}"'))
    if new.status.certificate != old.status.certificate:
        place = Path("status", "certificate")
        if not signs:
            errors.append(forbidden(place, "updates may not set certificate content"))
        elif old.status.certificate:
            errors.append(forbidden(place, "updates may not modify existing certificate content"))
    return errors + validate_meta_update(new.metadata, old.metadata)


def _of_type(request: _Request, kind: str) -> list[v1.CertificateSigningRequestCondition]:
    return [condition for condition in request.status.conditions if condition.type == kind]


def _prepare_for_create(new: _Request) -> None:
    new.status = v1.CertificateSigningRequestStatus()


def _prepare_for_update(new: _Request, old: _Request) -> None:
    new.spec, new.status = old.spec, old.status


def _prepare_for_status(new: _Request, old: _Request) -> None:
    """Keep the spec; approvals cannot change here, so a client that lost their details does no harm."""
    new.spec = old.spec
    for kind in (APPROVED, DENIED):
        kept = _of_type(old, kind)
        places = [index for index, condition in enumerate(new.status.conditions) if condition.type == kind]
        if len(kept) == len(places):
            for index, condition in zip(places, kept, strict=True):
                new.status.conditions[index] = condition


def _prepare_for_approval(new: _Request, old: _Request) -> None:
    new.spec = old.spec
    new.status = v1.CertificateSigningRequestStatus(
        conditions=new.status.conditions, certificate=old.status.certificate
    )


STRATEGIES: dict[str, Strategy[_Request]] = {
    "certificatesigningrequests": Strategy(
        prepare_for_create=_prepare_for_create,
        validate=lambda new: _check(new, None),
        prepare_for_update=_prepare_for_update,
        validate_update=_check_update,
        name_errors=lambda _name: [],
        selectable_fields={"spec.signerName": lambda request: request.spec.signer_name},
        subresources={
            "status": Strategy[_Request](
                prepare_for_update=_prepare_for_status,
                validate_update=lambda new, old: _check_update(new, old, signs=True),
            ),
            "approval": Strategy[_Request](
                prepare_for_update=_prepare_for_approval,
                validate_update=lambda new, old: _check_update(new, old, approves=True),
            ),
        },
    )
}
"""Strategies by plural name."""

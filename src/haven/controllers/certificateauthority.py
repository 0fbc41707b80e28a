"""Signs certificate requests as upstream's controller does: subject and names as asked, everything else by rule.

Values in, values out: keys come as PEM, time is passed in. Source:
https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from haven.api.certificates.signatures import signature_complaint

__all__ = ["BadRequest", "CertificateAuthority", "lifetime_seconds"]

BACKDATE = timedelta(minutes=5)  # Clocks of others may be behind.
SHORT_SECONDS = 8 * 3600  # Lives shorter than this are not cut by the backdating.
LIFE_SECONDS_MIN = 600

_USAGES = {
    "signing": "digital_signature",
    "digital signature": "digital_signature",
    "content commitment": "content_commitment",
    "key encipherment": "key_encipherment",
    "key agreement": "key_agreement",
    "data encipherment": "data_encipherment",
    "cert sign": "key_cert_sign",
    "crl sign": "crl_sign",
    "encipher only": "encipher_only",
    "decipher only": "decipher_only",
}
_PURPOSES = {
    "any": "2.5.29.37.0",
    "server auth": "1.3.6.1.5.5.7.3.1",
    "client auth": "1.3.6.1.5.5.7.3.2",
    "code signing": "1.3.6.1.5.5.7.3.3",
    "email protection": "1.3.6.1.5.5.7.3.4",
    "s/mime": "1.3.6.1.5.5.7.3.4",
    "ipsec end system": "1.3.6.1.5.5.7.3.5",
    "ipsec tunnel": "1.3.6.1.5.5.7.3.6",
    "ipsec user": "1.3.6.1.5.5.7.3.7",
    "timestamping": "1.3.6.1.5.5.7.3.8",
    "ocsp signing": "1.3.6.1.5.5.7.3.9",
    "microsoft sgc": "1.3.6.1.4.1.311.10.3.3",
    "netscape sgc": "2.16.840.1.113730.4.1",
}


_SUBJECT_ATTRIBUTES = (
    NameOID.COUNTRY_NAME,
    NameOID.ORGANIZATION_NAME,
    NameOID.ORGANIZATIONAL_UNIT_NAME,
    NameOID.LOCALITY_NAME,
    NameOID.STATE_OR_PROVINCE_NAME,
    NameOID.STREET_ADDRESS,
    NameOID.POSTAL_CODE,
    NameOID.COMMON_NAME,
    NameOID.SERIAL_NUMBER,
)
_NAMES = (x509.DNSName, x509.RFC822Name, x509.IPAddress, x509.UniformResourceIdentifier)
"""The kinds of names that Go knows, as it orders them."""
_SINGLE = frozenset({NameOID.COMMON_NAME, NameOID.SERIAL_NUMBER})


class BadRequest(ValueError):
    """The request cannot be signed; says why."""


def lifetime_seconds(asked_seconds: int | None, life_seconds: int) -> int:
    """Return how long a certificate lives: as asked, but not longer than usual nor uselessly short."""
    if asked_seconds is None:
        return life_seconds
    return min(life_seconds, max(asked_seconds, LIFE_SECONDS_MIN))


class CertificateAuthority:
    """An authority's certificate and private key."""

    def __init__(self, certificate_pem: bytes, key_pem: bytes) -> None:
        self._certificate = x509.load_pem_x509_certificate(certificate_pem)
        key = serialization.load_pem_private_key(key_pem, password=None)
        if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
            raise ValueError("authorities sign with RSA, ECDSA or Ed25519 keys")
        self._key = key

    def sign(self, request_pem: bytes, usages: Sequence[str], life_seconds: int, now_seconds: float) -> bytes:
        """Return a certificate, PEM, for a request; raise BadRequest."""
        request = _parse(request_pem)
        start, end = self._life(life_seconds, now_seconds)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_subject(request.subject))
            .issuer_name(self._certificate.subject)
            .public_key(request.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
        )
        for extension, critical in (
            *_extensions(usages),
            (self._identifier(), False),
            *_names(request),
        ):
            builder = builder.add_extension(extension, critical=critical)
        algorithm = None if isinstance(self._key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
        return builder.sign(self._key, algorithm).public_bytes(serialization.Encoding.PEM)

    def _life(self, life_seconds: int, now_seconds: float) -> tuple[datetime, datetime]:
        now, limit = datetime.fromtimestamp(int(now_seconds), UTC), self._certificate.not_valid_after_utc
        start = now - BACKDATE
        end = now + timedelta(seconds=life_seconds)
        if life_seconds >= SHORT_SECONDS:
            end -= BACKDATE
        if now >= limit:
            raise BadRequest(f"refusing to sign a certificate that expired in the past: NotAfter={limit}")
        return start, min(end, limit)

    def _identifier(self) -> x509.AuthorityKeyIdentifier:
        try:
            own = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        except x509.ExtensionNotFound:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _parse(request_pem: bytes) -> x509.CertificateSigningRequest:
    try:
        request = x509.load_pem_x509_csr(request_pem)
        complaint = signature_complaint(request)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadRequest(str(error)) from error
    if complaint:
        raise BadRequest(complaint)
    return request


def _subject(name: x509.Name) -> x509.Name:
    """Return a subject as Go writes it: the attributes that it knows in its order, several of a kind together."""
    parts = []
    for oid in _SUBJECT_ATTRIBUTES:
        found = dict.fromkeys(name.get_attributes_for_oid(oid))
        if found:
            parts.append(x509.RelativeDistinguishedName(list(found)[-1:] if oid in _SINGLE else found))
    return x509.Name(parts)


def _extensions(usages: Sequence[str]) -> list[tuple[x509.ExtensionType, bool]]:
    """Return the extensions that usages make, and whether each is critical."""
    unknown = [usage for usage in usages if usage not in _USAGES and usage not in _PURPOSES]
    if unknown:
        raise BadRequest(f"unrecognized usage values: {unknown}")
    result: list[tuple[x509.ExtensionType, bool]] = []
    wanted = {_USAGES[usage] for usage in usages if usage in _USAGES}
    if wanted:
        result.append((x509.KeyUsage(**{name: name in wanted for name in dict.fromkeys(_USAGES.values())}), True))
    purposes = dict.fromkeys(_PURPOSES[usage] for usage in sorted(usages) if usage in _PURPOSES)
    if purposes:
        result.append((x509.ExtendedKeyUsage([x509.ObjectIdentifier(each) for each in purposes]), False))
    result.append((x509.BasicConstraints(ca=False, path_length=None), True))
    return result


def _names(request: x509.CertificateSigningRequest) -> list[tuple[x509.ExtensionType, bool]]:
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    kept = [name for kind in _NAMES for name in names if isinstance(name, kind)]
    return [(x509.SubjectAlternativeName(kept), not list(request.subject))] if kept else []

"""Keys and certificates as values: what is in them and who signs them. No files, no clock.

Keys are ECDSA P-256, except the key of service account tokens, which are signed with RS256 as upstream's are.
Source: https://kubernetes.io/docs/setup/best-practices/certificates/
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = [
    "Pair",
    "Subject",
    "client_pair",
    "names_of",
    "needs_renewal",
    "new_authority",
    "new_token_key",
    "serving_pair",
]

CLOCK_SKEW = timedelta(minutes=5)
"""Certificates start a little before they are made, as other machines' clocks may be behind."""
RENEWED_AT_REST = 1 / 3
"""A certificate is renewed when less than this part of its life is left."""
RSA_KEY_BITS = 2048


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes

    def loaded(self) -> x509.Certificate:
        """Return the certificate, parsed."""
        return x509.load_pem_x509_certificate(self.certificate)


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a client certificate names: a user and its groups."""

    name: str
    groups: tuple[str, ...] = ()

    @property
    def x509(self) -> x509.Name:
        return x509.Name(
            [
                *(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in self.groups),
                x509.NameAttribute(NameOID.COMMON_NAME, self.name),
            ]
        )


def new_authority(name: str, *, now: float, life: timedelta, key: bytes = b"") -> Pair:
    """Return a self-signed authority, with a key that exists (PEM) or a new one."""
    signing_key = _authority_key(key) if key else ec.generate_private_key(ec.SECP256R1())
    subject = Subject(name).x509
    public = signing_key.public_key()
    certificate = (
        _builder(subject, subject, public, now, life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(signing_key, hashes.SHA256())
    )
    return _pair(certificate, signing_key)


def client_pair(authority: Pair, subject: Subject, *, now: float, life: timedelta) -> Pair:
    """Return a certificate by which a client proves who it is."""
    return _issue(authority, subject, (), (ExtendedKeyUsageOID.CLIENT_AUTH,), now, life)


def serving_pair(
    authority: Pair, name: str, hosts: Iterable[str], *, now: float, life: timedelta, groups: tuple[str, ...] = ()
) -> Pair:
    """Return a certificate by which a server proves that it is one of `hosts` (names or addresses)."""
    return _issue(authority, Subject(name, groups), hosts, (ExtendedKeyUsageOID.SERVER_AUTH,), now, life)


def new_token_key() -> tuple[bytes, bytes]:
    """Return a private and a public key, PEM, for signing service account tokens."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_KEY_BITS)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return _key_pem(key), public


def needs_renewal(certificate: x509.Certificate, now: float) -> bool:
    """Tell whether so little of a certificate's life is left that a new one is due."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return datetime.fromtimestamp(now, UTC) > end - (end - start) * RENEWED_AT_REST


def names_of(certificate: x509.Certificate) -> frozenset[str]:
    """Return the hosts that a serving certificate is for."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    addresses = (str(address) for address in extension.get_values_for_type(x509.IPAddress))
    return frozenset([*extension.get_values_for_type(x509.DNSName), *addresses])


def _issue(
    authority: Pair,
    subject: Subject,
    hosts: Iterable[str],
    usages: Sequence[x509.ObjectIdentifier],
    now: float,
    life: timedelta,
) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.loaded()
    signing_key = _authority_key(authority.key)
    remaining = issuer.not_valid_after_utc - datetime.fromtimestamp(now, UTC)
    builder = (
        _builder(subject.x509, issuer.subject, key.public_key(), now, min(life, remaining))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(list(usages)), critical=False)
        .add_extension(_authority_identifier(issuer), critical=False)
    )
    names = [_general_name(host) for host in dict.fromkeys(hosts)]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _pair(builder.sign(signing_key, hashes.SHA256()), key)


def _authority_key(pem: bytes) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey), "authorities have such keys"
    return key


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
    now: float,
    life: timedelta,
) -> x509.CertificateBuilder:
    start = datetime.fromtimestamp(int(now), UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - CLOCK_SKEW)
        .not_valid_after(start + life)
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not sign_certificates,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        extension = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        public = issuer.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey | rsa.RSAPublicKey), "authorities have such keys"
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(public)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(extension.value)


def _general_name(host: str) -> x509.GeneralName:
    address: IPv4Address | IPv6Address
    try:
        address = ip_address(host)
    except ValueError:
        return x509.DNSName(host)
    return x509.IPAddress(address)


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> Pair:
    return Pair(certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key))


def _key_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )

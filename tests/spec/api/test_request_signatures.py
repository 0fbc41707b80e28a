"""Certificate requests: which signatures count, and what is said of others."""

from __future__ import annotations

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from haven.api.certificates.signatures import signature_complaint

# Signed over SHA-1, which nothing here can do any more: openssl req -new -newkey rsa:1024 -sha1 -subj /CN=old -nodes
OVER_SHA1 = """\
MIIBTTCBtwIBADAOMQwwCgYDVQQDDANvbGQwgZ8wDQYJKoZIhvcNAQEBBQADgY0AMIGJAoGBANy+
c7a63nNzgE+13i8GCT7PLb6GU1o11VCT2AkXiQZWIuA8Y0ZibXREi/KsZiiDmRy2JUj8TFMrgwC3
GHgDcAPAwbKBCl0kp1sx3imPpvqrBKt/oRMeXh0kYfCyUlrccFPSUWSEz2HR+t5Xuk4Tq3Ylp9Fk
9ADPaBahTVs35LCZAgMBAAGgADANBgkqhkiG9w0BAQUFAAOBgQCmsme1HojLkxuCITOce9Bcm6lv
86pu4ZA9poqYYaHE4RziKRHVTneYzuAfpTd1MfWuMWKMfBgbpm8QQwv+/KaHjMpeltXpVXUE4MaA
oTxmM1eGp91B9PE3+Z+WSMR0UXjyoD5jX7LoSpL+/MESmaJMe3ewQETclBQ4/Kjjo3f6rg==
"""
SUBJECT = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "someone")])


def load(der: bytes) -> x509.CertificateSigningRequest:
    return x509.load_der_x509_csr(der)


def spoiled(der: bytes) -> bytes:
    return der[:-1] + bytes([der[-1] ^ 1])


def signed(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    request = x509.CertificateSigningRequestBuilder().subject_name(SUBJECT).sign(key, digest)
    return request.public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize(
    ("key", "complaint"),
    [
        (rsa.generate_private_key(65537, 2048), "crypto/rsa: verification error"),
        (ec.generate_private_key(ec.SECP256R1()), "x509: ECDSA verification failure"),
        (ed25519.Ed25519PrivateKey.generate(), "x509: Ed25519 verification failure"),
    ],
)
def test_a_request_is_signed_with_its_own_key(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, complaint: str
) -> None:
    der = signed(key)

    assert signature_complaint(load(der)) == ""
    assert signature_complaint(load(spoiled(der))) == complaint


def test_a_request_may_be_signed_over_sha1() -> None:
    der = base64.b64decode(OVER_SHA1)

    assert signature_complaint(load(der)) == ""
    assert signature_complaint(load(spoiled(der))) == "crypto/rsa: verification error"

"""A certificate and a key that make no pair are told apart from those that do, in Go's words."""

from __future__ import annotations

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from haven.api.core.tlspair import key_pair_complaint

NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "example.com")])
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def a_pair() -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(START)
        .not_valid_after(START + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    return certificate.public_bytes(Encoding.PEM), pem


CERTIFICATE, KEY = a_pair()
OTHER_KEY = a_pair()[1]
EDWARDS = ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
NONSENSE = b"-----BEGIN %s-----\nAAAA\n-----END %s-----\n"


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        (CERTIFICATE, KEY, ""),
        (b"x", b"y", "tls: failed to find any PEM data in certificate input"),
        (CERTIFICATE, b"y", "tls: failed to find any PEM data in key input"),
        (CERTIFICATE, CERTIFICATE, "tls: found a certificate rather than a key in the PEM for the private key"),
        (
            KEY,
            KEY,
            "tls: failed to find certificate PEM data in certificate input, but did find a private key; "
            "PEM inputs may have been switched",
        ),
        (NONSENSE % (b"CERTIFICATE", b"CERTIFICATE"), KEY, "x509: malformed certificate"),
        (CERTIFICATE, NONSENSE % (b"PRIVATE KEY", b"PRIVATE KEY"), "tls: failed to parse private key"),
        (CERTIFICATE, OTHER_KEY, "tls: private key does not match public key"),
        (CERTIFICATE, EDWARDS, "tls: private key type does not match public key type"),
    ],
)
def test_what_is_wrong_with_a_pair(certificate: bytes, key: bytes, said: str) -> None:
    assert key_pair_complaint(certificate, key) == said

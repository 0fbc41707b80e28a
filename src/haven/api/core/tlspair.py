"""Whether the certificate and the key of a Secret belong together, in the words of Go's crypto/tls.

Source: https://pkg.go.dev/crypto/tls#X509KeyPair; upstream warns of what that function refuses.
"""

from __future__ import annotations

import base64
import binascii
import re

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

__all__ = ["key_pair_complaint"]

_BLOCK = re.compile(
    rb"^-----BEGIN ([^\n]*?)-----[ \t]*\r?\n((?:[^\n:]*: [^\n]*\n)*)(.*?)^-----END \1-----[ \t]*\r?$",
    re.MULTILINE | re.DOTALL,
)
_KEYS = (rsa.RSAPublicKey, ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey)


def key_pair_complaint(certificate: bytes, key: bytes) -> str:
    """Return why a certificate and a private key, both as PEM, make no pair; "" if they do."""
    found, skipped = _take(certificate, "CERTIFICATE")
    if found is None:
        return "tls: " + _no_certificate(skipped)
    secret, skipped = _take(key, "PRIVATE KEY", suffix=True)
    if secret is None:
        return "tls: " + _no_key(skipped)
    try:
        public = x509.load_der_x509_certificate(found).public_key()
    except UnsupportedAlgorithm:
        return "tls: unknown public key algorithm"
    except ValueError:
        return "x509: malformed certificate"
    if not isinstance(public, _KEYS):
        return "tls: unknown public key algorithm"
    try:
        own = load_der_private_key(secret, None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "tls: failed to parse private key"
    if not isinstance(own, _KEYS):
        return "tls: found unknown private key type in PKCS#8 wrapping"
    if not any(isinstance(public, kind) and isinstance(own, kind) for kind in _KEYS):
        return "tls: private key type does not match public key type"
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "" if own.public_bytes(*form) == public.public_bytes(*form) else "tls: private key does not match public key"


def _take(text: bytes, wanted: str, *, suffix: bool = False) -> tuple[bytes | None, list[str]]:
    """Return the first block of a type (or one whose type's last words are these), and the types passed over."""
    skipped: list[str] = []
    for match in _BLOCK.finditer(text):
        kind = match[1].decode(errors="replace")
        try:
            data = base64.b64decode(b"".join(match[3].split()), validate=True)
        except binascii.Error:
            continue  # It is no block at all, then.
        if kind == wanted or (suffix and kind.endswith(f" {wanted}")):
            return data, skipped
        skipped.append(kind)
    return None, skipped


def _no_certificate(skipped: list[str]) -> str:
    if not skipped:
        return "failed to find any PEM data in certificate input"
    if len(skipped) == 1 and skipped[0].endswith("PRIVATE KEY"):
        return (
            "failed to find certificate PEM data in certificate input, but did find a private key; "
            "PEM inputs may have been switched"
        )
    kinds = " ".join(skipped)
    return (
        'failed to find "CERTIFICATE" PEM block in certificate input after skipping PEM blocks of the following '
        f"types: [{kinds}]"
    )


def _no_key(skipped: list[str]) -> str:
    if not skipped:
        return "failed to find any PEM data in key input"
    if skipped == ["CERTIFICATE"]:
        return "found a certificate rather than a key in the PEM for the private key"
    kinds = " ".join(skipped)
    return (
        'failed to find PEM block with type ending in "PRIVATE KEY" in key input after skipping PEM blocks of the '
        f"following types: [{kinds}]"
    )

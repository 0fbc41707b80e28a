"""Files for a server that is only tried out: a self-signed serving certificate and a key for service account tokens.

A real cluster's authority and certificates are haven.cluster's work.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

__all__ = ["serving_files"]

_LIFE = timedelta(days=365)


def serving_files(folder: Path, hosts: Sequence[str]) -> tuple[Path, Path, Path]:
    """Return (certificate, its key, token signing key), made at the first call."""
    certificate, key, signing = folder / "serving.crt", folder / "serving.key", folder / "tokens.key"
    if not signing.exists():
        private = ec.generate_private_key(ec.SECP256R1())
        certificate.write_bytes(_self_signed(private, hosts))
        key.write_bytes(_pem(private))
        signing.write_bytes(_pem(rsa.generate_private_key(public_exponent=65537, key_size=2048)))
        for path in (key, signing):
            path.chmod(0o600)
    return certificate, key, signing


def _self_signed(key: ec.EllipticCurvePrivateKey, hosts: Sequence[str]) -> bytes:
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "haven-apiserver")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _LIFE)
        .add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )

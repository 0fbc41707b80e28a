"""Serving certificates that only look self-signed: their issuer has the same name as they.

Programs that make an authority and a certificate from one template (Knative's webhooks, for one) produce them. OpenSSL
takes such a certificate for its own issuer and looks no further; Go, and so upstream, checks the signature. Here the
signature is checked too, and the certificate then trusted by itself: its names and time are still OpenSSL's to check.
"""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

if TYPE_CHECKING:
    import aiohttp

__all__ = ["issued_by", "looks_self_signed", "peer_certificate"]

FETCH_SECONDS = 5.0
_DEPTH_ZERO_SELF_SIGNED = 18  # X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT


def looks_self_signed(error: aiohttp.ClientConnectorCertificateError) -> bool:
    """Tell whether that is why a certificate was refused."""
    return getattr(error.certificate_error, "verify_code", 0) == _DEPTH_ZERO_SELF_SIGNED


async def peer_certificate(host: str, port: int, server_name: str) -> x509.Certificate | None:
    """Return a server's certificate, whoever issued it; nothing is sent to the server. None if it does not answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(FETCH_SECONDS):
            _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=server_name or host)
    except (OSError, TimeoutError):
        return None
    der = writer.get_extra_info("ssl_object").getpeercert(True)
    writer.close()
    return x509.load_der_x509_certificate(der)


def issued_by(certificate: x509.Certificate, bundle: bytes) -> bytes | None:
    """Return the certificate in PEM if an authority of the bundle, valid now, signed it; None otherwise."""
    now = datetime.now(UTC)
    try:
        authorities = x509.load_pem_x509_certificates(bundle)
    except ValueError:
        return None
    for authority in authorities:
        if not authority.not_valid_before_utc <= now <= authority.not_valid_after_utc:
            continue
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return certificate.public_bytes(Encoding.PEM)
    return None

"""The certificates that a client showed in the TLS handshake, which has verified them.

Python 3.13 hands out the whole chain; before, only the connection below the ssl module's own does, and where that does
not either the client's own certificate has to be issued by an authority itself.
"""

from __future__ import annotations

import _ssl
from typing import Any

__all__ = ["PresentedCertificate", "presented"]


class PresentedCertificate(bytes):
    """A client's certificate (DER), and those that it sent to connect it with an authority."""

    issuers: tuple[bytes, ...] = ()


def presented(tls: Any) -> bytes | None:
    """Return the certificate that the client at the other end of an SSLObject showed."""
    leaf: bytes | None = tls.getpeercert(True)
    if leaf is None:
        return None
    chain = _chain(tls)
    if len(chain) < 2:
        return leaf
    found = PresentedCertificate(leaf)
    found.issuers = tuple(chain[1:])
    return found


def _chain(tls: Any) -> list[bytes]:
    if hasattr(tls, "get_unverified_chain"):
        return list(tls.get_unverified_chain())
    inner: Any = getattr(tls, "_sslobj", None)
    if inner is None or not hasattr(inner, "get_unverified_chain"):
        return []
    return [one if isinstance(one, bytes) else _der(one) for one in inner.get_unverified_chain() or ()]


def _der(certificate: Any) -> bytes:
    encoded: bytes = certificate.public_bytes(_ssl.ENCODING_DER)
    return encoded

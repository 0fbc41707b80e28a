"""Whether a bundle of certificate authorities can be read."""

from __future__ import annotations

from cryptography import x509

__all__ = ["is_sound_bundle"]


def is_sound_bundle(bundle: bytes) -> bool:
    """Tell whether a bundle is empty or holds certificates in PEM."""
    if not bundle.strip():
        return True
    try:
        return bool(x509.load_pem_x509_certificates(bundle))
    except ValueError:
        return False

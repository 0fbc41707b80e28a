"""Whether a certificate request was signed with its own key, judged and worded as Go's crypto/x509 does.

Requests may be signed over SHA-1 still, certificates may not: https://pkg.go.dev/crypto/x509#CertificateRequest
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

__all__ = ["signature_complaint"]


def signature_complaint(request: x509.CertificateSigningRequest) -> str:
    """Return what is wrong with the signature of a request, "" if nothing is."""
    key = request.public_key()
    try:
        if _fits(request, key):
            return ""
    except (ValueError, UnsupportedAlgorithm):
        return "x509: cannot verify signature: algorithm unimplemented"
    if isinstance(key, rsa.RSAPublicKey):
        return "crypto/rsa: verification error"
    return f"x509: {'ECDSA' if isinstance(key, ec.EllipticCurvePublicKey) else 'Ed25519'} verification failure"


def _fits(request: x509.CertificateSigningRequest, key: object) -> bool:
    if not isinstance(request.signature_hash_algorithm, hashes.SHA1):
        return request.is_signature_valid
    try:  # is_signature_valid takes no SHA-1.
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(request.signature, request.tbs_certrequest_bytes, padding.PKCS1v15(), hashes.SHA1())
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(request.signature, request.tbs_certrequest_bytes, ec.ECDSA(hashes.SHA1()))
        else:
            raise UnsupportedAlgorithm("DSA")
    except InvalidSignature:
        return False
    return True

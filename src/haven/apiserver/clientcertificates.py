"""Client certificates in the TLS handshake: any one is taken, whoever issued it; authentication judges it afterwards.

A refused handshake tells a client nothing; upstream answers 401, and names the authorities whose certificates it would
like, so that clients with several choose. Python's ssl module can do neither, the OpenSSL below it can: where that is
not within reach (a Python with OpenSSL linked in), foreign and expired certificates end the handshake.
Source: https://docs.openssl.org/3.0/man3/SSL_CTX_set_cert_verify_callback/
"""

from __future__ import annotations

import _ssl
import ctypes
import ssl
import sys
from functools import cache
from typing import Any

__all__ = ["PresentedCertificate", "presented", "take_any_certificate"]

_Verify = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_OPTIONS = 0xFFFFFFFF
_PYTHON_MAX = (3, 15)
"""Before that version a context begins with its pointer to OpenSSL's: looked up in CPython's _ssl.c."""


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


_TAKE = _Verify(lambda _store, _argument: 1)


def take_any_certificate(context: ssl.SSLContext) -> bool:
    """Let handshakes of a context that asks for certificates pass with any; return False if that cannot be had."""
    library = _library()
    if library is None or context.verify_mode != ssl.CERT_OPTIONAL:
        return False
    pointer = ctypes.c_void_p.from_address(id(context) + object.__basicsize__)
    if not pointer.value or library.SSL_CTX_get_options(pointer) & _OPTIONS != context.options & _OPTIONS:
        return False
    library.SSL_CTX_set_cert_verify_callback(pointer, _TAKE, None)
    for authority in context.get_ca_certs(binary_form=True):
        at = ctypes.c_char_p(authority)
        certificate = library.d2i_X509(None, ctypes.byref(at), ctypes.c_long(len(authority)))
        if certificate:
            library.SSL_CTX_add_client_CA(pointer, certificate)
            library.X509_free(certificate)
    return True


@cache
def _library() -> Any:
    """Return OpenSSL as this Python has it loaded, None if its functions cannot be reached."""
    if sys.implementation.name != "cpython" or sys.version_info >= _PYTHON_MAX or not hasattr(_ssl, "__file__"):
        return None
    try:
        found = ctypes.CDLL(_ssl.__file__)
        found.SSL_CTX_get_options.argtypes = [ctypes.c_void_p]
        found.SSL_CTX_get_options.restype = ctypes.c_uint64
        found.SSL_CTX_set_cert_verify_callback.argtypes = [ctypes.c_void_p, _Verify, ctypes.c_void_p]
        found.SSL_CTX_set_cert_verify_callback.restype = None
        found.SSL_CTX_add_client_CA.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        found.d2i_X509.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_char_p), ctypes.c_long]
        found.d2i_X509.restype = ctypes.c_void_p
        found.X509_free.argtypes = [ctypes.c_void_p]
        found.X509_free.restype = None
    except (OSError, AttributeError):
        return None
    return found

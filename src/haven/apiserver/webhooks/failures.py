"""What went wrong on the way to a callee, in the words that Go's HTTP client and client-go use.

People search for these texts, and programs look for them ("connection refused", "x509: certificate signed by unknown
authority", "context deadline exceeded").
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import NameOID

from haven.apimachinery import apierrors
from haven.apimachinery.goformat import quote
from haven.apiserver.outgoing import LEGACY_NAME
from haven.apiserver.webhooks.selfissued import peer_certificate
from haven.deferred import deferred

if TYPE_CHECKING:
    import aiohttp
else:
    aiohttp = deferred("aiohttp")

__all__ = ["answer_error", "describe", "refused_certificate"]

TEXT_BYTES_MAX = 2048  # More of an unexpected answer is not shown.

# Codes of OpenSSL's X509_verify_cert_error.
_CERT_NOT_YET_VALID, _CERT_HAS_EXPIRED, _INVALID_PURPOSE, _HOSTNAME_MISMATCH, _IP_MISMATCH = 9, 10, 26, 62, 64
_shown_line = re.compile(r"b['\"](.*?)['\"]\n")
_address = re.compile(r"\('([^']+)', (\d+)")


def describe(error: BaseException, host: str, port: int, *, server_name: str = "") -> str:
    """Return what Go would call a failure to connect to a host, or to be answered by it."""
    if isinstance(error, TimeoutError):
        return "context deadline exceeded"
    cause = _cause(error)
    if isinstance(cause, ssl.SSLError):
        return _tls(cause, server_name or host)
    if isinstance(cause, socket.gaierror):
        return f"dial tcp: lookup {host}: no such host"
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(cause, OSError):
        return f"dial tcp {_dialled(cause, host, port)}: connect: {_strerror(cause)}"
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError):
        return "EOF" if isinstance(error, aiohttp.ServerDisconnectedError) else "unexpected EOF"
    if isinstance(cause, OSError) and cause.errno is not None:
        return f"read tcp {_authority(host, port)}: read: {_strerror(cause)}"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"net/http: HTTP/1.x transport connection broken: {_malformed(error.message)}"
    return str(error) or type(error).__name__


def _malformed(message: str) -> str:
    """Return what Go says of a first line that is none of HTTP; aiohttp shows it among words of its own."""
    match = _shown_line.search(message)
    line = match[1] if match else message.splitlines()[0]
    protocol, _, status = line.partition(" ")
    if not status:
        return f"malformed HTTP response {quote(line)}"
    code = status.lstrip(" ").partition(" ")[0]
    if len(code) != 3 or not code.isdecimal():
        return f"malformed HTTP status code {quote(code)}"
    return f"malformed HTTP version {quote(protocol)}"


def _cause(error: BaseException) -> BaseException:
    for found in (getattr(error, "certificate_error", None), getattr(error, "os_error", None), error.__cause__):
        if isinstance(found, OSError):
            return found
    return error


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _dialled(cause: OSError, host: str, port: int) -> str:
    """Return the address that refused, which asyncio tells in words only."""
    match = _address.search(str(cause))
    return _authority(match.group(1), int(match.group(2))) if match else _authority(host, port)


def _strerror(error: OSError) -> str:
    if error.errno is None or error.errno < 0:
        return str(error)
    return os.strerror(error.errno).lower()


def _tls(error: ssl.SSLError, name: str) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        failed = "tls: failed to verify certificate: x509: "
        if error.verify_code in (_HOSTNAME_MISMATCH, _IP_MISMATCH):
            return f"{failed}certificate is not valid for any names that match {name}"
        if error.verify_code in (_CERT_HAS_EXPIRED, _CERT_NOT_YET_VALID):
            return f"{failed}certificate has expired or is not yet valid"
        return f"{failed}certificate signed by unknown authority"
    reason = error.reason or ""
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"):
        return "http: server gave HTTP response to HTTPS client"
    if "_ALERT_" in reason:
        return f"remote error: tls: {reason.partition('_ALERT_')[2].lower().replace('_', ' ')}"
    return f"tls: {reason.lower().replace('_', ' ')}" if reason else "EOF"


async def refused_certificate(
    error: aiohttp.ClientConnectorCertificateError, host: str, port: int, server_name: str
) -> str | None:
    """Return what is wrong with a refused certificate: its names, its time, its purpose; None if it is none of these.

    The TLS library does not show what it refuses, so the certificate is fetched once more, and nothing else.
    """
    code = getattr(error.certificate_error, "verify_code", 0)
    if code == _INVALID_PURPOSE:
        return "x509: certificate specifies an incompatible key usage"
    if code not in (_HOSTNAME_MISMATCH, _IP_MISMATCH, _CERT_HAS_EXPIRED, _CERT_NOT_YET_VALID):
        return None
    wanted = server_name or host
    certificate = await peer_certificate(host, port, wanted)
    if certificate is None:
        return None
    if code in (_HOSTNAME_MISMATCH, _IP_MISMATCH):
        return _mismatch(certificate, wanted)
    return _out_of_time(certificate, datetime.now(UTC))


def _out_of_time(certificate: x509.Certificate, now: datetime) -> str | None:
    shown = f"{now:%Y-%m-%dT%H:%M:%SZ}"
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begins:
        side = f"before {begins:%Y-%m-%dT%H:%M:%SZ}"
    elif now > ends:
        side = f"after {ends:%Y-%m-%dT%H:%M:%SZ}"
    else:
        return None  # It is an authority's certificate that is out of its time.
    return f"x509: certificate has expired or is not yet valid: current time {shown} is {side}"


def _mismatch(certificate: x509.Certificate, wanted: str) -> str:
    names: list[str] = []
    addresses: list[str] = []
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = found.get_values_for_type(x509.DNSName)
        addresses = [str(one) for one in found.get_values_for_type(x509.IPAddress)]
    except x509.ExtensionNotFound:
        if certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME) and not _is_address(wanted):
            return LEGACY_NAME
    if _is_address(wanted):
        if not addresses:
            return f"x509: cannot validate certificate for {wanted} because it doesn't contain any IP SANs"
        return f"x509: certificate is valid for {', '.join(addresses)}, not {wanted}"
    if not names:
        return f"x509: certificate is not valid for any names, but wanted to match {wanted}"
    return f"x509: certificate is valid for {', '.join(names)}, not {wanted}"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


_MESSAGES = {
    400: "the server rejected our request for an unknown reason",
    401: "the server has asked for the client to provide credentials",
    404: "the server could not find the requested resource",
    405: "the server does not allow this method on the requested resource",
    409: "the server reported a conflict",
    410: "the server rejected our request for an unknown reason",
    422: "the server rejected our request due to an error in our request",
    429: "the server has received too many requests and has asked us to try again later",
    503: "the server is currently unable to handle the request",
    504: "the server was unable to return a response in the time allotted, but may still be processing the request",
}
_BODY_IS_MESSAGE = frozenset({403, 406, 415})
_NOT_ACCEPTABLE = "the server was unable to respond with a content type that the client supports"


def answer_error(code: int, body: bytes, content_type: str) -> apierrors.ApiError:
    """Return what an answer other than a success means: the Status in it, or what client-go makes of the code."""
    error = apierrors.from_status(code, body)
    if error.reason and body.lstrip()[:1] == b"{" and b'"Status"' in body:
        return error
    kind = content_type.partition(";")[0].strip()
    is_text = not kind or kind.startswith("text/")
    text = body[:TEXT_BYTES_MAX].decode("utf-8", "replace").strip() if is_text else "unknown"
    if code in _BODY_IS_MESSAGE:
        error.message = _NOT_ACCEPTABLE if code == 406 and text in ("", "unknown") else text
    elif code in _MESSAGES:
        error.message = _MESSAGES[code]
    elif code >= 500:
        error.message = f"an error on the server ({quote(text)}) has prevented the request from succeeding"
    else:
        error.message = f"the server responded with the status code {code} but did not return more information"
    return error

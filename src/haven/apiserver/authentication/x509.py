"""Client certificates: the common name is the user, organizations are the groups.

A certificate is parsed and checked once; afterwards its DER bytes are the key to the identity, until it or one of its
issuers ends.
Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#x509-client-certificates
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID, ObjectIdentifier

from haven.apimachinery.apierrors import Unauthorized
from haven.apiserver.authentication.interface import CREDENTIAL_ID
from haven.apiserver.request import Request, UserInfo
from haven.clock import Clock
from haven.metrics.families import Histogram

__all__ = ["ClientCertificates", "RequestHeaders", "unescaped"]

_USER_UID = ObjectIdentifier("1.3.6.1.4.1.57683.2")
"""The subject attribute that carries a user's UID."""
_CACHED_MAX = 8192
_HOUR, _DAY = 3600.0, 86400.0
_REMAINING = (
    0.0, _HOUR / 2, _HOUR, 2 * _HOUR, 6 * _HOUR, 12 * _HOUR, _DAY, 2 * _DAY, 4 * _DAY, 7 * _DAY, 30 * _DAY, 90 * _DAY,
    180 * _DAY, 360 * _DAY,
)  # fmt: skip
_INTERMEDIATES_MAX = 8
_UNDERSTOOD = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.CERTIFICATE_POLICIES,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)
"""Extensions that may be critical: what they demand is looked at."""


@dataclass(slots=True)
class _Known:
    """What a certificate says; `refusal` is why it is not taken, whatever the time. `ends` is its own end, if it can
    be read; in which bucket its uses count, and until when, is kept as it is asked for with each request."""

    user: UserInfo | None = None
    not_before: float = 0.0
    not_after: float = 0.0
    refusal: str = ""
    ends: float | None = None
    bucket: int = 0
    bucket_until: float = float("-inf")


class ClientCertificates:
    """Authenticates by certificates that one of the authorities issued for client use."""

    def __init__(self, authorities: Sequence[x509.Certificate], clock: Clock) -> None:
        self._authorities = tuple(authorities)
        self._clock = clock
        self._known: dict[bytes, _Known] = {}
        self.remaining = Histogram(_REMAINING)
        """How much longer the certificates were good that requests came with."""

    async def authenticate(self, request: Request) -> UserInfo | None:
        certificate = request.client_certificate
        if certificate is None:
            return None
        known = self._known.get(certificate) or self._learn(certificate)
        now = self._clock.now_seconds()
        if known.ends is not None:
            if now >= known.bucket_until:
                _place(known, now)
            self.remaining.counts[known.bucket] += 1
            self.remaining.total += known.ends - now
        return _judged(known, now)

    def identify(self, der: bytes) -> UserInfo | None:
        """Return whom a certificate names, None if nobody; raise Unauthorized if it is not valid here and now."""
        return _judged(self._known.get(der) or self._learn(der), self._clock.now_seconds())

    def _learn(self, der: bytes) -> _Known:
        known = _examine(der, self._authorities)
        try:
            known.ends = x509.load_der_x509_certificate(der).not_valid_after_utc.timestamp()
        except ValueError:
            known.ends = None
        if len(self._known) >= _CACHED_MAX:
            self._known.clear()
        self._known[der] = known
        return known


def _judged(known: _Known, now: float) -> UserInfo | None:
    if known.refusal:
        raise Unauthorized(known.refusal)
    if now > known.not_after:
        raise Unauthorized("x509: certificate has expired")
    if now < known.not_before:
        raise Unauthorized("x509: certificate is not yet valid")
    return known.user


def _place(known: _Known, now: float) -> None:
    """Find the bucket of a certificate's uses, and until when it is that one."""
    assert known.ends is not None
    known.bucket = bisect_left(_REMAINING, known.ends - now)
    known.bucket_until = known.ends - _REMAINING[known.bucket - 1] if known.bucket else float("inf")


def _examine(der: bytes, authorities: Sequence[x509.Certificate]) -> _Known:
    try:
        certificate = x509.load_der_x509_certificate(der)
        between = [x509.load_der_x509_certificate(one) for one in getattr(der, "issuers", ())]
        chain = _chain(certificate, between, authorities)
    except ValueError as error:
        return _Known(refusal=f"x509: malformed certificate: {error}")
    if chain is None:
        return _Known(refusal="x509: certificate signed by unknown authority")
    if not all(map(_for_clients, chain[:-1])):
        return _Known(refusal="x509: certificate specifies an incompatible key usage")
    if any(part.critical and part.oid not in _UNDERSTOOD for one in chain for part in one.extensions):
        return _Known(refusal="x509: unhandled critical extension")
    try:
        user = _user(certificate, der)
    except Unauthorized as error:
        return _Known(refusal=error.message)
    return _Known(
        user=user,
        not_before=max(one.not_valid_before_utc.timestamp() for one in chain),
        not_after=min(one.not_valid_after_utc.timestamp() for one in chain),
    )


def _chain(
    certificate: x509.Certificate, between: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate]
) -> list[x509.Certificate] | None:
    """Return the way from a certificate to an authority, both included; None if there is none."""
    for authority in authorities:
        if _issued(certificate, authority):
            return [certificate, authority]
    for index, issuer in enumerate(between):
        if _may_issue(issuer) and _issued(certificate, issuer):
            rest = _chain(issuer, [*between[:index], *between[index + 1 :]][:_INTERMEDIATES_MAX], authorities)
            if rest is not None:
                return [certificate, *rest]
    return None


def _may_issue(certificate: x509.Certificate) -> bool:
    try:
        if not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound as error:
        return error.oid == ExtensionOID.KEY_USAGE


def _issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _for_clients(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return ExtendedKeyUsageOID.CLIENT_AUTH in usage or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usage


def _user(certificate: x509.Certificate, der: bytes) -> UserInfo | None:
    name = _common_name(certificate)
    if not name:
        return None
    groups = tuple(str(part.value) for part in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME))
    uids = [str(part.value) for part in certificate.subject.get_attributes_for_oid(_USER_UID)]
    if len(uids) > 1 or (uids and not uids[0]):
        raise Unauthorized("expected at most one non-empty UID in the certificate's subject")
    digest = hashlib.sha256(der).hexdigest()
    return UserInfo(
        name=name, uid=uids[0] if uids else "", groups=groups, extra={CREDENTIAL_ID: (f"X509SHA256={digest}",)}
    )


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[-1].value) if names else ""


class RequestHeaders:
    """Authenticates what an aggregating proxy says in X-Remote-… headers, if its certificate is a proxy's.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#authenticating-proxy
    """

    def __init__(
        self, authorities: Sequence[x509.Certificate], clock: Clock, *, allowed_names: Sequence[str] = ()
    ) -> None:
        self._certificates = ClientCertificates(authorities, clock)
        self._allowed_names = frozenset(allowed_names)

    async def authenticate(self, request: Request) -> UserInfo | None:
        name = request.headers.get("x-remote-user", "").strip()
        if not name or request.client_certificate is None:
            return None
        try:
            proxy = self._certificates.identify(request.client_certificate)
        except Unauthorized:
            return None  # Not a proxy's certificate: it may still be a client's own.
        self._check_name(proxy)
        extra: dict[str, tuple[str, ...]] = {}
        for header in request.headers:
            if header.startswith("x-remote-extra-"):
                key = unescaped(header.removeprefix("x-remote-extra-"))
                extra[key] = (*extra.get(key, ()), *_values(request, header))
        return UserInfo(
            name=name,
            uid=request.headers.get("x-remote-uid", ""),
            groups=tuple(filter(None, _values(request, "x-remote-group"))),
            extra=extra,
        )

    def check(self, request: Request) -> None:
        """Raise Unauthorized if a request comes with a certificate that is no proxy's.

        It may still be a client's own, but who comes with one is not anonymous.
        """
        if request.client_certificate is not None:
            self._check_name(self._certificates.identify(request.client_certificate))

    def _check_name(self, proxy: UserInfo | None) -> None:
        if self._allowed_names and (proxy is None or proxy.name not in self._allowed_names):
            raise Unauthorized(f"x509: subject with cn={proxy.name if proxy else ''} is not in the allowed list")


def unescaped(key: str) -> str:
    """Return the key of an extra, of which a header's name shows some characters as %XX; a wrong escape is kept."""
    if re.search(r"%(?![0-9a-fA-F]{2})", key):
        return key
    return unquote(key)


def _values(request: Request, header: str) -> Sequence[str]:
    repeated = request.repeated_headers.get(header)
    if repeated:
        return repeated
    value = request.headers.get(header)
    return () if value is None else (value,)

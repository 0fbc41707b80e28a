"""Who may ask the kubelet: the API server decides, by TokenReview and SubjectAccessReview; answers are kept briefly.

Source: https://kubernetes.io/docs/reference/access-authn-authz/kubelet-authn-authz/ (and KEP-2862, finer verbs)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from cryptography import x509
from cryptography.x509.oid import NameOID

from haven.api.authentication import v1 as authentication
from haven.api.authorization import v1 as authorization
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors
from haven.client.interface import Client
from haven.clock import Clock

__all__ = ["Access", "Caller", "refusal", "resource_attributes"]

ALLOWED_SECONDS, DENIED_SECONDS = 300.0, 30.0
KEPT_MAX = 1000
_VERBS = {"POST": "create", "GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_FINE = {
    "stats": "stats",
    "metrics": "metrics",
    "logs": "log",
    "checkpoint": "checkpoint",
    "statusz": "statusz",
    "flagz": "configz",
}
_FINER = {"pods": "pods", "runningpods": "pods", "healthz": "healthz", "configz": "configz"}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    name: str
    groups: tuple[str, ...]
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


def resource_attributes(method: str, path: str) -> tuple[str, tuple[str, ...]]:
    """Return (verb, subresources of nodes to try in order) that a request needs."""
    verb = _VERBS.get(method, "")
    first = path.removeprefix("/").partition("/")[0]
    if first in _FINE:
        return verb, (_FINE[first],)
    if first in _FINER:
        return verb, (_FINER[first], "proxy")
    return verb, ("proxy",)


def refusal(caller: Caller, method: str, path: str) -> str:
    """Return what a caller is told who may not make a request."""
    verb, subresources = resource_attributes(method, path)
    asked = f"verb={verb}, resource=nodes, subresource(s)=[{' '.join(subresources)}]"
    return f"Forbidden (user={caller.name}, {asked})\n"


class Access:
    """Answers whether a request may be served on this node."""

    def __init__(self, node_name: str, client: Client, clock: Clock) -> None:
        self._node_name = node_name
        self._client = client
        self._clock = clock
        self._kept: dict[tuple[Any, ...], tuple[float, Any]] = {}

    async def caller(self, certificate: bytes | None, bearer: str) -> Caller | None:
        """Return who sent the request, None if it proves nobody. TLS has verified the certificate's authority."""
        if certificate:
            subject = x509.load_der_x509_certificate(certificate).subject
            names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            groups = subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
            if names:
                return Caller(str(names[0].value), (*(str(g.value) for g in groups), "system:authenticated"))
        if not bearer:
            return None
        known = self._recall(("token", bearer))
        if known is not None:
            return cast("Caller | None", known[0])
        review = authentication.TokenReview(spec=authentication.TokenReviewSpec(token=bearer))
        answer = await self._client.create(cast("Any", resource_of(authentication.TokenReview)), review)
        user = answer.status.user
        extra = tuple((key, tuple(values)) for key, values in sorted(user.extra.items()))
        known_user = Caller(user.username, tuple(user.groups), user.uid, extra)
        caller = known_user if answer.status.authenticated else None
        self._keep(("token", bearer), (caller,), ALLOWED_SECONDS if caller else DENIED_SECONDS)
        return caller

    async def may(self, caller: Caller, method: str, path: str) -> bool:
        """Tell whether the caller may make the request."""
        verb, subresources = resource_attributes(method, path)
        for subresource in subresources:
            if await self._allowed(caller, verb, subresource):
                return True
        return False

    async def _allowed(self, caller: Caller, verb: str, subresource: str) -> bool:
        question = ("may", caller, verb, subresource)
        known = self._recall(question)
        if known is not None:
            return bool(known[0])
        review = authorization.SubjectAccessReview(
            spec=authorization.SubjectAccessReviewSpec(
                user=caller.name,
                uid=caller.uid,
                groups=list(caller.groups),
                extra={key: list(values) for key, values in caller.extra},
                resource_attributes=authorization.ResourceAttributes(
                    verb=verb, version="v1", resource="nodes", subresource=subresource, name=self._node_name
                ),
            )
        )
        try:
            answer = await self._client.create(cast("Any", resource_of(authorization.SubjectAccessReview)), review)
        except apierrors.ApiError:
            return False  # Nobody can vouch for the caller: refuse, and ask again next time.
        allowed = bool(answer.status.allowed)
        self._keep(question, (allowed,), ALLOWED_SECONDS if allowed else DENIED_SECONDS)
        return allowed

    def _recall(self, question: tuple[Any, ...]) -> Sequence[Any] | None:
        found = self._kept.get(question)
        if found is None or found[0] < self._clock.monotonic_seconds():
            return None
        return cast("Sequence[Any]", found[1])

    def _keep(self, question: tuple[Any, ...], answer: Sequence[Any], seconds: float) -> None:
        if len(self._kept) >= KEPT_MAX:
            self._kept.clear()
        self._kept[question] = (self._clock.monotonic_seconds() + seconds, answer)

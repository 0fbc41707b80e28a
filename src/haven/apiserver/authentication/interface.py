"""Authenticators tell who sent a request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

from haven.api.scheme import Resource
from haven.apiserver.request import Request, UserInfo

__all__ = [
    "ALL_AUTHENTICATED",
    "ALL_UNAUTHENTICATED",
    "ANONYMOUS",
    "CREDENTIAL_ID",
    "MASTERS",
    "Authenticator",
    "Lookup",
    "RemoteTokenAuthenticator",
    "TokenAuthenticator",
    "TokenIdentity",
]

T = TypeVar("T")

ANONYMOUS = "system:anonymous"
ALL_AUTHENTICATED = "system:authenticated"
ALL_UNAUTHENTICATED = "system:unauthenticated"
MASTERS = "system:masters"
"""The group that may do everything, whatever the roles say."""
CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"
"""The extra that names the credential: X509SHA256=… or JTI=…."""


class Authenticator(Protocol):
    """One way of proving an identity; a union asks several in order."""

    async def authenticate(self, request: Request) -> UserInfo | None:
        """Return who sent the request, None if it carries nothing of this kind; raise Unauthorized if it is wrong."""
        ...


@dataclass(frozen=True, slots=True)
class TokenIdentity:
    """Whom a bearer token stands for, and which of the wanted audiences it is meant for.

    `expires` is when the token ends, in seconds since 1970; 0 if it does not.
    """

    user: UserInfo
    audiences: tuple[str, ...]
    expires: float = 0.0
    warnings: tuple[str, ...] = ()
    audit_annotations: dict[str, str] = field(default_factory=dict)


class TokenAuthenticator(Protocol):
    """One kind of bearer token. Answers from memory."""

    def authenticate_token(self, token: str, audiences: tuple[str, ...]) -> TokenIdentity | None:
        """Return whom the token stands for, None if it is of another kind; raise Unauthorized if it is no good."""
        ...


@runtime_checkable
class RemoteTokenAuthenticator(Protocol):
    """One kind of bearer token that may have to be asked about outside."""

    async def wait_token(self, token: str, audiences: tuple[str, ...]) -> TokenIdentity | None:
        """Return whom the token stands for, None if it is of another kind; raise Unauthorized if it is no good."""
        ...


class Lookup(Protocol):
    """Reads stored objects from memory; what it returns is shared, never change it."""

    def get(self, resource: Resource[T], namespace: str, name: str) -> T | None:
        """Return the object, or None."""
        ...

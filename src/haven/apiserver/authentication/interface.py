"""Authenticators tell who sent a request."""

from __future__ import annotations

from typing import Protocol

from haven.apiserver.request import Request, UserInfo

__all__ = ["Authenticator"]


class Authenticator(Protocol):
    """One way of proving an identity; a union asks several in order."""

    async def authenticate(self, request: Request) -> UserInfo | None:
        """Return who sent the request, None if it carries nothing of this kind; raise Unauthorized if it is wrong."""
        ...

"""Who sent a request: certificates first, then tokens, then nobody in particular.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from haven.apimachinery.apierrors import Unauthorized
from haven.apiserver.authentication.interface import ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, ANONYMOUS, Authenticator
from haven.apiserver.request import Request, UserInfo

__all__ = ["RequestAuthenticator"]

_ANONYMOUS_USER = UserInfo(ANONYMOUS, groups=(ALL_UNAUTHENTICATED,))


class RequestAuthenticator:
    """Asks each authenticator in turn. The first identity counts; a wrong credential is an error only if none counts.

    `anonymous_paths` limits which paths may be asked for without credentials; None allows all of them (what anonymous
    users then may do there is up to the authorizers). `before_anonymous` may raise Unauthorized for requests that
    nobody knows.
    """

    def __init__(
        self,
        authenticators: Sequence[Authenticator],
        *,
        anonymous: bool = True,
        anonymous_paths: Collection[str] | None = None,
        before_anonymous: Callable[[Request], None] | None = None,
    ) -> None:
        self._authenticators = tuple(authenticators)
        self._anonymous = anonymous
        self._anonymous_paths = anonymous_paths
        self._before_anonymous = before_anonymous
        self._with_group: dict[int, tuple[UserInfo, UserInfo]] = {}

    def allow_anonymous(self, allowed: bool, paths: Collection[str] | None) -> None:
        """Say anew whether requests without credentials pass, and for which paths."""
        self._anonymous, self._anonymous_paths = allowed, paths

    async def authenticate(self, request: Request) -> UserInfo:
        """Return who sent the request; raise Unauthorized."""
        wrong = False
        for authenticator in self._authenticators:
            try:
                user = await authenticator.authenticate(request)
            except Unauthorized:
                wrong = True
                continue
            if user is not None:
                return self.authenticated(user)
        if wrong or not self._anonymous:
            raise Unauthorized("Unauthorized")
        if self._anonymous_paths is not None and request.path not in self._anonymous_paths:
            raise Unauthorized("Unauthorized")
        if self._before_anonymous is not None:
            try:
                self._before_anonymous(request)
            except Unauthorized:
                raise Unauthorized("Unauthorized") from None
        return _ANONYMOUS_USER

    def anyone(self) -> UserInfo | None:
        """Return who asks without credentials, None if not everything may be asked so."""
        return _ANONYMOUS_USER if self._anonymous and self._anonymous_paths is None else None

    def authenticated(self, user: UserInfo) -> UserInfo:
        """Add the group of all authenticated users; authenticators return the same object for the same credential."""
        if ALL_AUTHENTICATED in user.groups or ALL_UNAUTHENTICATED in user.groups or user.name == ANONYMOUS:
            return user
        known = self._with_group.get(id(user))
        if known is not None and known[0] is user:
            return known[1]
        result = UserInfo(user.name, user.uid, (*user.groups, ALL_AUTHENTICATED), user.extra)
        if len(self._with_group) >= 16384:
            self._with_group.clear()
        self._with_group[id(user)] = (user, result)
        return result

"""TokenReview and SelfSubjectReview: whom a token, or the asker, stands for.

Source: https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/
"""

from __future__ import annotations

from collections.abc import Sequence

from haven.api.authentication import v1 as authentication
from haven.apimachinery import times
from haven.apimachinery.apierrors import BadRequest, InternalError, Unauthorized
from haven.apiserver.authentication.bearer import TokenUnion, token_in
from haven.apiserver.authentication.interface import TokenIdentity
from haven.apiserver.authentication.union import RequestAuthenticator
from haven.apiserver.request import Request, UserInfo
from haven.clock import Clock

__all__ = ["SelfSubjectReviews", "TokenReviews"]


class TokenReviews:
    """Examines tokens on behalf of servers that got them."""

    def __init__(self, tokens: TokenUnion, identify: RequestAuthenticator, api_audiences: Sequence[str]) -> None:
        self._tokens = tokens
        self._identify = identify
        self._api_audiences = tuple(api_audiences)

    async def create(self, _request: Request, review: authentication.TokenReview) -> authentication.TokenReview:
        """Return the review with its verdict."""
        if not review.spec.token:
            raise BadRequest("token is required for TokenReview in authentication")
        audiences = tuple(review.spec.audiences) or self._api_audiences
        status = review.status  # What was sent there stays, where there is no answer to it.
        status.authenticated = False
        token = token_in(f"Bearer {review.spec.token}", [])
        try:
            identity = await self._identity(token, audiences)
        except Unauthorized as error:
            status.error = f"[invalid bearer token, {error.message}]"
            return review
        if identity is None:
            status.error = "invalid bearer token"
            return review
        if not set(audiences) & set(identity.audiences):
            raise InternalError.because("error validating audiences")
        status.authenticated = True
        status.user = _wire(self._identify.authenticated(identity.user))
        status.audiences = list(identity.audiences)
        return review

    async def _identity(self, token: str | None, audiences: tuple[str, ...]) -> TokenIdentity | None:
        if token is not None:
            return await self._tokens.wait_token(token, audiences)
        anyone = self._identify.anyone()  # A token that begins with a space is none: nobody in particular asks.
        return None if anyone is None else TokenIdentity(anyone, audiences)


class SelfSubjectReviews:
    """Tells users who they are."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def create(
        self, request: Request, _review: authentication.SelfSubjectReview
    ) -> authentication.SelfSubjectReview:
        """Return who sent the request."""
        answer = authentication.SelfSubjectReview(
            status=authentication.SelfSubjectReviewStatus(user_info=_wire(request.user))
        )
        answer.metadata.creation_timestamp = times.format_time(self._clock.now_seconds())
        return answer


def _wire(user: UserInfo) -> authentication.UserInfo:
    return authentication.UserInfo(
        username=user.name,
        uid=user.uid,
        groups=list(user.groups),
        extra={key: list(values) for key, values in user.extra.items()},
    )

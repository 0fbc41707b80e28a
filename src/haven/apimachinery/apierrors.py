"""Every way in which a request can be refused: one class per reason of a Status.

Raise one where the fact is known; the API server renders it as a Status, clients raise it again from one.
Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import msgspec

from haven.apimachinery import meta
from haven.apimachinery.fielderrors import FieldError, aggregate
from haven.apimachinery.goformat import quote

__all__ = [
    "AlreadyExists",
    "ApiError",
    "BadRequest",
    "Conflict",
    "Expired",
    "Forbidden",
    "Gone",
    "GroupKind",
    "GroupResource",
    "InternalError",
    "Invalid",
    "MethodNotAllowed",
    "NotAcceptable",
    "NotFound",
    "RequestEntityTooLarge",
    "ServerTimeout",
    "ServiceUnavailable",
    "Timeout",
    "TooManyRequests",
    "Unauthorized",
    "UnsupportedMediaType",
    "from_status",
]


class GroupResource(NamedTuple):
    """A resource by its plural name, such as deployments.apps; the core group is ""."""

    group: str
    resource: str

    def __str__(self) -> str:
        return f"{self.resource}.{self.group}" if self.group else self.resource


class GroupKind(NamedTuple):
    """A kind, such as Deployment.apps; the core group is ""."""

    group: str
    kind: str

    def __str__(self) -> str:
        return f"{self.kind}.{self.group}" if self.group else self.kind


class ApiError(Exception):
    """A request failed. `message` is for humans, `details` for programs; subclasses fix `code` and `reason`."""

    code = 500
    reason = ""

    def __init__(self, message: str, details: meta.StatusDetails | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.continue_ = ""  # What a client that lists may go on with; only Expired brings one.

    @property
    def retry_after_seconds(self) -> int:
        """What the Retry-After header says; 0 for none."""
        return self.details.retry_after_seconds if self.details else 0

    def status(self) -> meta.Status:
        """Return the Status that a client receives."""
        return meta.Status(
            metadata=meta.ListMeta(continue_=self.continue_),
            status="Failure",
            message=self.message,
            reason=self.reason,
            details=self.details,
            code=self.code,
        )


class NotFound(ApiError):
    """The object, or the path, does not exist."""

    code, reason = 404, "NotFound"

    @classmethod
    def of(cls, resource: GroupResource, name: str) -> NotFound:
        """Say that an object does not exist."""
        return cls(f"{resource} {quote(name)} not found", _details(resource, name))


class AlreadyExists(ApiError):
    """An object with this name exists. Use another name, or update it."""

    code, reason = 409, "AlreadyExists"

    @classmethod
    def of(cls, resource: GroupResource, name: str) -> AlreadyExists:
        """Say that the name is taken."""
        return cls(f"{resource} {quote(name)} already exists", _details(resource, name))


class Conflict(ApiError):
    """The object changed after it was read. Read it again, then retry."""

    code, reason = 409, "Conflict"

    @classmethod
    def of(cls, resource: GroupResource, name: str, because: str) -> Conflict:
        """Say which object could not be changed, and why."""
        return cls(f"Operation cannot be fulfilled on {resource} {quote(name)}: {because}", _details(resource, name))


class Invalid(ApiError):
    """Fields of the object break rules; each cause names one."""

    code, reason = 422, "Invalid"

    @classmethod
    def of(cls, kind: GroupKind, name: str, errors: Sequence[FieldError]) -> Invalid:
        """Say what is wrong with an object's fields."""
        message = f"{kind} {quote(name)} is invalid"
        if errors:
            message += f": {aggregate(errors)}"
        causes = [meta.StatusCause(reason=error.reason, message=error.body, field=error.field) for error in errors]
        return cls(message, meta.StatusDetails(group=kind.group, kind=kind.kind, name=name, causes=causes))


class Forbidden(ApiError):
    """The user may not do this."""

    code, reason = 403, "Forbidden"

    @classmethod
    def of(cls, resource: GroupResource, name: str, because: str) -> Self:
        """Say which resource or object is refused, and why."""
        if not resource.resource:
            return cls(f"forbidden: {because}", _details(resource, name))
        subject = f"{resource} {quote(name)}" if name else f"{resource}"
        return cls(f"{subject} is forbidden: {because}", _details(resource, name))


class Unauthorized(ApiError):
    """The request proves nobody's identity."""

    code, reason = 401, "Unauthorized"


class BadRequest(ApiError):
    """The request makes no sense, whatever the server's state."""

    code, reason = 400, "BadRequest"


class MethodNotAllowed(ApiError):
    """The resource does not support the verb."""

    code, reason = 405, "MethodNotAllowed"

    @classmethod
    def of(cls, resource: GroupResource, verb: str) -> MethodNotAllowed:
        """Say which verb the resource lacks."""
        details = meta.StatusDetails(group=resource.group, kind=resource.resource)
        return cls(f"{verb} is not supported on resources of kind {quote(str(resource))}", details)


class NotAcceptable(ApiError):
    """The server cannot answer in any of the media types that the client accepts."""

    code, reason = 406, "NotAcceptable"


class UnsupportedMediaType(ApiError):
    """The server cannot read a body of this media type."""

    code, reason = 415, "UnsupportedMediaType"


class Gone(ApiError):
    """The resource is no longer there."""

    code, reason = 410, "Gone"


class Expired(ApiError):
    """The revision asked for is compacted. List again."""

    code, reason = 410, "Expired"


class RequestEntityTooLarge(ApiError):
    """The body is larger than the server takes."""

    code, reason = 413, "RequestEntityTooLarge"


class TooManyRequests(ApiError):
    """Ask again later, after `retry_after_seconds`."""

    code, reason = 429, "TooManyRequests"

    @classmethod
    def after(cls, message: str, seconds: int) -> TooManyRequests:
        """Say when to come back."""
        return cls(message, meta.StatusDetails(retry_after_seconds=seconds))


class InternalError(ApiError):
    """The server failed; its log says more."""

    code, reason = 500, "InternalError"

    @classmethod
    def because(cls, error: Exception | str) -> InternalError:
        """Wrap an unexpected error."""
        details = meta.StatusDetails(causes=[meta.StatusCause(message=str(error))])
        return cls(f"Internal error occurred: {error}", details)


class ServerTimeout(ApiError):
    """The server could not finish in time; the action may or may not have happened."""

    code, reason = 500, "ServerTimeout"


class ServiceUnavailable(ApiError):
    """The server, or what it depends on, is not ready."""

    code, reason = 503, "ServiceUnavailable"


class Timeout(ApiError):
    """The request took longer than it may."""

    code, reason = 504, "Timeout"


def _details(resource: GroupResource, name: str) -> meta.StatusDetails:
    return meta.StatusDetails(group=resource.group, kind=resource.resource, name=name)


_CLASSES: dict[str, type[ApiError]] = {
    cls.reason: cls
    for cls in (
        NotFound, AlreadyExists, Conflict, Invalid, Forbidden, Unauthorized, BadRequest, MethodNotAllowed,
        NotAcceptable, UnsupportedMediaType, Gone, Expired, RequestEntityTooLarge, TooManyRequests, InternalError,
        ServerTimeout, ServiceUnavailable, Timeout,
    )
}  # fmt: skip


def from_status(code: int, body: bytes) -> ApiError:
    """Return the error that a failed answer means; a body that is no Status becomes the message."""
    try:
        status = msgspec.json.decode(body, type=meta.Status)
    except msgspec.DecodeError:
        status = meta.Status(message=body[:2048].decode(errors="replace"), code=code)
    cls = _CLASSES.get(status.reason) or _BY_CODE.get(code, ApiError)
    error = cls(status.message, status.details)
    if error.code != code:
        error.code = code
    return error


_BY_CODE: dict[int, type[ApiError]] = {
    400: BadRequest, 401: Unauthorized, 403: Forbidden, 404: NotFound, 405: MethodNotAllowed, 406: NotAcceptable,
    409: Conflict, 410: Gone, 413: RequestEntityTooLarge, 415: UnsupportedMediaType, 422: Invalid,
    429: TooManyRequests, 500: InternalError, 503: ServiceUnavailable, 504: Timeout,
}  # fmt: skip

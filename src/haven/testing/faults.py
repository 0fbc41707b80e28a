"""Failures on demand: answers that an API server gives when it is overloaded, restarting or ahead of its client.

A fault matches requests by verb, resource, name and user, and then refuses, delays or drops them, a number of times.
Requests of the cluster's own components are left alone unless the fault names their user.
"""

from __future__ import annotations

import asyncio
import fnmatch
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, fields
from typing import Any

from haven.apimachinery import apierrors, serialization
from haven.apiserver.request import Request, Response
from haven.testing.audit import check_pattern, plural_of

__all__ = ["Fault", "Faults"]

Proceed = Callable[[Request], Awaitable[Response]]


@dataclass(slots=True)
class Fault:
    """One kind of failure. Empty patterns match everything; patterns are shell patterns."""

    verb: str = ""
    """get, list, watch, create, update, patch, delete, deletecollection; "write" for all that change something."""
    resource: str = ""
    """pods, deployments.apps, pods/status."""
    namespace: str = ""
    name: str = ""
    user: str = ""
    """The user who asks; naming one of the cluster's components makes it a victim too."""
    user_agent: str = ""
    status: int = 0
    """The answer: 409, 410, 429, 500, 503, 504, …; 0 lets the request through."""
    reason: str = ""
    message: str = ""
    retry_after: int | None = None
    """Seconds, in the Retry-After header; 429 has 1 by default."""
    delay: float = 0.0
    """Seconds of real time before anything else."""
    drop: bool = False
    """Cut the connection without an answer. The request has not been carried out…"""
    after_commit: bool = False
    """…unless this is set: then it has, and the answer is lost."""
    drop_watch: int | None = None
    """End a watch after so many events, as a dropped connection does."""
    times: int | None = 1
    """How often; None for as long as it stands."""
    skip: int = 0
    """Let the first few matching requests through."""
    probability: float = 1.0
    hits: int = field(default=0, init=False)
    """How often it struck."""

    def __str__(self) -> str:
        said = ((item, getattr(self, item.name)) for item in fields(self) if item.init)
        return ", ".join(f"{item.name}={value!r}" for item, value in said if value != item.default)

    def matches(self, request: Request) -> bool:
        """Tell whether a request is meant."""
        info, name = request.info, request.user.name
        if request.local and not (self.user and fnmatch.fnmatchcase(name, self.user)):
            return False
        if self.verb == "write":
            if info.verb not in ("create", "update", "patch", "delete", "deletecollection"):
                return False
        elif self.verb and not fnmatch.fnmatchcase(info.verb, self.verb):
            return False
        if self.drop_watch is not None and info.verb != "watch":
            return False
        if self.resource and not self._is_resource(request):
            return False
        wanted = (
            (self.namespace, info.namespace),
            (self.name, info.name),
            (self.user, name),
            (self.user_agent, request.headers.get("user-agent", "")),
        )
        return all(not pattern or fnmatch.fnmatchcase(text, pattern) for pattern, text in wanted)

    def _is_resource(self, request: Request) -> bool:
        info = request.info
        wanted, _, subresource = self.resource.partition("/")
        if subresource != info.subresource and subresource != "*":
            return False
        return wanted == "*" or wanted in (info.resource, f"{info.resource}.{info.group}")

    @property
    def is_spent(self) -> bool:
        return self.times is not None and self.hits >= self.times


class Faults:
    """The faults of one cluster."""

    def __init__(self, chance: random.Random, check_plural: Callable[[str], None]) -> None:
        self._chance = chance
        self._check_plural = check_plural
        self._faults: list[Fault] = []

    def add(self, **what: Any) -> Fault:
        """Add a fault; see Fault for the arguments. The oldest that matches a request strikes."""
        fault = Fault(**what)
        check_pattern(fault.verb, fault.resource, more=("write",))
        self._check_plural(plural_of(fault.resource))
        _check(fault)
        self._faults = [*self._faults, fault]
        return fault

    def remove(self, fault: Fault) -> None:
        """Take a fault away; one that is gone already is no error."""
        self._faults = [item for item in self._faults if item is not fault]

    @property
    def unmet(self) -> list[Fault]:
        """The faults that no request has met so far, which a misspelled name may be the reason of."""
        return [item for item in self._faults if not item.hits]

    def clear(self) -> None:
        """Take all faults away."""
        self._faults = []

    def _find(self, request: Request) -> Fault | None:
        for fault in self._faults:
            if fault.is_spent or not fault.matches(request):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            if fault.probability < 1.0 and self._chance.random() >= fault.probability:
                continue
            fault.hits += 1
            return fault
        return None

    async def answer(self, request: Request, proceed: Proceed) -> Response:
        """Answer a request, or fail it; stands in the API server's chain."""
        fault = self._find(request) if self._faults else None
        if fault is None:
            return await proceed(request)
        if fault.delay:
            await asyncio.sleep(fault.delay)
        if fault.drop:
            if fault.after_commit:
                await proceed(request)
            return _dropped(request)
        if fault.status:
            error = _error(fault, request)
            if request.info.verb == "watch" and fault.status == 410:
                return Response(200, {"Content-Type": "application/json"}, stream=_expired(error))
            if fault.after_commit:
                await proceed(request)
            raise error
        response = await proceed(request)
        if fault.drop_watch is not None and response.stream is not None:
            response.stream = _cut(response.stream, fault.drop_watch)
        return response


def _check(fault: Fault) -> None:
    """Raise ValueError for a fault that could never strike, or not as it says."""
    if fault.status and not 400 <= fault.status <= 599:
        raise ValueError(f"status {fault.status} is no failure: use 400 to 599")
    if not (fault.status or fault.delay or fault.drop or fault.drop_watch is not None):
        raise ValueError("a fault needs a status, a delay, drop or drop_watch")
    if not 0.0 < fault.probability <= 1.0:
        raise ValueError(f"probability {fault.probability} is none: use more than 0 and at most 1")
    if fault.times is not None and fault.times < 1:
        raise ValueError(f"times={fault.times} never strikes: use 1 or more, or None for always")
    if fault.delay < 0 or fault.skip < 0 or (fault.drop_watch or 0) < 0:
        raise ValueError("delay, skip and drop_watch cannot be less than 0")
    if fault.drop_watch is not None and fault.verb and not fnmatch.fnmatchcase("watch", fault.verb):
        raise ValueError(f"drop_watch ends watches, but the fault is for {fault.verb!r}: leave the verb out")


def _error(fault: Fault, request: Request) -> apierrors.ApiError:
    info = request.info
    message = fault.message or f"{info.verb} {info.resource} {info.name}: a fault of the test"
    error: apierrors.ApiError
    match fault.status:
        case 410:
            error = apierrors.Expired(fault.message or "too old resource version: 1 (2)")
        case 409 if info.verb == "create" and not fault.reason:
            error = apierrors.AlreadyExists(message)
        case 429:
            seconds = 1 if fault.retry_after is None else fault.retry_after
            error = apierrors.TooManyRequests.after(
                fault.message or "Too many requests, please try again later.", seconds
            )
        case _:
            status = {
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": fault.status,
                "reason": fault.reason or _REASONS.get(fault.status, ""),
                "details": {"retryAfterSeconds": fault.retry_after or 0},
            }  # fmt: skip
            error = apierrors.from_status(fault.status, serialization.encode_tree(status))
            error.code = fault.status
    return error


_REASONS = {
    400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 422: "Invalid",
    500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout",
}  # fmt: skip


async def _expired(error: apierrors.ApiError) -> AsyncIterator[bytes]:
    yield b'{"type":"ERROR","object":%b}\n' % serialization.encode(error.status())


async def _cut(stream: AsyncIterator[bytes], events: int) -> AsyncIterator[bytes]:
    """Pass so many events on, then end; chunks hold whole events."""
    if events <= 0:
        await _close(stream)
        return
    try:
        async for chunk in stream:
            lines = chunk.splitlines(keepends=True)
            yield b"".join(lines[:events])
            events -= len(lines)
            if events <= 0:
                return
    finally:
        await _close(stream)


async def _close(stream: Any) -> None:
    close = getattr(stream, "aclose", None)
    if close is not None:
        await close()


def _dropped(request: Request) -> Response:
    connection = request.connection
    if connection is None:
        raise apierrors.ServiceUnavailable("the connection was dropped by a fault of the test")

    async def hijack() -> None:
        connection.transport.abort()

    return Response(101, hijack=hijack)

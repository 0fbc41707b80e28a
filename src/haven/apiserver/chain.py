"""The way of every request: identity, impersonation, limits, permission, handler; and how refusals are rendered.

Source: upstream's handler chain. Nothing escapes from here but a Response or a cancellation.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import Protocol

from haven import telemetry
from haven.apimachinery import apierrors, meta, serialization
from haven.apimachinery.codecs.negotiate import JSON
from haven.apimachinery.goformat import quote
from haven.apiserver import patience
from haven.apiserver.audit.recorder import Auditor
from haven.apiserver.authentication.impersonation import Impersonation, NobodyNamed
from haven.apiserver.authorization.interface import Attributes, NotAllowed, Verdict, decide, refusal
from haven.apiserver.authorization.union import AuthorizerUnion
from haven.apiserver.deadlines import Deadlines, asked_seconds
from haven.apiserver.decisions import Decisions
from haven.apiserver.flowcontrol.levels import Ticket
from haven.apiserver.flowcontrol.runner import FlowControl, TooManyRequests
from haven.apiserver.metrics import Metrics
from haven.apiserver.outgoing import OutgoingMeter
from haven.apiserver.registry.output import refusal_response
from haven.apiserver.registry.resources import (
    Resources,
    method_not_allowed,
    path_not_found,
    path_not_found_text,
)
from haven.apiserver.request import Request, RequestInfo, Response, UserInfo
from haven.apiserver.requestinfo import MalformedPath, resolve
from haven.clock import Clock
from haven.store.interface import StoreError

__all__ = ["Chain", "Identify", "Interpose", "PathHandler"]

PathHandler = Callable[[Request], Awaitable[Response]]
Interpose = Callable[[Request, PathHandler], Awaitable[Response]]
"""Sees every request once it is known who asks for what, and answers it, usually by calling what it is given."""
_TEXT = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
_LONG_VERBS = frozenset({"watch", "proxy"})
_LONG_SUBRESOURCES = frozenset({"attach", "exec", "proxy", "log", "portforward"})
_READING = frozenset({"get", "list", "watch", "head"})
_WARNINGS_CHARACTERS_MAX = 4096
_WARNING_CHARACTERS_MAX = 256
_NOBODY = UserInfo("")

_log = telemetry.logger("apiserver")


class Identify(Protocol):
    """Tells who sent a request."""

    async def authenticate(self, request: Request) -> UserInfo:
        """Return the user; raise Unauthorized."""
        ...


class Chain:
    """Answers requests. `paths` are handlers of paths that are no resources; one ending in / takes all below it."""

    def __init__(
        self,
        *,
        resources: Resources,
        identify: Identify,
        authorizer: AuthorizerUnion,
        paths: Mapping[str, PathHandler],
        clock: Clock,
        metrics: Metrics,
        flows: FlowControl | None,
        auditor: Auditor | None = None,
        decisions: Decisions | None = None,
        requests_in_flight_max: int,
        mutating_requests_in_flight_max: int,
        write_timeout_seconds: float,
        catch_up: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.resources = resources
        self.paths = dict(paths)
        self.delegate: Callable[[str], PathHandler | None] = _nobody
        """Who answers for a path in place of this server."""
        self._identify = identify
        self._authorizer = authorizer
        self._clock = clock
        self._metrics = metrics
        self._flows = flows
        self.auditor = self._auditor = auditor
        self._decisions = decisions or Decisions()
        self.outgoing: OutgoingMeter | None = None
        """What counts requests by the server itself."""
        self._impersonation = Impersonation(authorizer, self._decisions)
        self._reading_max = requests_in_flight_max
        self._mutating_max = mutating_requests_in_flight_max
        self._reading = self._mutating = 0
        self._write_seconds_max = write_timeout_seconds
        self._write_deadlines = Deadlines(write_timeout_seconds)
        self.interpose: Interpose | None = None
        self._catch_up = catch_up

    async def handle(self, request: Request) -> Response:
        """Answer a request."""
        started = self._clock.monotonic_seconds()
        panicked = False
        try:
            response = await self._handle(request, started)
        except apierrors.ApiError as error:
            response = self.refuse(request, error)
        except TooManyRequests as error:
            response = _too_many(error)
        except MalformedPath as error:
            response = _internal_text(request, error)
        except asyncio.CancelledError:
            if request.audit is not None and self._auditor is not None:
                self._auditor.abandoned(request, long=_is_long(request.info))
            if request.served:
                self._metrics.aborted(request)
            raise
        except RecursionError:
            response = self.refuse(request, apierrors.BadRequest("the object in the request nests too deeply"))
        except StoreError as error:
            _log.error("The store failed.", method=request.method, path=request.path, because=str(error))
            response = self.refuse(request, apierrors.InternalError(str(error)))
        except Exception as error:
            _log.error("A request failed.", method=request.method, path=request.path, exc_info=error)
            response = _panic(request)
            panicked = True
        if request.warnings:
            self._add_warnings(request, response)
        if request.audit is not None and self._auditor is not None:
            self._auditor.answered(request, response, long=_is_long(request.info), panicked=panicked)
            if self._auditor.under_way:
                await self._auditor.settle()
        if request.served or response.status == 429:
            self._metrics.observe(request, response, self._clock.monotonic_seconds() - started)
        return response

    async def _handle(self, request: Request, started: float) -> Response:
        info = request.info = resolve(request.method, request.path, request.query)
        seconds = asked_seconds(request.query) if request.query and not request.local and not _is_long(info) else None
        if seconds is None or seconds >= self._write_seconds_max:
            return await self._identified_and_limited(request, info, started)
        try:
            async with asyncio.timeout(seconds) as limit:
                with patience.within(seconds):
                    return await self._identified_and_limited(request, info, started)
        except TimeoutError:
            if not limit.expired():
                raise
            text = "Timeout: request did not complete within the allotted timeout"
            raise apierrors.Timeout(text, meta.StatusDetails()) from None

    async def _identified_and_limited(self, request: Request, info: RequestInfo, started: float) -> Response:
        if self._catch_up is not None and info.is_resource:
            await self._catch_up()  # Others write to the store too: know what they acknowledged before this came.
        if request.local:
            if self._auditor is not None:
                self._auditor.begin(request)
        else:
            request.user = await self._identified(request)
            acting = await self._impersonation.apply(request)
            if acting is not None:
                request.user = acting.user
                if request.audit is not None:
                    request.audit.impersonated(acting.user, acting.constraint)
        if self.interpose is not None:
            return await self.interpose(request, lambda passed: self._limited(passed, passed.info, started))
        return await self._limited(request, info, started)

    async def _limited(self, request: Request, info: RequestInfo, started: float) -> Response:
        if request.local or (_is_long(info) and info.verb != "watch"):
            return await self._authorized(request, info)
        if self._flows is None:
            return await self._counted(request, info)
        ticket = self._flows.enter(request, started)
        if ticket is None:
            return await self._timed(request, info)
        if not ticket.started:
            await self._flows.wait_turn(ticket)
            request.waits()["queue"] = ticket.started - ticket.arrived
        return await self._seated(request, info, self._flows, ticket)

    async def _identified(self, request: Request) -> UserInfo:
        began = perf_counter()
        try:
            request.user = await self._identify.authenticate(request)
        except apierrors.Unauthorized:
            self._decisions.disbelieved(perf_counter() - began)
            if self._auditor is None:
                raise
            request.user = _NOBODY
            self._auditor.begin(request, known=False)
            raise
        self._decisions.believed(request.user.name, perf_counter() - began)
        if self._auditor is not None:
            self._auditor.begin(request)
            if self._auditor.under_way:
                await self._auditor.settle(beginning=True)
        return request.user

    async def _seated(self, request: Request, info: RequestInfo, flows: FlowControl, ticket: Ticket) -> Response:
        try:
            response = await self._timed(request, info)
        finally:
            flows.leave(ticket, self._clock.monotonic_seconds())
        if info.verb == "watch" and response.stream is not None:
            response.when_over.append(flows.watches.add(info))
        return response

    async def _counted(self, request: Request, info: RequestInfo) -> Response:
        """Serve a request if not too many are under way, whosever they are: what happens without fairness."""
        if info.verb == "watch":
            return await self._authorized(request, info)
        reading = info.verb in _READING
        if (self._reading >= self._reading_max) if reading else (self._mutating >= self._mutating_max):
            raise TooManyRequests(1)
        if reading:
            self._reading += 1
        else:
            self._mutating += 1
        try:
            return await self._timed(request, info)
        finally:
            if reading:
                self._reading -= 1
            else:
                self._mutating -= 1

    async def _timed(self, request: Request, info: RequestInfo) -> Response:
        """Serve a request; give up on a write that takes too long."""
        if info.verb in _READING:
            return await self._authorized(request, info)
        try:
            with self._write_deadlines.limit():
                return await self._authorized(request, info)
        except TimeoutError:
            self._metrics.terminated(request, 504)
            text = "Timeout: request did not complete within requested timeout - context deadline exceeded"
            raise apierrors.Timeout(text, meta.StatusDetails()) from None

    async def check(self, attributes: Attributes) -> None:
        """Raise Forbidden unless a user may do something."""
        decision = await decide(self._authorizer, attributes)
        if decision.verdict is not Verdict.ALLOW:
            raise refusal(attributes, decision.reason)

    async def _authorized(self, request: Request, info: RequestInfo) -> Response:
        attributes = Attributes.of(request.user, info)
        authorizer = self._authorizer
        began = perf_counter()
        decision = await authorizer.decide(attributes) if authorizer.is_remote else authorizer.authorize(attributes)
        self._decisions.count(decision.verdict, perf_counter() - began)
        if decision.verdict is not Verdict.ALLOW:
            if decision.error and self._authorizer.is_remote:
                request.audit_annotations["authorization.k8s.io/reason"] = "internal error"
                return _internal(request, decision.error)
            self._annotate(request, "forbid", decision.reason)
            raise refusal(attributes, decision.reason)
        if request.audit is not None:
            self._annotate(request, "allow", decision.reason)
        elsewhere = self.delegate(info.path)
        if elsewhere is not None:
            response = await elsewhere(request)
            if response.status == 503 and response.stream is None:
                self._metrics.terminated(request, 503, "aggregator")
            return response
        if info.is_resource:
            resources = self.resources
            if not info.group and info.api_prefix == "apis":
                return path_not_found_text()
            if (info.group, info.version) in resources.group_versions or (
                resources.find(info.group, info.version, info.resource) is not None
            ):
                request.served = True
                return await resources.handle(request)
            if info.group in resources.groups:
                raise path_not_found()
            return path_not_found_text()
        return await self._path(request, info)

    @staticmethod
    def _annotate(request: Request, decision: str, reason: str) -> None:
        request.audit_annotations["authorization.k8s.io/decision"] = decision
        request.audit_annotations["authorization.k8s.io/reason"] = reason

    async def _path(self, request: Request, info: RequestInfo) -> Response:
        path = info.path
        if path.startswith(("//", "/apis//")):
            return path_not_found_text()
        routed = self._is_routed(path)
        handler = self.paths.get("/" if path == "/index.html" else path)
        if handler is None and not path.startswith(_EXACT):
            handler = self.paths.get(path.rstrip("/") or "/")
        if handler is None:
            prefix = path
            while handler is None and prefix:
                prefix = prefix[: prefix.rstrip("/").rfind("/") + 1] if prefix != "/" else ""
                if prefix and prefix != "/":
                    handler = self.paths.get(prefix)
        if handler is None:
            parts = path.strip("/").split("/")
            if parts[0] in ("api", "version") or (
                len(parts) > 1 and parts[0] == "apis" and parts[1] in self.resources.groups
            ):
                raise path_not_found()
            return path_not_found_text()
        if routed and request.method != "GET" and not getattr(handler, "any_method", False):
            raise method_not_allowed()
        request.served = True
        return await handler(request)

    def _is_routed(self, path: str) -> bool:
        """Tell whether upstream's router serves a path, method by method; other handlers do not look at the method."""
        if path.startswith("/apis"):
            parts = path.strip("/").split("/")
            return len(parts) > 2 and parts[1] in self.resources.groups
        return path.startswith(_ROUTED)

    def refuse(self, request: Request, error: apierrors.ApiError) -> Response:
        """Return a refusal as the client can read it."""
        response = refusal_response(request, error.status(), error.code)
        headers = response.headers = dict(response.headers)
        if error.retry_after_seconds:
            headers["Retry-After"] = str(error.retry_after_seconds)
        if isinstance(error, NotAllowed | NobodyNamed):
            headers["X-Content-Type-Options"] = "nosniff"
        response.object = error
        return response

    @staticmethod
    def _add_warnings(request: Request, response: Response) -> None:
        texts = [text for text in dict.fromkeys(request.warnings) if text]
        if sum(map(len, texts)) > _WARNINGS_CHARACTERS_MAX:
            texts = _truncated(texts)
        shown = [f'299 - "{text}"' for text in map(_escaped, texts) if text is not None]
        if shown:
            response.headers = {**response.headers, "Warning": ", ".join(shown)}
            response.warnings = shown


def _truncated(texts: list[str]) -> list[str]:
    """Return the beginnings of warnings that are too much altogether, as many as fit."""
    result: list[str] = []
    length = 0
    for text in texts:
        if length >= _WARNINGS_CHARACTERS_MAX:
            break
        result.append(text[:_WARNING_CHARACTERS_MAX])
        length += len(result[-1])
    return result


def _escaped(text: str) -> str | None:
    """Return a warning as a header carries it; None if it has control characters, which upstream drops whole."""
    if any(unicodedata.category(char) == "Cc" for char in text):
        return None
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _is_long(info: RequestInfo) -> bool:
    if not info.is_resource:
        return info.path.startswith("/debug/pprof/")
    return info.verb in _LONG_VERBS or info.subresource in _LONG_SUBRESOURCES


def _too_many(error: TooManyRequests) -> Response:
    return Response(429, {**_TEXT, "Retry-After": str(error.retry_after_seconds)}, f"{error}\n".encode())


def _nobody(_path: str) -> PathHandler | None:
    return None


_EXACT = ("/healthz/", "/livez/", "/readyz/", "/metrics/", "/openapi/", "/flagz/", "/statusz/")
"""Where a slash at the end makes another path."""
_ROUTED = ("/api", "/version", "/openid/", "/.well-known/", "/logs")


def _internal_text(request: Request, error: Exception) -> Response:
    uri = request.uri or request.path
    text = f"Internal Server Error: {quote(uri)}: failed to create RequestInfo: {error}, {uri}\n"
    return Response(500, dict(_TEXT), text.encode())


def _internal(request: Request, because: str) -> Response:
    text = f"Internal Server Error: {quote(request.uri or request.path)}: {because}\n"
    return Response(500, dict(_TEXT), text.encode())


def _panic(request: Request) -> Response:
    text = f"This request caused apiserver to panic. Look in the logs for details: {request.path}"
    error = apierrors.InternalError(text)
    return Response(500, {"Content-Type": JSON}, serialization.encode(error.status()))

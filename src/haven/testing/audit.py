"""What was asked of the cluster's API server, as something to assert on.

Every request of a client is recorded with its user, verb, object, answer and body; those of the cluster's own
components and of the test's own calls are recorded too, but left out unless asked for.
"""

from __future__ import annotations

import fnmatch
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from haven.apimachinery import apierrors
from haven.apimachinery.codecs import protobuf
from haven.apiserver.request import Request, Response
from haven.clock import Clock

__all__ = ["Audit", "AuditRecord", "NotRequested"]

RECORDS_MAX = 50_000
SHOWN_MAX = 20
VERBS = (
    "get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "connect", "post", "put", "head",
    "options",
)  # fmt: skip
Proceed = Callable[[Request], Awaitable[Response]]


class NotRequested(AssertionError):
    """What a test expected was not asked of the API server (or too often); the message lists what was."""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One request. `status` is that of the answer; a watch is recorded when it begins."""

    verb: str
    user: str
    groups: tuple[str, ...]
    group: str
    version: str
    resource: str
    subresource: str
    namespace: str
    name: str
    path: str
    status: int
    user_agent: str
    is_component: bool
    """Whether it came from the cluster itself (its controllers, scheduler, kubelets) or from the test's own calls."""
    seconds: float
    """When, by the cluster's clock."""
    query: Mapping[str, Any]
    content_type: str = ""
    data: bytes = b""

    @property
    def body(self) -> Any:
        """What was sent, as dicts and lists, also by clients that speak protobuf; None for nothing."""
        if not self.data:
            return None
        if "protobuf" in self.content_type:
            try:
                return protobuf.decode(self.data)
            except (protobuf.InvalidProtobuf, KeyError):
                return None  # The API server refused it as well.
        return yaml.safe_load(self.data)  # JSON is YAML.

    def __str__(self) -> str:
        name = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        place = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.verb} {name or self.path} {place} by {self.user} -> {self.status}".replace("  ", " ")


class Audit:
    """The requests of one cluster, oldest first; the newest 50,000 are kept."""

    def __init__(self, clock: Clock, check_plural: Callable[[str], None]) -> None:
        self._clock = clock
        self._check_plural = check_plural
        self._records: deque[AuditRecord] = deque(maxlen=RECORDS_MAX)

    async def observe(self, request: Request, proceed: Proceed) -> Response:
        """Record a request and its answer; stands in the API server's chain."""
        seconds, data = self._clock.now_seconds(), request.body
        status = 500
        try:
            response = await proceed(request)
            status = response.status
            return response
        except apierrors.ApiError as error:
            status = error.code
            raise
        finally:
            self._records.append(_record(request, status, seconds, data))

    def clear(self) -> None:
        """Forget what was recorded so far."""
        self._records.clear()

    def records(
        self,
        *,
        verb: str = "",
        resource: str = "",
        namespace: str = "",
        name: str = "",
        user: str = "",
        status: int | None = None,
        user_agent: str = "",
        body: Mapping[str, Any] | None = None,
        components: bool = False,
    ) -> list[AuditRecord]:
        """Return the requests that match; texts are shell patterns, `body` is a part of what was sent.

        `resource` may name a group (deployments.apps) and a subresource (pods/status); "" means any, without
        subresource or with. `components` takes in the cluster's own components, which `user` naming one does as well.
        """
        check_pattern(verb, resource)
        self._check_plural(plural_of(resource))
        found = []
        for item in list(self._records):
            if item.is_component and not components and not (user and fnmatch.fnmatchcase(item.user, user)):
                continue
            if status is not None and item.status != status:
                continue
            if resource and not _is_resource(item, resource):
                continue
            wanted = (
                (verb, item.verb),
                (namespace, item.namespace),
                (name, item.name),
                (user, item.user),
                (user_agent, item.user_agent),
            )
            if not all(not pattern or fnmatch.fnmatchcase(text, pattern) for pattern, text in wanted):
                continue
            if body is not None and not contains(item.body, body):
                continue
            found.append(item)
        return found

    def assert_requested(self, *, times: int | None = None, **what: Any) -> list[AuditRecord]:
        """Return the matching requests; raise NotRequested if there is none (or not exactly `times`)."""
        found = self.records(**what)
        if (times is None and found) or times == len(found):
            return found
        wanted = ", ".join(f"{key}={value!r}" for key, value in what.items()) or "any request"
        asked = "at least once" if times is None else f"{times} times"
        everything = self.records(components=bool(what.get("components")))
        shown = "\n".join(f"  {item}" for item in everything[-SHOWN_MAX:]) or "  (none)"
        raise NotRequested(
            f"expected {asked}: {wanted}; found {len(found)}.\nThe last of {len(everything)} requests:\n{shown}"
        )

    def assert_not_requested(self, **what: Any) -> None:
        """Raise NotRequested if a request matches."""
        self.assert_requested(times=0, **what)


def check_pattern(verb: str, resource: str, more: Sequence[str] = ()) -> None:
    """Raise ValueError for a verb or resource that no request can have: it would match nothing, silently."""
    verbs = (*VERBS, *more)
    if verb and not any(fnmatch.fnmatchcase(item, verb) for item in verbs):
        raise ValueError(f"no request has the verb {verb!r}: {', '.join(verbs)}")
    if resource != resource.lower():
        raise ValueError(f"no resource is called {resource!r}: say the plural, as pods or deployments.apps")


def plural_of(resource: str) -> str:
    """Return the plural of deployments.apps/status."""
    return resource.partition("/")[0].partition(".")[0]


def contains(whole: Any, part: Any) -> bool:
    """Tell whether a tree holds all of another: mappings may have more keys, lists must hold each wanted item."""
    if isinstance(part, Mapping):
        return isinstance(whole, Mapping) and all(k in whole and contains(whole[k], v) for k, v in part.items())
    if isinstance(part, list | tuple):
        return isinstance(whole, list) and all(any(contains(item, wanted) for item in whole) for wanted in part)
    return bool(whole == part)


def _is_resource(item: AuditRecord, wanted: str) -> bool:
    plural, slash, subresource = wanted.partition("/")
    if slash and subresource not in (item.subresource, "*"):
        return False
    if not slash and item.subresource:
        return False
    return fnmatch.fnmatchcase(item.resource, plural) or f"{item.resource}.{item.group}" == plural


def _record(request: Request, status: int, seconds: float, data: bytes) -> AuditRecord:
    info, user = request.info, request.user
    return AuditRecord(
        verb=info.verb,
        user=user.name,
        groups=tuple(user.groups),
        group=info.group,
        version=info.version,
        resource=info.resource,
        subresource=info.subresource,
        namespace=info.namespace,
        name=info.name,
        path=info.path,
        status=status,
        user_agent=request.headers.get("user-agent", ""),
        is_component=request.local,
        seconds=seconds,
        query=request.query,
        content_type=request.headers.get("content-type", ""),
        data=data,
    )

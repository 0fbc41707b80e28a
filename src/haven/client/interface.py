"""The two seams of a client: a Transport carries requests, a Client speaks in objects.

Transports: haven.client.http (any conforming API server, HTTPS) and the in-process one that the API server offers
(haven.apiserver.local), which runs the same request chain without sockets.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar

from haven.api.scheme import Resource
from haven.apimachinery import apierrors
from haven.apimachinery.names import UID

__all__ = [
    "Answer",
    "Client",
    "EventType",
    "ListResult",
    "Patch",
    "PatchType",
    "Transport",
    "Unreachable",
    "WatchEvent",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, body read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Unreachable(apierrors.ServiceUnavailable):
    """No answer came: the server is down or cut off. A write may or may not have happened; read before repeating."""


class Transport(Protocol):
    """Carries requests to one API server as one identity. Paths are absolute and may hold a query string."""

    async def request(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request and return the answer, whatever its status; raises Unreachable if none came."""
        ...

    def stream(self, path: str, *, headers: Mapping[str, str] | None = None) -> AsyncIterator[bytes]:
        """GET and yield the body line by line (watches, logs); raises ApiError if the answer is not 200.

        Raises Unreachable when the connection breaks; ends when the server ends the answer properly.
        """
        ...

    async def close(self) -> None:
        """Close connections."""
        ...


class EventType(Enum):
    """What happened to an object on a watch."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


@dataclass(frozen=True, slots=True)
class WatchEvent(Generic[T]):
    """A change on a watch. A DELETED event holds the object's last state; a BOOKMARK only its resource version."""

    type: EventType
    object: T


@dataclass(frozen=True, slots=True)
class ListResult(Generic[T]):
    """The items of a list and where a watch goes on from. `continue_` is "" on the last page."""

    items: Sequence[T]
    resource_version: str
    continue_: str = ""


class PatchType(Enum):
    """The media type of a patch."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class Patch:
    """A change to an object; `body` is a tree."""

    type: PatchType
    body: Any
    field_manager: str = ""
    force: bool = False
    query: Mapping[str, str] = field(default_factory=dict)


class Client(Protocol):
    """Typed access to resources. `resource` comes from haven.api.scheme; objects are its type.

    Every method raises the ApiError that the server's Status means. Objects that come back may be shared with other
    readers of this process (an in-process transport): never change one, `serialization.copy` it first.
    """

    async def get(self, resource: Resource[T], namespace: str, name: str) -> T:
        """Return the object."""
        ...

    async def list(
        self,
        resource: Resource[T],
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str | None = None,
        limit: int = 0,
        continue_: str = "",
    ) -> ListResult[T]:
        """Return the objects of one namespace, or of all when it is ""."""
        ...

    def watch(
        self,
        resource: Resource[T],
        namespace: str = "",
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        timeout_seconds: int = 0,
    ) -> AsyncIterator[WatchEvent[T]]:
        """Yield changes after a resource version, bookmarks included; raises Expired when it is too old."""
        ...

    async def create(
        self, resource: Resource[T], obj: T, *, namespace: str = "", subresource: str = "", name: str = ""
    ) -> T:
        """Create the object; with a subresource (binding, eviction, token), post `obj` to it."""
        ...

    async def update(self, resource: Resource[T], obj: T, *, subresource: str = "") -> T:
        """Replace the object; its resource version must be the newest (Conflict otherwise)."""
        ...

    async def patch(
        self, resource: Resource[T], namespace: str, name: str, patch: Patch, *, subresource: str = ""
    ) -> T:
        """Change the object."""
        ...

    async def delete(
        self,
        resource: Resource[T],
        namespace: str,
        name: str,
        *,
        uid: UID | None = None,
        resource_version: str | None = None,
        grace_period_seconds: int | None = None,
        propagation_policy: str = "",
    ) -> None:
        """Delete the object; `uid` and `resource_version` are preconditions (Conflict otherwise)."""
        ...

    async def raw(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send any request; raises ApiError for a status of 400 and above."""
        ...

"""What a controller may want done: the words in which reconciling code speaks to the runner.

A controller's `sync` is a generator: it reads caches, yields actions, and receives what came of each (the object as
the server has it now, or an ApiError raised at the yield). It does no I/O itself, so the same code runs against a
cluster of dicts in tests and against an API server in production.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Generator, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from haven.api.scheme import Resource
from haven.apimachinery.names import UID, NamespacedName
from haven.client.interface import Patch
from haven.metrics.families import Registry

__all__ = [
    "Action",
    "Change",
    "Controller",
    "Create",
    "Delete",
    "DeleteCollection",
    "Emit",
    "Fetch",
    "ListNow",
    "Measured",
    "Reader",
    "Request",
    "Requeue",
    "Retry",
    "Steps",
    "Together",
    "Update",
    "Wiring",
    "key_from",
]

T = TypeVar("T")
R = TypeVar("R")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Create:
    """Create an object; with a subresource, post it there (`name` names the parent). Gives the created object."""

    obj: Any
    resource: Resource[Any] | None = None
    subresource: str = ""
    namespace: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Update:
    """Replace an object or its subresource. Gives the new object."""

    obj: Any
    subresource: str = ""
    resource: Resource[Any] | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """Patch an object. Gives the new object."""

    resource: Resource[Any]
    namespace: str
    name: str
    patch: Patch
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete an object. An object that is gone already, or was replaced by one with another UID, is a success."""

    resource: Resource[Any]
    namespace: str
    name: str
    uid: UID | None = None
    resource_version: str | None = None
    grace_period_seconds: int | None = None
    propagation_policy: str = ""


@dataclass(frozen=True, slots=True)
class DeleteCollection:
    """Delete every object of a resource in a namespace."""

    path: str


@dataclass(frozen=True, slots=True)
class Fetch:
    """Read an object from the server, past every cache. Gives the object, None if there is none."""

    resource: Resource[Any]
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class ListNow:
    """List a resource from the server, past every cache. Gives the objects."""

    resource: Resource[Any]
    namespace: str = ""
    field_selector: str = ""
    label_selector: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """Any request. Gives the body of the answer."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Emit:
    """Record an Event about an object."""

    about: Any
    type: str  # Normal or Warning
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Requeue:
    """Work on this key (or another) again after so many seconds."""

    seconds: float
    key: Hashable | None = None


@dataclass(frozen=True, slots=True)
class Together:
    """Do the actions at the same time, in batches of 1, 2, 4…; after a batch with an error the rest is left undone.

    Gives a list with a result or an ApiError for each action that was tried; errors are not raised.
    """

    actions: Sequence[Action]
    first_batch: int = 1


Action: TypeAlias = (
    Create | Update | Change | Delete | DeleteCollection | Fetch | ListNow | Request | Emit | Requeue | Together
)
Steps: TypeAlias = Generator[Action, Any, R]
"""What `sync` returns: yields actions, receives results, ends with a value (None for a whole sync)."""


class Retry(Exception):
    """This pass could not finish, for a reason that is no error of the server: try again later."""


class Reader(Protocol[T_co]):
    """The cache of one resource, as controllers see it; an Informer is one. Objects in it are never changed."""

    def get(self, namespace: str, name: str) -> T_co | None: ...

    def list(self, namespace: str = "") -> Sequence[T_co]: ...

    def indexed(self, index: str, value: str) -> Collection[T_co]: ...

    def index_values(self, index: str) -> Iterable[str]: ...

    def add_index(self, index: str, function: Callable[[T_co], Iterable[str]]) -> None: ...

    def add_handler(self, handler: Callable[[T_co | None, T_co | None], None]) -> Callable[[], None]: ...


class Wiring(Protocol):
    """What a controller is given when it is made."""

    @property
    def chance(self) -> random.Random: ...

    def reader(self, kind: type[T] | Resource[T], *, field_selector: str = "") -> Reader[T]:
        """Return the shared cache of a resource, or of those objects of it that a selector chooses."""
        ...

    def metadata_reader(self, resource: Resource[Any]) -> Reader[Any]:
        """Return a cache of at least the metadata of a resource; the typed one where somebody has it already."""
        ...

    def forget(self, resource: Resource[Any]) -> None:
        """Give up the metadata cache of a resource that is no longer served."""
        ...

    def is_synced(self) -> bool:
        """Tell whether every cache asked for so far has its first list."""
        ...

    def enqueue(self, key: Any) -> None:
        """Have `sync` called with a key."""
        ...

    def enqueue_after(self, key: Any, seconds: float) -> None:
        """Have `sync` called with a key later."""
        ...

    def now_seconds(self) -> float:
        """Return the seconds since 1970."""
        ...


class Controller(Protocol):
    """A control loop. Made with a Wiring, on which it registers handlers that enqueue keys."""

    workers: int  # How many keys are worked on at the same time.

    def sync(self, key: Any) -> Steps[None]:
        """Bring the world one step closer to what the object at this key asks for."""
        ...


@runtime_checkable
class Measured(Protocol):
    """A controller with metrics of its own."""

    def measure(self, registry: Registry) -> None:
        """Write down what there is to tell now."""
        ...


def key_from(obj: Any) -> NamespacedName:
    """Return an object's place."""
    return NamespacedName(obj.metadata.namespace, obj.metadata.name)

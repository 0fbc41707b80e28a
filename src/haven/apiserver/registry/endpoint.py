"""One served resource: what the handlers need to know about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from haven.api.scheme import GroupVersionKind, Resource, Subresource
from haven.api.strategy import Strategy
from haven.apimachinery import apierrors, apply
from haven.apimachinery.codecs.negotiate import RESOURCES, Offer
from haven.apimachinery.schema import Schema
from haven.apiserver.printers import Printer
from haven.apiserver.registry.storage import Storage
from haven.apiserver.registry.versions import Conversion
from haven.apiserver.watchcache import Entry
from haven.clock import Clock, SystemClock

__all__ = ["Endpoint", "Pending", "View"]

Tree = dict[str, Any]

_GARBAGE_UNSUPPORTED = frozenset({("", "events"), ("events.k8s.io", "events")})
_RETURNS_DELETED = frozenset(
    {
        ("", "pods"), ("", "services"), ("", "namespaces"), ("", "persistentvolumes"), ("", "persistentvolumeclaims"),
        ("", "podtemplates"), ("", "resourcequotas"), ("", "serviceaccounts"),
        ("storage.k8s.io", "storageclasses"), ("storage.k8s.io", "volumeattachments"),
        ("storage.k8s.io", "csinodes"), ("storage.k8s.io", "csidrivers"),
        ("storage.k8s.io", "volumeattributesclasses"),
        ("resource.k8s.io", "resourceclaims"), ("resource.k8s.io", "resourceclaimtemplates"),
        ("resource.k8s.io", "deviceclasses"), ("resource.k8s.io", "resourceslices"),
        ("resource.k8s.io", "devicetaintrules"), ("resource.k8s.io", "resourcepoolstatusrequests"),
    }
)  # fmt: skip


class Pending(Exception):
    """A conversion needs an answer from elsewhere: await `fetch`, then do the same again."""

    def __init__(self, fetch: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self.fetch = fetch


class View(Protocol):
    """What a custom resource's version makes of stored objects and of bodies.

    Where an endpoint has a view, handlers work on objects of the served version: entries pass through `show` before
    anything looks at them, and objects through `stored` before they are written.
    """

    @property
    def list_kind(self) -> str:
        """The kind of a list."""
        ...

    @property
    def deprecations(self) -> Sequence[str]:
        """What clients of this version are warned of."""
        ...

    def decode(self, data: bytes, content_type: str, validation: str, warnings: list[str]) -> Any:
        """Return the object in a body, with defaults; raise BadRequest. `validation` is Strict, Warn or Ignore."""
        ...

    def patched(self, tree: Tree, complaints: list[str], validation: str, warnings: list[str]) -> Any:
        """Return the object that a patch made, with defaults; raise Invalid. `complaints` are about the patch."""
        ...

    def applied(self, tree: Tree) -> Any:
        """Return the object that an apply made, with defaults."""
        ...

    async def show(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return stored entries as this version shows them, in the same order."""
        ...

    async def stored(self, obj: Any) -> Any:
        """Return an object of this version as it is to be stored; the argument may be changed."""
        ...

    async def rehearsed(self, obj: Any) -> Any:
        """Return an object as it would be read back, had it been stored."""
        ...

    def reset(self, subresource: str) -> apply.Reset | None:
        """Return which fields a write does not come to own."""
        ...

    def convert(self, tree: Tree, api_version: str) -> tuple[Tree, Schema] | None:
        """Return a tree in another version; None if there is no such version. Raise Pending if that takes waiting."""
        ...

    def admit_create(self, name: str) -> None:
        """Raise Forbidden if no objects may be made any more."""
        ...


@dataclass(frozen=True)
class Endpoint:
    """A resource at one version, its storage, rules and schema. Handlers work on objects of the stored version."""

    resource: Resource[Any]
    storage: Storage
    strategy: Strategy[Any]
    conversion: Conversion
    schema: Schema
    offer: Offer = RESOURCES
    printer: Printer | None = None
    """The columns of a custom resource, whose cells are made of plain trees; built-in kinds have their own."""
    clock: Clock = field(default_factory=SystemClock)
    """What the ages in Tables are reckoned from."""
    view: View | None = None
    """What a custom resource's version makes of stored objects; None for built-in kinds."""

    @property
    def group_resource(self) -> apierrors.GroupResource:
        return apierrors.GroupResource(self.resource.group, self.resource.plural)

    @property
    def gvk(self) -> GroupVersionKind:
        return self.resource.gvk

    @property
    def list_kind(self) -> str:
        return self.resource.kind + "List" if self.view is None else self.view.list_kind

    @property
    def supports_garbage_collection(self) -> bool:
        """Whether dependents may be orphaned or deleted first (events have none)."""
        return (self.resource.group, self.resource.plural) not in _GARBAGE_UNSUPPORTED

    @property
    def returns_deleted(self) -> bool:
        """Whether a delete answers with the object instead of a Status."""
        return (self.resource.group, self.resource.plural) in _RETURNS_DELETED

    def subresource(self, name: str) -> Subresource | None:
        """Return a subresource by name."""
        for item in self.resource.subresources:
            if item.name == name:
                return item
        return None

    def strategy_of(self, subresource: str) -> Strategy[Any]:
        """Return the rules of the resource or of one of its subresources."""
        if not subresource:
            return self.strategy
        return self.strategy.subresources.get(subresource, self.strategy)

    def complaint_kind(self, strategy: Strategy[Any], obj: Any = None) -> apierrors.GroupKind:
        """Return the kind that complaints about an object name; a custom resource's is what the object says it is."""
        if self.view is not None and obj is not None:
            return apierrors.GroupKind(obj.api_version.rpartition("/")[0], obj.kind)
        group = strategy.complaint_group
        return apierrors.GroupKind(self.resource.group if group is None else group, self.resource.kind)

    def reset(self, subresource: str = "") -> apply.Reset | None:
        """Return which fields a write to the resource or one of its subresources does not come to own."""
        if self.view is not None:
            return self.view.reset(subresource)
        return apply.reset_for(self.resource.group, self.resource.plural, subresource)

    async def show(self, entry: Entry) -> Entry:
        """Return a stored entry as handlers are to see it."""
        return entry if self.view is None else (await self.view.show([entry]))[0]

    async def show_all(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Return stored entries as handlers are to see them."""
        return entries if self.view is None else await self.view.show(entries)

    async def stored(self, obj: Any) -> Any:
        """Return the object that is to be stored."""
        return obj if self.view is None else await self.view.stored(obj)

    async def rehearsed(self, obj: Any) -> Any:
        """Return a new or changed object as it would be read back, had it been stored."""
        return obj if self.view is None else await self.view.rehearsed(obj)

    def not_found(self, name: str) -> apierrors.NotFound:
        """Return the refusal of a name that is not there."""
        return apierrors.NotFound.of(self.group_resource, name)

"""One served resource: what the handlers need to know about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from haven.api.scheme import GroupVersionKind, Resource, Subresource
from haven.api.strategy import Strategy
from haven.apimachinery import apierrors
from haven.apimachinery.codecs.negotiate import RESOURCES, Offer
from haven.apimachinery.schema import Schema
from haven.apiserver.printers import Printer
from haven.apiserver.registry.storage import Storage
from haven.apiserver.registry.versions import Conversion
from haven.clock import Clock, SystemClock

__all__ = ["Endpoint"]

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

    @property
    def group_resource(self) -> apierrors.GroupResource:
        return apierrors.GroupResource(self.resource.group, self.resource.plural)

    @property
    def gvk(self) -> GroupVersionKind:
        return self.resource.gvk

    @property
    def list_kind(self) -> str:
        return self.resource.kind + "List"

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

    def complaint_kind(self, strategy: Strategy[Any]) -> apierrors.GroupKind:
        """Return the kind that complaints about an object name."""
        group = strategy.complaint_group
        return apierrors.GroupKind(self.resource.group if group is None else group, self.resource.kind)

    def not_found(self, name: str) -> apierrors.NotFound:
        """Return the refusal of a name that is not there."""
        return apierrors.NotFound.of(self.group_resource, name)

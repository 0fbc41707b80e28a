"""Admission plugins change or refuse writes after authorization, before validation and after it.

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from haven.api import scheme
from haven.api.core import v1 as core
from haven.api.scheme import GroupVersionKind, Resource, subresource_kind
from haven.apimachinery.apierrors import ApiError, Forbidden, GroupResource, NotFound
from haven.apiserver.request import UserInfo

__all__ = [
    "CONNECT",
    "CREATE",
    "DELETE",
    "UPDATE",
    "AdmissionRequest",
    "Mutator",
    "Objects",
    "Plugin",
    "PluginFailure",
    "Reinvocation",
    "Validator",
    "forbidden",
    "namespace_of",
]

T = TypeVar("T")
CREATE, UPDATE, DELETE, CONNECT = "CREATE", "UPDATE", "DELETE", "CONNECT"


@dataclass(slots=True)
class Reinvocation:
    """Whether plugins that may have overlooked a later plugin's changes are to be asked once more.

    `values` is where a plugin keeps, under its name, what it needs to know in the second round.
    """

    is_second_round: bool = False
    is_wanted: bool = False
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class AdmissionRequest:
    """One write. `object` is the typed struct to be stored (plugins may change it), `old` what is stored (never
    change it); custom resources are trees. `options` is the CreateOptions, UpdateOptions, … tree.

    `warnings` reach the client as Warning headers; `audit_annotations` the audit log, `audit_details` only from the
    level Request on. What a CONNECT is about is an options object (PodExecOptions, …).
    """

    operation: str
    resource: Resource[Any]
    subresource: str
    namespace: str
    name: str
    user: UserInfo
    object: Any = None
    old: Any = None
    dry_run: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    audit_annotations: dict[str, str] = field(default_factory=dict)
    audit_details: dict[str, str] = field(default_factory=dict)
    delays: dict[str, float] = field(default_factory=dict)
    """For how many seconds others were waited for."""
    path_name: str = ""
    """The name in the request's path: a POST to a collection has none, also where the object has."""
    reinvocation: Reinvocation = field(default_factory=Reinvocation)

    @property
    def kind(self) -> GroupVersionKind:
        """What `object` is, as the client knows it."""
        return subresource_kind(self.resource, self.subresource)

    def is_for(self, group: str, plural: str, subresource: str = "") -> bool:
        """Tell whether this write is to a resource (of any version)."""
        return self.resource.plural == plural and self.resource.group == group and self.subresource == subresource


class Objects(Protocol):
    """Read and write access to stored objects for plugins, without going through the chain again.

    Reads come from the watch cache (decoded objects, shared: never change one).
    """

    def get(self, resource: Resource[T], namespace: str, name: str) -> T | None:
        """Return the object, or None."""
        ...

    def list(self, resource: Resource[T], namespace: str = "") -> Sequence[T]:
        """Return all objects of a namespace, or of all namespaces when it is ""."""
        ...

    async def get_fresh(self, resource: Resource[T], namespace: str, name: str) -> T | None:
        """Return the object as the store has it now."""
        ...

    async def update_status(self, resource: Resource[T], obj: T) -> T:
        """Write the object's status if its resource version is still the newest; raises Conflict."""
        ...


class Plugin(Protocol):
    """A plugin has a name and is a Mutator, a Validator, or both. It raises ApiError to refuse.

    `resources` are the ones it wants to see, whatever their version and subresource; None for all.

    Two more may be said of a plugin. `is_steady = True`: what it does to an object and writes down about it depends on
    nothing but the object, the operation, the name and groups of the user, and what it reads through Objects; and not
    on values of the object that are free (haven.api.likeness). And `is_idle(request)`: whether it has nothing to do
    with such a request, whatever the object. `only_refuses = True`: it neither changes objects nor writes down
    anything about requests.
    """

    @property
    def name(self) -> str:
        """What operators call it."""
        ...

    @property
    def resources(self) -> frozenset[GroupResource] | None:
        """Which resources it wants to see."""
        ...

    def handles(self, operation: str) -> bool:
        """Tell whether the plugin wants to see this operation."""
        ...


class Mutator(Plugin, Protocol):
    """Runs before validation."""

    async def admit(self, request: AdmissionRequest) -> None:
        """Change `request.object`, or refuse."""
        ...


class Validator(Plugin, Protocol):
    """Runs after validation, when the object is final."""

    async def validate(self, request: AdmissionRequest) -> None:
        """Refuse, or do nothing."""
        ...


def forbidden(request: AdmissionRequest, because: str) -> Forbidden:
    """Return the refusal of a request, in upstream's words.

    An object without a name is called by its name's beginning, as names are generated after admission.
    """
    name = request.name
    if not name:
        metadata = getattr(request.object, "metadata", None)
        name = (metadata and (metadata.name or metadata.generate_name)) or "Unknown"
    return Forbidden.of(request.resource.group_resource, name, because)


class PluginFailure(ApiError):
    """A plugin stumbles over something that upstream has no status for: a 500 without a reason."""

    code, reason = 500, ""


def namespace_of(objects: Objects, name: str) -> core.Namespace:
    """Return a namespace; raise NotFound."""
    resource = scheme.resource_of(core.Namespace)
    found = objects.get(resource, "", name)
    if found is None:
        raise NotFound.of(resource.group_resource, name)
    return found

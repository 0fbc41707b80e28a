"""Which resources there are: group, version, plural, kind, scope, verbs, names, and the Python type of each.

The table is resources.tsv, facts of Kubernetes v1.36; types are imported on first use, because a process rarely
needs them all.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources as package_files
from typing import Any, Generic, NamedTuple, TypeVar, cast

from haven.apimachinery.apierrors import GroupKind, GroupResource

__all__ = [
    "GroupVersionKind",
    "GroupVersionResource",
    "Resource",
    "Subresource",
    "find",
    "kind_type",
    "resource_of",
    "subresource_kind",
    "table",
]

T = TypeVar("T", covariant=True)


class GroupVersionKind(NamedTuple):
    """A kind at one version; `group` is "" for the core group."""

    group: str
    version: str
    kind: str

    @property
    def api_version(self) -> str:
        """As objects carry it: v1, apps/v1."""
        return f"{self.group}/{self.version}" if self.group else self.version


class GroupVersionResource(NamedTuple):
    """A resource at one version."""

    group: str
    version: str
    resource: str


@dataclass(frozen=True, slots=True)
class Subresource:
    """A part of a resource with a path and verbs of its own, such as status or scale."""

    name: str
    kind: str
    verbs: tuple[str, ...]


@dataclass(frozen=True)
class Resource(Generic[T]):
    """One resource at one version. Equal and hashable by group, version and plural name."""

    group: str
    version: str
    plural: str
    singular: str
    kind: str
    namespaced: bool
    short_names: tuple[str, ...]
    categories: tuple[str, ...]
    verbs: tuple[str, ...]
    subresources: tuple[Subresource, ...]

    @cached_property
    def type(self) -> type[T]:
        """The struct that an object of this resource is."""
        return cast("type[T]", kind_type(self.group, self.version, self.kind))

    @cached_property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @cached_property
    def group_resource(self) -> GroupResource:
        return GroupResource(self.group, self.plural)

    @cached_property
    def group_kind(self) -> GroupKind:
        return GroupKind(self.group, self.kind)

    @cached_property
    def gvk(self) -> GroupVersionKind:
        return GroupVersionKind(self.group, self.version, self.kind)

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Return the URL path of the collection, of one object, or of its subresource."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/" + "/".join(parts)

    def __hash__(self) -> int:
        return hash((self.group, self.version, self.plural))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Resource) and (self.group, self.version, self.plural) == (
            other.group,
            other.version,
            other.plural,
        )


_FOREIGN_KINDS = {
    "Eviction": ("policy", "v1"), "Scale": ("autoscaling", "v1"), "TokenRequest": ("authentication.k8s.io", "v1"),
}  # fmt: skip
"""Kinds of subresources that belong to another group than their resource."""


def subresource_kind(resource: Resource[Any], subresource: str) -> GroupVersionKind:
    """Return the kind of a resource's objects, or of what one of its subresources takes; KeyError if it has none."""
    if not subresource:
        return resource.gvk
    for item in resource.subresources:
        if item.name == subresource:
            group, version = (resource.group, resource.version)
            if item.kind != resource.kind:
                group, version = _FOREIGN_KINDS.get(item.kind, (group, version))
            return GroupVersionKind(group, version, item.kind)
    raise KeyError(subresource)


@cache
def kind_type(group: str, version: str, kind: str) -> type[Any]:
    """Return the struct of a kind, importing its module; raise KeyError if Haven does not know it."""
    short = group.split(".")[0] or "core"
    module_name = "apiserverinternal" if short == "internal" else short
    try:
        module = importlib.import_module(f"haven.api.{module_name}.{version}")
        return cast("type[Any]", getattr(module, kind))
    except (ImportError, AttributeError):
        raise KeyError(f"{group}/{version} {kind}") from None


@cache
def table() -> dict[GroupVersionResource, Resource[Any]]:
    """Return every resource of v1.36, in the order of discovery."""
    text = package_files.files("haven.api").joinpath("resources.tsv").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]
    subresources: dict[tuple[str, str], list[Subresource]] = {}
    for group_version, plural, kind, _, _, _, _, verbs in rows:
        parent, slash, name = plural.partition("/")
        if slash:
            subresources.setdefault((group_version, parent), []).append(
                Subresource(name, kind, tuple(verbs.split(",")))
            )
    result: dict[GroupVersionResource, Resource[Any]] = {}
    for group_version, plural, kind, scope, singular, short_names, categories, verbs in rows:
        if "/" in plural:
            continue
        group, _, version = group_version.rpartition("/")
        result[GroupVersionResource(group, version, plural)] = Resource(
            group=group,
            version=version,
            plural=plural,
            singular=singular,
            kind=kind,
            namespaced=scope == "ns",
            short_names=tuple(short_names.split(",")) if short_names else (),
            categories=tuple(categories.split(",")) if categories else (),
            verbs=tuple(verbs.split(",")),
            subresources=tuple(subresources.get((group_version, plural), ())),
        )
    return result


def find(group: str, version: str, plural: str) -> Resource[Any]:
    """Return a resource by its names; raise KeyError if there is none."""
    return table()[GroupVersionResource(group, version, plural)]


def resource_of(kind: type[T]) -> Resource[T]:
    """Return the resource whose objects are of this type, e.g. resource_of(core_v1.Pod)."""
    return cast("Resource[T]", _by_type()[(kind.__module__, kind.__name__)])


@cache
def _by_type() -> dict[tuple[str, str], Resource[Any]]:
    result: dict[tuple[str, str], Resource[Any]] = {}
    for resource in table().values():
        short = resource.group.split(".")[0] or "core"
        module_name = "apiserverinternal" if short == "internal" else short
        result.setdefault((f"haven.api.{module_name}.{resource.version}", resource.kind), resource)
    return result

"""Objects under admission in the version that somebody outside asked for, and what they made of them.

In admission an object is of its stored version, a custom resource of the one that the client used. Webhooks and
policies name versions, and see objects as these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from haven.api import scheme
from haven.api.scheme import GroupVersionKind, GroupVersionResource, Resource, subresource_kind
from haven.apimachinery import apierrors, serialization
from haven.apimachinery.schema import check, normalize, schema_for
from haven.apimachinery.unstructured import Unstructured
from haven.apiserver.admission.interface import AdmissionRequest
from haven.apiserver.registry.endpoint import Endpoint, Pending, View

__all__ = ["ServedVersions", "Versions"]

Tree = dict[str, Any]


class Versions(Protocol):
    """Converts objects under admission."""

    def equivalents(self, resource: Resource[Any], subresource: str) -> Sequence[Resource[Any]]:
        """Return the other served resources by which the same objects can be reached, with this subresource."""
        ...

    async def show(self, obj: Any, resource: Resource[Any], subresource: str) -> Any:
        """Return an object as a resource or subresource shows it. The result may be shared: do not change it."""
        ...

    async def take(self, tree: Tree, resource: Resource[Any], request: AdmissionRequest) -> Any:
        """Return a tree of that version as the object of a request, with defaults; raise ApiError."""
        ...


class ServedVersions:
    """Versions of what a server serves. `endpoints` is the server's table; `changes` tells how often it has changed."""

    def __init__(self) -> None:
        self.endpoints: dict[GroupVersionResource, Endpoint] = {}
        self.changes: Callable[[], int] = _never
        self._seen = -1
        self._equivalents: dict[tuple[Resource[Any], str], Sequence[Resource[Any]]] = {}

    def equivalents(self, resource: Resource[Any], subresource: str) -> Sequence[Resource[Any]]:
        changes = self.changes()
        if changes != self._seen:
            self._equivalents.clear()
            self._seen = changes
        found = self._equivalents.get((resource, subresource))
        if found is None:
            found = self._equivalents[(resource, subresource)] = self._find_equivalents(resource, subresource)
        return found

    def _find_equivalents(self, resource: Resource[Any], subresource: str) -> Sequence[Resource[Any]]:
        own = self._endpoint(resource)
        if own is None:
            return ()
        stored = own.storage.resource.group_resource
        return [
            other.resource
            for other in self.endpoints.values()
            if other.resource != resource
            and other.storage.resource.group_resource == stored
            and (not subresource or other.subresource(subresource) is not None)
        ]

    def _endpoint(self, resource: Resource[Any]) -> Endpoint | None:
        return self.endpoints.get(GroupVersionResource(resource.group, resource.version, resource.plural))

    async def show(self, obj: Any, resource: Resource[Any], subresource: str) -> Any:
        if obj is None:
            return None
        kind = subresource_kind(resource, subresource)
        if kind != resource.gvk:
            return _named(obj, kind)
        endpoint = self._endpoint(resource)
        if endpoint is None:
            return _named(obj, kind)
        if endpoint.view is not None:
            if obj.api_version == resource.api_version:
                return obj
            converted = await _converted(endpoint.view, serialization.to_tree(obj), resource.api_version)
            return Unstructured.from_wire(converted)
        return _named(endpoint.conversion.to_served(obj), kind)

    async def take(self, tree: Tree, resource: Resource[Any], request: AdmissionRequest) -> Any:
        kind = subresource_kind(resource, request.subresource)
        endpoint = self._endpoint(resource)
        if kind == resource.gvk and endpoint is not None and endpoint.view is not None:
            tree["kind"], tree["apiVersion"] = kind.kind, kind.api_version
            obj = endpoint.view.applied(tree)
            wanted = request.resource.api_version
            if wanted == resource.api_version:
                return obj
            return Unstructured.from_wire(await _converted(endpoint.view, serialization.to_tree(obj), wanted))
        if schema_for(*kind) is None:  # The options of a connection: no kind that is stored or shown.
            return serialization.convert(tree, type(request.object))
        obj = _typed(tree, kind)
        if kind != resource.gvk or endpoint is None:
            return obj
        stored = endpoint.conversion.to_stored(obj)
        endpoint.strategy.default(stored)
        return stored


def _never() -> int:
    return 0


async def _converted(view: View, tree: Tree, api_version: str) -> Tree:
    while True:
        try:
            found = view.convert(tree, api_version)
        except Pending as pending:
            await pending.fetch()
            continue
        assert found is not None, api_version  # Only served versions are looked for.
        return found[0]


def _named(obj: Any, kind: GroupVersionKind) -> Any:
    if obj.kind == kind.kind and obj.api_version == kind.api_version:
        return obj
    copy = serialization.copy(obj)
    copy.kind, copy.api_version = kind.kind, kind.api_version
    return copy


def _typed(tree: Tree, kind: GroupVersionKind) -> Any:
    schema = schema_for(*kind)
    assert schema is not None, kind
    findings = check(tree, schema, None)
    if findings.error is not None:
        raise apierrors.InternalError.because(findings.error)
    if findings.unfit:
        tree = normalize(tree, schema)
    tree["kind"], tree["apiVersion"] = kind.kind, kind.api_version
    return serialization.convert(tree, scheme.kind_type(*kind))

"""Every served resource, and which handler answers a request to it.

Paths: /namespaces/{namespace}/{resource}/{name}/{subresource} for namespaced ones (a list may leave the namespace out).
What no path names is 404; a path with a method that it lacks is 405.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from haven.api.scheme import GroupVersionResource, Resource
from haven.apimachinery import apierrors, meta
from haven.apimachinery.goformat import quote
from haven.apiserver.deprecations import DeprecatedUse
from haven.apiserver.registry.deletion import Deletion
from haven.apiserver.registry.endpoint import Endpoint, View
from haven.apiserver.registry.patching import Patching, patch_kind
from haven.apiserver.registry.reading import Reading
from haven.apiserver.registry.watching import Watching
from haven.apiserver.registry.writing import Writing
from haven.apiserver.request import Request, RequestInfo, Response
from haven.apiserver.requestinfo import path_segment_errors

__all__ = [
    "Handler",
    "Handlers",
    "Resources",
    "method_not_allowed",
    "path_not_found",
    "path_not_found_text",
]

Handler = Callable[[Request, Endpoint], Awaitable[Response]]


_CONNECTED = frozenset(("attach", "exec", "portforward", "proxy"))
"""Subresources to which any method can be sent."""
_NAMED_VERBS = {"get", "update", "patch", "delete"}


def path_not_found() -> apierrors.NotFound:
    """Return the refusal of a path below a known group and version."""
    return apierrors.NotFound("the server could not find the requested resource", _no_details())


def method_not_allowed() -> apierrors.MethodNotAllowed:
    """Return the refusal of a method that a path lacks."""
    return apierrors.MethodNotAllowed("the server does not allow this method on the requested resource", _no_details())


def path_not_found_text() -> Response:
    """Return the answer to a path of nobody's."""
    headers = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
    return Response(404, headers, b"404 page not found\n")


def _no_details() -> meta.StatusDetails:
    return meta.StatusDetails()


@dataclass(frozen=True)
class Handlers:
    """The handlers of stored resources."""

    reading: Reading
    watching: Watching
    writing: Writing
    patching: Patching
    deletion: Deletion


@dataclass
class Resources:
    """The table of endpoints. Subresources and resources that are not stored bring handlers of their own, by verb."""

    handlers: Handlers
    endpoints: dict[GroupVersionResource, Endpoint] = field(default_factory=dict)
    virtual: dict[tuple[str, str], Mapping[str, Handler]] = field(default_factory=dict)
    subresources: dict[tuple[str, str, str], Mapping[str, Handler]] = field(default_factory=dict)
    group_versions: set[tuple[str, str]] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)
    deprecated: DeprecatedUse = field(default_factory=DeprecatedUse)
    changes: int = 0
    """Counts changes of `endpoints`, for those who keep what they made of them."""

    def add(self, endpoint: Endpoint) -> None:
        """Serve a stored resource."""
        self.changes += 1
        resource = endpoint.resource
        self.endpoints[GroupVersionResource(resource.group, resource.version, resource.plural)] = endpoint
        self._know(resource)

    def add_custom(self, endpoint: Endpoint) -> None:
        """Serve a custom resource, or serve it differently from now on."""
        self.changes += 1
        resource = endpoint.resource
        self.endpoints[GroupVersionResource(resource.group, resource.version, resource.plural)] = endpoint

    def remove(self, resource: Resource[Any]) -> None:
        """Serve a custom resource's version no longer."""
        self.changes += 1
        self.endpoints.pop(GroupVersionResource(resource.group, resource.version, resource.plural), None)

    def _know(self, resource: Resource[Any]) -> None:
        self.group_versions.add((resource.group, resource.version))
        self.groups.add(resource.group)

    def find(self, group: str, version: str, plural: str) -> Endpoint | None:
        """Return a stored resource's endpoint."""
        return self.endpoints.get(GroupVersionResource(group, version, plural))

    async def handle(self, request: Request) -> Response:
        """Answer a request to a resource."""
        info = request.info
        endpoint = self.endpoints.get(GroupVersionResource(info.group, info.version, info.resource))
        if endpoint is None:
            raise path_not_found()
        resource = endpoint.resource
        if endpoint.view is not None:
            return await self._custom(request, endpoint, endpoint.view)
        if info.subresource or (info.verb in resource.verbs and request.method != "HEAD"):
            self.deprecated.note_built_in(request, resource, endpoint.offer)
        if info.verb == "proxy" or (info.namespace and not resource.namespaced and not _is_of_itself(info)):
            raise path_not_found()
        own = self.virtual.get((resource.group, resource.plural))
        if request.method == "HEAD" and info.subresource not in _CONNECTED:
            if info.subresource and endpoint.subresource(info.subresource) is None:
                raise path_not_found()
            raise method_not_allowed()  # Authorized as what it is the head of.
        if info.path.startswith(_watch_prefix(info)):
            _check_watch_path(request, endpoint)
        if info.subresource:
            return await self._subresource(request, endpoint)
        if own is not None:
            handler = own.get(info.verb)
            if (info.name and not own.keys() & _NAMED_VERBS) or _lacks_namespace(resource, info):
                raise path_not_found()
            if handler is None:
                raise method_not_allowed()
            return await handler(request, endpoint)
        return await self._stored(request, endpoint, info)

    async def _custom(self, request: Request, endpoint: Endpoint, view: View) -> Response:
        """Answer a request to a custom resource: other words for what cannot be."""
        info, resource = request.info, endpoint.resource
        everywhere = info.verb in ("list", "watch")
        if (info.namespace and not resource.namespaced) or (
            resource.namespaced and not info.namespace and not everywhere
        ):
            return path_not_found_text()
        if view.deprecations:
            self.deprecated.note(request, view.deprecations)
        unsupported = apierrors.MethodNotAllowed.of(endpoint.group_resource, info.verb)
        if info.subresource:
            known = endpoint.subresource(info.subresource)
            if known is None:
                raise endpoint.not_found(info.name)
            if info.verb not in known.verbs:
                raise unsupported
            own = self.subresources.get((resource.group, resource.plural, info.subresource))
            if own is not None:
                return await own[info.verb](request, endpoint)
            if info.verb == "get":
                return await self.handlers.reading.get(request, endpoint)
            if info.verb == "update":
                return await self.handlers.writing.update(request, endpoint, info.subresource)
            return await self.handlers.patching.patch(request, endpoint, info.subresource)
        if info.name and info.verb in _NAMED_VERBS:
            _check_name(info.name)
        if info.verb == "get":
            return await self.handlers.reading.get(request, endpoint)
        if info.verb == "list":
            return await self.handlers.reading.list(request, endpoint)
        if info.verb == "watch":
            return await self.handlers.watching.watch(request, endpoint, force=True)
        if info.verb == "create":
            return await self.handlers.writing.create(request, endpoint)
        if info.verb == "patch":
            patch_kind(request, endpoint)
        if info.verb in ("update", "patch") and not info.name:
            raise apierrors.BadRequest("name must be provided")
        if info.verb == "update":
            return await self.handlers.writing.update(request, endpoint)
        if info.verb == "patch":
            return await self.handlers.patching.patch(request, endpoint)
        if info.verb == "delete":
            return await self.handlers.deletion.delete(request, endpoint)
        if info.verb == "deletecollection":
            return await self.handlers.deletion.delete_collection(request, endpoint)
        raise unsupported

    async def _stored(self, request: Request, endpoint: Endpoint, info: RequestInfo) -> Response:
        handlers, verb = self.handlers, info.verb
        if len(info.parts) > 2:  # Something behind an empty subresource.
            raise path_not_found()
        named = len(info.parts) > 1 and bool(info.parts[1])
        if endpoint.resource.namespaced and not info.namespace:
            if named and not info.path.startswith((_watch_prefix(info),)):
                raise path_not_found()
            if verb not in ("list", "watch"):
                if "/namespaces//" in info.path:
                    raise apierrors.BadRequest("Namespace parameter required.")
                raise method_not_allowed()
        if verb not in endpoint.resource.verbs:
            raise method_not_allowed()
        if named:
            _check_name(info.name)
            if verb == "get":
                return await handlers.reading.get(request, endpoint)
            if verb == "update":
                return await handlers.writing.update(request, endpoint)
            if verb == "patch":
                return await handlers.patching.patch(request, endpoint)
            if verb == "delete":
                return await handlers.deletion.delete(request, endpoint)
            if verb == "watch":
                return await handlers.watching.watch(request, endpoint, force=True)
            raise method_not_allowed()
        if verb == "list":
            return await handlers.reading.list(request, endpoint)
        if verb == "watch":
            return await handlers.watching.watch(request, endpoint, force="watch" not in request.query)
        if verb == "create":
            return await handlers.writing.create(request, endpoint)
        if verb in ("deletecollection", "delete"):
            if "deletecollection" not in endpoint.resource.verbs:
                raise method_not_allowed()
            return await handlers.deletion.delete_collection(request, endpoint)
        raise method_not_allowed()

    async def _subresource(self, request: Request, endpoint: Endpoint) -> Response:
        info = request.info
        resource = endpoint.resource
        known = endpoint.subresource(info.subresource)
        if known is None or (resource.namespaced and not info.namespace):
            raise path_not_found()
        if len(info.parts) > 3 and info.subresource != "proxy":
            raise path_not_found()
        # A proxy passes on OPTIONS too, which is no verb of the API.
        passed_on = info.subresource == "proxy" and request.method == "OPTIONS"
        if (info.verb not in known.verbs and not passed_on) or (
            request.method == "HEAD" and info.subresource != "proxy"
        ):
            raise method_not_allowed()
        own = self.subresources.get((resource.group, resource.plural, info.subresource))
        if own is not None:
            handler = own.get("get" if passed_on else info.verb)
            if handler is None:
                raise method_not_allowed()
            return await handler(request, endpoint)
        if known.kind != resource.kind:
            raise path_not_found()
        if info.verb == "get":
            return await self.handlers.reading.get(request, endpoint)
        if info.verb == "update":
            return await self.handlers.writing.update(request, endpoint, info.subresource)
        return await self.handlers.patching.patch(request, endpoint, info.subresource)


def _check_name(name: str) -> None:
    problems = path_segment_errors(name)
    if problems:
        raise apierrors.BadRequest(f"Name parameter invalid: {quote(name)}: {';'.join(problems)}")


def _is_of_itself(info: RequestInfo) -> bool:
    """Tell whether the namespace of a path is the object that the path names."""
    return info.resource == "namespaces" and f"/{info.namespace}/namespaces" not in info.path


def _lacks_namespace(resource: Resource[Any], info: RequestInfo) -> bool:
    """Tell whether a path leaves out the namespace, which none may do where nothing can be listed."""
    return resource.namespaced and not info.namespace and "list" not in resource.verbs


def _check_watch_path(request: Request, endpoint: Endpoint) -> None:
    """Raise unless a path of the old form (/watch/) is one of a resource that can be watched, and is read."""
    if request.info.subresource or "watch" not in endpoint.resource.verbs:
        raise path_not_found()
    if request.method != "GET":
        raise method_not_allowed()


def _watch_prefix(info: RequestInfo) -> str:
    group = f"/{info.group}" if info.group else ""
    return f"/{info.api_prefix}{group}/{info.version}/watch/"

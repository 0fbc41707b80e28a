"""Requests from components in this process: the same chain, no sockets, no identity checks, objects shared.

`LocalTransport` speaks bytes like HTTP. `LocalClient` hands typed objects through: reads come straight from the watch
cache after the permission check, writes take the whole way but are neither encoded nor decoded on the outside.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from time import perf_counter
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlencode

import orjson

from haven.api.scheme import GroupVersionResource, Resource
from haven.apimachinery import apierrors, meta, serialization
from haven.apimachinery.names import UID
from haven.apiserver.authorization.interface import Attributes
from haven.apiserver.chain import Chain
from haven.apiserver.outgoing import OutgoingMeter
from haven.apiserver.registry.endpoint import Endpoint
from haven.apiserver.registry.options import ListParameters, list_parameters
from haven.apiserver.registry.reading import Page, checked_revision, selection_of
from haven.apiserver.registry.resources import Resources
from haven.apiserver.registry.watching import Bookmark, Failure
from haven.apiserver.request import Request, Response, UserInfo
from haven.apiserver.requestinfo import resolve
from haven.apiserver.watchcache import Entry, Watched
from haven.client.interface import Answer, EventType, ListResult, Patch, WatchEvent

__all__ = ["LocalClient", "LocalTransport"]

T = TypeVar("T")
Handle = Callable[[Request], Awaitable[Response]]
_TYPES = {kind.value: kind for kind in EventType}


def _request(method: str, path: str, user: UserInfo, body: bytes, headers: Mapping[str, str] | None) -> Request:
    place, _, query = path.partition("?")
    return Request(
        method=method,
        path=unquote(place),
        uri=path,
        query=parse_qs(query, keep_blank_values=True) if query else {},
        headers={name.lower(): value for name, value in (headers or {}).items()},
        body=body,
        local=True,
        user=user,
    )


class LocalTransport:
    """Carries requests to the server in this process as one user; answers are encoded as a client would see them."""

    def __init__(self, handle: Handle, user: UserInfo, meter: OutgoingMeter | None = None) -> None:
        self._handle = handle
        self._user = user
        self._meter = meter

    async def request(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        began = perf_counter()
        response = await self._handle(_request(method, path, self._user, body, headers))
        if self._meter is not None:
            self._meter.to_self(method, response.status, perf_counter() - began)
        if response.stream is not None:
            data = b"".join([chunk async for chunk in response.stream])
            response.over()
        else:
            data = _body(response)
        return Answer(response.status, response.headers or {"Content-Type": "application/json"}, data)

    async def stream(self, path: str, *, headers: Mapping[str, str] | None = None) -> AsyncIterator[bytes]:
        began = perf_counter()
        response = await self._handle(_request("GET", path, self._user, b"", headers))
        if self._meter is not None:
            self._meter.to_self("GET", response.status, perf_counter() - began)
        if response.status != 200:
            raise apierrors.from_status(response.status, _body(response))
        if response.stream is None:
            for line in _body(response).splitlines(keepends=True):
                yield line
            return
        rest = b""
        try:
            async for chunk in response.stream:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield line + b"\n"
            if rest:
                yield rest
        finally:
            response.over()

    async def close(self) -> None:
        """There is nothing to close."""


def _body(response: Response) -> bytes:
    if response.body or response.object is None or isinstance(response.object, Exception):
        return response.body
    return serialization.encode(response.object)


class LocalClient:
    """A Client of the server in this process. Objects that it returns are shared: copy one before changing it."""

    def __init__(self, chain: Chain, resources: Resources, user: UserInfo, *, agent: str) -> None:
        self._chain = chain
        self._resources = resources
        self._user = user
        self._headers = {"user-agent": agent}

    def _endpoint(self, resource: Resource[Any]) -> Endpoint:
        found = self._resources.endpoints.get(GroupVersionResource(resource.group, resource.version, resource.plural))
        if found is None:
            raise apierrors.NotFound("the server could not find the requested resource")
        return found

    async def _check(
        self, verb: str, resource: Resource[Any], namespace: str, name: str, subresource: str = ""
    ) -> None:
        await self._chain.check(
            Attributes(
                user=self._user,
                verb=verb,
                namespace=namespace,
                group=resource.group,
                version=resource.version,
                resource=resource.plural,
                subresource=subresource,
                name=name,
                path=resource.path(namespace, name, subresource),
            )
        )

    @contextlib.contextmanager
    def _audited(
        self, resource: Resource[Any], namespace: str, name: str, query: Mapping[str, list[str]], *, long: bool = False
    ) -> Iterator[Response]:
        """Have a read written down as if it had come over a socket; what is answered goes into the response."""
        response = Response(200)
        auditor = self._chain.auditor
        if auditor is None:
            yield response
            return
        path = resource.path(namespace, name)
        uri = f"{path}?{urlencode(query, doseq=True)}" if query else path
        request = Request("GET", path, query, self._headers, local=True, user=self._user, uri=uri)
        request.info = resolve("GET", path, query)
        auditor.begin(request)
        if request.audit is None:
            yield response
            return
        if long:
            response.hijack = _endless
            auditor.answered(request, response, long=True)
            try:
                yield response
            finally:
                response.over()
            return
        try:
            yield response
        except apierrors.ApiError as error:
            auditor.answered(request, Response(error.code, object=error), long=False)
            raise
        auditor.answered(request, response, long=False)

    def _count(self, method: str, status: int, began: float) -> None:
        meter = self._chain.outgoing
        if meter is not None:
            meter.to_self(method, status, perf_counter() - began)

    @contextlib.contextmanager
    def _counted(self, began: float) -> Iterator[None]:
        """Count a read by what becomes of it."""
        try:
            yield
        except apierrors.ApiError as error:
            self._count("GET", error.code, began)
            raise
        self._count("GET", 200, began)

    @staticmethod
    def _object(endpoint: Endpoint, entry: Entry) -> Any:
        return endpoint.conversion.to_served(entry.object)

    async def get(self, resource: Resource[T], namespace: str, name: str) -> T:
        endpoint, began = self._endpoint(resource), perf_counter()
        with self._audited(resource, namespace, name, {}) as response, self._counted(began):
            await self._check("get", resource, namespace, name)
            entry = endpoint.storage.get(namespace, name)
            if entry is None:
                raise endpoint.not_found(name)
            result: T = self._object(endpoint, entry)
            response.object = result
            return result

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
        endpoint = self._endpoint(resource)
        query: dict[str, list[str]] = {}
        for key, value in (
            ("labelSelector", label_selector),
            ("fieldSelector", field_selector),
            ("resourceVersion", resource_version or ""),
            ("limit", str(limit) if limit else ""),
            ("continue", continue_),
        ):
            if value:
                query[key] = [value]
        with self._audited(resource, namespace, "", query) as response, self._counted(perf_counter()):
            await self._check("list", resource, namespace, "")
            page = await self._resources.handlers.reading.page(endpoint, list_parameters(query), namespace)
            if self._chain.auditor is not None:
                response.object = _list_tree(resource, page)
        items = [self._object(endpoint, entry) for entry in page.entries]
        return ListResult(items, str(page.revision), page.continue_)

    async def watch(
        self,
        resource: Resource[T],
        namespace: str = "",
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        timeout_seconds: int = 0,
    ) -> AsyncIterator[WatchEvent[T]]:
        endpoint = self._endpoint(resource)
        query: dict[str, list[str]] = {"watch": ["1"], "allowWatchBookmarks": ["1"]}
        for key, value in (
            ("labelSelector", label_selector),
            ("fieldSelector", field_selector),
            ("resourceVersion", resource_version),
            ("timeoutSeconds", str(timeout_seconds) if timeout_seconds else ""),
        ):
            if value:
                query[key] = [value]
        with self._counted(perf_counter()):
            await self._check("watch", resource, namespace, "")
        with self._audited(resource, namespace, "", query, long=True):
            parameters: ListParameters = list_parameters(query)
            selection = selection_of(endpoint, parameters, namespace, "")
            revision = checked_revision(resource_version)
            endpoint.storage.keep_objects = True
            async for batch in self._resources.handlers.watching.signals(endpoint, parameters, selection, revision):
                for signal in batch:
                    if isinstance(signal, Watched):
                        yield WatchEvent(_TYPES[signal.type], self._object(endpoint, signal.entry))
                    elif isinstance(signal, Bookmark):
                        bookmark: Any = resource.type()
                        bookmark.metadata.resource_version = str(signal.revision)
                        yield WatchEvent(EventType.BOOKMARK, bookmark)
                    else:
                        assert isinstance(signal, Failure)
                        raise signal.error

    async def _send(
        self,
        method: str,
        resource: Resource[Any],
        namespace: str,
        name: str,
        subresource: str = "",
        *,
        obj: Any = None,
        body: bytes = b"",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        request = Request(
            method=method,
            path=resource.path(namespace, name, subresource),
            query={key: [value] for key, value in (query or {}).items()},
            headers={**self._headers, **(headers or {})},
            body=body,
            object=obj,
            local=True,
            user=self._user,
        )
        began = perf_counter()
        response = await self._chain.handle(request)
        self._count(method, response.status, began)
        if response.status >= 400:
            if isinstance(response.object, apierrors.ApiError):
                raise response.object
            raise apierrors.from_status(response.status, response.body)
        return response.object

    async def create(
        self, resource: Resource[T], obj: T, *, namespace: str = "", subresource: str = "", name: str = ""
    ) -> T:
        place = namespace or _metadata(obj).namespace
        result: T = await self._send("POST", resource, place, name, subresource, obj=obj)
        return result

    async def update(self, resource: Resource[T], obj: T, *, subresource: str = "") -> T:
        metadata = _metadata(obj)
        result: T = await self._send("PUT", resource, metadata.namespace, metadata.name, subresource, obj=obj)
        return result

    async def patch(
        self, resource: Resource[T], namespace: str, name: str, patch: Patch, *, subresource: str = ""
    ) -> T:
        query = dict(patch.query)
        if patch.field_manager:
            query["fieldManager"] = patch.field_manager
        if patch.force:
            query["force"] = "true"
        result: T = await self._send(
            "PATCH",
            resource,
            namespace,
            name,
            subresource,
            body=serialization.encode_tree(patch.body),
            query=query,
            headers={"content-type": patch.type.value},
        )
        return result

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
        preconditions = None
        if uid is not None or resource_version is not None:
            preconditions = meta.Preconditions(uid=uid, resource_version=resource_version)
        options = meta.DeleteOptions(
            grace_period_seconds=grace_period_seconds,
            preconditions=preconditions,
            propagation_policy=propagation_policy or None,
        )
        await self._send("DELETE", resource, namespace, name, obj=options)

    async def raw(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        answer = await LocalTransport(self._chain.handle, self._user, self._chain.outgoing).request(
            method, path, body=body, headers=headers
        )
        if answer.status >= 400:
            raise apierrors.from_status(answer.status, answer.body)
        return answer


async def _endless() -> None:
    """Stands for an answer that lasts."""


def _list_tree(resource: Resource[Any], page: Page) -> dict[str, Any]:
    """Return a list as a client over a socket would have got it."""
    head = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version}
    metadata = {"resourceVersion": str(page.revision)} | ({"continue": page.continue_} if page.continue_ else {})
    return head | {"metadata": metadata, "items": [orjson.loads(entry.data) for entry in page.entries]}


def _metadata(obj: Any) -> meta.ObjectMeta:
    result: meta.ObjectMeta = obj.metadata
    return result

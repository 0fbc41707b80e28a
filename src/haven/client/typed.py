"""A Client over any Transport: objects to JSON and back, paths and queries, errors from Status, patience with 429.

An answer of 429, or of 5xx with Retry-After, is a promise that nothing was done: the request is sent again after the
time that the server named, at most RETRIES_MAX times, as client-go does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, Generic, Literal, TypeVar, cast
from urllib.parse import quote, urlencode

import msgspec

from haven.api.scheme import Resource
from haven.apimachinery import apierrors, meta, serialization
from haven.apimachinery.names import UID
from haven.client.interface import Answer, EventType, ListResult, Patch, Transport, WatchEvent
from haven.clock import Clock, SystemClock

__all__ = ["RestClient"]

T = TypeVar("T")

RETRIES_MAX = 10
RETRY_AFTER_SECONDS_MAX = 60.0  # A server that asks for more gets the error instead.
_JSON = "application/json"
_PARTIAL = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1,application/json"


class _Items(msgspec.Struct, Generic[T]):
    """Any list of objects."""

    metadata: meta.ListMeta = msgspec.field(default_factory=meta.ListMeta)
    items: list[T] | None = None


class _Frame(msgspec.Struct):
    """One line of a watch; the object is read once its kind is known."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    object: msgspec.Raw


_EVENT_TYPES = {each.value: each for each in EventType}


class RestClient:
    """Typed access to an API server through a transport."""

    def __init__(self, transport: Transport, *, managed_fields: bool = True, clock: Clock | None = None) -> None:
        """Without `managed_fields`, lists and watches leave them out: they are most of an object's memory.

        Writing such an object back is harmless, because servers take absent managed fields for unchanged ones.
        """
        self._transport = transport
        self._managed_fields = managed_fields
        self._clock = clock or SystemClock()

    async def get(self, resource: Resource[T], namespace: str, name: str) -> T:
        answer = await self._send("GET", _path(resource, namespace, name), accept=_accept(resource, ""))
        return _decode(answer.body, resource.type)

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
        query = {
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "limit": str(limit) if limit else "",
            "continue": continue_,
            # A continue token carries its own version; servers refuse both together.
            "resourceVersion": resource_version if resource_version is not None and not continue_ else "",
        }
        answer = await self._send("GET", _path(resource, namespace, query=query), accept=_accept(resource, "List"))
        kind: Any = resource.type
        listed: _Items[T] = _decode(answer.body, _Items[kind])
        items = listed.items or []
        if not self._managed_fields:
            for obj in items:
                _metadata(obj).managed_fields = []
        return ListResult(items, listed.metadata.resource_version, listed.metadata.continue_)

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
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "timeoutSeconds": str(timeout_seconds) if timeout_seconds else "",
        }
        path, kind = _path(resource, namespace, query=query), resource.type
        lines = self._transport.stream(path, headers={"Accept": _accept(resource, "")})
        async with aclosing(cast("Any", lines)):
            async for line in lines:
                if not line.strip():
                    continue
                frame = _decode(line, _Frame)
                if frame.type == "ERROR":
                    raise _watch_error(bytes(frame.object))
                obj = _decode(bytes(frame.object), kind)
                if not self._managed_fields:
                    _metadata(obj).managed_fields = []
                yield WatchEvent(_EVENT_TYPES[frame.type], obj)

    async def create(
        self, resource: Resource[T], obj: T, *, namespace: str = "", subresource: str = "", name: str = ""
    ) -> T:
        metadata = _metadata(obj)
        namespace = namespace or metadata.namespace
        path = _path(resource, namespace, (name or metadata.name) if subresource else "", subresource)
        answer = await self._send("POST", path, body=serialization.encode(obj))
        if subresource and _kind(answer.body) == "Status":
            return obj  # Binding and Eviction answer with a bare success.
        return _decode(answer.body, type(obj))

    async def update(self, resource: Resource[T], obj: T, *, subresource: str = "") -> T:
        metadata = _metadata(obj)
        path = _path(resource, metadata.namespace, metadata.name, subresource)
        answer = await self._send("PUT", path, body=serialization.encode(obj))
        return _decode(answer.body, type(obj))

    async def patch(
        self, resource: Resource[T], namespace: str, name: str, patch: Patch, *, subresource: str = ""
    ) -> T:
        query = {"fieldManager": patch.field_manager, "force": "true" if patch.force else "", **patch.query}
        answer = await self._send(
            "PATCH",
            _path(resource, namespace, name, subresource, query),
            body=serialization.encode_tree(patch.body),
            content_type=patch.type.value,
            accept=_accept(resource, ""),
        )
        return _decode(answer.body, resource.type)

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
        options = meta.DeleteOptions(
            kind="DeleteOptions",
            api_version="v1",
            grace_period_seconds=grace_period_seconds,
            propagation_policy=propagation_policy or None,
        )
        if uid is not None or resource_version is not None:
            options.preconditions = meta.Preconditions(uid=uid, resource_version=resource_version)
        await self._send("DELETE", _path(resource, namespace, name), body=serialization.encode(options))

    async def raw(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        for attempt in range(RETRIES_MAX + 1):
            answer = await self._transport.request(method, path, body=body, headers=headers)
            if answer.status < 400:
                return answer
            wait_seconds = _retry_after_seconds(answer)
            if wait_seconds is None or attempt == RETRIES_MAX:
                break
            await self._clock.sleep(wait_seconds)
        raise apierrors.from_status(answer.status, answer.body)

    async def _send(
        self, method: str, path: str, *, body: bytes = b"", content_type: str = _JSON, accept: str = _JSON
    ) -> Answer:
        headers = {"Accept": accept}
        if body:
            headers["Content-Type"] = content_type
        return await self.raw(method, path, body=body, headers=headers)


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return serialization.decode(body, kind)
    except msgspec.DecodeError as error:
        raise apierrors.InternalError(f"the server's answer is no {kind.__name__}: {error}") from error


def _path(
    resource: Resource[Any],
    namespace: str = "",
    name: str = "",
    subresource: str = "",
    query: Mapping[str, str] | None = None,
) -> str:
    path = resource.path(quote(namespace), quote(name, safe=":"), subresource)
    pairs = {key: value for key, value in query.items() if value} if query else {}
    return f"{path}?{urlencode(pairs)}" if pairs else path


def _accept(resource: Resource[Any], suffix: str) -> str:
    """Objects of which only the metadata is wanted are cut down by the server."""
    return _PARTIAL.format(suffix) if resource.type is meta.PartialObjectMetadata else _JSON


def _metadata(obj: object) -> meta.ObjectMeta:
    return cast("meta.ObjectMeta", cast("Any", obj).metadata)


def _kind(body: bytes) -> str:
    return msgspec.json.decode(body, type=meta.PartialObjectMetadata).kind


def _retry_after_seconds(answer: Answer) -> float | None:
    """Return how long to wait before asking again; None if the answer is final."""
    if answer.status != 429 and answer.status < 500:
        return None
    headers = {name.lower(): value for name, value in answer.headers.items()}
    text = headers.get("retry-after", "")
    if not text.isdigit() or int(text) > RETRY_AFTER_SECONDS_MAX:
        return None
    return float(text)


def _watch_error(status: bytes) -> apierrors.ApiError:
    code = msgspec.json.decode(status, type=meta.Status).code
    return apierrors.from_status(code or 500, status)

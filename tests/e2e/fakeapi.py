"""An API server in memory for node tests: every resource, real versions and watches, no validation, no defaults.

Deleting a pod with a grace period marks it, as the real one does; the node's own delete then removes it. Field
selectors know metadata.name and spec.nodeName.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from haven.api.authentication.v1 import TokenRequest
from haven.api.core.v1 import Pod
from haven.api.scheme import Resource, resource_of
from haven.apimachinery import apierrors, serialization, times
from haven.apimachinery.names import UID
from haven.client.interface import Answer, EventType, ListResult, Patch, PatchType, WatchEvent
from haven.clock import Clock

__all__ = ["FakeApi"]

Key = tuple[Resource[Any], str, str]


class FakeApi:
    """A Client over a dictionary."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._objects: dict[Key, Any] = {}
        self._version = 100
        self._watches: list[tuple[Resource[Any], str, str, asyncio.Queue[WatchEvent[Any]]]] = []
        self._history: list[tuple[int, Resource[Any], WatchEvent[Any]]] = []
        self.down = False
        self.tokens = 0

    # What tests do.

    def put(self, obj: Any) -> Any:
        """Create or replace an object as a user would."""
        resource = resource_of(type(obj))
        obj = serialization.copy(obj)
        return self._store(resource, obj)

    def object(self, kind: type[Any], name: str, namespace: str = "default") -> Any:
        """Return an object, None if there is none."""
        resource = resource_of(kind)
        return self._objects.get((resource, namespace if resource.namespaced else "", name))

    def all(self, kind: type[Any]) -> list[Any]:
        resource = resource_of(kind)
        return [obj for (found, _, _), obj in self._objects.items() if found == resource]

    def delete_pod(self, name: str, *, grace_seconds: int | None = None, namespace: str = "default") -> None:
        """Ask for a pod's deletion as kubectl does."""
        resource = resource_of(Pod)
        pod = serialization.copy(self._objects[(resource, namespace, name)])
        grace = pod.spec.termination_grace_period_seconds if grace_seconds is None else grace_seconds
        if pod.status.phase in ("Succeeded", "Failed") or not grace:
            self._remove(resource, namespace, name)
            return
        pod.metadata.deletion_timestamp = times.format_time(self._clock.now_seconds() + grace)
        pod.metadata.deletion_grace_period_seconds = grace
        self._store(resource, pod)

    # Details.

    def _store(self, resource: Resource[Any], obj: Any) -> Any:
        self._version += 1
        metadata = obj.metadata
        namespace = metadata.namespace if resource.namespaced else ""
        key = (resource, namespace, metadata.name)
        old = self._objects.get(key)
        metadata.resource_version = str(self._version)
        if old is not None:
            metadata.uid = old.metadata.uid
        else:
            metadata.uid = metadata.uid or UID(f"00000000-0000-4000-8000-{self._version:012d}")
            metadata.creation_timestamp = times.format_time(self._clock.now_seconds())
        if old is None or serialization.encode(getattr(old, "spec", None)) != serialization.encode(
            getattr(obj, "spec", None)
        ):
            metadata.generation = (old.metadata.generation if old is not None else 0) + 1
        self._objects[key] = obj
        self._tell(resource, WatchEvent(EventType.ADDED if old is None else EventType.MODIFIED, obj))
        return obj

    def _remove(self, resource: Resource[Any], namespace: str, name: str) -> None:
        obj = serialization.copy(self._objects.pop((resource, namespace, name)))
        self._version += 1
        obj.metadata.resource_version = str(self._version)
        self._tell(resource, WatchEvent(EventType.DELETED, obj))

    def _tell(self, resource: Resource[Any], event: WatchEvent[Any]) -> None:
        self._history.append((self._version, resource, event))
        for found, namespace, selector, queue in self._watches:
            if found == resource and _matches(event.object, namespace, selector):
                queue.put_nowait(event)

    def _check(self) -> None:
        if self.down:
            raise apierrors.ServiceUnavailable("the API server is down")

    # Client

    async def get(self, resource: Resource[Any], namespace: str, name: str) -> Any:
        self._check()
        found = self._objects.get((resource, namespace if resource.namespaced else "", name))
        if found is None:
            raise apierrors.NotFound.of(resource.group_resource, name)
        return found

    async def list(
        self,
        resource: Resource[Any],
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str | None = None,
        limit: int = 0,
        continue_: str = "",
    ) -> ListResult[Any]:
        self._check()
        items = [
            obj
            for (found, _, _), obj in self._objects.items()
            if found == resource and _matches(obj, namespace, field_selector)
        ]
        return ListResult(items, str(self._version))

    async def watch(
        self,
        resource: Resource[Any],
        namespace: str = "",
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        timeout_seconds: int = 0,
    ) -> AsyncIterator[WatchEvent[Any]]:
        self._check()
        queue: asyncio.Queue[WatchEvent[Any]] = asyncio.Queue()
        for version, found, event in self._history:
            is_newer = version > int(resource_version or 0)
            if is_newer and found == resource and _matches(event.object, namespace, field_selector):
                queue.put_nowait(event)
        entry = (resource, namespace, field_selector, queue)
        self._watches.append(entry)
        try:
            while True:
                yield await queue.get()
        finally:
            self._watches.remove(entry)

    async def create(
        self, resource: Resource[Any], obj: Any, *, namespace: str = "", subresource: str = "", name: str = ""
    ) -> Any:
        self._check()
        if subresource == "token":
            self.tokens += 1
            answer = serialization.copy(obj)
            assert isinstance(answer, TokenRequest)
            seconds = answer.spec.expiration_seconds or 3600
            answer.status.token = f"token-{name}-{self.tokens}"
            answer.status.expiration_timestamp = times.format_time(self._clock.now_seconds() + seconds)
            return answer
        obj = serialization.copy(obj)
        if namespace and not obj.metadata.namespace:
            obj.metadata.namespace = namespace
        if (resource, obj.metadata.namespace if resource.namespaced else "", obj.metadata.name) in self._objects:
            raise apierrors.AlreadyExists.of(resource.group_resource, obj.metadata.name)
        return self._store(resource, obj)

    async def update(self, resource: Resource[Any], obj: Any, *, subresource: str = "") -> Any:
        old = await self.get(resource, obj.metadata.namespace, obj.metadata.name)
        if obj.metadata.resource_version not in ("", old.metadata.resource_version):
            raise apierrors.Conflict.of(resource.group_resource, obj.metadata.name, "the object has been modified")
        new = serialization.copy(obj)
        if subresource == "status":
            status = new.status
            new = serialization.copy(old)
            new.status = status
        elif hasattr(old, "status"):
            new.status = serialization.copy(old).status
        return self._store(resource, new)

    async def patch(
        self, resource: Resource[Any], namespace: str, name: str, patch: Patch, *, subresource: str = ""
    ) -> Any:
        old = await self.get(resource, namespace, name)
        assert patch.type in (PatchType.MERGE, PatchType.STRATEGIC), patch.type
        tree = serialization.to_tree(old)
        _merge(tree, patch.body)
        return self._store(resource, serialization.convert(tree, resource.type))

    async def delete(
        self,
        resource: Resource[Any],
        namespace: str,
        name: str,
        *,
        uid: UID | None = None,
        resource_version: str | None = None,
        grace_period_seconds: int | None = None,
        propagation_policy: str = "",
    ) -> None:
        found = await self.get(resource, namespace, name)
        if uid is not None and found.metadata.uid != uid:
            raise apierrors.Conflict.of(resource.group_resource, name, "the UID in the precondition does not match")
        self._remove(resource, namespace if resource.namespaced else "", name)

    async def raw(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        raise apierrors.NotFound(f"{path} is not served")


def _merge(tree: dict[str, Any], change: Mapping[str, Any]) -> None:
    for key, value in change.items():
        if value is None:
            tree.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value


def _matches(obj: Any, namespace: str, selector: str) -> bool:
    if namespace and obj.metadata.namespace != namespace:
        return False
    for term in filter(None, selector.split(",")):
        name, _, value = term.partition("=")
        found = obj.metadata.name if name == "metadata.name" else obj.spec.node_name
        if found != value:
            return False
    return True

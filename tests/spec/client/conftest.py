"""Fakes of the two seams: a transport that answers from a script, and a client over objects in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from haven.api.scheme import Resource
from haven.apimachinery import apierrors, serialization
from haven.apimachinery.names import UID
from haven.client.cache import key_of, metadata_of
from haven.client.interface import Answer, EventType, ListResult, Patch, WatchEvent
from haven.clock import FakeClock


@dataclass
class Sent:
    """A request that reached the fake transport."""

    method: str
    path: str
    body: bytes
    headers: dict[str, str]


class FakeTransport:
    """Answers requests in the order of `answers`; streams the `lines`, then ends or raises."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.answers: list[Answer | Exception] = []
        self.lines: list[bytes | Exception] = []

    def answer(self, status: int, tree: Any, headers: Mapping[str, str] | None = None) -> None:
        self.answers.append(Answer(status, headers or {}, serialization.encode_tree(tree)))

    async def request(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        self.sent.append(Sent(method, path, body, dict(headers or {})))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def stream(self, path: str, *, headers: Mapping[str, str] | None = None) -> AsyncIterator[bytes]:
        self.sent.append(Sent("GET", path, b"", dict(headers or {})))
        for line in self.lines:
            if isinstance(line, Exception):
                raise line
            yield line

    async def close(self) -> None:
        return


_END = object()


@dataclass
class FakeClient:
    """An API server of one resource: real versions and watches, no validation. Failures are injected by name."""

    objects: dict[Any, Any] = field(default_factory=dict)
    version: int = 100
    failures: dict[str, list[Exception]] = field(default_factory=dict)
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    page_objects: int = 0
    _watches: list[asyncio.Queue[Any]] = field(default_factory=list)
    _history: list[tuple[int, WatchEvent[Any]]] = field(default_factory=list)
    oldest: int = 0

    def _begin(self, verb: str, *details: Any) -> None:
        self.calls.append((verb, *details))
        if self.failures.get(verb):
            raise self.failures[verb].pop(0)

    # What tests do behind the client's back

    def put(self, obj: Any) -> Any:
        """Store a copy of the object as if somebody else had written it; return the copy."""
        self.version += 1
        obj = serialization.copy(obj)
        key = key_of(obj)
        old = self.objects.get(key)
        metadata = metadata_of(obj)
        metadata.resource_version = str(self.version)
        metadata.uid = metadata.uid or (metadata_of(old).uid if old is not None else UID(f"uid-{self.version}"))
        self.objects[key] = obj
        self._tell(WatchEvent(EventType.ADDED if old is None else EventType.MODIFIED, obj))
        return obj

    def remove(self, namespace: str, name: str) -> None:
        """Delete an object as if somebody else had done it."""
        self.version += 1
        obj = serialization.copy(self.objects.pop((namespace, name)))
        metadata_of(obj).resource_version = str(self.version)
        self._tell(WatchEvent(EventType.DELETED, obj))

    def bookmark(self, kind: type[Any]) -> None:
        """Tell watchers how far they are."""
        obj = kind()
        metadata_of(obj).resource_version = str(self.version)
        for watch in self._watches:
            watch.put_nowait(WatchEvent(EventType.BOOKMARK, obj))

    def end_watches(self, error: Exception | None = None) -> None:
        """End every watch, properly or with an error."""
        for watch in self._watches:
            watch.put_nowait(error if error is not None else _END)

    def forget_history(self) -> None:
        """Make every version before this one too old to watch from."""
        self.oldest = self.version
        self._history.clear()

    @property
    def watch_count(self) -> int:
        return len(self._watches)

    def _tell(self, event: WatchEvent[Any]) -> None:
        self._history.append((self.version, event))
        for watch in self._watches:
            watch.put_nowait(event)

    # Client

    async def get(self, resource: Resource[Any], namespace: str, name: str) -> Any:
        self._begin("get", namespace, name)
        try:
            return self.objects[(namespace, name)]
        except KeyError:
            raise apierrors.NotFound.of(resource.group_resource, name) from None

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
        self._begin("list", resource_version, continue_)
        items = [obj for key, obj in sorted(self.objects.items()) if not namespace or key[0] == namespace]
        start = int(continue_ or 0)
        stop = start + (self.page_objects or len(items))
        return ListResult(items[start:stop], str(self.version), str(stop) if stop < len(items) else "")

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
        self._begin("watch", resource_version)
        if int(resource_version) < self.oldest:
            raise apierrors.Expired(f"too old resource version: {resource_version} ({self.oldest})")
        queue: asyncio.Queue[Any] = asyncio.Queue()
        for version, event in self._history:
            if version > int(resource_version):
                queue.put_nowait(event)
        self._watches.append(queue)
        try:
            while (event := await queue.get()) is not _END:
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self._watches.remove(queue)

    async def create(
        self, resource: Resource[Any], obj: Any, *, namespace: str = "", subresource: str = "", name: str = ""
    ) -> Any:
        self._begin("create", obj)
        if key_of(obj) in self.objects:
            raise apierrors.AlreadyExists.of(resource.group_resource, key_of(obj).name)
        return self.put(obj)

    async def update(self, resource: Resource[Any], obj: Any, *, subresource: str = "") -> Any:
        self._begin("update", obj)
        current = self.objects.get(key_of(obj))
        if current is None:
            raise apierrors.NotFound.of(resource.group_resource, key_of(obj).name)
        if metadata_of(current).resource_version != metadata_of(obj).resource_version:
            raise apierrors.Conflict.of(resource.group_resource, key_of(obj).name, "the object has been modified")
        return self.put(obj)

    async def patch(
        self, resource: Resource[Any], namespace: str, name: str, patch: Patch, *, subresource: str = ""
    ) -> Any:
        self._begin("patch", namespace, name, patch)
        if (namespace, name) not in self.objects:
            raise apierrors.NotFound.of(resource.group_resource, name)
        tree = serialization.to_tree(self.objects[(namespace, name)]) | patch.body
        return self.put(serialization.convert(tree, resource.type))

    async def delete(self, resource: Resource[Any], namespace: str, name: str, **options: Any) -> None:
        self._begin("delete", namespace, name)
        self.remove(namespace, name)

    async def raw(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        self._begin("raw", method, path)
        return Answer(200, {}, b"{}")


async def settle() -> None:
    """Let everything that can run do so."""
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.fixture
def transport() -> FakeTransport:
    return FakeTransport()


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(name="settle")
def settle_fixture() -> Callable[[], Any]:
    return settle

"""Stored objects for admission plugins and observers, read from the watch caches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from haven.api.scheme import Resource
from haven.apimachinery import apierrors, serialization, times
from haven.apimachinery.apierrors import GroupResource
from haven.apimachinery.names import Revision
from haven.apiserver.authorization.interface import Observer
from haven.apiserver.registry import serverwrites
from haven.apiserver.registry.recipes import Read, ReadAll
from haven.apiserver.registry.storage import Storage, Storages, Write
from haven.apiserver.registry.writing import OPTIMISTIC_LOCK
from haven.apiserver.watchcache import DELETED, Entry, Watched
from haven.clock import Clock
from haven.store.interface import TransactionFailed

__all__ = ["Observers", "RecordedObjects", "StoredObjects"]

T = TypeVar("T")


class StoredObjects:
    """The newest state of stored objects. The caches show every acknowledged write, so a fresh read is a plain one."""

    def __init__(self, storages: Storages, clock: Clock) -> None:
        self._storages = storages
        self._clock = clock

    def get(self, resource: Resource[T], namespace: str, name: str) -> T | None:
        entry = self._storages.of(resource.group_resource).get(namespace, name)
        if entry is None:
            return None
        result: T = entry.object
        return result

    def list(self, resource: Resource[T], namespace: str = "") -> Sequence[T]:
        storage = self._storages.of(resource.group_resource)
        if storage.cache.damaged:
            storage.refuse_list(namespace, None, None, None)
        return [entry.object for entry in storage.cache.entries(namespace)]

    async def get_fresh(self, resource: Resource[T], namespace: str, name: str) -> T | None:
        return self.get(resource, namespace, name)

    async def update_status(self, resource: Resource[T], obj: T) -> T:
        storage = self._storages.of(resource.group_resource)
        new: Any = serialization.copy(obj)
        metadata = new.metadata
        expected = Revision(int(metadata.resource_version or 0))
        key = storage.key(metadata.namespace, metadata.name)
        conflict = apierrors.Conflict.of(resource.group_resource, metadata.name, OPTIMISTIC_LOCK)
        entry = storage.get(metadata.namespace, metadata.name)
        if entry is None or entry.revision != expected:
            raise conflict
        metadata.managed_fields = []  # Shared objects come without, this is no attempt to reset them.
        metadata.managed_fields = serverwrites.updated(new, entry, storage.resource, self._now(), subresource="status")
        try:
            await self._storages.commit([Write(storage, key, new, expected=expected)])
        except TransactionFailed:
            raise conflict from None
        entry = storage.get(metadata.namespace, metadata.name)
        if entry is None:
            raise conflict
        result: T = entry.object
        return result

    async def apply_status(self, resource: Resource[Any], name: str, status: dict[str, Any], manager: str) -> None:
        storage = self._storages.of(resource.group_resource)
        while True:
            entry = storage.get("", name)
            if entry is None:
                return
            tree = serverwrites.apply_status(entry, status, storage.resource, manager, self._now())
            new = serialization.convert(tree, storage.resource.type)
            write = Write(storage, storage.key("", name), new, expected=entry.revision)
            if entry.holds(write.value):
                return
            try:
                await self._storages.commit([write])
            except TransactionFailed:
                continue
            return

    def _now(self) -> str:
        return times.format_time(self._clock.now_seconds())


class RecordedObjects(StoredObjects):
    """The same for plugins whose answers are remembered: what they read is written down for who wants to know."""

    def __init__(self, storages: Storages, clock: Clock) -> None:
        super().__init__(storages, clock)
        self._readers: list[list[Read | ReadAll | None]] = []

    def start(self) -> list[Read | ReadAll | None]:
        """Return a list to which every look is added from now on; None stands for a write."""
        readings: list[Read | ReadAll | None] = []
        self._readers.append(readings)
        return readings

    def stop(self, readings: list[Read | ReadAll | None]) -> None:
        """Add to that list no more."""
        self._readers = [one for one in self._readers if one is not readings]

    def get(self, resource: Resource[T], namespace: str, name: str) -> T | None:
        if self._readers:
            storage = self._storages.of(resource.group_resource)
            self._note(Read(storage, namespace, name, storage.get(namespace, name)))
        return super().get(resource, namespace, name)

    def list(self, resource: Resource[T], namespace: str = "") -> Sequence[T]:
        if self._readers:
            self._note(ReadAll(self._storages.of(resource.group_resource).cache, namespace))
        return super().list(resource, namespace)

    async def update_status(self, resource: Resource[T], obj: T) -> T:
        self._note(None)
        return await super().update_status(resource, obj)

    def _note(self, read: Read | ReadAll | None) -> None:
        for readings in self._readers:
            readings.append(read)


class Observers:
    """Shows stored objects and their changes to those who answer from memory (RBAC, the node authorizer's graph)."""

    def __init__(self, storages: Storages, observers: Sequence[Observer]) -> None:
        self._storages = storages
        self._by_resource: dict[GroupResource, list[Observer]] = {}
        for observer in observers:
            for resource in observer.resources:
                self._by_resource.setdefault(resource.group_resource, []).append(observer)
                storages.of(resource.group_resource).observed = True
        storages.after_change.append(self._changed)

    def load(self) -> None:
        """Show everything that is stored."""
        for group_resource, observers in self._by_resource.items():
            storage = self._storages.of(group_resource)
            for entry in storage.cache.entries():
                for observer in observers:
                    observer.changed(storage.resource, None, entry.glimpse)

    def _changed(self, storage: Storage, event: Watched) -> None:
        observers = self._by_resource.get(storage.resource.group_resource)
        if observers is None:
            return
        if event.previous is None and event.type != DELETED:
            # Most new objects concern nobody: then nothing has to be decoded.
            observers = [one for one in observers if not _may_ignore(one, storage, event.entry)]
            if not observers:
                return
        old = event.previous.glimpse if event.previous is not None else None
        new = None if event.type == DELETED else event.entry.glimpse
        for observer in observers:
            observer.changed(storage.resource, old, new)


def _may_ignore(observer: Observer, storage: Storage, entry: Entry) -> bool:
    ignores = getattr(observer, "ignores", None)
    return ignores is not None and bool(ignores(storage.resource, entry.field))

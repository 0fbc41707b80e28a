"""Where objects of all kinds are kept: keys in the store, and a watch cache for each kind that follows it.

The caches listen to the store, so that a commit is visible to every reader when it returns. What a writer already
knows about the object it commits (labels, the typed object) is handed to the cache instead of being parsed again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from time import perf_counter
from typing import Any

import msgspec

from haven import telemetry
from haven.api.scheme import Resource
from haven.api.strategy import FieldSelectors
from haven.apimachinery import apierrors, serialization
from haven.apimachinery.apierrors import GroupResource
from haven.apimachinery.names import Revision
from haven.apimachinery.schema.gojson import syntax_error
from haven.apiserver.damage import FIX, Damage, Unreadable, not_listed, not_watched
from haven.apiserver.encryption.transformers import (
    DecryptionFailed,
    Identity,
    Opened,
    SealFailed,
    Transformer,
    Ways,
)
from haven.apiserver.registry.storemeter import StoreMeter
from haven.apiserver.tracing import Spans, no_span
from haven.apiserver.watchcache import (
    ADDED,
    DELETED,
    MODIFIED,
    Draft,
    Entry,
    Kind,
    WatchCache,
    Watched,
    splice_revision,
)
from haven.clock import Clock
from haven.store.interface import (
    Change,
    Delete,
    Expectation,
    Operation,
    Put,
    Record,
    Store,
    StoreError,
    TransactionFailed,
)

__all__ = ["ROOT", "Reservation", "Storage", "Storages", "Write"]

ROOT = b"/registry/"
_LOAD_PAGE = 5000
_SAMPLE = 8
_ENDING_STEPS = 100
_MEND_SECONDS = 5.0
_PLAINTEXT = Identity()
_log = telemetry.logger("apiserver")


class Storage:
    """One stored kind: its place in the store and its cache."""

    def __init__(self, resource: Resource[Any], kind: Kind, cache: WatchCache, encryption: Ways | None = None) -> None:
        self.resource = resource
        self.encryption = encryption
        self.kind = kind
        self.cache = cache
        self.observed = False
        """Whether somebody looks at each object when it changes, and then no more."""
        self.keep_objects = False
        """Whether somebody in this process reads typed objects: then those that are written need no decoding."""
        self.loaded = Revision(0)
        """The revision at which the cache was filled."""
        self.is_gated = False
        """Whether errors tell what the gate AllowUnsafeMalformedObjectDeletion has them tell."""
        self.is_suspicious = False
        """Whether others write too, so that values are looked through when they are read."""
        self.prefix = ROOT + f"{resource.group or 'core'}/{resource.plural}/".encode()

    def key(self, namespace: str, name: str) -> bytes:
        """Return where an object is kept."""
        if self.resource.namespaced:
            return self.prefix + f"{namespace}/{name}".encode()
        return self.prefix + name.encode()

    def place(self, key: bytes) -> tuple[str, str]:
        """Return (namespace, name) of a key."""
        rest = key[len(self.prefix) :].decode()
        if self.resource.namespaced:
            namespace, _, name = rest.partition("/")
            return namespace, name
        return "", rest

    def entry(self, key: bytes, stored: bytes, revision: Revision, created: Revision) -> Entry:
        """Return a stored value as an entry that no cache holds; raise Unreadable."""
        value = self.open(key, stored, revision).value
        place = self.place(key)
        try:
            entry = Entry.parsed(self.kind, value, revision, created)
            if self.is_suspicious:
                self.kind.decode(entry.data)
        except (msgspec.MsgspecError, ValueError) as error:
            text = str(error) if isinstance(error, msgspec.MsgspecError) else "metadata.uid is missing"
            if wrong := syntax_error(value):
                text = f"couldn't get version/kind; json parse error: {wrong}"
            raise Unreadable(Damage(*place, key.decode(), revision, text, is_decrypted=True)) from None
        if (entry.namespace, entry.name) != place:
            text = f"it says that it is {'/'.join(filter(None, (entry.namespace, entry.name)))}"
            raise Unreadable(Damage(*place, key.decode(), revision, text, is_decrypted=True))
        return entry

    def seal(self, key: bytes, value: bytes) -> bytes:
        """Return a value as it is stored; raise InternalError if it cannot be encrypted now."""
        transformer = self._transformer
        if transformer is None:
            return value
        try:
            return transformer.seal(key, value)
        except SealFailed as error:
            raise apierrors.InternalError.because(str(error)) from None

    def open(self, key: bytes, stored: bytes, revision: Revision) -> Opened:
        """Return a stored value as it was written; raise Unreadable."""
        try:
            return (self._transformer or _PLAINTEXT).open(key, stored)
        except DecryptionFailed as error:
            damage = Damage(*self.place(key), key.decode(), revision, str(error), is_decrypted=False)
            raise Unreadable(damage) from None

    @property
    def _transformer(self) -> Transformer | None:
        if self.encryption is None:
            return None
        return self.encryption.of(self.resource.group, self.resource.plural)

    def get(self, namespace: str, name: str) -> Entry | None:
        """Return the newest state of an object; raise ApiError if it cannot be read."""
        found = self.cache.get(namespace if self.resource.namespaced else "", name)
        if found is None and self.cache.damaged:
            damage = self.damage_of(namespace, name)
            if damage is not None:
                raise Unreadable(damage).of_read(gated=self.is_gated)
        return found

    def live(self, namespace: str, name: str) -> Entry | None:
        """Return the newest state of an object that is to be changed; raise ApiError if it cannot be read."""
        found = self.cache.get(namespace if self.resource.namespaced else "", name)
        if found is None and self.cache.damaged:
            damage = self.damage_of(namespace, name)
            if damage is not None:
                raise Unreadable(damage).of_update(gated=self.is_gated)
        return found

    def holder(self, namespace: str, name: str) -> Entry | Damage | None:
        """Return who has a name, be it readable or not."""
        found = self.cache.get(namespace if self.resource.namespaced else "", name)
        return self.damage_of(namespace, name) if found is None and self.cache.damaged else found

    def damage_of(self, namespace: str, name: str) -> Damage | None:
        """Return what is known of a stored object that cannot be read; None if there is none."""
        return self.cache.damaged.get((namespace if self.resource.namespaced else "", name))

    def refuse_list(
        self, namespace: str, name: str | None, after: tuple[str, str] | None, until: tuple[str, str] | None
    ) -> None:
        """Raise ApiError if something between two places of a namespace (or of all) cannot be read."""
        found = [
            damage
            for place, damage in sorted(self.cache.damaged.items())
            if (not namespace or place[0] == namespace)
            and (name is None or place[1] == name)
            and (after is None or place > after)
            and (until is None or place <= until)
        ]
        if found:
            raise not_listed(self.resource, found, gated=self.is_gated)

    def not_watched(self) -> apierrors.ApiError:
        """Return the refusal of a watch while something of the kind cannot be read."""
        found = [damage for _, damage in sorted(self.cache.damaged.items())]
        return not_watched(self.resource, found, gated=self.is_gated)


class Write:
    """One object's change within a transaction: `obj` is the object to store, or its draft; None to delete it."""

    __slots__ = ("expected", "key", "obj", "storage", "stored", "ttl_seconds", "value")

    def __init__(self, storage: Storage, key: bytes, obj: Any, *, expected: Revision, ttl_seconds: int = 0) -> None:
        self.storage = storage
        self.key = key
        self.obj = obj
        self.expected = expected
        self.ttl_seconds = ttl_seconds
        self.value = b"" if obj is None else obj.value if type(obj) is Draft else _encode(obj)
        self.stored = self.value
        """The value as it is stored: encrypted, if its kind is."""


class Reservation:
    """A key that is no object, taken with one, or given back (`value` None). `expected` None asks for no revision."""

    __slots__ = ("expected", "key", "value")

    def __init__(self, key: bytes, value: bytes | None, *, expected: Revision | None) -> None:
        self.key = key
        self.value = value
        self.expected = expected


def _encode(obj: Any) -> bytes:
    """Return an object as it is stored: without its resource version."""
    if isinstance(obj, dict):
        metadata = obj["metadata"]
        if "resourceVersion" in metadata:
            metadata = {name: value for name, value in metadata.items() if name != "resourceVersion"}
        first = {"kind": obj["kind"], "apiVersion": obj["apiVersion"], "metadata": _metadata_first(metadata)}
        return serialization.encode_tree(first | {name: obj[name] for name in obj if name not in first})
    obj.metadata.resource_version = ""
    return serialization.encode(obj)


def _metadata_first(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata with what stands before the uid in typed objects in front, so that a revision can be spliced."""
    first = {name: metadata[name] for name in ("name", "generateName", "namespace", "uid") if name in metadata}
    return first | {name: metadata[name] for name in metadata if name not in first}


class Storages:
    """All stored kinds over one store."""

    def __init__(
        self,
        store: Store,
        *,
        history_max: int,
        queue_max: int,
        encryption: Ways | None = None,
        is_gated: bool = False,
    ) -> None:
        self.store = store
        self._is_gated = is_gated
        self._hurt = asyncio.Event()
        self._first_damage: Callable[[], None] | None = None
        self._encryption = encryption
        self._history_max = history_max
        self._queue_max = queue_max
        self._storages: dict[tuple[bytes, bytes], Storage] = {}
        self._by_resource: dict[GroupResource, Storage] = {}
        self._prepared: dict[int, Write] = {}
        self._missed: dict[Storage, list[Change]] = {}
        """What others wrote while a kind's objects were being read."""
        self._forget = store.add_listener(self._changed)
        self.meter: StoreMeter | None = None
        self.span: Spans = no_span
        self.after_change: list[Callable[[Storage, Watched], None]] = []

    def add(self, resource: Resource[Any], fields: FieldSelectors, decode: Callable[[bytes], Any]) -> Storage:
        """Begin to keep a kind; its objects appear with `load`."""
        kind = Kind(decode, fields)
        cache = WatchCache(start=self.store.revision, history_max=self._history_max, queue_max=self._queue_max)
        storage = Storage(resource, kind, cache, self._encryption)
        storage.is_gated = self._is_gated
        storage.is_suspicious = self.store.shared
        self._storages[_address(storage.prefix)] = storage
        self._by_resource[resource.group_resource] = storage
        self._missed[storage] = []
        return storage

    def remove(self, resource: Resource[Any]) -> None:
        """Stop keeping a kind (its definition went away); watches end."""
        storage = self._by_resource.pop(resource.group_resource)
        del self._storages[_address(storage.prefix)]
        self._missed.pop(storage, None)
        storage.cache.stop_watchers()

    def of(self, resource: GroupResource) -> Storage:
        """Return a kind's storage; raise KeyError if it is not kept."""
        return self._by_resource[resource]

    def all(self) -> Sequence[Storage]:
        """Return every kind's storage."""
        return list(self._by_resource.values())

    def sizes(self, group: str, plural: str) -> tuple[int, int] | None:
        """Return (number of objects, their average size in bytes as a few of them show it); None if not kept here."""
        storage = self._by_resource.get(GroupResource(group, plural))
        if storage is None:
            return None
        some = [len(entry.data) for entry in islice(storage.cache.entries(), _SAMPLE)]
        return len(storage.cache), sum(some) // len(some) if some else 0

    async def load(self, only: Storage | None = None) -> None:
        """Read what the store holds into the caches. Call before any of it is served or written here."""
        prefix = only.prefix if only else ROOT
        after = b""
        revision: Revision | None = None
        while True:
            page = await self.store.range(prefix, after=after, limit=_LOAD_PAGE, revision=revision)
            revision = page.revision
            for record in page.records:
                storage = self._find(record.key)
                if storage is not None:
                    try:
                        storage.cache.load(storage.entry(record.key, record.value, record.modified, record.created))
                    except Unreadable as error:
                        self._damaged(storage, error.damage)
            if not page.more:
                break
            after = page.records[-1].key
        for storage in [only] if only else self.all():
            storage.cache.dropped = storage.cache.newest = revision
            storage.loaded = revision
            if self.meter is not None:
                self.meter.listed(storage.resource, fetched=len(storage.cache), returned=len(storage.cache))
            for change in self._missed.pop(storage, ()):
                self._record(storage, change)

    def replaced(self, records: Iterable[Record], revision: Revision) -> None:
        """Take over a store's state that was put in place of the known one (a backup was restored).

        Objects keep the revisions that they had then; the state itself has a new one. Watches end with Expired, and
        nobody can watch from before: clients list anew.
        """
        places: dict[bytes, dict[tuple[str, str], Record]] = {}
        for record in records:
            storage = self._find(record.key)
            if storage is not None:
                places.setdefault(storage.prefix, {})[storage.place(record.key)] = record
        error = apierrors.Expired("The resourceVersion for the provided watch is too old.")
        for storage in self.all():
            storage.cache.stop_watchers(error)
            self._replace(storage, places.get(storage.prefix, {}), revision)
            storage.cache.forget_history(revision)

    def _replace(self, storage: Storage, wanted: dict[tuple[str, str], Record], revision: Revision) -> None:
        cache = storage.cache
        for damage in list(cache.damaged.values()):
            self._readmit(cache, damage)
        for entry in list(cache.entries()):
            if (entry.namespace, entry.name) not in wanted:
                self._show(storage, Watched(DELETED, entry.at(revision), entry, revision))
        for (namespace, name), record in wanted.items():
            previous = cache.get(namespace, name)
            if previous is None or previous.revision != record.modified:
                try:
                    entry = storage.entry(record.key, record.value, record.modified, record.created)
                except Unreadable as error:
                    self._damaged(storage, error.damage)
                    continue
                kind = MODIFIED if previous is not None else ADDED
                self._show(storage, Watched(kind, entry, previous, revision))

    async def commit(self, writes: Sequence[Write | Reservation]) -> Revision:
        """Write all changes in one transaction; raises TransactionFailed when one is not at its revision."""
        operations: list[Operation] = []
        expectations: list[Expectation] = []
        for write in writes:
            if isinstance(write, Reservation):
                operations.append(Delete(write.key) if write.value is None else Put(write.key, write.value))
                if write.expected is not None:
                    expectations.append(Expectation(write.key, write.expected))
                continue
            if write.obj is None:
                operations.append(Delete(write.key))
            else:
                write.stored = write.storage.seal(write.key, write.value)
                operations.append(Put(write.key, write.stored, write.ttl_seconds))
                self._prepared[id(write.stored)] = write
            expectations.append(Expectation(write.key, write.expected))
        began = perf_counter()
        try:
            if self.span is no_span:
                return await self.store.commit(operations, expectations)
            with self.span(*_spoken(writes)):
                return await self.store.commit(operations, expectations)
        except StoreError as error:
            self._count(writes, 0.0, failed=not isinstance(error, TransactionFailed))
            raise
        finally:
            self._count(writes, perf_counter() - began)
            for write in writes:
                if isinstance(write, Write):
                    self._prepared.pop(id(write.stored), None)

    def _count(self, writes: Sequence[Write | Reservation], seconds: float, *, failed: bool | None = None) -> None:
        """Count a transaction as what its first object goes through; `failed` if the store could not do it."""
        if self.meter is None:
            return
        for write in writes:
            if isinstance(write, Write):
                operation = "delete" if write.obj is None else "update" if write.expected else "create"
                if failed is None:
                    self.meter.done(write.storage.resource, operation, seconds)
                elif failed:
                    self.meter.failed(write.storage.resource, operation)
                return

    async def is_stale(self, storage: Storage, key: bytes) -> bool:
        """Tell whether what is stored should be written anew, as it is not encrypted as it would be now."""
        if storage.encryption is None:
            return False
        record = await self.store.get(key)
        return record is not None and storage.open(key, record.value, record.modified).stale

    def _find(self, key: bytes) -> Storage | None:
        return self._storages.get(_address(key))

    def _changed(self, changes: Sequence[Change]) -> None:
        for change in changes:
            storage = self._find(change.key)
            if storage is None:
                continue
            missed = self._missed.get(storage) if self._missed else None
            if missed is None:
                self._record(storage, change)
            else:
                missed.append(change)

    def _record(self, storage: Storage, change: Change) -> None:
        if change.revision <= storage.loaded:
            return  # What was read is newer than what a shared store has told so far.
        cache = storage.cache
        namespace, name = storage.place(change.key)
        if cache.damaged and (damage := cache.damaged.get((namespace, name))) is not None:
            self._readmit(cache, damage)
        previous = cache.get(namespace, name)
        if change.value is None:
            if previous is None:
                return
            event = Watched(DELETED, previous.at(change.revision), previous, change.revision)
        else:
            try:
                entry = self._entry(storage, change, namespace, name)
            except Unreadable as error:
                self._damaged(storage, error.damage)
                return
            event = Watched(MODIFIED if previous is not None else ADDED, entry, previous, change.revision)
        self._show(storage, event)

    def _show(self, storage: Storage, event: Watched) -> None:
        storage.cache.record(event)
        for hook in self.after_change:
            hook(storage, event)
        if event.previous is not None:
            event.previous.release()
        if storage.observed and not storage.keep_objects:
            event.entry.release()

    def _entry(self, storage: Storage, change: Change, namespace: str, name: str) -> Entry:
        assert change.value is not None
        write = self._prepared.get(id(change.value))
        if write is None or write.stored is not change.value:
            return storage.entry(change.key, change.value, change.revision, change.created)
        if isinstance(write.obj, dict):
            return Entry.parsed(storage.kind, write.value, change.revision, change.created)
        if type(write.obj) is Draft:
            return Entry.drafted(storage.kind, write.obj, namespace, name, change.revision)
        metadata = write.obj.metadata
        entry = Entry(
            storage.kind,
            splice_revision(write.value, change.revision),
            namespace=namespace,
            name=name,
            uid=metadata.uid,
            labels=metadata.labels,
            revision=change.revision,
            created=change.created,
        )
        if storage.keep_objects or storage.observed:
            metadata.resource_version = str(change.revision)
            entry.keep(write.obj)
        if storage.kind.fields:
            entry.read_fields(write.obj)
        return entry

    # ---- what cannot be read

    def _damaged(self, storage: Storage, damage: Damage) -> None:
        """Note that something cannot be read: nobody can have the whole of its kind from now on."""
        if self.meter is not None:
            self.meter.unreadable(storage.resource)
        cache = storage.cache
        last = cache.get(damage.namespace, damage.name)
        if last is not None:
            cache.remove(damage.namespace, damage.name)
        cache.damaged[damage.namespace, damage.name] = damage._replace(last=last)
        cache.stop_watchers(storage.not_watched())
        _log.error("A stored object cannot be read.", key=damage.key, because=damage.because, fix=FIX)
        self._hurt.set()
        if self._first_damage is not None:
            self._first_damage()
            self._first_damage = None

    def when_damaged(self, tell: Callable[[], None]) -> None:
        """Call somebody once, when something is found that cannot be read."""
        self._first_damage = tell
        if self.unreadable():
            tell()
            self._first_damage = None

    @staticmethod
    def _readmit(cache: WatchCache, damage: Damage) -> None:
        """Put back what was known of an object before it could not be read, as the state before its next change."""
        del cache.damaged[damage.namespace, damage.name]
        if damage.last is not None:
            cache.load(damage.last)

    def unreadable(self) -> list[tuple[Resource[Any], Damage]]:
        """Return what cannot be read at present."""
        return [(one.resource, damage) for one in self.all() for _, damage in sorted(one.cache.damaged.items())]

    async def mend(self) -> None:
        """Try again to read what could not be read: a key may have come, or a KMS plugin come back."""
        for storage in self.all():
            for place, damage in list(storage.cache.damaged.items()):
                record = await self.store.get(damage.key.encode())
                if record is None or record.modified != damage.revision:
                    continue  # The change is on its way to us.
                try:
                    entry = await asyncio.to_thread(
                        storage.entry, record.key, record.value, record.modified, record.created
                    )
                except Unreadable:
                    continue
                if storage.cache.damaged.get(place) is damage:
                    self._mended(storage, damage, entry)

    def _mended(self, storage: Storage, damage: Damage, entry: Entry) -> None:
        cache = storage.cache
        self._readmit(cache, damage)
        revision = max(cache.newest, entry.revision)
        cache.load(entry)
        cache.forget_history(revision)  # Who watched before has not been told of this state, and lists anew.
        event = Watched(MODIFIED if damage.last is not None else ADDED, entry, damage.last, revision)
        for hook in self.after_change:
            hook(storage, event)
        _log.info("A stored object can be read again.", key=damage.key)

    async def keep_mending(self, clock: Clock) -> None:
        """Try again now and then, until cancelled."""
        while True:
            await self._hurt.wait()
            await clock.sleep(_MEND_SECONDS)
            await self.mend()
            if not self.unreadable():
                self._hurt.clear()

    async def end_watches(self, seconds: float, clock: Clock) -> None:
        """End all watches, spread over so many seconds."""
        found = [watcher for storage in self.all() for watcher in storage.cache.watchers()]
        pause = seconds / max(1, min(len(found), _ENDING_STEPS))
        step = -(-len(found) // _ENDING_STEPS) or 1
        for first in range(0, len(found), step):
            for watcher in found[first : first + step]:
                watcher.stop()
            await clock.sleep(pause)

    def close(self) -> None:
        """Stop following the store."""
        self._forget()
        for storage in self.all():
            storage.cache.stop_watchers()


def _spoken(writes: Sequence[Write | Reservation]) -> tuple[str, dict[str, str | int | bool]]:
    """Return the name and the attributes of a transaction's span."""
    first = next((write for write in writes if isinstance(write, Write)), None)
    if first is None:
        return "Txn etcd3", {"writes": len(writes)}
    name = "Delete" if first.obj is None else "GuaranteedUpdate" if first.expected else "Create"
    kind = first.storage.resource
    return f"{name} etcd3", {"key": first.key.decode(), "type": kind.kind, "resource": str(kind.group_resource)}


def _address(key: bytes) -> tuple[bytes, bytes]:
    try:
        _, _, group, plural, _ = key.split(b"/", 4)
    except ValueError:
        return key, b""  # Somebody else's.
    return group, plural

"""A local, always current copy of a resource: list once, then watch, resuming wherever possible.

Readers get the newest objects without asking the server; handlers hear of each change. Objects may be shared with
other readers of the process: never change one. Source of the protocol:
https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from haven import telemetry
from haven.api.scheme import Resource
from haven.apimachinery import apierrors
from haven.apimachinery.names import NamespacedName
from haven.client.backoff import Backoff
from haven.client.cache import IndexFunction, ObjectCache, key_of, metadata_of, version_of
from haven.client.interface import Client, EventType, WatchEvent
from haven.clock import Clock, SystemClock

__all__ = ["Handler", "Informer", "InformerStatistics"]

T = TypeVar("T")

PAGE_OBJECTS = 500  # A page of pods is about 1.5 MB: small enough to decode between two other requests.
WATCH_SECONDS_MIN = 300  # The server ends a watch after one to two times this; connections spread over servers so.
SHORT_WATCH_SECONDS = 1.0  # A watch that ends sooner than this without a word is a failure.

Handler = Callable[["T | None", "T | None"], None]
"""Called with (old, new): old is None for a new object, new is None for one that is gone. Runs on the event loop,
must not block, and must not raise: an error in it ends the informer."""

_log = telemetry.logger("informer")


@dataclass(frozen=True, slots=True)
class InformerStatistics:
    """A snapshot for metrics."""

    resource: str
    objects: int
    synced: bool
    resource_version: str
    lists: int
    watches: int
    events: int
    failures: int


class Informer(Generic[T]):
    """Keeps the objects of one resource, or those that selectors choose. `run` does the work.

    Invariant: the cache shows the resource as it was at `resource_version`, once `synced`.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource[T],
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        indexes: Mapping[str, IndexFunction[T]] | None = None,
        transform: Callable[[T], T] | None = None,
        clock: Clock | None = None,
        chance: random.Random | None = None,
    ) -> None:
        """`transform` may return a smaller object to keep instead; it must not change the one that it is given."""
        self.resource = resource
        self._client = client
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._transform = transform
        self._clock = clock or SystemClock()
        self._chance = chance or random.Random()
        self._cache: ObjectCache[T] = ObjectCache(indexes)
        self._handlers: list[Handler[T]] = []
        self._version = ""
        self._synced: asyncio.Event = asyncio.Event()
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._lists = self._watches = self._events = self._failures = 0

    # Reading

    def __len__(self) -> int:
        return len(self._cache)

    def get(self, namespace: str, name: str) -> T | None:
        """Return an object, None if there is none; `namespace` is "" for cluster-scoped ones."""
        return self._cache.get(NamespacedName(namespace, name))

    def get_key(self, key: NamespacedName) -> T | None:
        """Return the object at a place."""
        return self._cache.get(key)

    def list(self, namespace: str = "") -> Sequence[T]:
        """Return the objects of a namespace, or all when it is ""."""
        return self._cache.list(namespace)

    def indexed(self, index: str, value: str) -> Collection[T]:
        """Return the objects that an index holds under a value."""
        return self._cache.indexed(index, value)

    def index_values(self, index: str) -> Sequence[str]:
        """Return the values under which an index holds anything."""
        return self._cache.index_values(index)

    def add_index(self, index: str, function: IndexFunction[T]) -> None:
        """Add an index, at any time; one that is there already stays."""
        self._cache.add_index(index, function)

    def add_handler(self, handler: Handler[T]) -> Callable[[], None]:
        """Hear of every change, beginning with what is there now; return how to stop."""
        for obj in self._cache.list():
            handler(None, obj)
        self._handlers.append(handler)

        def remove() -> None:
            self._handlers.remove(handler)

        return remove

    @property
    def synced(self) -> bool:
        """Whether the first list is in."""
        return self._synced.is_set()

    @property
    def resource_version(self) -> str:
        """The version of the resource that the cache shows; "" before the first list."""
        return self._version

    async def wait_synced(self) -> None:
        """Return once the first list is in."""
        await self._synced.wait()

    def has_seen(self, key: NamespacedName, resource_version: str) -> bool:
        """Tell whether the cache shows what was written at this version of an object, or something newer."""
        wanted = version_of(resource_version)
        if self.synced and version_of(self._version) >= wanted:
            return True
        obj = self._cache.get(key)
        return obj is not None and version_of(metadata_of(obj).resource_version) >= wanted

    async def wait_seen(
        self, key: NamespacedName, resource_version: str, *, timeout_seconds: float | None = None
    ) -> None:
        """Return once `has_seen`; for reading one's own writes. Raises TimeoutError.

        If a selector leaves the object out, only a later event or bookmark tells, which may take a minute.
        """
        if self.has_seen(key, resource_version):
            return
        # Events come in the order of their versions: when the cache has reached this one, the object is in it.
        wanted = version_of(resource_version)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, (wanted, next(self._order), future))
        async with asyncio.timeout(timeout_seconds):
            await future

    def statistics(self) -> InformerStatistics:
        """Return a snapshot for metrics."""
        return InformerStatistics(
            resource=str(self.resource.group_resource),
            objects=len(self._cache),
            synced=self.synced,
            resource_version=self._version,
            lists=self._lists,
            watches=self._watches,
            events=self._events,
            failures=self._failures,
        )

    # Following the server

    async def run(self) -> None:
        """Keep the cache current until cancelled."""
        backoff = Backoff(self._chance)
        list_version = "0"  # Any state the server has at hand will do to begin with.
        while True:
            try:
                await self._list(list_version)
                list_version = self._version  # Later lists must not go back in time.
                await self._follow(backoff)
            except (apierrors.Expired, apierrors.Gone) as error:
                _log.info("listing again", resource=self._name, because=error.message)
                if list_version == "":
                    await self._wait_backoff(backoff, error)
                list_version = ""
            except apierrors.ApiError as error:
                await self._wait_backoff(backoff, error)
                if isinstance(error, apierrors.Timeout):
                    list_version = ""  # A server that was restored from a backup never reaches our version.

    @property
    def _name(self) -> str:
        return str(self.resource.group_resource)

    async def _wait_backoff(self, backoff: Backoff, error: apierrors.ApiError) -> None:
        self._failures += 1
        seconds = backoff.next_seconds(self._clock.monotonic_seconds())
        seconds = max(seconds, float(error.retry_after_seconds))
        _log.warning(
            "the watch failed, trying again",
            resource=self._name,
            because=error.message or type(error).__name__,
            in_seconds=round(seconds, 1),
        )
        await self._clock.sleep(seconds)

    async def _list(self, resource_version: str) -> None:
        """Take over the server's state; handlers hear of the differences."""
        self._lists += 1
        fresh: dict[NamespacedName, T] = {}
        continue_ = ""
        while True:
            page = await self._client.list(
                self.resource,
                self._namespace,
                label_selector=self._label_selector,
                field_selector=self._field_selector,
                resource_version=resource_version or None,
                limit=PAGE_OBJECTS,
                continue_=continue_,
            )
            for obj in page.items:
                fresh[key_of(obj)] = obj
            continue_ = page.continue_
            if not continue_:
                break
        for key in self._cache.places():
            if key not in fresh:
                self._remove(key)
        for obj in fresh.values():
            self._put(obj)
        self._advance(page.resource_version)
        self._synced.set()

    async def _follow(self, backoff: Backoff) -> None:
        """Watch, again and again, from where the cache is; return never, raise what only a list can mend."""
        while True:
            start, before = self._clock.monotonic_seconds(), self._events
            try:
                await self._watch_once()
            except (apierrors.Expired, apierrors.Gone):
                raise
            except apierrors.ApiError as error:
                await self._wait_backoff(backoff, error)
                continue
            if self._clock.monotonic_seconds() - start < SHORT_WATCH_SECONDS and self._events == before:
                await self._wait_backoff(backoff, apierrors.ServiceUnavailable("the watch ended at once"))

    async def _watch_once(self) -> None:
        self._watches += 1
        watch = self._client.watch(
            self.resource,
            self._namespace,
            resource_version=self._version,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            timeout_seconds=int(WATCH_SECONDS_MIN * (1 + self._chance.random())),
        )
        async with aclosing(cast("Any", watch)):
            async for event in watch:
                self._take(event)

    def _take(self, event: WatchEvent[T]) -> None:
        self._events += 1
        obj = event.object
        if event.type is EventType.DELETED:
            self._remove(key_of(obj), last=obj)
        elif event.type is not EventType.BOOKMARK:
            self._put(obj)
        self._advance(metadata_of(obj).resource_version)

    def _put(self, obj: T) -> None:
        key = key_of(obj)
        known = self._cache.get(key)
        if known is not None and _same_version(known, obj):
            return
        if self._transform is not None:
            obj = self._transform(obj)
        old = self._cache.put(obj)
        if old is not None and metadata_of(old).uid != metadata_of(obj).uid:
            # Deleted and created anew while nobody looked: two objects, two changes.
            self._tell(old, None)
            old = None
        self._tell(old, obj)

    def _remove(self, key: NamespacedName, last: T | None = None) -> None:
        old = self._cache.remove(key)
        if old is not None:
            # A watch tells the object's last state, which may be newer than what was held.
            self._tell(old if last is None else last, None)

    def _tell(self, old: T | None, new: T | None) -> None:
        for handler in tuple(self._handlers):
            handler(old, new)

    def _advance(self, resource_version: str) -> None:
        self._version = resource_version
        reached = version_of(resource_version)
        while self._waiters and self._waiters[0][0] <= reached:
            _, _, future = heapq.heappop(self._waiters)
            if not future.done():
                future.set_result(None)


def _same_version(known: object, obj: object) -> bool:
    a, b = metadata_of(known), metadata_of(obj)
    return bool(a.resource_version) and a.resource_version == b.resource_version and a.uid == b.uid

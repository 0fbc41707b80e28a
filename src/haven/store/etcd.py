"""The store in etcd v3, which several API servers may share.

Everything that is committed anywhere comes back on one watch of all keys, in order; listeners hear of it from there,
and `commit` returns when its own change has come by. So each process is never behind what it acknowledged itself,
and `catch_up` makes it know what others acknowledged. Keys with a time to live are bound to etcd's leases.

Source: https://etcd.io/docs/v3.5/learning/api/, and for compaction by the API server
https://etcd.io/docs/v3.5/op-guide/maintenance/
"""

from __future__ import annotations

import asyncio
import functools
import heapq
import itertools
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any, cast

from etcd3aio import _protobuf as wire

from haven import telemetry
from haven.apimachinery.names import Revision
from haven.clock import Clock, SystemClock
from haven.store.etcdwire import (
    ALL_KEYS,
    EtcdSettings,
    HistoryGone,
    Unreachable,
    Wire,
    change_of,
    ours,
    record_of,
    theirs,
)
from haven.store.interface import (
    Change,
    Compacted,
    Expectation,
    Listener,
    Operation,
    Put,
    Range,
    Record,
    RevisionInFuture,
    StoreError,
    TransactionFailed,
)
from haven.store.keyrange import first_key, prefix_end
from haven.store.transactions import check_operations

__all__ = ["EtcdStore"]

COMPACTION_KEY = b"compact_rev_key"  # Upstream's name: whoever moves it on compacts.
_RECONNECT_SECONDS = 0.2
_LEASE_KEYS_MAX = 1000
_CLOSED = "the store is closed: open it again"

_log = telemetry.logger("store")


class EtcdStore:
    """A Store for many processes. Made by `open`."""

    def __init__(self, settings: EtcdSettings, wire: Wire, revision: int, clock: Clock) -> None:
        self._settings = settings
        self._wire = wire
        self._clock = clock
        self._seen = revision
        self._compacted = Revision(0)
        self._listeners: list[Listener] = []
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._asking: list[asyncio.Future[None]] = []
        self._asker: asyncio.Task[None] | None = None
        self._leases = _Leases(wire, clock)
        self._failure: StoreError | None = None
        self._closed = False
        self._watches: set[asyncio.Task[Any]] = set()
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def open(cls, settings: EtcdSettings, *, clock: Clock | None = None) -> EtcdStore:
        """Connect; raise StoreError."""
        wire = Wire(settings)
        try:
            store = cls(settings, wire, await wire.connect(), clock or SystemClock())
            await store._learn_compacted(1)
        except BaseException:
            await wire.close()
            raise
        store._tasks.append(asyncio.create_task(store._follow(), name="etcd-watch"))
        if settings.compaction_seconds > 0:
            store._tasks.append(asyncio.create_task(store._compact_now_and_then(), name="etcd-compaction"))
        return store

    @property
    def shared(self) -> bool:
        return True

    async def get(self, key: bytes) -> Record | None:
        self._check()
        answer = await self._wire.range(key, b"")
        return record_of(answer.kvs[0]) if answer.kvs else None

    async def range(
        self, prefix: bytes, *, after: bytes = b"", limit: int = 0, revision: Revision | None = None
    ) -> Range:
        self._check()
        first, end = first_key(prefix, after), prefix_end(prefix)
        at = 0
        if revision is not None:
            if revision > self.revision:
                await self.catch_up()
            if revision > self.revision:
                raise RevisionInFuture(self.revision)
            at = theirs(revision)
        try:
            answer = await self._wire.range(first or ALL_KEYS, end or ALL_KEYS, limit=limit, revision=at)
        except HistoryGone:
            await self._learn_compacted(at)
            raise Compacted(self._compacted) from None
        records = [record_of(pair) for pair in answer.kvs]
        remaining = int(answer.count) - len(records)
        return Range(records, ours(at or answer.header.revision), bool(answer.more), remaining)

    async def commit(self, operations: Sequence[Operation], expectations: Sequence[Expectation] = ()) -> Revision:
        self._check()
        check_operations(operations)
        compares = [_unchanged(one) for one in expectations]
        then = [await self._operation(operation) for operation in operations]
        reads = [wire.RequestOp(request_range=wire.RangeRequest(key=one.key)) for one in expectations]
        answer = await self._wire.transact(compares, then, reads)
        await self._until(answer.header.revision)
        if not answer.succeeded:
            found = [one.response_range.kvs for one in answer.responses]
            for expectation, pairs in zip(expectations, found, strict=True):
                current = record_of(pairs[0]) if pairs else None
                if (current.modified if current is not None else 0) != expectation.modified:
                    raise TransactionFailed(expectation.key, current)
        return ours(answer.header.revision)

    async def _operation(self, operation: Operation) -> Any:
        if isinstance(operation, Put):
            lease = await self._leases.of(operation.ttl_seconds) if operation.ttl_seconds > 0 else 0
            put = wire.PutRequest(key=operation.key, value=operation.value, lease=lease)
            return wire.RequestOp(request_put=put)
        return wire.RequestOp(request_delete_range=wire.DeleteRangeRequest(key=operation.key))

    def add_listener(self, listener: Listener) -> Callable[[], None]:
        self._listeners.append(listener)
        return functools.partial(self._listeners.remove, listener)

    async def watch(self, prefix: bytes, *, after: Revision) -> AsyncIterator[Sequence[Change]]:
        self._check()
        if after < self._compacted:
            raise Compacted(self._compacted)
        first, end = prefix or ALL_KEYS, prefix_end(prefix) or ALL_KEYS
        position = theirs(after)
        while True:
            # From the last one seen, not from the next: etcd says so if a deletion right behind it was compacted away.
            answers = self._wire.events(first, end, position)
            try:
                while True:
                    step = asyncio.ensure_future(anext(answers))
                    self._watches.add(step)
                    try:
                        answer = await step
                    finally:
                        self._watches.discard(step)
                    changes = [change_of(event) for event in answer.events if event.kv.mod_revision > position]
                    if changes:
                        position = theirs(changes[-1].revision)
                        yield changes
            except HistoryGone as error:
                self._compacted = max(self._compacted, ours(error.args[0]))
                raise Compacted(self._compacted) from None
            except asyncio.CancelledError:
                if self._closed:
                    raise StoreError(_CLOSED) from None
                raise
            except Unreachable:
                self._check()
                await asyncio.sleep(_RECONNECT_SECONDS)
            finally:
                await cast("AsyncGenerator[Any, None]", answers).aclose()

    async def compact(self, revision: Revision) -> None:
        self._check()
        if revision > self.revision:
            raise ValueError(f"revision {revision} is not written yet, the newest is {self.revision}")
        if revision <= self._compacted:
            return
        try:
            await self._wire.compact(theirs(revision))
            self._compacted = revision
        except HistoryGone:
            await self._learn_compacted(theirs(revision) - 1)

    async def catch_up(self) -> None:
        self._check()
        done = asyncio.get_running_loop().create_future()
        self._asking.append(done)
        if self._asker is None or self._asker.done():
            self._asker = asyncio.create_task(self._ask(), name="etcd-newest")
        await done

    @property
    def revision(self) -> Revision:
        return ours(self._seen)

    @property
    def compacted(self) -> Revision:
        return self._compacted

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._end_waiting(StoreError(_CLOSED))
        for task in (*self._tasks, *self._watches, *([self._asker] if self._asker else [])):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._wire.close()

    def _check(self) -> None:
        if self._closed:
            raise StoreError(_CLOSED)
        if self._failure is not None:
            raise self._failure

    async def _ask(self) -> None:
        """Ask etcd once for all who wait at this moment, as often as somebody waits."""
        while self._asking:
            asking, self._asking = self._asking, []
            try:
                await self._until(await self._wire.newest())
            except StoreError as error:
                for done in asking:
                    if not done.done():
                        done.set_exception(error)
                continue
            for done in asking:
                if not done.done():
                    done.set_result(None)

    async def _until(self, revision: int) -> None:
        """Return once listeners know everything up to a revision of etcd's."""
        if revision <= self._seen:
            return
        self._check()
        done = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (revision, next(self._order), done))
        await done

    async def _follow(self) -> None:
        """Tell listeners of every change, whoever made it."""
        while True:
            try:
                async for answer in self._wire.events(ALL_KEYS, ALL_KEYS, self._seen + 1):
                    if answer.events:
                        self._tell([change_of(event) for event in answer.events])
            except StoreError as error:
                _log.warning("etcd is away.", because=str(error))
                await asyncio.sleep(_RECONNECT_SECONDS)
            except HistoryGone:
                self._failure = StoreError(
                    "etcd forgot changes that this server had not seen, as it was cut off for too long: restart it"
                )
                self._end_waiting(self._failure)
                return
            except Exception as error:
                _log.error("Changes could not be taken over.", exc_info=error)
                self._failure = StoreError(f"changes in etcd could not be taken over ({error!r}): restart this server")
                self._end_waiting(self._failure)
                return

    def _tell(self, changes: list[Change]) -> None:
        for listener in tuple(self._listeners):
            listener(changes)
        self._seen = theirs(changes[-1].revision)
        while self._waiting and self._waiting[0][0] <= self._seen:
            done = heapq.heappop(self._waiting)[2]
            if not done.done():
                done.set_result(None)

    def _end_waiting(self, error: StoreError) -> None:
        for done in (*(one[2] for one in self._waiting), *self._asking):
            if not done.done():
                done.set_exception(error)
        self._waiting.clear()
        self._asking.clear()

    async def _learn_compacted(self, revision: int) -> None:
        """Find out which revision is the oldest held, if one asked for is not."""
        try:
            await self._wire.range(COMPACTION_KEY, b"", revision=revision)
        except HistoryGone:
            try:
                async for _ in self._wire.events(COMPACTION_KEY, b"", revision):
                    pass
            except HistoryGone as error:
                self._compacted = max(self._compacted, ours(error.args[0]))

    async def _compact_now_and_then(self) -> None:
        """Forget what is older than the settings say. Of several servers the one that moves the key on does it."""
        version, before = 0, self._seen
        while True:
            await self._clock.sleep(self._settings.compaction_seconds)
            now = self._seen
            compare = wire.Compare(key=COMPACTION_KEY, target="VERSION", result="EQUAL", version=version)
            put = wire.PutRequest(key=COMPACTION_KEY, value=str(before).encode())
            get = wire.RangeRequest(key=COMPACTION_KEY)
            try:
                answer = await self._wire.transact(
                    [compare], [wire.RequestOp(request_put=put)], [wire.RequestOp(request_range=get)]
                )
                if answer.succeeded:
                    version += 1
                    await self.compact(ours(before))
                else:
                    version = answer.responses[0].response_range.kvs[0].version
            except StoreError as error:
                _log.warning("etcd's history was not shortened.", because=str(error))
            before = now


def _unchanged(expectation: Expectation) -> Any:
    modified = theirs(expectation.modified) if expectation.modified else 0
    return wire.Compare(key=expectation.key, target="MOD", result="EQUAL", mod_revision=modified)


class _Leases:
    """Leases for keys that vanish: keys with the same time to live that are written close together share one."""

    def __init__(self, wire: Wire, clock: Clock) -> None:
        self._wire = wire
        self._clock = clock
        self._current: dict[int, tuple[int, float, int]] = {}
        self._lock = asyncio.Lock()

    async def of(self, seconds: int) -> int:
        """Return a lease that ends at this time or a little later, never earlier."""
        slack = min(60, math.ceil(seconds / 20))
        async with self._lock:
            now = self._clock.monotonic_seconds()
            lease, until, keys = self._current.get(seconds, (0, 0.0, 0))
            if not lease or now >= until or keys >= _LEASE_KEYS_MAX:
                lease, until, keys = await self._wire.grant(seconds + slack), now + slack, 0
            self._current[seconds] = (lease, until, keys + 1)
            return lease

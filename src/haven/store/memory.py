"""The store in memory, for clusters that live only as long as their process: tests and simulations.

Keeps every promise but durability: what is committed is gone with the process. Commits are answered at once, without
threads, so that a simulation is deterministic. Ranges at an old revision undo the changes since.
"""

from __future__ import annotations

import asyncio
import functools
from bisect import bisect_left, insort
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from haven.apimachinery.names import Revision
from haven.clock import Clock, SystemClock
from haven.store.expiry import Expiries, Expiry
from haven.store.fanout import Fanout
from haven.store.interface import (
    Change,
    Compacted,
    Expectation,
    Listener,
    Operation,
    Range,
    Record,
    RevisionInFuture,
    StoreError,
)
from haven.store.keyrange import first_key, prefix_end
from haven.store.transactions import OPERATIONS_MAX, Expire, Transaction, apply_batch, check_operations

__all__ = ["MemoryStore", "Snapshot"]

HISTORY_CHANGES_MAX = 20_000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a store held at one revision."""

    records: Mapping[bytes, Record]
    expiries: tuple[Expiry, ...]
    revision: Revision


class MemoryStore:
    """A Store without a file.

    Invariants: `_keys` are the keys of `_records`, sorted; `_history` holds every change after `_compacted`, in order.
    """

    def __init__(self, *, clock: Clock | None = None, history_changes_max: int = HISTORY_CHANGES_MAX) -> None:
        self._clock = clock or SystemClock()
        self._history_changes_max = history_changes_max
        self._records: dict[bytes, Record] = {}
        self._keys: list[bytes] = []
        self._history: deque[Change] = deque()
        self._revision = self._compacted = Revision(0)
        self._listeners: list[Listener] = []
        self._fanout = Fanout(self._read_history, lambda: self._revision)
        self._expiries = Expiries()
        self._expiry_task: asyncio.Task[None] | None = None
        self._closed = False

    async def get(self, key: bytes) -> Record | None:
        self._check_open()
        return self._records.get(key)

    async def range(
        self, prefix: bytes, *, after: bytes = b"", limit: int = 0, revision: Revision | None = None
    ) -> Range:
        self._check_open()
        if revision is None or revision == self._revision:
            records, keys, revision = self._records, self._keys, self._revision
        else:
            records = self._as_of(revision)
            keys = sorted(records)
        start = bisect_left(keys, first_key(prefix, after))
        end = prefix_end(prefix)
        stop = bisect_left(keys, end) if end is not None else len(keys)
        cut = min(start + limit, stop) if limit else stop
        remaining = max(stop - cut, 0)
        return Range([records[key] for key in keys[start:cut]], revision, remaining > 0, remaining)

    async def commit(self, operations: Sequence[Operation], expectations: Sequence[Expectation] = ()) -> Revision:
        self._check_open()
        check_operations(operations)
        answer = self._apply(Transaction(operations, expectations))
        await asyncio.sleep(0)  # As with a disk, others get their turn before the caller goes on.
        if isinstance(answer, StoreError):
            raise answer
        return answer

    def add_listener(self, listener: Listener) -> Callable[[], None]:
        self._listeners.append(listener)
        return functools.partial(self._listeners.remove, listener)

    def watch(self, prefix: bytes, *, after: Revision) -> AsyncIterator[Sequence[Change]]:
        return self._fanout.watch(prefix, after)

    async def compact(self, revision: Revision) -> None:
        self._check_open()
        if revision > self._revision:
            raise ValueError(f"revision {revision} is not written yet, the newest is {self._revision}")
        self._compacted = max(self._compacted, revision)
        while self._history and self._history[0].revision <= self._compacted:
            self._history.popleft()

    def snapshot(self) -> Snapshot:
        """Return what there is."""
        return Snapshot(dict(self._records), self._expiries.all(), self._revision)

    def restore(self, snapshot: Snapshot) -> Revision:
        """Put a snapshot in place of everything, under a new revision before which no history is left.

        Records keep their own revisions, as etcd's do when a backup is restored with a higher revision. Listeners
        hear nothing of it: there is no order of changes that leads here.
        """
        self._check_open()
        self._records = dict(snapshot.records)
        self._keys = sorted(self._records)
        self._history.clear()
        self._revision = self._compacted = Revision(self._revision + 1)
        self._expiries = Expiries(snapshot.expiries)
        if snapshot.expiries:
            self._start_expiry()
        return self._revision

    @property
    def shared(self) -> bool:
        return False

    async def catch_up(self) -> None:
        self._check_open()

    @property
    def revision(self) -> Revision:
        return self._revision

    @property
    def compacted(self) -> Revision:
        return self._compacted

    async def close(self) -> None:
        self._closed = True
        self._fanout.close()
        if self._expiry_task is not None:
            self._expiry_task.cancel()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed: open it again")

    def _apply(self, transaction: Transaction) -> Revision | StoreError:
        outcome = apply_batch([transaction], self._records.get, self._revision, self._clock.now_seconds())
        for change in outcome.changes:
            self._expiries.cancel(change.key)
            record = outcome.records[change.key]
            if record is None:
                del self._records[change.key]
                del self._keys[bisect_left(self._keys, change.key)]
            else:
                if change.previous is None:
                    insort(self._keys, change.key)
                self._records[change.key] = record
        if outcome.changes:
            self._revision = outcome.newest
            self._history += outcome.changes
            self._forget_history()
            for listener in tuple(self._listeners):
                listener(outcome.changes)
            self._fanout.publish(outcome.changes)
        for expiry in outcome.expiries.values():
            self._expiries.put(expiry)
            self._start_expiry()
        return outcome.answers[0]

    def _forget_history(self) -> None:
        while len(self._history) > self._history_changes_max:
            self._compacted = self._history[0].revision
            while self._history and self._history[0].revision <= self._compacted:
                self._history.popleft()

    def _as_of(self, revision: Revision) -> dict[bytes, Record]:
        if revision > self._revision:
            raise RevisionInFuture(self._revision)
        if revision < self._compacted:
            raise Compacted(self._compacted)
        records = dict(self._records)
        for change in reversed(self._history):
            if change.revision <= revision:
                break
            if change.previous is not None:
                records[change.key] = change.previous
            else:
                records.pop(change.key, None)
        return records

    async def _read_history(
        self, prefix: bytes, after: Revision, upto: Revision, limit: int
    ) -> tuple[list[Change], Revision]:
        self._check_open()
        if after < self._compacted:
            raise Compacted(self._compacted)
        changes = [
            change for change in self._history if after < change.revision <= upto and change.key.startswith(prefix)
        ]
        return changes, max(upto, after)

    def _start_expiry(self) -> None:
        if self._expiry_task is None or self._expiry_task.done():
            self._expiry_task = asyncio.get_running_loop().create_task(self._expire_keys(), name="store-expiry")

    async def _expire_keys(self) -> None:
        while (next_seconds := self._expiries.next_seconds()) is not None:
            now = self._clock.now_seconds()
            if due := self._expiries.take_due(now, OPERATIONS_MAX):
                self._apply(Transaction([Expire(expiry.key, expiry.revision) for expiry in due]))
            else:
                await self._clock.sleep(min(next_seconds - now, 1.0))  # A key with less time may come meanwhile.

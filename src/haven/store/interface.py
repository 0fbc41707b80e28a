"""What a store promises; one contract suite (tests/contract/test_store.py) holds every implementation to it.

Guarantees: *ordered* (revisions strictly increase, one per transaction), *atomic* (all of a transaction or nothing),
*durable* (a returned `commit` survives kill -9 and power loss), *resumable* (a watch from revision R delivers every
later change once, in order, or raises Compacted).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from haven.apimachinery.names import Revision

__all__ = [
    "Change",
    "Compacted",
    "Delete",
    "Expectation",
    "Listener",
    "Operation",
    "Put",
    "Range",
    "Record",
    "RevisionInFuture",
    "Store",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "TransactionFailed",
]


class StoreError(Exception):
    """The store could not do its work; the message names the fix."""


class StoreFull(StoreError):
    """The disk or the quota is full: nothing was written."""


class StoreLocked(StoreError):
    """Another process uses the store; it works again once that one ends."""


class Compacted(StoreError):
    """The revision asked for is no longer held; `oldest` is the first one that is."""

    def __init__(self, oldest: Revision) -> None:
        super().__init__(f"revisions before {oldest} are compacted")
        self.oldest = oldest


class RevisionInFuture(StoreError):
    """The revision asked for has not been written yet; `newest` is the last one that has."""

    def __init__(self, newest: Revision) -> None:
        super().__init__(f"revision is in the future, the newest is {newest}")
        self.newest = newest


class TransactionFailed(StoreError):
    """An expectation did not hold; nothing was written. `current` is what is there, None if nothing."""

    def __init__(self, key: bytes, current: Record | None) -> None:
        super().__init__(f"{key!r} is not at the expected revision")
        self.key = key
        self.current = current


@dataclass(frozen=True, slots=True)
class Record:
    """A key's value at one revision."""

    key: bytes
    value: bytes
    created: Revision
    modified: Revision


@dataclass(frozen=True, slots=True)
class Range:
    """Records in key order. `revision` is the one that was read; `more` tells that the limit cut the range."""

    records: Sequence[Record]
    revision: Revision
    more: bool
    remaining: int


@dataclass(frozen=True, slots=True)
class Expectation:
    """The key is at this modified revision; 0 means that it does not exist."""

    key: bytes
    modified: Revision


@dataclass(frozen=True, slots=True)
class Put:
    """Write a value. `ttl_seconds` > 0 lets the key vanish, as a deletion, that long after this write."""

    key: bytes
    value: bytes
    ttl_seconds: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a key; removing a key that is not there is no change."""

    key: bytes


Operation = Put | Delete


@dataclass(frozen=True, slots=True)
class Change:
    """One key's change in one transaction. `value` is None for a deletion; `previous` what was there before."""

    key: bytes
    value: bytes | None
    previous: Record | None
    revision: Revision
    created: Revision


Listener = Callable[[Sequence[Change]], None]
"""Called on the event loop with the changes of whole transactions, in revision order; it must not raise."""


class Store(Protocol):
    """Keys, values, revisions. Safe to call from one event loop; slow work happens in the implementation's threads."""

    async def get(self, key: bytes) -> Record | None:
        """Return the newest record of a key."""
        ...

    async def range(
        self, prefix: bytes, *, after: bytes = b"", limit: int = 0, revision: Revision | None = None
    ) -> Range:
        """Return records whose key starts with `prefix` and is greater than `after`, at most `limit` (0: all).

        With `revision`, as they were then; raises Compacted or RevisionInFuture.
        """
        ...

    async def commit(self, operations: Sequence[Operation], expectations: Sequence[Expectation] = ()) -> Revision:
        """Write all operations in one transaction and return its revision once it is durable.

        Raises TransactionFailed when an expectation does not hold, StoreFull when there is no room. Transactions that
        wait at the same moment share one fsync. A transaction that changes nothing (it has no operations, or only
        deletes what is not there) takes no revision and returns the newest one. A key may occur once per transaction.
        """
        ...

    def add_listener(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with every later change, before the commits that made them return; return how to stop.

        For whoever must never be behind an acknowledged write, such as a watch cache. What came earlier is got by
        adding the listener first, then reading a range, then ignoring changes up to the range's revision.
        """
        ...

    def watch(self, prefix: bytes, *, after: Revision) -> AsyncIterator[Sequence[Change]]:
        """Yield every change with a revision above `after`, in order, in batches of whole transactions.

        Raises Compacted when some of them are gone: at the first step, or later if the reader is so slow that history
        is compacted before it gets there. Raises StoreError when the store is closed.
        """
        ...

    async def compact(self, revision: Revision) -> None:
        """Forget history before `revision`; the newest value of each key stays."""
        ...

    @property
    def shared(self) -> bool:
        """Whether other processes may write too: then this one may not know yet what they did."""
        ...

    async def catch_up(self) -> None:
        """Return once listeners know everything that anybody's commit acknowledged before this call."""
        ...

    @property
    def revision(self) -> Revision:
        """The newest revision that this process has seen committed."""
        ...

    @property
    def compacted(self) -> Revision:
        """History before this revision is gone."""
        ...

    async def close(self) -> None:
        """Finish what was begun and release the files."""
        ...

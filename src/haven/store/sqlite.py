"""The store in an SQLite file: one writer thread with group commit, readers beside it, watches in process.

Brief keys (node leases) are overwritten all day and hardly ever read back. They are as durable and as ordered as any,
but two things are cheaper: a commit of brief keys alone waits up to BRIEF_WAIT_SECONDS for company, so a thousand
nodes cost tens of syncs per second and not hundreds; and their history ends earlier (`brief_retention`).
"""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from haven import telemetry
from haven.apimachinery.names import Revision
from haven.clock import Clock, SystemClock
from haven.store import backup, layout
from haven.store.expiry import Expiries, Expiry
from haven.store.fanout import Fanout
from haven.store.interface import (
    Change,
    Expectation,
    Listener,
    Operation,
    Range,
    Record,
    StoreError,
)
from haven.store.ledger import Ledger
from haven.store.lockfile import LockFile
from haven.store.reader import Reader
from haven.store.transactions import Expire, Outcome, Transaction, check_operations
from haven.store.writer import SqliteSettings, Writer

__all__ = ["SqliteSettings", "SqliteStatistics", "SqliteStore"]

T = TypeVar("T")

EXPIRIES_PER_TRANSACTION = 500
EXPIRY_SLEEP_SECONDS_MAX = 60.0  # The wall clock may be set while we sleep.
FULL_RETRY_SECONDS = 5.0
SWITCH_SECONDS = 0.0005

_log = telemetry.logger("store")


@dataclass(frozen=True, slots=True)
class SqliteStatistics:
    """A snapshot for metrics."""

    revision: Revision
    compacted: Revision
    file_bytes: int
    log_bytes: int
    transactions: int
    batches: int
    batch_transactions_max: int
    pending: int
    watchers: int
    expiring_keys: int
    checkpoints: int


class SqliteStore:
    """A Store in one file. Made by `open`; used from the event loop that opened it."""

    def __init__(
        self, path: Path, settings: SqliteSettings, clock: Clock, lock: LockFile, ledger: Ledger, expiries: Expiries
    ) -> None:
        self._path = path
        self._settings = settings
        self._clock = clock
        self._lock = lock
        self._ledger = ledger
        self._loop = asyncio.get_running_loop()
        self._revision = ledger.newest
        self._compacted = ledger.compacted
        self._closing = False
        self._transactions = self._batches = self._batch_max = 0

        self._point_reader = Reader(path, settings.brief_prefixes)  # On the loop: 10 µs, never blocked by the writer.
        self._range_reader = Reader(path, settings.brief_prefixes)
        self._range_thread = ThreadPoolExecutor(1, thread_name_prefix="store-reader")
        self._listeners: list[Listener] = []
        self._fanout = Fanout(self._read_history, lambda: self._revision)

        self._expiries = expiries
        self._expiry_earlier = asyncio.Event()
        self._expiry_wake_seconds = 0.0
        self._writer = Writer(path, settings, clock, ledger, self._take_outcome)
        self._expiry_task = asyncio.create_task(self._expire_keys(), name="store-expiry")

    @classmethod
    async def open(
        cls, path: Path | str, settings: SqliteSettings | None = None, *, clock: Clock | None = None
    ) -> SqliteStore:
        """Open the file, creating it if need be. Raises StoreError, whose message names the fix."""
        path, settings = Path(path), settings or SqliteSettings()
        # A busy event loop must hand the interpreter's lock to the writer soon: at Python's 5 ms, and with a loop that
        # lets go of it for microseconds only, commits were seen to take seconds.
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_SECONDS))
        lock, ledger, expiries = await asyncio.to_thread(_open_files, path, settings)
        return cls(path, settings, clock or SystemClock(), lock, ledger, expiries)

    # Reading

    async def get(self, key: bytes) -> Record | None:
        self._check_usable()
        return self._point_reader.get(key)

    async def range(
        self, prefix: bytes, *, after: bytes = b"", limit: int = 0, revision: Revision | None = None
    ) -> Range:
        self._check_usable()
        return await self._in_range_thread(functools.partial(self._range_reader.range, prefix, after, limit, revision))

    def watch(self, prefix: bytes, *, after: Revision) -> AsyncIterator[Sequence[Change]]:
        return self._fanout.watch(prefix, after)

    def add_listener(self, listener: Listener) -> Callable[[], None]:
        self._listeners.append(listener)
        return functools.partial(self._listeners.remove, listener)

    @property
    def shared(self) -> bool:
        return False  # The file is locked by its process.

    async def catch_up(self) -> None:
        """Nothing to catch up with: listeners hear of every commit before it returns."""

    @property
    def revision(self) -> Revision:
        return self._revision

    @property
    def compacted(self) -> Revision:
        return self._compacted

    def statistics(self) -> SqliteStatistics:
        """Return a snapshot for metrics."""
        return SqliteStatistics(
            revision=self._revision,
            compacted=self._compacted,
            file_bytes=_size_bytes(self._path),
            log_bytes=_size_bytes(self._path.with_name(self._path.name + "-wal")),
            transactions=self._transactions,
            batches=self._batches,
            batch_transactions_max=self._batch_max,
            pending=self._writer.pending,
            watchers=len(self._fanout),
            expiring_keys=len(self._expiries),
            checkpoints=self._writer.checkpoints,
        )

    # Writing

    async def commit(self, operations: Sequence[Operation], expectations: Sequence[Expectation] = ()) -> Revision:
        self._check_usable()
        check_operations(operations)
        return await self._writer.write(
            Transaction(operations, expectations),
            patient=bool(self._settings.brief_prefixes)
            and all(operation.key.startswith(self._settings.brief_prefixes) for operation in operations),
        )

    async def compact(self, revision: Revision) -> None:
        self._check_usable()
        if revision > self._revision:
            raise ValueError(f"revision {revision} is not written yet, the newest is {self._revision}")
        await self._writer.compact(revision)

    async def backup(self, target: Path | str) -> Revision:
        """Write a copy of the present state to a new file while the store goes on; return the copy's revision."""
        self._check_usable()
        return await asyncio.to_thread(backup.backup, self._path, Path(target))

    async def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._expiry_task.cancel()
        self._fanout.close()
        await self._writer.stop()
        self._range_thread.shutdown()
        self._point_reader.close()
        self._range_reader.close()
        await asyncio.to_thread(self._ledger.close)  # Last: only a connection that may write empties the log.
        self._lock.release()

    def _check_usable(self) -> None:
        if self._writer.failure is not None:
            raise self._writer.failure
        if self._closing:
            raise StoreError("the store is closed: open it again")

    def _take_outcome(self, outcome: Outcome, transactions: int, compacted: Revision) -> None:
        """Everyone learns of a batch, those who must never be behind first."""
        self._revision = max(self._revision, outcome.newest)
        self._compacted = compacted
        if transactions:
            self._transactions += transactions
            self._batches += 1
            self._batch_max = max(self._batch_max, transactions)
        if outcome.changes:
            for listener in tuple(self._listeners):
                listener(outcome.changes)
            self._fanout.publish(outcome.changes)
            self._schedule_expiries(outcome)

    async def _in_range_thread(self, function: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._range_thread, function)

    async def _read_history(
        self, prefix: bytes, after: Revision, upto: Revision, limit: int
    ) -> tuple[list[Change], Revision]:
        self._check_usable()
        return await self._in_range_thread(functools.partial(self._range_reader.history, prefix, after, upto, limit))

    # Expiry

    def _schedule_expiries(self, outcome: Outcome) -> None:
        if len(self._expiries):
            for change in outcome.changes:
                self._expiries.cancel(change.key)
        for expiry in outcome.expiries.values():
            self._expiries.put(expiry)
            if expiry.at_seconds < self._expiry_wake_seconds:
                self._expiry_earlier.set()

    async def _expire_keys(self) -> None:
        while True:
            now = self._clock.now_seconds()
            due = self._expiries.take_due(now, EXPIRIES_PER_TRANSACTION)
            if due:
                await self._expire(due)
                continue
            next_seconds = self._expiries.next_seconds()
            self._expiry_wake_seconds = next_seconds if next_seconds is not None else float("inf")
            self._expiry_earlier.clear()
            await self._wait_expiry(None if next_seconds is None else next_seconds - now)

    async def _expire(self, due: Sequence[Expiry]) -> None:
        transaction = Transaction([Expire(expiry.key, expiry.revision) for expiry in due])
        try:
            await self._writer.write(transaction, patient=False)
        except StoreError as error:
            _log.warning("expired keys could not be deleted, trying again", keys=len(due), because=str(error))
            for expiry in due:
                self._expiries.put(expiry)
            await self._clock.sleep(FULL_RETRY_SECONDS)

    async def _wait_expiry(self, seconds: float | None) -> None:
        """Return after so many seconds, or when a key was written that expires earlier."""
        earlier = asyncio.create_task(self._expiry_earlier.wait())
        waits: set[asyncio.Task[object]] = {earlier}
        if seconds is not None:
            waits.add(asyncio.create_task(self._clock.sleep(min(seconds, EXPIRY_SLEEP_SECONDS_MAX))))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


def _open_files(path: Path, settings: SqliteSettings) -> tuple[LockFile, Ledger, Expiries]:
    lock = LockFile(path)
    try:
        existed = _size_bytes(path) > 0
        try:
            ledger = Ledger(path, size_bytes_max=settings.size_bytes_max, cache_bytes=settings.cache_bytes)
        except sqlite3.Error as error:
            raise layout.store_error(error, path) from error
        try:
            if existed:
                layout.check(ledger.connection, path)
            return lock, ledger, Expiries(ledger.read_expiries())
        except sqlite3.Error as error:
            ledger.close()
            raise layout.store_error(error, path) from error
        except BaseException:
            ledger.close()
            raise
    except BaseException:
        lock.release()
        raise


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0

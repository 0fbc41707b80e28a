"""The store in an SQLite file: one writer thread with group commit, readers beside it, watches in process.

The way of a commit: the event loop appends it to `_pending` and, once per loop iteration, wakes the writer; the writer
takes everything that waits, writes it in one SQLite transaction (one fsync), and hands the outcome back with a single
`call_soon_threadsafe`; on the loop listeners get the changes, then watchers, then the callers their answers. While the
writer syncs, the next batch gathers by itself, so batches grow with load and a lone write waits for nobody.

Brief keys (node leases) are overwritten all day and hardly ever read back. They are as durable and as ordered as any,
but two things are cheaper: a commit of brief keys alone waits up to BRIEF_WAIT_SECONDS for company, so a thousand
nodes cost tens of syncs per second and not hundreds; and their history ends earlier (`brief_retention`).
"""

from __future__ import annotations

import asyncio
import functools
import queue
import sqlite3
import sys
import threading
from collections import deque
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
    StoreFull,
    StoreLocked,
)
from haven.store.ledger import Ledger
from haven.store.lockfile import LockFile
from haven.store.reader import Reader
from haven.store.retention import Retention, RetentionLimits
from haven.store.transactions import Expire, Outcome, Transaction, check_operations

__all__ = ["SqliteSettings", "SqliteStatistics", "SqliteStore"]

T = TypeVar("T")

BATCH_TRANSACTIONS_MAX = 512  # More gains nothing and makes the first of them wait.
PENDING_TRANSACTIONS_MAX = 100_000
BRIEF_WAIT_SECONDS = 0.02
COMPACT_STEP_CHANGES = 500  # History moves in steps, because each costs a sync.
SWEEP_ROWS = 1000  # About 10 ms of the writer.
SWEEP_FACTOR = 2  # Rows looked at per row written: more than one, or a backlog would never go away.
CHECKPOINT_FRAMES = 2000  # 8 MB of log.
VACUUM_PAGES = 64  # Each is a call into SQLite of its own.
SPARE_PAGES = 8192  # 32 MB stay in the file for the next writes.
EXPIRIES_PER_TRANSACTION = 500
EXPIRY_SLEEP_SECONDS_MAX = 60.0  # The wall clock may be set while we sleep.
FULL_RETRY_SECONDS = 5.0
SWITCH_SECONDS = 0.0005

_log = telemetry.logger("store")


@dataclass(frozen=True, slots=True)
class SqliteSettings:
    """How a file is kept."""

    size_bytes_max: int = 8 << 30  # As etcd's recommended limit; beyond it writes are refused with StoreFull.
    cache_bytes: int = 8 << 20  # The writer's page cache.
    retention: RetentionLimits = RetentionLimits()
    brief_retention: RetentionLimits = RetentionLimits(seconds=60.0, revisions=20_000, bytes=16 << 20)
    brief_prefixes: tuple[bytes, ...] = ()


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


@dataclass(slots=True)
class _Pending:
    transaction: Transaction
    future: asyncio.Future[Revision]


class SqliteStore:
    """A Store in one file. Made by `open`; used from the event loop that opened it."""

    def __init__(
        self, path: Path, settings: SqliteSettings, clock: Clock, lock: LockFile, ledger: Ledger, expiries: Expiries
    ) -> None:
        self._path = path
        self._settings = settings
        self._clock = clock
        self._lock = lock
        self._ledger = ledger  # The writer thread's alone from here on.
        self._loop = asyncio.get_running_loop()
        self._revision = ledger.newest
        self._compacted = ledger.compacted
        self._failure: StoreError | None = None
        self._closing = False

        self._pending: deque[_Pending] = deque()
        self._jobs: deque[tuple[Callable[[], object], asyncio.Future[object]]] = deque()
        self._signals: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._flush_soon = False
        self._flush_later: asyncio.TimerHandle | None = None

        now = clock.now_seconds()
        self._retention = Retention(
            settings.retention, compacted=ledger.compacted, newest=ledger.newest, now_seconds=now
        )
        self._brief_retention = Retention(
            settings.brief_retention, compacted=ledger.brief_compacted, newest=ledger.newest, now_seconds=now
        )

        self._point_reader = Reader(path, settings.brief_prefixes)  # On the loop: 10 µs, never blocked by the writer.
        self._range_reader = Reader(path, settings.brief_prefixes)
        self._range_thread = ThreadPoolExecutor(1, thread_name_prefix="store-reader")
        self._listeners: list[Listener] = []
        self._fanout = Fanout(self._read_history, lambda: self._revision)

        self._changes_since_compaction = 0  # These two are the writer's.
        self._made_room_seconds = float("-inf")

        self._expiries = expiries
        self._expiry_earlier = asyncio.Event()
        self._expiry_wake_seconds = 0.0
        self._transactions = self._batches = self._batch_max = 0

        self._writer = threading.Thread(target=self._run_writer, name="store-writer", daemon=True)
        self._writer.start()
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
            pending=len(self._pending),
            watchers=len(self._fanout),
            expiring_keys=len(self._expiries),
            checkpoints=self._ledger.checkpoints,
        )

    # Writing

    async def commit(self, operations: Sequence[Operation], expectations: Sequence[Expectation] = ()) -> Revision:
        self._check_usable()
        check_operations(operations)
        return await self._enqueue(
            Transaction(operations, expectations),
            patient=bool(self._settings.brief_prefixes)
            and all(operation.key.startswith(self._settings.brief_prefixes) for operation in operations),
        )

    async def compact(self, revision: Revision) -> None:
        self._check_usable()
        if revision > self._revision:
            raise ValueError(f"revision {revision} is not written yet, the newest is {self._revision}")
        await self._in_writer(functools.partial(self._compact_fully, revision))

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
        self._flush()
        await asyncio.to_thread(self._writer.join)
        self._range_thread.shutdown()
        self._point_reader.close()
        self._range_reader.close()
        await asyncio.to_thread(self._ledger.close)
        self._lock.release()

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closing:
            raise StoreError("the store is closed: open it again")

    def _enqueue(self, transaction: Transaction, *, patient: bool) -> asyncio.Future[Revision]:
        if len(self._pending) >= PENDING_TRANSACTIONS_MAX:
            raise StoreError(f"{PENDING_TRANSACTIONS_MAX} transactions wait already: write less, or use a faster disk")
        future: asyncio.Future[Revision] = self._loop.create_future()
        self._pending.append(_Pending(transaction, future))
        if patient:
            if self._flush_later is None and not self._flush_soon:
                self._flush_later = self._loop.call_later(BRIEF_WAIT_SECONDS, self._flush)
        elif not self._flush_soon:
            self._flush_soon = True
            self._loop.call_soon(self._flush)
        return future

    def _flush(self) -> None:
        """Wake the writer; it takes all that waits."""
        self._flush_soon = False
        if self._flush_later is not None:
            self._flush_later.cancel()
            self._flush_later = None
        self._signals.put(None)

    def _deliver(self, batch: Sequence[_Pending], outcome: Outcome, compacted: Revision) -> None:
        """On the loop: everyone learns of a batch, those who must never be behind first."""
        self._revision = outcome.newest
        self._compacted = compacted
        self._transactions += len(batch)
        self._batches += 1
        self._batch_max = max(self._batch_max, len(batch))
        try:
            if outcome.changes:
                for listener in tuple(self._listeners):
                    listener(outcome.changes)
                self._fanout.publish(outcome.changes)
            self._schedule_expiries(outcome)
        finally:
            for pending, answer in zip(batch, outcome.answers, strict=True):
                if pending.future.done():
                    continue  # The caller was cancelled; the write stands.
                if isinstance(answer, int):
                    pending.future.set_result(answer)
                else:
                    pending.future.set_exception(answer)

    # The writer thread

    def _run_writer(self) -> None:
        while True:
            self._signals.get()
            while self._pending or self._jobs:
                if self._pending:
                    self._write_batch()
                if self._jobs:
                    self._run_job()
            if self._closing:
                return
            self._rest()

    def _write_batch(self) -> None:
        pending = self._pending
        batch = [pending.popleft() for _ in range(min(len(pending), BATCH_TRANSACTIONS_MAX))]
        if self._failure is not None:
            outcome = Outcome(self._ledger.newest, answers=[self._failure] * len(batch))
        else:
            try:
                outcome = self._ledger.write([each.transaction for each in batch], self._clock.now_seconds())
            except StoreError as error:
                self._fail(error)
                outcome = Outcome(self._ledger.newest, answers=[error] * len(batch))
        self._call_loop(self._deliver, batch, outcome, self._ledger.compacted)
        try:
            self._forget_history(outcome)
        except StoreError as error:
            self._fail(error)

    def _forget_history(self, outcome: Outcome) -> None:
        """Keep the file bounded: as much is removed as is written, in pieces between batches."""
        if self._failure is not None:
            return
        ledger, now = self._ledger, self._clock.now_seconds()
        if any(isinstance(answer, StoreFull) for answer in outcome.answers):
            self._make_room(now)
            return
        self._retention.record(ledger.newest, outcome.written_bytes, now)
        self._brief_retention.record(ledger.newest, outcome.written_bytes, now)
        self._changes_since_compaction += len(outcome.changes)
        if self._changes_since_compaction >= COMPACT_STEP_CHANGES:
            rows = SWEEP_FACTOR * self._changes_since_compaction
            self._changes_since_compaction = 0
            ledger.compact(self._retention.target(now))
            if self._settings.brief_prefixes:
                ledger.compact_brief(self._brief_retention.target(now))
                if ledger.unswept_brief:
                    ledger.sweep_brief(self._settings.brief_prefixes, rows)
            while rows > 0 and ledger.unswept:
                ledger.sweep(min(rows, SWEEP_ROWS))
                rows -= SWEEP_ROWS
            ledger.vacuum(VACUUM_PAGES, spare_pages=SPARE_PAGES)
        if ledger.frames >= CHECKPOINT_FRAMES:
            ledger.checkpoint()

    def _make_room(self, now: float) -> None:
        """Give up all history: it is worth less than the next write. Not at every refusal, if it does not help."""
        if now - self._made_room_seconds < FULL_RETRY_SECONDS:
            return
        self._made_room_seconds = now
        _log.error("the store is full, dropping its history", path=str(self._path), revision=self._ledger.newest)
        try:
            self._ledger.checkpoint()  # The log can then be written over from its beginning.
            self._compact_fully(self._ledger.newest)
        except StoreFull as full:
            _log.error("the store stays full", path=str(self._path), because=str(full))

    def _rest(self) -> None:
        """Do what was put off, until there is work again."""
        ledger = self._ledger
        try:
            more = True
            while more and self._failure is None and not self._pending and not self._jobs:
                if ledger.unswept:
                    ledger.sweep(SWEEP_ROWS)
                else:
                    more = ledger.vacuum(VACUUM_PAGES, spare_pages=SPARE_PAGES)
                if ledger.frames >= CHECKPOINT_FRAMES:
                    ledger.checkpoint()
        except StoreError as error:
            self._fail(error)

    def _compact_fully(self, revision: Revision) -> None:
        self._ledger.compact(revision)
        while self._ledger.unswept:
            self._ledger.sweep(SWEEP_ROWS)
        self._ledger.checkpoint()

    def _fail(self, error: StoreError) -> None:
        """After an error of the disk nothing that follows can be called durable: refuse it all."""
        if isinstance(error, StoreLocked | StoreFull):
            _log.warning("the store could not write", path=str(self._path), because=str(error))
            return
        _log.error("the store failed", path=str(self._path), because=str(error))
        self._failure = error

    def _run_job(self) -> None:
        job, future = self._jobs.popleft()
        try:
            result = job()
        except Exception as error:
            self._call_loop(_settle, future, None, error)
        else:
            self._call_loop(self._settle_job, future, result, self._ledger.compacted)

    def _settle_job(self, future: asyncio.Future[object], result: object, compacted: Revision) -> None:
        self._compacted = compacted
        _settle(future, result, None)

    def _call_loop(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            # The loop ended without closing the store: nobody waits for this answer any more.
            _log.warning("the event loop ended before the store was closed", path=str(self._path))

    async def _in_writer(self, job: Callable[[], object]) -> object:
        future: asyncio.Future[object] = self._loop.create_future()
        self._jobs.append((job, future))
        self._signals.put(None)
        return await future

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
            await self._enqueue(transaction, patient=False)
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


def _settle(future: asyncio.Future[object], result: object, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0

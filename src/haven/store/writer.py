"""The writer: one thread that writes everything that waits, in batches, and keeps the file small in between.

The way of a commit: the event loop appends it to `_pending` and, once per loop iteration, wakes the thread; the thread
takes everything that waits, writes it in one SQLite transaction (one fsync), and hands the outcome back with a single
`call_soon_threadsafe`; on the loop the store tells listeners and watchers, then the callers get their answers. While
the thread syncs, the next batch gathers by itself, so batches grow with load and a lone write waits for nobody.
"""

from __future__ import annotations

import asyncio
import functools
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from haven import telemetry
from haven.apimachinery.names import Revision
from haven.clock import Clock
from haven.store.interface import StoreError, StoreFull, StoreLocked
from haven.store.ledger import Ledger
from haven.store.retention import Retention, RetentionLimits
from haven.store.transactions import Outcome, Transaction

__all__ = ["SqliteSettings", "Writer"]

BATCH_TRANSACTIONS_MAX = 512  # More gains nothing and makes the first of them wait.
PENDING_TRANSACTIONS_MAX = 100_000
BRIEF_WAIT_SECONDS = 0.02
COMPACT_STEP_CHANGES = 500  # History moves in steps, because each costs a sync.
COMPACT_STEP_SECONDS = 60.0  # So that history ends in time where little is written.
SWEEP_ROWS = 1000  # About 10 ms of the writer.
SWEEP_FACTOR = 2  # Rows looked at per row written: more than one, or a backlog would never go away.
CHECKPOINT_FRAMES = 2000  # 8 MB of log.
VACUUM_PAGES = 64  # Each is a call into SQLite of its own.
SPARE_PAGES = 8192  # 32 MB stay in the file for the next writes.
FULL_RETRY_SECONDS = 5.0

_log = telemetry.logger("store")


@dataclass(frozen=True, slots=True)
class SqliteSettings:
    """How a file is kept."""

    size_bytes_max: int = 8 << 30  # As etcd's recommended limit; beyond it writes are refused with StoreFull.
    cache_bytes: int = 8 << 20  # The writer's page cache.
    retention: RetentionLimits = RetentionLimits()
    brief_retention: RetentionLimits = RetentionLimits(seconds=60.0, revisions=20_000, bytes=16 << 20)
    brief_prefixes: tuple[bytes, ...] = ()


OnBatch = Callable[[Outcome, int, Revision], None]
"""Called on the loop with what a batch did, how many transactions it had, and the revision compacted so far."""


@dataclass(slots=True)
class _Pending:
    transaction: Transaction
    future: asyncio.Future[Revision]


class Writer:
    """The thread and its queue. Methods without an underscore are for the event loop that made it."""

    def __init__(self, path: Path, settings: SqliteSettings, clock: Clock, ledger: Ledger, on_batch: OnBatch) -> None:
        self._path = path
        self._settings = settings
        self._clock = clock
        self._ledger = ledger  # The thread's alone from here on, until `stop`.
        self._on_batch = on_batch
        self._loop = asyncio.get_running_loop()
        self._pending: deque[_Pending] = deque()
        self._jobs: deque[tuple[Callable[[], object], asyncio.Future[object]]] = deque()
        self._signals: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._flush_soon = False
        self._flush_later: asyncio.TimerHandle | None = None
        self._closing = False
        self.failure: StoreError | None = None

        now = clock.now_seconds()
        self._retention = Retention(
            settings.retention, compacted=ledger.compacted, newest=ledger.newest, now_seconds=now
        )
        self._brief_retention = Retention(
            settings.brief_retention, compacted=ledger.brief_compacted, newest=ledger.newest, now_seconds=now
        )
        self._changes_since_compaction = 0
        self._compacted_seconds = now
        self._made_room_seconds = float("-inf")
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> int:
        """How many transactions wait."""
        return len(self._pending)

    @property
    def checkpoints(self) -> int:
        """How often the log was moved into the file."""
        return self._ledger.checkpoints

    def write(self, transaction: Transaction, *, patient: bool) -> asyncio.Future[Revision]:
        """Queue a transaction; the future holds its revision once it is durable. A patient one waits for company."""
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

    async def compact(self, revision: Revision) -> None:
        """Forget history before a revision; return once it is gone."""
        await self._do(functools.partial(self._compact_fully, revision))

    async def stop(self) -> None:
        """Write what waits, then end the thread."""
        self._closing = True
        self._flush()
        await asyncio.to_thread(self._thread.join)

    async def _do(self, job: Callable[[], object]) -> object:
        """Run something in the thread, between batches."""
        future: asyncio.Future[object] = self._loop.create_future()
        self._jobs.append((job, future))
        self._signals.put(None)
        return await future

    def _deliver(self, batch: Sequence[_Pending], outcome: Outcome, compacted: Revision) -> None:
        """On the loop: the store first, because those who must never be behind learn through it; then the callers."""
        try:
            self._on_batch(outcome, len(batch), compacted)
        finally:
            for pending, answer in zip(batch, outcome.answers, strict=True):
                if pending.future.done():
                    continue  # The caller was cancelled; the write stands.
                if isinstance(answer, int):
                    pending.future.set_result(answer)
                else:
                    pending.future.set_exception(answer)

    # The thread

    def _run(self) -> None:
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
        if self.failure is not None:
            outcome = Outcome(self._ledger.newest, answers=[self.failure] * len(batch))
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
        if self.failure is not None:
            return
        ledger, now = self._ledger, self._clock.now_seconds()
        if any(isinstance(answer, StoreFull) for answer in outcome.answers):
            self._make_room(now)
            return
        self._retention.record(ledger.newest, outcome.written_bytes, now)
        self._brief_retention.record(ledger.newest, outcome.written_bytes, now)
        self._changes_since_compaction += len(outcome.changes)
        is_due = now - self._compacted_seconds >= COMPACT_STEP_SECONDS
        if is_due or self._changes_since_compaction >= COMPACT_STEP_CHANGES:
            self._compacted_seconds = now
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
            while more and self.failure is None and not self._pending and not self._jobs:
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
        self.failure = error

    def _run_job(self) -> None:
        job, future = self._jobs.popleft()
        try:
            result = job()
        except Exception as error:
            self._call_loop(_settle, future, None, error)
        else:
            self._call_loop(self._settle_job, future, result, self._ledger.compacted)

    def _settle_job(self, future: asyncio.Future[object], result: object, compacted: Revision) -> None:
        self._on_batch(Outcome(self._ledger.newest), 0, compacted)
        _settle(future, result, None)

    def _call_loop(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            # The loop ended without closing the store: nobody waits for this answer any more.
            _log.warning("the event loop ended before the store was closed", path=str(self._path))


def _settle(future: asyncio.Future[object], result: object, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)

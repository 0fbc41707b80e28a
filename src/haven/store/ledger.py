"""Writing: whole batches of transactions in one SQLite transaction, one fsync. Used by one thread at a time.

A transaction whose expectation fails leaves nothing and does not disturb the others of its batch. If the file has no
room for a batch, the batch is rolled back and each of its transactions is tried alone, so one huge transaction
cannot refuse its neighbours.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from haven.apimachinery.names import Revision
from haven.store import layout
from haven.store.expiry import Expiry
from haven.store.interface import (
    Change,
    Expectation,
    Operation,
    Put,
    Record,
    StoreError,
    StoreFull,
    TransactionFailed,
)
from haven.store.keyrange import prefix_end

__all__ = ["Expire", "Ledger", "Outcome", "Transaction"]

FRAMES_PER_BATCH = 4  # A rough count of WAL pages that a commit touches beside its values.
FRAMES_PER_CHANGE = 2


@dataclass(frozen=True, slots=True)
class Expire:
    """Delete a key if it is still at this revision; the store's own operation."""

    key: bytes
    revision: Revision


@dataclass(frozen=True, slots=True)
class Transaction:
    """What is to be written together."""

    operations: Sequence[Operation | Expire]
    expectations: Sequence[Expectation] = ()


@dataclass(slots=True)
class Outcome:
    """What a batch did: an answer per transaction, and all changes in revision order."""

    answers: list[Revision | StoreError] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    expiries: list[Expiry] = field(default_factory=list)
    written_bytes: int = 0
    newest: Revision = Revision(0)


class Ledger:
    """The writer's connection.

    Invariants: `newest` is what the file says; a batch is durable when `write` returns.
    """

    def __init__(self, path: Path, *, size_bytes_max: int, cache_bytes: int) -> None:
        self.path = path
        self._connection = layout.connect(path, read_only=False, cache_bytes=cache_bytes)
        self._begun = False
        try:
            layout.prepare(self._connection, size_bytes_max=size_bytes_max)
            header = layout.read_header(self._connection)
        except BaseException:
            self._connection.close()
            raise
        self.newest = header.newest
        self.compacted = header.compacted
        self.brief_compacted = header.brief_compacted
        self._swept = header.swept
        self._brief_swept = header.brief_compacted
        self._kept_deletions: list[int] = []  # All of one revision.
        self.frames = 0  # Since the last checkpoint, estimated.
        self.checkpoints = 0

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection, for checks while nothing is written."""
        return self._connection

    def close(self) -> None:
        """Release the file; SQLite moves the log into it."""
        self._connection.close()

    # Transactions

    def write(self, batch: Sequence[Transaction], now_seconds: float) -> Outcome:
        """Write a batch durably; never raises for a single transaction's sake."""
        try:
            return self._write_together(batch, now_seconds)
        except StoreFull as full:
            if len(batch) == 1:
                return Outcome(answers=[full], newest=self.newest)
        total = Outcome(newest=self.newest)
        for transaction in batch:
            alone = self.write([transaction], now_seconds)
            total.answers += alone.answers
            total.changes += alone.changes
            total.expiries += alone.expiries
            total.written_bytes += alone.written_bytes
            total.newest = alone.newest
        return total

    def _write_together(self, batch: Sequence[Transaction], now_seconds: float) -> Outcome:
        outcome = Outcome(newest=self.newest)
        with self._transaction():
            for transaction in batch:
                answer = self._apply(transaction, outcome, now_seconds)
                outcome.answers.append(answer)
        self.newest = outcome.newest
        self.frames += (
            FRAMES_PER_BATCH + FRAMES_PER_CHANGE * len(outcome.changes) + outcome.written_bytes // layout.PAGE_BYTES
        )
        return outcome

    def _apply(self, transaction: Transaction, outcome: Outcome, now_seconds: float) -> Revision | StoreError:
        """Add a transaction's rows and changes, or nothing if an expectation fails."""
        found: dict[bytes, Record | None] = {}
        for expectation in transaction.expectations:
            key = expectation.key
            current = found[key] = self._current(key)
            if (current.modified if current is not None else 0) != expectation.modified:
                return TransactionFailed(key, current)
        revision = Revision(outcome.newest + 1)
        insert = self._connection.execute
        ordinal = 0
        for operation in transaction.operations:
            key = operation.key
            previous = found[key] if key in found else self._current(key)
            if isinstance(operation, Put):
                created = previous.created if previous is not None else revision
                expires = None
                if operation.ttl_seconds > 0:
                    expires = int(now_seconds + operation.ttl_seconds) + 1  # Never early.
                    outcome.expiries.append(Expiry(expires, key, revision))
                value = operation.value
                insert(
                    "INSERT INTO rows VALUES (?, ?, ?, ?, ?)",
                    (revision << 16 | ordinal << 1, key, created, expires, value),
                )
                outcome.written_bytes += len(value) + len(key)
                outcome.changes.append(Change(key, value, previous, revision, created))
            else:
                if previous is None or (isinstance(operation, Expire) and previous.modified != operation.revision):
                    continue
                insert(
                    "INSERT INTO rows VALUES (?, ?, ?, NULL, NULL)",
                    (revision << 16 | ordinal << 1 | 1, key, previous.created),
                )
                outcome.written_bytes += len(key)
                outcome.changes.append(Change(key, None, previous, revision, previous.created))
            ordinal += 1
        if ordinal:
            outcome.newest = revision
        return outcome.newest

    def _current(self, key: bytes) -> Record | None:
        row = self._connection.execute(
            "SELECT id, created, value FROM rows WHERE key = ? ORDER BY id DESC LIMIT 1", (key,)
        ).fetchone()
        if row is None or row[0] & 1:
            return None
        return Record(key, row[2], row[1], Revision(row[0] >> 16))

    # History

    def compact(self, revision: Revision) -> None:
        """Declare history before `revision` gone; `sweep` then removes it piece by piece."""
        assert revision <= self.newest, (revision, self.newest)
        if revision <= self.compacted:
            return
        with self._transaction():
            self._set("compacted", revision)
        self.compacted = revision
        self.brief_compacted = max(self.brief_compacted, revision)

    def compact_brief(self, revision: Revision) -> None:
        """Declare history of brief keys before `revision` gone."""
        assert revision <= self.newest, (revision, self.newest)
        if revision <= self.brief_compacted:
            return
        with self._transaction():
            self._set("brief_compacted", revision)
        self.brief_compacted = revision

    @property
    def unswept(self) -> bool:
        """Tell whether rows that are declared gone may still be there."""
        return self._swept < self.compacted

    def sweep(self, rows_max: int) -> None:
        """Remove about so many of the oldest rows that compaction made useless."""
        with self._transaction():
            if self._kept_deletions and self._kept_deletions[0] <= layout.last_id(self.newest - 1):
                rows = [(identifier,) for identifier in self._kept_deletions]
                self._connection.executemany("DELETE FROM rows WHERE id = ?", rows)
                self._kept_deletions = []
            swept = self._sweep_range(self._swept, self.compacted, b"", rows_max)
            # After a restart the newest revision is swept again, for the deletions that were kept.
            self._set("swept", min(swept, self.newest - 1))
        self._swept = swept

    @property
    def unswept_brief(self) -> bool:
        """The same for brief keys."""
        return self._brief_swept < self.brief_compacted

    def sweep_brief(self, prefixes: Sequence[bytes], rows_max: int) -> None:
        """Remove rows of brief keys. How far this got is not kept: after a restart the ordinary sweep finds them."""
        start = max(self._brief_swept, self._swept)
        with self._transaction():
            reached = [self._sweep_range(start, self.brief_compacted, prefix, rows_max) for prefix in prefixes]
        self._brief_swept = min(reached, default=self.brief_compacted)

    def _sweep_range(self, after: Revision, upto: Revision, prefix: bytes, rows_max: int) -> Revision:
        """Remove what rows in (after, upto] made useless; return up to which revision that is done."""
        if after >= upto:
            return after
        condition, bounds = "", [layout.last_id(after), layout.last_id(upto)]
        parameters: list[object] = list(bounds)
        if prefix:
            end = prefix_end(prefix)
            condition = " AND key >= ?" + (" AND key < ?" if end is not None else "")
            parameters += [prefix, end] if end is not None else [prefix]
        execute = self._connection.execute
        rows = execute(
            f"SELECT id, key FROM rows WHERE id > ? AND id <= ?{condition} ORDER BY id LIMIT ?",
            (*parameters, rows_max),
        ).fetchall()
        # Rows of one transaction that the limit cut apart are seen again in the next round, which does no harm.
        done = upto if len(rows) < rows_max else max(Revision(layout.revision_of(rows[-1][0]) - 1), after)
        if done == after and len(rows) == rows_max:
            return self._sweep_range(after, upto, prefix, rows_max * 8)  # One transaction fills the whole piece.
        newest = {key: identifier for identifier, key in rows}
        self._connection.executemany("DELETE FROM rows WHERE key = ? AND id < ?", newest.items())
        # Deletions of the newest revision stay until there is a newer one: their id is all that tells it.
        newest_first_id = layout.row_id(self.newest, 0, deleted=False)
        dead = [identifier for identifier in newest.values() if identifier & 1]
        self._connection.executemany(
            "DELETE FROM rows WHERE id = ?", [(identifier,) for identifier in dead if identifier < newest_first_id]
        )
        self._kept_deletions += [identifier for identifier in dead if identifier >= newest_first_id]
        self.frames += 2 * len(rows)
        return Revision(done)

    # The file

    def checkpoint(self, *, truncate: bool = False) -> None:
        """Move what the log holds into the database file."""
        mode = "TRUNCATE" if truncate else "PASSIVE"
        with self._translated():
            busy, log, moved = self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        self.frames = 0 if not busy and log == moved else log - moved
        self.checkpoints += 1

    def vacuum(self, pages_max: int, *, spare_pages: int) -> bool:
        """Give at most so many unused pages back to the file system, keeping some for the next writes.

        Returns whether there are more to give.
        """
        with self._translated():
            unused = self._connection.execute("PRAGMA freelist_count").fetchone()[0]
            if unused <= spare_pages:
                return False
            pages = min(unused - spare_pages, pages_max)
            self._connection.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()
            self.frames += 2 * pages
            return bool(unused - pages > spare_pages)

    def read_expiries(self) -> Iterator[Expiry]:
        """Yield the expiry of every key that has one."""
        rows = self._connection.execute(
            "SELECT o.expires, o.key, o.id FROM rows o WHERE o.expires IS NOT NULL"
            " AND o.id = (SELECT max(n.id) FROM rows n WHERE n.key = o.key)"
        )
        for expires, key, identifier in rows:
            yield Expiry(expires, key, layout.revision_of(identifier))

    def _set(self, name: str, number: int) -> None:
        self._connection.execute("UPDATE header SET number = ? WHERE name = ?", (number, name))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise layout.store_error(error, self.path) from error

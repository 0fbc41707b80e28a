"""Writing: whole batches of transactions in one SQLite transaction, one fsync. Used by one thread at a time.

Every call into SQLite gives up the interpreter's lock, and on a busy event loop getting it back takes up to a switch
interval (5 ms). So a batch must cost few calls, however large it is: one to look up the keys that are not remembered,
one or a few to insert many rows each; and sweeping works on sets of rows, never row by row.

If the file has no room for a batch, the batch is rolled back and each of its transactions is tried alone, so one huge
transaction cannot refuse its neighbours.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from haven.apimachinery.names import Revision
from haven.store import layout
from haven.store.expiry import Expiry
from haven.store.interface import Record, StoreFull
from haven.store.keyrange import prefix_end
from haven.store.recent import RecentRecords
from haven.store.transactions import Outcome, Transaction, apply_batch

__all__ = ["Ledger"]

FRAMES_PER_BATCH = 4  # A rough count of WAL pages that a commit touches beside its values.
FRAMES_PER_CHANGE = 2
ROWS_PER_INSERT = 64
KEYS_PER_LOOKUP = 64
RECENT_BYTES = 4 << 20

_INSERT = tuple(f"INSERT INTO rows VALUES {','.join(['(?,?,?,?,?)'] * count)}" for count in range(ROWS_PER_INSERT + 1))
_LOOKUP = {
    count: "SELECT key, id, created, value FROM rows WHERE id IN"
    f" (SELECT max(id) FROM rows WHERE key IN ({','.join('?' * count)}) GROUP BY key)"
    for count in (1, 4, 16, KEYS_PER_LOOKUP)
}


class Ledger:
    """The writer's connection.

    Invariants: `newest` is what the file says; a batch is durable when `write` returns.
    """

    def __init__(self, path: Path, *, size_bytes_max: int, cache_bytes: int) -> None:
        self.path = path
        self._connection = layout.connect(path, read_only=False, cache_bytes=cache_bytes)
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
        self._kept_deletions: list[int] = []
        self._recent = RecentRecords(RECENT_BYTES)
        self._found: dict[bytes, Record | None] = {}
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
                return Outcome(self.newest, answers=[full])
        total = Outcome(self.newest)
        for transaction in batch:
            alone = self.write([transaction], now_seconds)
            total.answers += alone.answers
            total.changes += alone.changes
            total.expiries |= alone.expiries
            total.written_bytes += alone.written_bytes
            total.newest = alone.newest
        return total

    def _write_together(self, batch: Sequence[Transaction], now_seconds: float) -> Outcome:
        self._look_up(batch)
        outcome = apply_batch(batch, self._found.__getitem__, self.newest, now_seconds)
        self._insert(outcome)
        self._recent.update(outcome.records)
        self.newest = outcome.newest
        self.frames += (
            FRAMES_PER_BATCH + FRAMES_PER_CHANGE * len(outcome.changes) + outcome.written_bytes // layout.PAGE_BYTES
        )
        return outcome

    def _look_up(self, batch: Sequence[Transaction]) -> None:
        """Find the newest record of every key that the batch is about. Nobody else writes: it stays the newest."""
        recent = self._recent
        found = self._found = {}
        unknown: dict[bytes, None] = {}
        for transaction in batch:
            for part in (transaction.expectations, transaction.operations):
                for each in part:
                    key = each.key
                    if key in recent:
                        found[key] = recent.get(key)
                    else:
                        unknown[key] = None
        keys = list(unknown)
        with self._translated():
            for start in range(0, len(keys), KEYS_PER_LOOKUP):
                self._look_up_keys(keys[start : start + KEYS_PER_LOOKUP])

    def _look_up_keys(self, keys: list[bytes]) -> None:
        for key in keys:
            self._found[key] = None
        size = next(size for size in _LOOKUP if size >= len(keys))
        parameters = keys + keys[-1:] * (size - len(keys))  # Few texts, so that SQLite keeps them prepared.
        for key, identifier, created, value in self._connection.execute(_LOOKUP[size], parameters).fetchall():
            if not identifier & 1:
                self._found[key] = Record(key, value, created, Revision(identifier >> 16))

    def _insert(self, outcome: Outcome) -> None:
        """Add a row per change, durably."""
        rows: list[tuple[object, ...]] = []
        revision, ordinal = Revision(0), 0
        for change in outcome.changes:
            ordinal = ordinal + 1 if change.revision == revision else 0
            revision = change.revision
            expiry = outcome.expiries.get(change.key)
            expires = expiry.at_seconds if expiry is not None and expiry.revision == revision else None
            identifier = layout.row_id(revision, ordinal, deleted=change.value is None)
            rows.append((identifier, change.key, change.created, expires, change.value))
        if not rows:
            return
        if len(rows) <= ROWS_PER_INSERT:
            with self._translated():
                self._insert_rows(rows)  # Alone, it is a transaction of its own: one call does it all.
            return
        with self._transaction():
            for start in range(0, len(rows), ROWS_PER_INSERT):
                self._insert_rows(rows[start : start + ROWS_PER_INSERT])

    def _insert_rows(self, rows: Sequence[tuple[object, ...]]) -> None:
        self._connection.execute(_INSERT[len(rows)], [value for row in rows for value in row])

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
            self._remove_kept()
            swept = self._sweep_range(self._swept, self.compacted, b"", rows_max)
            # After a restart the newest revision is swept again, for the deletions that were kept.
            self._set("swept", min(swept, self.newest - 1))
        self._swept = swept

    def _remove_kept(self) -> None:
        """Remove deletions that a sweep had to leave because they were the newest rows."""
        newest_id = layout.row_id(self.newest, 0, deleted=False)
        late = [identifier for identifier in self._kept_deletions if identifier < newest_id]
        if late:
            text = json.dumps(late)
            self._connection.execute("DELETE FROM rows WHERE id IN (SELECT value FROM json_each(?))", (text,))
            self._kept_deletions = [identifier for identifier in self._kept_deletions if identifier >= newest_id]

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
        done = self._sweep_end(after, upto, rows_max)
        first, last = layout.last_id(after), layout.last_id(done)
        condition, parameters = "id > ? AND id <= ?", [first, last]
        bounds: list[bytes] = []
        if prefix:
            end = prefix_end(prefix)
            condition += " AND +key >= ?" + (" AND +key < ?" if end is not None else "")
            bounds = [prefix] if end is None else [prefix, end]
        execute = self._connection.execute
        # NOT INDEXED: rows are to be found by id. The index by key is for the older rows of each key.
        execute(
            "DELETE FROM rows WHERE id IN (SELECT o.id FROM"
            f" (SELECT key, max(id) AS newest FROM rows NOT INDEXED WHERE {condition} GROUP BY key) n"
            " CROSS JOIN rows o ON o.key = n.key AND o.id < n.newest)",
            (*parameters, *bounds),
        )
        # Deletions of the newest revision stay until there is a newer one: their id is all that tells it.
        kept_from = layout.row_id(self.newest, 0, deleted=False)
        execute(f"DELETE FROM rows WHERE {condition} AND id & 1 AND id < ?", (*parameters, *bounds, kept_from))
        if done == self.newest:
            kept = execute(f"SELECT id FROM rows WHERE {condition} AND id & 1", (*parameters, *bounds)).fetchall()
            self._kept_deletions += [row[0] for row in kept]
        self.frames += 2 * rows_max
        return done

    def _sweep_end(self, after: Revision, upto: Revision, rows_max: int) -> Revision:
        """Return up to which revision to sweep so that about `rows_max` rows are looked at; at least one revision."""
        row = self._connection.execute(
            "SELECT id FROM rows WHERE id > ? AND id <= ? ORDER BY id LIMIT 1 OFFSET ?",
            (layout.last_id(after), layout.last_id(upto), rows_max),
        ).fetchone()
        if row is None:
            return upto
        return Revision(max(layout.revision_of(row[0]) - 1, after + 1))

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

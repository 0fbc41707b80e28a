"""Reading: point reads, ranges and history, each from one snapshot. Used by one thread at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from haven.apimachinery.names import Revision
from haven.store import layout
from haven.store.interface import Change, Compacted, Range, Record, RevisionInFuture
from haven.store.keyrange import first_key, overlaps, prefix_end
from haven.store.transactions import OPERATIONS_MAX

__all__ = ["Reader"]

_NO_END = b"\xff" * 64  # Greater than every key: keys are paths of text.


class Reader:
    """A read-only connection. `brief_prefixes` name the keys whose history ends earlier."""

    def __init__(self, path: Path, brief_prefixes: Sequence[bytes], *, cache_bytes: int = 2 << 20) -> None:
        self._path = path
        self._brief_prefixes = tuple(brief_prefixes)
        self._connection = layout.connect(path, read_only=True, cache_bytes=cache_bytes)

    def close(self) -> None:
        """Release the file."""
        self._connection.close()

    def get(self, key: bytes) -> Record | None:
        """Return the newest record of a key."""
        try:
            row = self._connection.execute(
                "SELECT id, created, value FROM rows WHERE key = ? ORDER BY id DESC LIMIT 1", (key,)
            ).fetchone()
        except sqlite3.Error as error:
            raise layout.store_error(error, self._path) from error
        if row is None or row[0] & 1:
            return None
        return Record(key, row[2], row[1], Revision(row[0] >> 16))

    def range(self, prefix: bytes, after: bytes, limit: int, revision: Revision | None) -> Range:
        """Return what Store.range promises."""
        first, end = first_key(prefix, after), prefix_end(prefix) or _NO_END
        with self._snapshot():
            header = layout.read_header(self._connection)
            if revision is None:
                revision = header.newest
            else:
                self._check_revision(prefix, revision, header)
            newest = layout.last_id(revision)
            rows = self._connection.execute(
                "SELECT r.key, r.value, r.created, r.id FROM ("
                "SELECT max(id) AS newest FROM rows WHERE key >= ? AND key < ? AND id <= ?"
                " GROUP BY key HAVING max(id) & 1 = 0 LIMIT ?"
                ") CROSS JOIN rows r ON r.id = newest",
                (first, end, newest, limit or -1),
            ).fetchall()
            remaining = 0
            if limit and len(rows) == limit:
                remaining = self._connection.execute(
                    "SELECT count(*) FROM (SELECT 1 FROM rows WHERE key > ? AND key < ? AND id <= ?"
                    " GROUP BY key HAVING max(id) & 1 = 0)",
                    (rows[-1][0], end, newest),
                ).fetchone()[0]
        records = [Record(key, value, created, Revision(number >> 16)) for key, value, created, number in rows]
        return Range(records, revision, remaining > 0, remaining)

    def history(self, prefix: bytes, after: Revision, upto: Revision, limit: int) -> tuple[list[Change], Revision]:
        """Return the first changes with a revision in (after, upto], whole transactions, and how far that reaches.

        More than `limit` changes come only when one transaction has more; raises Compacted.
        """
        end = prefix_end(prefix) or _NO_END
        with self._snapshot():
            header = layout.read_header(self._connection)
            oldest = self._oldest(prefix, header)
            if after < oldest:
                raise Compacted(oldest)
            bounds = (prefix, end, layout.last_id(upto))
            rows = self._history_rows(layout.last_id(after), *bounds, limit)
            complete = upto if after <= upto else after
            if len(rows) == limit:
                complete = layout.revision_of(rows[-1][0])
                rows += self._history_rows(rows[-1][0], prefix, end, layout.last_id(complete), OPERATIONS_MAX)
            changes = [
                Change(key, value, self._previous(key, number), Revision(number >> 16), Revision(created))
                for number, key, created, value in rows
            ]
        return changes, complete

    def backup(self, target: sqlite3.Connection) -> None:
        """Copy one snapshot of the whole file."""
        # In one step: a backup in several begins again whenever the writer commits in between.
        self._connection.backup(target, pages=-1)

    def _history_rows(
        self, after_id: int, first: bytes, end: bytes, last_id: int, limit: int
    ) -> list[tuple[int, bytes, int, bytes | None]]:
        # The plus keeps SQLite from using the key's index: changes are asked for in the order of ids.
        return self._connection.execute(
            "SELECT id, key, created, value FROM rows WHERE id > ? AND id <= ? AND +key >= ? AND +key < ?"
            " ORDER BY id LIMIT ?",
            (after_id, last_id, first, end, limit),
        ).fetchall()

    def _previous(self, key: bytes, before_id: int) -> Record | None:
        row = self._connection.execute(
            "SELECT id, created, value FROM rows WHERE key = ? AND id < ? ORDER BY id DESC LIMIT 1", (key, before_id)
        ).fetchone()
        if row is None or row[0] & 1:
            return None
        return Record(key, row[2], row[1], Revision(row[0] >> 16))

    def _check_revision(self, prefix: bytes, revision: Revision, header: layout.Header) -> None:
        if revision > header.newest:
            raise RevisionInFuture(header.newest)
        oldest = self._oldest(prefix, header)
        if revision < oldest:
            raise Compacted(oldest)

    def _oldest(self, prefix: bytes, header: layout.Header) -> Revision:
        brief = any(overlaps(prefix, other) for other in self._brief_prefixes)
        return header.brief_compacted if brief else header.compacted

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        try:
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise layout.store_error(error, self._path) from error

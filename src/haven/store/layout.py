"""The file: its tables, how connections are opened, and what sqlite3's errors mean.

One table, one row per key and revision. The row's id says everything that ranges need, so that the index on the key
alone answers them: revision, place within the transaction, and whether the key was deleted.

    id = revision << 16 | ordinal << 1 | deleted

Invariant: the row with the greatest id is never removed, because it alone tells the newest revision.
Source: https://www.sqlite.org/wal.html, https://www.sqlite.org/pragma.html
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from haven.apimachinery.names import Revision
from haven.store.interface import StoreError, StoreFull, StoreLocked

__all__ = [
    "SCHEMA_VERSION",
    "Header",
    "check",
    "connect",
    "deleted_of",
    "last_id",
    "prepare",
    "read_header",
    "revision_of",
    "row_id",
    "store_error",
]

SCHEMA_VERSION = 1
APPLICATION_ID = 0x48415645  # "HAVE": tells `file` and us that this is no stranger's database.
BUSY_SECONDS = 5.0
PAGE_BYTES = 4096

_SCHEMA = """
CREATE TABLE rows(
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER,
    value BLOB
);
CREATE INDEX rows_by_key ON rows(key);
CREATE INDEX rows_that_expire ON rows(expires) WHERE expires IS NOT NULL;
CREATE TABLE header(
    name TEXT PRIMARY KEY,
    number INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO header VALUES ('compacted', 0), ('swept', 0), ('brief_compacted', 0), ('floor', 0);
"""


def row_id(revision: int, ordinal: int, *, deleted: bool) -> int:
    """Return the id of a row."""
    return revision << 16 | ordinal << 1 | deleted


def last_id(revision: int) -> int:
    """Return the greatest id that a row of this revision can have."""
    return revision << 16 | 0xFFFF


def revision_of(identifier: int) -> Revision:
    """Return the revision that wrote a row."""
    return Revision(identifier >> 16)


def deleted_of(identifier: int) -> bool:
    """Tell whether the row says that the key was deleted."""
    return bool(identifier & 1)


@dataclass(frozen=True, slots=True)
class Header:
    """Where the file is: history before `compacted` is gone, before `brief_compacted` that of brief keys."""

    newest: Revision
    compacted: Revision
    brief_compacted: Revision
    swept: Revision


def read_header(connection: sqlite3.Connection) -> Header:
    """Return the header as this connection's snapshot has it."""
    numbers = dict(connection.execute("SELECT name, number FROM header"))
    greatest = connection.execute("SELECT max(id) FROM rows").fetchone()[0] or 0
    return Header(
        newest=Revision(max(greatest >> 16, numbers["floor"])),
        compacted=Revision(numbers["compacted"]),
        brief_compacted=Revision(max(numbers["brief_compacted"], numbers["compacted"])),
        swept=Revision(numbers["swept"]),
    )


def connect(path: Path, *, read_only: bool, cache_bytes: int = 2 << 20) -> sqlite3.Connection:
    """Open the file in autocommit mode; the connection may move between threads, one at a time."""
    mode = "ro" if read_only else "rwc"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_SECONDS,
        cached_statements=160,
    )
    connection.execute(f"PRAGMA cache_size = {-(cache_bytes >> 10)}")
    return connection


def prepare(connection: sqlite3.Connection, *, size_bytes_max: int) -> None:
    """Set up the writer's connection; create the tables if the file is new."""
    execute = connection.execute
    new = execute("PRAGMA schema_version").fetchone()[0] == 0
    if new:
        execute(f"PRAGMA page_size = {PAGE_BYTES}")
        execute("PRAGMA auto_vacuum = INCREMENTAL")  # Only possible before the first table.
        execute(f"PRAGMA application_id = {APPLICATION_ID}")
    else:
        check_origin(connection)
    execute("PRAGMA journal_mode = WAL")
    execute("PRAGMA synchronous = FULL")
    execute("PRAGMA wal_autocheckpoint = 0")  # The writer decides when: never before a commit is answered.
    execute(f"PRAGMA journal_size_limit = {64 << 20}")
    execute(f"PRAGMA max_page_count = {max(size_bytes_max // PAGE_BYTES, 16)}")
    if new:
        connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT")


def check_origin(connection: sqlite3.Connection) -> None:
    """Raise StoreError unless the file was written by a store of this schema version."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise StoreError("the file is an SQLite database but no Haven store: name another file")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"the file has schema version {version}, this program reads {SCHEMA_VERSION}: "
            "run the version of Haven that wrote it, or restore a backup made by this version"
        )


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Raise StoreError if SQLite finds damage."""
    complaints = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
    if complaints != ["ok"]:
        raise StoreError(damaged(path, "; ".join(complaints)))


def damaged(path: Path, complaint: str) -> str:
    """Return the sentence for a file that cannot be trusted."""
    return (
        f"{path} is damaged ({complaint}): restore a backup with `haven restore`, "
        "or move the file away to begin with an empty cluster"
    )


def store_error(error: sqlite3.Error, path: Path) -> StoreError:
    """Return what an error of sqlite3 means for whoever operates the store."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    match code:
        case sqlite3.SQLITE_FULL:
            return StoreFull(
                f"no room for {path}: free disk space or raise the store's size limit; nothing was written"
            )
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreLocked(f"{path} is locked by another process: end it (`fuser {path}` names it) and try again")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return StoreError(damaged(path, str(error)))
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return StoreError(f"{path} cannot be opened for writing ({error}): check the directory and its owner")
        case sqlite3.SQLITE_IOERR:
            return StoreError(f"the disk failed under {path} ({error}): check the kernel log, then restart")
    return StoreError(f"{path}: {error}")

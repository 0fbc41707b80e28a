"""Copies of a store's file, and the way back.

A backup is a store file itself. After a restore, revisions jump ahead and all history is compacted: clients that saw
revisions newer than the backup must not mistake old ones for news, they get Expired and list again. Source: the same
reasoning behind `etcdutl snapshot restore --bump-revision --mark-compacted`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from haven.apimachinery.names import Revision
from haven.store import layout
from haven.store.interface import StoreError
from haven.store.lockfile import LockFile
from haven.store.reader import Reader

__all__ = ["backup", "restore"]

REVISION_JUMP = 1_000_000


def backup(source: Path, target: Path) -> Revision:
    """Copy a store, which may be in use, to a new file; return the copy's revision. Appears whole or not at all."""
    if not source.exists():
        raise StoreError(f"{source} does not exist: name the store's file")
    if target.exists():
        raise StoreError(f"{target} exists: name another file or move it away")
    try:
        with closing(Reader(source, ())) as reader:
            return _replace(target, reader.backup)
    except sqlite3.Error as error:
        raise layout.store_error(error, source) from error


def restore(source: Path, target: Path) -> Revision:
    """Make a backup the store's file, replacing what is there; return the revision from which it goes on."""
    if not source.exists():
        raise StoreError(f"{source} does not exist: name a backup")
    lock = LockFile(target)
    try:
        with closing(layout.connect(source, read_only=True)) as origin:
            layout.check_origin(origin)
            layout.check(origin, source)

        def fill(copy: sqlite3.Connection) -> None:
            with closing(layout.connect(source, read_only=True)) as origin:
                origin.backup(copy, pages=-1)
            floor = layout.read_header(copy).newest + REVISION_JUMP
            copy.execute("UPDATE header SET number = ? WHERE name IN ('floor', 'compacted')", (floor,))

        return _replace(target, fill)
    except sqlite3.Error as error:
        raise layout.store_error(error, source) from error
    finally:
        lock.release()


def _replace(target: Path, fill: Callable[[sqlite3.Connection], None]) -> Revision:
    """Let `fill` write a new file and give it the target's name once it is on the disk."""
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    try:
        with closing(layout.connect(part, read_only=False)) as copy:
            fill(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # So that one file is all there is.
            newest = layout.read_header(copy).newest
        _sync(part)
        # A log that is left beside the new file would be taken for its own.
        for suffix in ("-wal", "-shm"):
            target.with_name(target.name + suffix).unlink(missing_ok=True)
        os.replace(part, target)
        _sync(target.parent)
    except OSError as error:
        raise StoreError(f"{target} cannot be written ({error.strerror}): check its directory") from error
    finally:
        part.unlink(missing_ok=True)
    return newest


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

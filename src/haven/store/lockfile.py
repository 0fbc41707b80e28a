"""One process per store: an flock beside the file, held as long as the store is open.

SQLite locks only while somebody writes, so two servers on one file would not notice each other until they disagree.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from haven.store.interface import StoreError, StoreLocked

__all__ = ["LockFile"]


class LockFile:
    """The lock; the kernel releases it when the process ends, however that happens."""

    def __init__(self, store_path: Path) -> None:
        path = store_path.with_name(store_path.name + ".lock")
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(
                f"{path} cannot be opened ({error.strerror}): check the directory and its owner"
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._descriptor)
            raise StoreLocked(f"{store_path} is in use by process {holder}: stop that one first") from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let another process have the store."""
        os.close(self._descriptor)

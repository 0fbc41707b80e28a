"""The audit log: one line for each event, in a file that is turned over when it is large. Or on standard output.

A line is written before the request goes on, so an acknowledged write is in the log; the kernel may still hold it.
Several servers of one machine may share a file: lines are appended whole, whoever finds the file too large turns it
over, and the others follow to the new one.
Source: https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/#log-backend
"""

from __future__ import annotations

import gzip
import os
import shutil
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from haven import telemetry
from haven.apiserver.audit.events import legacy_line
from haven.clock import Clock

__all__ = ["LogFile", "LogSettings"]

_MEGABYTE = 1024 * 1024
_STAMP = "%Y-%m-%dT%H-%M-%S.%f"
_log = telemetry.logger("apiserver")


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Where events go ("-" is standard output), and what becomes of old files; 0 means no limit."""

    path: str
    format: str = "json"
    age_days_max: int = 366
    backups_max: int = 100
    size_megabytes_max: int = 100
    compress: bool = False


class LogFile:
    """Appends events to a file."""

    def __init__(self, settings: LogSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._path = Path(settings.path)
        self._descriptor = -1
        self._inode = 0
        self._size_max = settings.size_megabytes_max * _MEGABYTE
        self._tidying: threading.Thread | None = None
        self.failures = 0

    def open(self) -> None:
        """Make ready; raise OSError if the file cannot be written."""
        if self._settings.path == "-":
            self._descriptor = sys.stdout.fileno()
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._open()

    def write(self, events: Sequence[dict[str, Any]]) -> bool:
        """Append events; False if they were lost."""
        return self.append(b"".join(map(self.line, events)))

    def line(self, event: dict[str, Any]) -> bytes:
        """Return an event as it stands in the file."""
        if self._settings.format == "legacy":
            return legacy_line(event).encode() + b"\n"
        return orjson.dumps(event) + b"\n"

    def append(self, data: bytes) -> bool:
        """Append lines; False if they were lost."""
        try:
            if self._settings.path != "-":
                self._make_room(len(data))
            os.write(self._descriptor, data)
        except OSError as error:
            self.failures += 1
            _log.error("An audit event was not written.", path=self._settings.path, error=str(error))
            return False
        return True

    def close(self) -> None:
        """Close the file and let the tidying end."""
        if self._tidying is not None:
            self._tidying.join()
        if self._settings.path != "-" and self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._inode = os.fstat(self._descriptor).st_ino

    def _reopen(self) -> None:
        os.close(self._descriptor)
        self._open()

    def _make_room(self, length: int) -> None:
        """Follow to the present file, and turn it over if it is full."""
        if not self._is_full(length):
            return
        _lock(self._descriptor)
        if self._is_full(length):
            self._turn_over()

    def _is_full(self, length: int) -> bool:
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            self._reopen()
            return False
        if found.st_ino != self._inode:
            self._reopen()
            return False
        return bool(self._size_max and found.st_size and found.st_size + length > self._size_max)

    def _turn_over(self) -> None:
        now = datetime.fromtimestamp(self._clock.now_seconds(), UTC)
        aside = self._path.with_name(f"{self._path.stem}-{now.strftime(_STAMP)[:-3]}{self._path.suffix}")
        self._path.rename(aside)
        self._reopen()
        if self._tidying is not None:
            self._tidying.join()
        self._tidying = threading.Thread(target=self._tidy, args=(now,), name="audit-log-tidy", daemon=True)
        self._tidying.start()

    def _tidy(self, now: datetime) -> None:
        """Remove files that are too old or too many, compress the others."""
        try:
            found = sorted(self._backups(), key=lambda item: item[0], reverse=True)
            kept = self._settings.backups_max or len(found)
            oldest = now - timedelta(days=self._settings.age_days_max) if self._settings.age_days_max else None
            for index, (stamp, path) in enumerate(found):
                if index >= kept or (oldest is not None and stamp < oldest):
                    path.unlink(missing_ok=True)
                elif index and self._settings.compress and path.suffix != ".gz":
                    _compress(path)  # But not the newest: another server may just write its last line to it.
        except OSError as error:
            _log.warning("Old audit logs were not tidied up.", path=self._settings.path, error=str(error))

    def _backups(self) -> list[tuple[datetime, Path]]:
        found = []
        prefix = f"{self._path.stem}-"
        for path in self._path.parent.glob(f"{prefix}*"):
            name = path.name.removesuffix(".gz")
            if not name.endswith(self._path.suffix):
                continue
            stamp = name[len(prefix) : len(name) - len(self._path.suffix)]
            try:
                found.append((datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC), path))
            except ValueError:
                continue
        return found


def _lock(descriptor: int) -> None:
    """Keep other servers from turning the file over; ends when the descriptor is closed."""
    if sys.platform != "win32":  # There, one server has the file for itself.
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _compress(path: Path) -> None:
    packed = path.with_name(path.name + ".gz")
    with path.open("rb") as source, gzip.open(packed, "wb") as target:
        shutil.copyfileobj(source, target)
    path.unlink()

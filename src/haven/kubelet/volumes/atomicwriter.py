"""Writes a set of files into a volume so that readers see all of the old or all of the new, never a mixture.

Files live in a timestamped directory; `..data` is a symlink to it, replaced by rename; the visible names are symlinks
through `..data`. Applications watch for the rename of `..data`.
Source: https://kubernetes.io/docs/concepts/configuration/configmap/#mounted-configmaps-are-updated-automatically
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FileProjection", "InvalidPath", "write_payload"]

_DATA = "..data"
_NEW_DATA = "..data_tmp"
_PATH_BYTES_MAX = 4096


class InvalidPath(ValueError):
    """A projected path leaves the volume, or is too long."""


@dataclass(frozen=True, slots=True)
class FileProjection:
    """One file of a volume. `uid` None leaves it to root."""

    content: bytes
    mode: int
    uid: int | None = None


def check_path(path: str) -> None:
    """Raise InvalidPath unless the path stays inside a volume."""
    if not path or path.startswith("/") or len(path.encode()) > _PATH_BYTES_MAX:
        raise InvalidPath(f"invalid path: must be relative path: {path}")
    parts = path.split("/")
    if ".." in parts:
        raise InvalidPath(f"invalid path: must not contain '..': {path}")
    if parts[0].startswith(".."):
        raise InvalidPath(f"invalid path: must not start with '..': {path}")


def write_payload(directory: Path, payload: Mapping[str, FileProjection], *, group: int | None = None) -> bool:
    """Make the volume show exactly `payload`; return whether anything had to be written. `group` owns the files."""
    for path in payload:
        check_path(path)
    directory.mkdir(parents=True, exist_ok=True)
    current = _current(directory)
    if current is not None and _shows(current, payload):
        _link_visible(directory, payload)
        return False
    stamp = time.strftime("..%Y_%m_%d_%H_%M_%S.", time.gmtime())
    fresh = Path(tempfile.mkdtemp(prefix=stamp, dir=directory))
    fresh.chmod(0o755)
    for path, file in payload.items():
        target = fresh / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.content)
        target.chmod(file.mode)
        if file.uid is not None:
            os.chown(target, file.uid, -1)
    if group is not None:
        set_group(fresh, group, writable=False)
    new_data = directory / _NEW_DATA
    new_data.unlink(missing_ok=True)
    new_data.symlink_to(fresh.name)
    new_data.rename(directory / _DATA)
    _link_visible(directory, payload)
    _remove_stale(directory, payload)
    if current is not None:
        shutil.rmtree(current, ignore_errors=True)
    return True


def set_group(root: Path, group: int, *, writable: bool) -> None:
    """Give everything below a directory to a group, as fsGroup asks: readable, or also writable."""
    file_mask = 0o660 if writable else 0o440
    for below, directories, files in os.walk(root):
        for name in ["", *(item for item in directories if os.path.islink(os.path.join(below, item))), *files]:
            path = os.path.join(below, name) if name else below
            os.chown(path, -1, group, follow_symlinks=False)
            if os.path.islink(path):
                continue
            mode = os.stat(path).st_mode & 0o7777
            is_directory = not name
            os.chmod(path, mode | file_mask | (0o2110 if is_directory else 0))


def _current(directory: Path) -> Path | None:
    try:
        target = os.readlink(directory / _DATA)
    except OSError:
        return None
    path = directory / target
    return path if path.is_dir() else None


def _shows(current: Path, payload: Mapping[str, FileProjection]) -> bool:
    found: set[str] = set()
    for below, _, files in os.walk(current):
        found.update(os.path.relpath(os.path.join(below, name), current) for name in files)
    if found != set(payload):
        return False
    return all((current / path).read_bytes() == file.content for path, file in payload.items())


def _tops(payload: Mapping[str, FileProjection]) -> set[str]:
    return {path.split("/")[0] for path in payload}


def _link_visible(directory: Path, payload: Mapping[str, FileProjection]) -> None:
    for top in _tops(payload):
        link = directory / top
        if not link.is_symlink():
            link.symlink_to(f"{_DATA}/{top}")


def _remove_stale(directory: Path, payload: Mapping[str, FileProjection]) -> None:
    keep = _tops(payload)
    for entry in os.scandir(directory):
        if entry.is_symlink() and not entry.name.startswith("..") and entry.name not in keep:
            os.unlink(entry.path)

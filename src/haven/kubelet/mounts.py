"""Mounts of this process's mount namespace: make, list, remove. Straight system calls, no programs."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

__all__ = ["bind", "bind_descriptor", "is_self_bind", "mount_tmpfs", "mounts_below", "unmount", "unmount_below"]

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC = 2, 4, 8, 4096, 16384
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def _call(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str, target: Path, kind: str | None, flags: int, data: str) -> None:
    kind_bytes = kind.encode() if kind else None
    result = _libc.mount(source.encode(), os.fsencode(target), kind_bytes, ctypes.c_ulong(flags), data.encode())
    _call(result, f"mount {target}")


def mount_tmpfs(target: Path, *, size_bytes: int = 0, mode: int = 0o777) -> None:
    """Mount memory at a directory."""
    options = f"mode={mode:o}" + (f",size={size_bytes}" if size_bytes else "")
    _mount("tmpfs", target, "tmpfs", 0, options)


def mount_hugetlbfs(target: Path, page_size: str = "") -> None:
    """Mount huge pages at a directory."""
    _mount("nodev", target, "hugetlbfs", 0, f"pagesize={page_size}" if page_size else "")


def bind(source: Path, target: Path) -> None:
    """Make a directory or file appear at another place, with everything mounted below it."""
    _mount(str(source), target, None, _MS_BIND | _MS_REC, "")


def bind_descriptor(descriptor: int, target: Path) -> None:
    """Bind an open file or directory: what was checked is what gets mounted, whatever happened to its path since."""
    _mount(f"/proc/self/fd/{descriptor}", target, None, _MS_BIND, "")


def unmount(target: Path) -> None:
    """Take a mount away, even if it is busy."""
    _call(_libc.umount2(os.fsencode(target), _MNT_DETACH), f"unmount {target}")


def is_self_bind(directory: Path, mountinfo: str = "") -> bool:
    """Return whether a directory is mounted onto itself, as is done to share it; a disk that somebody mounted is not.

    Source: proc(5), mountinfo: id, parent's id, device, root within the file system, mount point.
    """
    text = mountinfo or Path("/proc/thread-self/mountinfo").read_text()
    mounts = [line.split()[:5] for line in text.splitlines()]
    by_id = {number: (device, root, point) for number, _, device, root, point in mounts}
    for _, parent, device, root, point in reversed(mounts):
        if point.encode().decode("unicode_escape") != str(directory):
            continue
        outer_device, outer_root, outer_point = by_id.get(parent, ("", "", ""))
        below = os.path.relpath(point, outer_point) if outer_point else "."
        return device == outer_device and os.path.normpath(os.path.join(outer_root, below)) == root
    return False


def mounts_below(directory: Path) -> list[Path]:
    """Return the mount points at or below a directory, innermost first."""
    prefix = f"{directory}/"
    found: list[str] = []
    for line in Path("/proc/thread-self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if point == str(directory) or point.startswith(prefix):
            found.append(point)
    return [Path(point) for point in sorted(found, key=lambda point: (-point.count("/"), point))]


def unmount_below(directory: Path) -> None:
    """Remove every mount at or below a directory; stacked ones too."""
    while points := mounts_below(directory):
        for point in points:
            unmount(point)

"""A part of a volume as a mount of its own, safe against links that a container plants.

The path is resolved inside the volume; what it leads to is opened, checked to lie inside, and bind-mounted by
descriptor. A containers' later change of links cannot redirect it.
Source: https://kubernetes.io/docs/concepts/storage/volumes/#using-subpath
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from haven.kubelet import mounts

__all__ = ["SubPathError", "prepare_subpath"]


class SubPathError(Exception):
    """The subpath cannot be used."""


def prepare_subpath(volume: Path, sub_path: str, target: Path) -> Path:
    """Bind volume/sub_path (made as a directory if it is missing) to `target`; return `target`."""
    if sub_path.startswith("/"):
        raise SubPathError(f"error SubPath `{sub_path}` must not be an absolute path")
    if ".." in sub_path.split("/"):
        raise SubPathError(f"unable to provision SubPath `{sub_path}`: must not contain '..'")
    root = Path(os.path.realpath(volume))
    wanted = root / sub_path
    if not os.path.lexists(wanted):
        _make_inside(root, sub_path)
    resolved = Path(os.path.realpath(wanted))
    if resolved != root and root not in resolved.parents:
        raise SubPathError(f"subpath {sub_path!r} not within volume path {str(volume)!r}".replace("'", '"'))
    descriptor = _open_without_links(root, resolved)
    try:
        is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        _prepare_target(target, is_directory=is_directory)
        mounts.bind_descriptor(descriptor, target)
    finally:
        os.close(descriptor)
    return target


def _make_inside(root: Path, sub_path: str) -> None:
    mode = os.stat(root).st_mode & 0o7777
    current = root
    for part in Path(sub_path).parts:
        current = current / part
        if not os.path.lexists(current):
            parent = Path(os.path.realpath(current.parent))
            if parent != root and root not in parent.parents:
                raise SubPathError(f"failed to create subPath directory {sub_path}: it would leave the volume")
            os.mkdir(parent / part)
            os.chmod(parent / part, mode)


def _open_without_links(root: Path, resolved: Path) -> int:
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY)
    for part in resolved.relative_to(root).parts:
        following = os.open(part, os.O_PATH | os.O_NOFOLLOW, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = following
        if stat.S_ISLNK(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise SubPathError(f"subpath changed while it was prepared: {resolved}")
    return descriptor


def _prepare_target(target: Path, *, is_directory: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if mounts.mounts_below(target):
        mounts.unmount_below(target)
    if target.exists() and target.is_dir() != is_directory:
        target.rmdir() if target.is_dir() else target.unlink()
    if is_directory:
        target.mkdir(exist_ok=True)
    else:
        target.touch()

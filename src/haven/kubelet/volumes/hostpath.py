"""hostPath volumes: is the path what the pod expects, and may it be made?

Source: https://kubernetes.io/docs/concepts/storage/volumes/#hostpath
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["HostPathError", "check_host_path"]


class HostPathError(Exception):
    """The path is missing or something else than the volume's type says."""


def check_host_path(path: str, type_: str) -> Path:
    """Return the path once it is of the type; make it for the ...OrCreate types; raise HostPathError."""
    target = Path(path)
    if type_ == "DirectoryOrCreate":
        if not target.exists():
            target.mkdir(parents=True, mode=0o755)
        type_ = "Directory"
    elif type_ == "FileOrCreate":
        if not target.exists():
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
        type_ = "File"
    if not type_:
        return target
    tests = {
        "Directory": (stat.S_ISDIR, "directory"),
        "File": (stat.S_ISREG, "file"),
        "Socket": (stat.S_ISSOCK, "socket file"),
        "CharDevice": (stat.S_ISCHR, "character device"),
        "BlockDevice": (stat.S_ISBLK, "block device"),
    }
    if type_ not in tests:
        raise HostPathError(f"{type_} is an invalid volume type")
    is_type, name = tests[type_]
    try:
        mode = os.stat(target).st_mode
    except OSError:
        mode = 0
    if not is_type(mode):
        raise HostPathError(f"hostPath type check failed: {path} is not a {name}")
    return target

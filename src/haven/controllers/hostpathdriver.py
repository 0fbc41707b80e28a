"""Deletes directories of hostPath volumes whose reclaim policy is Delete. For single machines and for development.

Only below /tmp, as upstream: a PersistentVolume is written by users, and must not become a way to delete anything else.
Source: https://kubernetes.io/docs/concepts/storage/persistent-volumes/#delete
"""

from __future__ import annotations

import os
import shutil

__all__ = ["HostPathError", "delete_directory"]

_ALLOWED = "/tmp/"


class HostPathError(Exception):
    """The directory is not ours to delete, or could not be deleted; says why, for the volume's Event."""


def delete_directory(path: str) -> None:
    """Delete a directory and what is in it; a path that does not exist is a success. Raise HostPathError."""
    real = os.path.realpath(path)
    if not real.startswith(_ALLOWED) or real == _ALLOWED:
        raise HostPathError(f"host_path deleter only supports /tmp/.+ but received provided {path}")
    try:
        if os.path.isdir(real):
            shutil.rmtree(real)
        else:
            os.unlink(real)
    except FileNotFoundError:
        return
    except OSError as error:
        raise HostPathError(str(error)) from error

"""Entering namespaces of the kernel from a thread, which has them of its own."""

from __future__ import annotations

import ctypes
import os

__all__ = ["CLONE_NEWNET", "checked", "enter_network", "libc"]

CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int) -> None:
    """Raise the error of a call that failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def enter_network(descriptor: int) -> None:
    """Let the calling thread, and what it starts from now on, be in a network namespace."""
    checked(libc.setns(descriptor, CLONE_NEWNET))

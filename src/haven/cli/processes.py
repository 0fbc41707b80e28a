"""Is the cluster's supervisor running, how to end it, and how commands that change the cluster take turns."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from haven.cli.failure import Failure
from haven.cli.places import Places

__all__ = ["exclusive", "is_running", "pid_alive", "start_ticks", "stop", "supervisor_pid"]


def supervisor_pid(places: Places) -> int:
    """Return the pid of this cluster's supervisor, 0 if none runs."""
    try:
        pid = int(places.supervisor_pid.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return 0
    return pid if pid_alive(pid, "haven.cli.supervisor") else 0


def is_running(places: Places) -> bool:
    """Tell whether the cluster was started and not stopped."""
    return supervisor_pid(places) != 0


def pid_alive(pid: int, word: str) -> bool:
    """Tell whether a process lives and `word` is on its command line (pids are used again)."""
    try:
        return word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def start_ticks(pid: int) -> str:
    """Return when a process started, which with its pid makes it unique; "" if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def stop(pid: int, word: str, *, seconds: float) -> bool:
    """End a process politely, then by force; return whether force was needed."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while pid_alive(pid, word):
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            return True
        time.sleep(0.02)
    return False


@contextlib.contextmanager
def exclusive(places: Places) -> Iterator[None]:
    """Be the only command that starts, stops or removes this cluster; raise Failure if another one is at it.

    An abstract socket is the lock: it leaves no file behind, and the kernel frees it however the command ends.
    """
    with socket.socket(socket.AF_UNIX) as lock:
        try:
            lock.bind(f"\0haven-command-{places.tag}")
        except OSError:
            raise Failure("another haven up, down or reset of this cluster is going on: wait for it") from None
        yield

"""Is the cluster's supervisor running, and how to end it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from haven.cli.places import Places

__all__ = ["is_running", "pid_alive", "stop", "supervisor_pid"]


def supervisor_pid(places: Places) -> int:
    """Return the pid of this cluster's supervisor, 0 if none runs."""
    try:
        pid = int(places.supervisor_pid.read_text())
    except (FileNotFoundError, ValueError):
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

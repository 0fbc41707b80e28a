"""Leaving a shell's way: `eval "$(haven api --ephemeral --background)"` returns while the cluster goes on behind it.

A shell waits for what stands in `$(…)` to end. So the process divides: one half tells what the other one says and ends;
the other half goes on without the terminal until the script ends that asked for it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["asking_shell", "divide", "hush", "is_alive"]


def asking_shell() -> int:
    """Return the process that waits for this one: its parent, or what the parent was split from to wait for it.

    Shells run `$(cd dir && haven …)` in a copy of themselves, which ends with it; a copy has the same arguments.
    """
    process = os.getppid()
    above, arguments = _known_of(process)
    while above > 1 and arguments:
        beyond, others = _known_of(above)
        if others != arguments:
            break
        process, above = above, beyond
    return process


def divide() -> None:
    """Return in the half that goes on, whose standard output is read by the other until `hush`.

    Called before there are threads. The other half ends with status 0 if something was told, else with 1.
    """
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        with os.fdopen(reading, "rb") as told:
            text = told.read()
        sys.stdout.buffer.write(text)
        sys.stdout.flush()
        os._exit(0 if text else 1)
    os.close(reading)
    os.setsid()  # An interrupt from the terminal is meant for others from now on.
    os.dup2(writing, 1)
    os.close(writing)


def hush() -> None:
    """Tell no more: the other half ends, and so does `$(…)`; whoever reads the script's errors sees their end."""
    sys.stdout.flush()
    sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def is_alive(process: int) -> bool:
    """Tell whether a process is there; one that has ended and is not yet waited for is not."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        text = Path("/proc", str(process), "stat").read_text(errors="replace")
    except OSError:
        return True  # Not Linux, or just gone.
    return text.rpartition(")")[2].split()[0] not in ("Z", "X")


def _known_of(process: int) -> tuple[int, str]:
    """Return a process's parent and its arguments; (0, "") if that cannot be learned."""
    folder = Path("/proc", str(process))
    try:
        if folder.is_dir():
            behind_the_name = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            return int(behind_the_name[1]), (folder / "cmdline").read_text(errors="replace")
        asked = ["ps", "-o", "ppid=,args=", "-p", str(process)]
        parent, _, arguments = subprocess.run(asked, capture_output=True, text=True).stdout.strip().partition(" ")
        return int(parent), arguments.strip()
    except (OSError, ValueError, IndexError):
        return 0, ""

"""What this process uses, as Linux tells it. Elsewhere (clusters of tests) only what every system tells."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from haven.metrics.families import Registry

__all__ = ["process_start_seconds", "tell_process"]

_PROC = Path("/proc/self")


def process_start_seconds() -> float:
    """Return when the process began, in seconds since 1970; where nobody tells, now."""
    if sys.platform != "linux":
        return round(time.time(), 2)
    ticks = int((_PROC / "stat").read_text(encoding="ascii").rpartition(")")[2].split()[19])
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return round(booted + ticks / os.sysconf("SC_CLK_TCK"), 2)


def tell_process(registry: Registry, started: float) -> None:
    """Set the process_… metrics."""
    registry["process_cpu_seconds_total"].set((), time.process_time())
    registry["process_start_time_seconds"].set((), started)
    if sys.platform != "linux":
        return
    import resource

    registry["process_max_fds"].set((), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    registry["process_virtual_memory_max_bytes"].set((), resource.getrlimit(resource.RLIMIT_AS)[0])
    registry["process_open_fds"].set((), len(os.listdir(_PROC / "fd")))
    pages, resident = map(int, (_PROC / "statm").read_text(encoding="ascii").split()[:2])
    page = resource.getpagesize()
    registry["process_virtual_memory_bytes"].set((), pages * page)
    registry["process_resident_memory_bytes"].set((), resident * page)
    received, sent = _network_bytes()
    registry["process_network_receive_bytes_total"].set((), received)
    registry["process_network_transmit_bytes_total"].set((), sent)


def _network_bytes() -> tuple[int, int]:
    lines = (_PROC / "net" / "netstat").read_text(encoding="ascii").splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        if names.startswith("IpExt:"):
            found = dict(zip(names.split(), values.split(), strict=True))
            return int(found["InOctets"]), int(found["OutOctets"])
    return 0, 0

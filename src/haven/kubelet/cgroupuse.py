"""What a cgroup has used, read from its files; the same figures from both versions of the interface.

Pure: `read(controller, knob)` returns a file's text or None. Working set is what the kernel cannot take back without
effort: usage less file pages that were not touched lately.
Source: https://docs.kernel.org/admin-guide/cgroup-v2.html and cgroup-v1/{memory,cpuacct,blkio-controller}
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

__all__ = ["CgroupUse", "Pressure", "cgroup_use"]

Read = Callable[[str, str], str | None]
NANOSECONDS = 10**9
_UNLIMITED_V1 = 1 << 62  # v1 shows "no limit" as the largest multiple of a page.


@dataclass(frozen=True, slots=True)
class Pressure:
    """Seconds for which some, or all, tasks waited for a resource."""

    some_seconds: float
    full_seconds: float


@dataclass(frozen=True, slots=True)
class CgroupUse:
    """Counters since the cgroup was made, and levels now. Times in nanoseconds, memory in bytes."""

    cpu: int = 0
    cpu_user: int = 0
    cpu_system: int = 0
    cpu_periods: int = 0
    cpu_throttled_periods: int = 0
    cpu_throttled: int = 0
    cpu_shares: int = 0
    cpu_quota: int = 0
    """Per period; 0 is no limit."""
    cpu_period: int = 0
    memory: int = 0
    working_set: int = 0
    rss: int = 0
    cache: int = 0
    mapped_file: int = 0
    active_file: int = 0
    inactive_file: int = 0
    kernel: int = 0
    swap: int = 0
    memory_max: int = 0
    """The most that was ever used."""
    memory_limit: int = 0
    """0 is no limit, here and below."""
    swap_limit: int = 0
    failcnt: int = 0
    oom_kills: int = 0
    page_faults: int = 0
    major_page_faults: int = 0
    processes: int = 0
    processes_max: int = 0
    io: Mapping[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    """Bytes and operations by device (major:minor) and operation, Read or Write."""
    pressure: Mapping[str, Pressure] = field(default_factory=dict)
    """By cpu, memory and io, where the kernel keeps account."""


def cgroup_use(read: Read, *, is_v2: bool) -> CgroupUse | None:
    """Return what a cgroup has used; None if it is gone."""
    return _v2(read) if is_v2 else _v1(read)


def _v1(read: Read) -> CgroupUse | None:
    cpu, usage = read("cpuacct", "cpuacct.usage"), read("memory", "memory.usage_in_bytes")
    if cpu is None or usage is None:
        return None
    tick = NANOSECONDS // os.sysconf("SC_CLK_TCK")
    split, throttling = _pairs(read("cpuacct", "cpuacct.stat")), _pairs(read("cpu", "cpu.stat"))
    stat, oom = _pairs(read("memory", "memory.stat")), _pairs(read("memory", "memory.oom_control"))
    inactive = stat.get("total_inactive_file", 0)
    both = _number(read("memory", "memory.memsw.limit_in_bytes"))
    return CgroupUse(
        cpu=int(cpu),
        cpu_user=split.get("user", 0) * tick,
        cpu_system=split.get("system", 0) * tick,
        cpu_periods=throttling.get("nr_periods", 0),
        cpu_throttled_periods=throttling.get("nr_throttled", 0),
        cpu_throttled=throttling.get("throttled_time", 0),
        cpu_shares=_number(read("cpu", "cpu.shares")),
        cpu_quota=max(_number(read("cpu", "cpu.cfs_quota_us")), 0),
        cpu_period=_number(read("cpu", "cpu.cfs_period_us")),
        memory=int(usage),
        working_set=max(int(usage) - inactive, 0),
        rss=stat.get("total_rss", 0),
        cache=stat.get("total_cache", 0),
        mapped_file=stat.get("total_mapped_file", 0),
        active_file=stat.get("total_active_file", 0),
        inactive_file=inactive,
        kernel=_number(read("memory", "memory.kmem.usage_in_bytes")),
        swap=stat.get("total_swap", 0),
        memory_max=_number(read("memory", "memory.max_usage_in_bytes")),
        memory_limit=_limit(_number(read("memory", "memory.limit_in_bytes"))),
        swap_limit=_limit(both),
        failcnt=_number(read("memory", "memory.failcnt")),
        oom_kills=oom.get("oom_kill", 0),
        page_faults=stat.get("total_pgfault", 0),
        major_page_faults=stat.get("total_pgmajfault", 0),
        processes=_number(read("pids", "pids.current")),
        processes_max=_number(read("pids", "pids.max")),
        io=_io_v1(
            read("blkio", "blkio.throttle.io_service_bytes_recursive"),
            read("blkio", "blkio.throttle.io_serviced_recursive"),
        ),
    )


def _v2(read: Read) -> CgroupUse | None:
    cpu_text = read("cpu", "cpu.stat")
    if cpu_text is None:
        return None
    cpu, stat = _pairs(cpu_text), _pairs(read("memory", "memory.stat"))
    usage = _number(read("memory", "memory.current")) or stat.get("anon", 0) + stat.get("file", 0)
    inactive = stat.get("inactive_file", 0)
    quota, _, period = (read("cpu", "cpu.max") or "max 100000").partition(" ")
    events = _pairs(read("memory", "memory.events"))
    weight = _number(read("cpu", "cpu.weight"))
    pressures = {
        resource: _pressure(text)
        for resource in ("cpu", "memory", "io")
        if (text := read(resource, f"{resource}.pressure"))
    }
    return CgroupUse(
        cpu=cpu.get("usage_usec", 0) * 1000,
        cpu_user=cpu.get("user_usec", 0) * 1000,
        cpu_system=cpu.get("system_usec", 0) * 1000,
        cpu_periods=cpu.get("nr_periods", 0),
        cpu_throttled_periods=cpu.get("nr_throttled", 0),
        cpu_throttled=cpu.get("throttled_usec", 0) * 1000,
        cpu_shares=2 + (weight - 1) * 262142 // 9999 if weight else 0,
        cpu_quota=_number(quota),
        cpu_period=_number(period),
        memory=usage,
        working_set=max(usage - inactive, 0),
        rss=stat.get("anon", 0),
        cache=stat.get("file", 0),
        mapped_file=stat.get("file_mapped", 0),
        active_file=stat.get("active_file", 0),
        inactive_file=inactive,
        kernel=stat.get("kernel", stat.get("slab", 0)),
        swap=_number(read("memory", "memory.swap.current")),
        memory_max=_number(read("memory", "memory.peak")),
        memory_limit=_number(read("memory", "memory.max")),
        swap_limit=_number(read("memory", "memory.swap.max")),
        failcnt=events.get("max", 0),
        oom_kills=events.get("oom_kill", 0),
        page_faults=stat.get("pgfault", 0),
        major_page_faults=stat.get("pgmajfault", 0),
        processes=_number(read("pids", "pids.current")),
        processes_max=_number(read("pids", "pids.max")),
        io=_io_v2(read("io", "io.stat")),
        pressure=pressures,
    )


def _pairs(text: str | None) -> dict[str, int]:
    """Read lines of a name and a number."""
    words = (line.split() for line in (text or "").splitlines())
    return {pair[0]: int(pair[1]) for pair in words if len(pair) == 2 and pair[1].isdigit()}


def _number(text: str | None) -> int:
    """Read a number; "max" and what is not there are 0."""
    stripped = (text or "").strip()
    return int(stripped) if stripped.lstrip("-").isdigit() else 0


def _limit(value: int) -> int:
    return 0 if value >= _UNLIMITED_V1 else value


def _io_v1(sizes: str | None, counts: str | None) -> dict[tuple[str, str], tuple[int, int]]:
    found: dict[tuple[str, str], list[int]] = {}
    for index, text in enumerate((sizes, counts)):
        for line in (text or "").splitlines():
            words = line.split()
            if len(words) == 3 and words[1] in ("Read", "Write"):
                found.setdefault((words[0], words[1]), [0, 0])[index] = int(words[2])
    return {place: (values[0], values[1]) for place, values in found.items()}


def _io_v2(text: str | None) -> dict[tuple[str, str], tuple[int, int]]:
    found = {}
    for line in (text or "").splitlines():
        device, *fields = line.split()
        values = dict(item.partition("=")[::2] for item in fields)
        for operation, letter in (("Read", "r"), ("Write", "w")):
            found[device, operation] = (int(values.get(f"{letter}bytes", 0)), int(values.get(f"{letter}ios", 0)))
    return found


def _pressure(text: str) -> Pressure:
    totals = {
        line.split()[0]: int(line.rpartition("total=")[2]) / 1e6 for line in text.splitlines() if "total=" in line
    }
    return Pressure(totals.get("some", 0.0), totals.get("full", 0.0))

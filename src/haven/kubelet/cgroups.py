"""The node's cgroups: which version the kernel offers, and Haven's tree kubepods/{burstable,besteffort}/pod<uid> in it.

Under v1 the same path exists in every hierarchy; the runtime does not remove what it did not make, so we rmdir it in
each. Under v2 there is one tree, whose controllers must be enabled level by level.
Source: https://kubernetes.io/docs/concepts/architecture/cgroups/
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from haven.telemetry import logger

__all__ = ["CgroupLimits", "CgroupMode", "Cgroups", "cgroup_mode"]

_log = logger("cgroups")
_ROOT = Path("/sys/fs/cgroup")
_V1_CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "pids", "hugetlb", "blkio", "devices", "freezer")
_V2_CONTROLLERS = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")
_REMOVE_TRIES = 20  # A killed process leaves its cgroup a moment after its parent has seen it die.
_CPU_PERIOD = 100_000


class CgroupMode(Enum):
    """How this kernel's cgroups are mounted."""

    V1 = "v1"
    V2 = "v2"
    HYBRID = "hybrid"
    """v1 for most controllers, and a v2 hierarchy beside it that owns at least one."""


def cgroup_mode(root: Path = _ROOT) -> CgroupMode:
    """Return how cgroups are mounted below a directory."""
    if (root / "cgroup.controllers").exists():
        return CgroupMode.V2
    unified = root / "unified" / "cgroup.controllers"
    if unified.exists() and unified.read_text().strip():
        return CgroupMode.HYBRID
    return CgroupMode.V1


@dataclass(frozen=True, slots=True)
class CgroupLimits:
    """What one cgroup gets; None leaves a knob alone."""

    cpu_shares: int | None = None
    cpu_quota: int | None = None
    cpu_period: int = _CPU_PERIOD
    memory_bytes: int | None = None
    pids_max: int | None = None
    hugepages: tuple[tuple[str, int], ...] = ()


class Cgroups:
    """Makes, limits and removes the cgroups of pods below `parent`, such as /kubepods."""

    def __init__(self, parent: str = "/kubepods", root: Path = _ROOT) -> None:
        """`parent` is a path: all but its last name belongs to others, who enabled its controllers."""
        self.parent = "/" + parent.strip("/")
        self._owned = len(self.parent.split("/")) - 2  # How many names of a path are not ours.
        self._root = root
        self.mode = cgroup_mode(root)
        self._hierarchies = self._find_hierarchies()

    def _find_hierarchies(self) -> dict[str, Path]:
        """Return the mount of each v1 controller; controllers that are mounted together appear once each."""
        if self.mode is CgroupMode.V2:
            return {"": self._root}
        return {name: self._root / name for name in _V1_CONTROLLERS if (self._root / name / "cgroup.procs").exists()}

    def pod_path(self, uid: str, qos_class: str) -> str:
        """Return a pod's cgroup, as the runtime wants it for `cgroup_parent`."""
        tier = "" if qos_class == "Guaranteed" else f"/{qos_class.lower()}"
        return f"{self.parent}{tier}/pod{uid}"

    def ensure(self, path: str, limits: CgroupLimits) -> None:
        """Make a cgroup with its parents, and set its limits; raise OSError."""
        for controller, hierarchy in self._hierarchies.items():
            directory = hierarchy
            for depth, name in enumerate(path.strip("/").split("/")):
                if self.mode is CgroupMode.V2 and depth >= self._owned:
                    self._enable_controllers(directory)
                parent, directory = directory, directory / name
                fresh = not directory.exists()
                directory.mkdir(exist_ok=True)
                if fresh and controller == "cpuset":
                    # A new v1 cpuset has no CPUs and no memory nodes, and no process may enter it.
                    for knob in ("cpuset.cpus", "cpuset.mems"):
                        (directory / knob).write_text((parent / knob).read_text())
        self.limit(path, limits)

    def limit(self, path: str, limits: CgroupLimits) -> None:
        """Set the limits of a cgroup that exists; raise OSError."""
        for controller, knob, value in self._knobs(limits):
            hierarchy = self._hierarchies.get(controller)
            if hierarchy is None:
                continue
            target = hierarchy / path.strip("/") / knob
            if target.exists():
                _write(target, value)

    def _knobs(self, limits: CgroupLimits) -> Sequence[tuple[str, str, str]]:
        return _v2_knobs(limits) if self.mode is CgroupMode.V2 else _v1_knobs(limits)

    def _enable_controllers(self, directory: Path) -> None:
        control = directory / "cgroup.subtree_control"
        enabled = set(control.read_text().split())
        available = set((directory / "cgroup.controllers").read_text().split())
        wanted = [name for name in _V2_CONTROLLERS if name in available - enabled]
        if wanted:
            _write(control, " ".join(f"+{name}" for name in wanted))

    def pods(self) -> dict[str, list[str]]:
        """Return the cgroup paths of all pods, by UID."""
        found: dict[str, list[str]] = {}
        for hierarchy in self._all_hierarchies():
            for tier in ("", "/burstable", "/besteffort"):
                directory = hierarchy / (self.parent + tier).strip("/")
                if not directory.is_dir():
                    continue
                for entry in os.scandir(directory):
                    if entry.is_dir() and entry.name.startswith("pod"):
                        paths = found.setdefault(entry.name[3:], [])
                        path = f"{self.parent}{tier}/{entry.name}"
                        if path not in paths:
                            paths.append(path)
        return found

    def pids(self, path: str) -> set[int]:
        """Return the processes in a cgroup and below it."""
        found: set[int] = set()
        for hierarchy in self._hierarchies.values():
            for directory, _, files in os.walk(hierarchy / path.strip("/")):
                if "cgroup.procs" in files:
                    try:
                        found.update(int(line) for line in Path(directory, "cgroup.procs").read_text().split())
                    except OSError:
                        continue  # Removed between walk and read.
        return found

    def remove(self, path: str) -> bool:
        """Remove a cgroup and everything below it in every hierarchy; return whether all of it is gone."""
        gone = True
        for hierarchy in self._all_hierarchies():
            gone &= _remove_tree(hierarchy / path.strip("/"))
        return gone

    def _all_hierarchies(self) -> list[Path]:
        """Also those whose controllers we do not use: runtimes make cgroups in each (systemd, net_cls, perf_event…)."""
        if self.mode is CgroupMode.V2:
            return [self._root]
        return [
            Path(entry.path)
            for entry in os.scandir(self._root)
            if not entry.is_symlink() and os.path.exists(f"{entry.path}/cgroup.procs")
        ]

    def read(self, path: str, controller: str, knob: str) -> str | None:
        """Return the content of a knob, None if there is none."""
        hierarchy = self._hierarchies.get("" if self.mode is CgroupMode.V2 else controller)
        if hierarchy is None:
            return None
        try:
            return (hierarchy / path.strip("/") / knob).read_text().strip()
        except OSError:
            return None

    def memory(self, path: str = "/") -> Mapping[str, int]:
        """Return usage, working_set and rss of a cgroup in bytes; empty if it is gone."""
        v2 = self.mode is CgroupMode.V2
        usage = self.read(path, "memory", "memory.current" if v2 else "memory.usage_in_bytes")
        stat = self.read(path, "memory", "memory.stat")
        if usage is None or stat is None:
            return {}
        values = {key: int(value) for key, value in (line.split() for line in stat.splitlines())}
        inactive = values.get("inactive_file" if v2 else "total_inactive_file", 0)
        rss = values.get("anon" if v2 else "total_rss", 0)
        return {"usage": int(usage), "working_set": max(int(usage) - inactive, 0), "rss": rss}

    def cpu_nanoseconds(self, path: str = "/") -> int | None:
        """Return the CPU time that a cgroup has used."""
        if self.mode is CgroupMode.V2:
            stat = self.read(path, "cpu", "cpu.stat")
            if stat is None:
                return None
            return next(
                (int(line.split()[1]) * 1000 for line in stat.splitlines() if line.startswith("usage_usec")), None
            )
        usage = self.read(path, "cpuacct", "cpuacct.usage")
        return int(usage) if usage is not None else None


def _v1_knobs(limits: CgroupLimits) -> list[tuple[str, str, str]]:
    knobs: list[tuple[str, str, str]] = []
    if limits.cpu_shares is not None:
        knobs.append(("cpu", "cpu.shares", str(limits.cpu_shares)))
    if limits.cpu_quota is not None:
        knobs.append(("cpu", "cpu.cfs_period_us", str(limits.cpu_period)))
        knobs.append(("cpu", "cpu.cfs_quota_us", str(limits.cpu_quota)))
    if limits.memory_bytes is not None:
        knobs.append(("memory", "memory.limit_in_bytes", str(limits.memory_bytes)))
    if limits.pids_max is not None:
        knobs.append(("pids", "pids.max", str(limits.pids_max)))
    knobs += [("hugetlb", f"hugetlb.{size}.limit_in_bytes", str(value)) for size, value in limits.hugepages]
    return knobs


def _v2_knobs(limits: CgroupLimits) -> list[tuple[str, str, str]]:
    knobs: list[tuple[str, str, str]] = []
    if limits.cpu_shares is not None:
        knobs.append(("", "cpu.weight", str(cpu_weight(limits.cpu_shares))))
    if limits.cpu_quota is not None:
        quota = "max" if limits.cpu_quota < 0 else str(limits.cpu_quota)
        knobs.append(("", "cpu.max", f"{quota} {limits.cpu_period}"))
    if limits.memory_bytes is not None:
        knobs.append(("", "memory.max", "max" if limits.memory_bytes < 0 else str(limits.memory_bytes)))
    if limits.pids_max is not None:
        knobs.append(("", "pids.max", str(limits.pids_max)))
    knobs += [("", f"hugetlb.{size}.max", str(value)) for size, value in limits.hugepages]
    return knobs


def cpu_weight(shares: int) -> int:
    """Return the v2 weight (1..10000) for v1 shares (2..262144), as runtimes map it."""
    return 1 + ((max(shares, 2) - 2) * 9999) // 262142


def _write(path: Path, value: str) -> None:
    # Not write_text: a cgroup file must be written in one call, and truncation means nothing to it.
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def _remove_tree(directory: Path) -> bool:
    if not directory.is_dir():
        return True
    for below, _, _ in os.walk(directory, topdown=False):
        for attempt in range(_REMOVE_TRIES):
            try:
                os.rmdir(below)
                break
            except FileNotFoundError:
                break
            except OSError:
                if attempt + 1 == _REMOVE_TRIES:
                    _log.warning("cgroup is still in use", path=below)
                    return False
                time.sleep(0.02)
    return True

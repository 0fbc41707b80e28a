"""What the node, its pods and their containers use now: one reading for /stats/summary and all metrics of resources.

Counters come from the cgroups, network counters from the pod's own /proc/<pid>/net/dev, sizes of writable layers from
the runtime. A rate is the difference to the last reading; a first reading has none.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from haven.api.core.v1 import Pod
from haven.clock import Clock
from haven.cri.interface import ContainerState, ContainerStats, NamespaceMode, Runtime, SandboxState
from haven.kubelet import machine
from haven.kubelet.cgroups import CgroupMode, Cgroups
from haven.kubelet.cgroupuse import CgroupUse, cgroup_use
from haven.kubelet.machine import DiskSpace
from haven.kubelet.podworker import PodWorker
from haven.kubelet.volumes.manager import disk_usage

__all__ = ["ContainerUsage", "Interface", "NodeUsage", "PodUsage", "UsageReader", "VolumeUsage", "parse_interfaces"]

RATE_SECONDS = (1.0, 300.0)  # A rate over less is noise, over more is history.
VOLUMES_SECONDS = 60.0  # Adding up a volume's files is costly.


@dataclass(frozen=True, slots=True)
class Interface:
    """Counters of a network interface."""

    name: str
    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


@dataclass(frozen=True, slots=True)
class ContainerUsage:
    """A running container, or the sandbox of a pod (`name` is "")."""

    name: str
    id: str
    image: str
    cgroup: str
    started_seconds: float
    use: CgroupUse
    cpu_nanocores: int | None
    rootfs_bytes: int = 0
    rootfs_inodes: int = 0
    log_bytes: int = 0


@dataclass(frozen=True, slots=True)
class VolumeUsage:
    """A volume of a pod and the file system it is on. `claim` is the claim's name, "" for none."""

    name: str
    claim: str
    space: DiskSpace
    used_bytes: int
    used_inodes: int


@dataclass(frozen=True, slots=True)
class PodUsage:
    """A pod with a ready sandbox."""

    pod: Pod
    cgroup: str
    started_seconds: float
    use: CgroupUse | None
    cpu_nanocores: int | None
    sandbox: ContainerUsage | None
    containers: Sequence[ContainerUsage]
    interfaces: Sequence[Interface]
    volumes: Sequence[VolumeUsage]


@dataclass(frozen=True, slots=True)
class NodeUsage:
    """The whole node. `cgroups` are those above pods: /, the tree of pods, its tiers."""

    seconds: float
    started_seconds: float
    cpu_nanocores: int | None
    cgroups: Mapping[str, CgroupUse]
    cpu: int
    memory: Mapping[str, int]
    page_faults: int
    major_page_faults: int
    interfaces: Sequence[Interface]
    disk: DiskSpace
    processes: int
    processes_max: int
    pods: Sequence[PodUsage]
    rates: Mapping[str, int] = field(default_factory=dict)


class UsageReader:
    """Takes readings; at most one at a time. `workers` is the kubelet's live mapping."""

    def __init__(
        self,
        runtime: Runtime,
        cgroups: Cgroups,
        clock: Clock,
        root: Path,
        workers: Mapping[str, PodWorker],
        *,
        proc: Path = Path("/proc"),
    ) -> None:
        self._runtime = runtime
        self._cgroups = cgroups
        self._clock = clock
        self._root = root
        self._workers = workers
        self._proc = proc
        self._started_seconds = clock.now_seconds()
        self._last: dict[str, tuple[float, int]] = {}
        self._volumes: dict[str, tuple[float, list[VolumeUsage]]] = {}
        self._lock = asyncio.Lock()

    async def read(self) -> NodeUsage:
        """Take a reading; raises RuntimeFailure if the runtime does not answer."""
        async with self._lock:
            layers = {item.id: item for item in await self._runtime.container_stats()}
            workers = list(self._workers.values())
            return await asyncio.to_thread(self._read, workers, layers)

    def _read(self, workers: Iterable[PodWorker], layers: Mapping[str, ContainerStats]) -> NodeUsage:
        now = self._clock.now_seconds()
        seen: dict[str, tuple[float, int]] = {}
        rate = self._rates(seen)
        pods = [found for worker in workers if (found := self._pod(worker, layers, rate)) is not None]
        parent = self._cgroups.parent
        above = {path: self._use(path) for path in ("/", parent, f"{parent}/burstable", f"{parent}/besteffort")}
        cpu = _node_cpu(self._proc)
        faults = _vmstat(self._proc)
        used, limit = machine.pids()
        usage = NodeUsage(
            seconds=now,
            started_seconds=self._started_seconds,
            cpu_nanocores=rate("node", cpu),
            cgroups={path: use for path, use in above.items() if use is not None},
            cpu=cpu,
            memory=machine.memory(),
            page_faults=faults.get("pgfault", 0),
            major_page_faults=faults.get("pgmajfault", 0),
            interfaces=parse_interfaces((self._proc / "net/dev").read_text()),
            disk=machine.disk_space(self._root),
            processes=used,
            processes_max=limit,
            pods=pods,
            rates={path: value for path, use in above.items() if use and (value := rate(path, use.cpu)) is not None},
        )
        self._last = seen
        known = {worker.uid for worker in workers}
        self._volumes = {uid: kept for uid, kept in self._volumes.items() if uid in known}
        return usage

    def _rates(self, seen: dict[str, tuple[float, int]]) -> Callable[[str, int], int | None]:
        """Return a function that tells nanocores from a counter, and notes the counter in `seen`."""
        now = self._clock.monotonic_seconds()

        def rate(key: str, counter: int) -> int | None:
            seen[key] = (now, counter)
            before, earlier = self._last.get(key, (now, counter))
            elapsed = now - before
            if elapsed < RATE_SECONDS[0] and key in self._last:
                seen[key] = self._last[key]  # Too soon: the next reading shall compare with the older one.
            if not RATE_SECONDS[0] <= elapsed <= RATE_SECONDS[1] or counter < earlier:
                return None
            return int((counter - earlier) / elapsed)

        return rate

    def _use(self, path: str) -> CgroupUse | None:
        cgroups = self._cgroups
        return cgroup_use(
            lambda controller, knob: cgroups.read(path, controller, knob), is_v2=cgroups.mode is CgroupMode.V2
        )

    def _pod(
        self, worker: PodWorker, layers: Mapping[str, ContainerStats], rate: Callable[[str, int], int | None]
    ) -> PodUsage | None:
        observed, pod = worker.observed, worker.pod
        sandbox = observed.sandbox
        if sandbox is None or sandbox.info.state is not SandboxState.READY:
            return None
        path = self._cgroups.pod_path(worker.uid, worker.status.qos_class or pod.status.qos_class)
        containers = []
        for item in observed.active():
            status = item.status
            if item.state is not ContainerState.RUNNING:
                continue
            use = self._use(f"{path}/{status.id}")
            if use is None:
                continue
            layer = layers.get(status.id)
            containers.append(
                ContainerUsage(
                    name=item.name,
                    id=status.id,
                    image=status.image or status.image_ref,
                    cgroup=f"{path}/{status.id}",
                    started_seconds=status.started_at / 1e9,
                    use=use,
                    cpu_nanocores=rate(status.id, use.cpu),
                    rootfs_bytes=layer.writable_layer_bytes if layer else 0,
                    rootfs_inodes=layer.writable_layer_inodes if layer else 0,
                    log_bytes=_log_bytes(Path(status.log_path)),
                )
            )
        started = sandbox.info.created_at / 1e9
        own, use = self._use(f"{path}/{sandbox.info.id}"), self._use(path)
        pause = (
            ContainerUsage("", sandbox.info.id, "", f"{path}/{sandbox.info.id}", started, own, None)
            if own is not None
            else None
        )
        has_network = sandbox.network is NamespaceMode.POD
        return PodUsage(
            pod=pod,
            cgroup=path,
            started_seconds=started,
            use=use,
            cpu_nanocores=rate(path, use.cpu) if use is not None else None,
            sandbox=pause,
            containers=containers,
            interfaces=self._interfaces(f"{path}/{sandbox.info.id}") if has_network else (),
            volumes=self._volumes_of(worker),
        )

    def _interfaces(self, cgroup: str) -> list[Interface]:
        """Read the pod's network through its sandbox's process, which the cgroup knows without a call to CRI."""
        for pid in sorted(self._cgroups.pids(cgroup)):
            try:
                found = parse_interfaces((self._proc / str(pid) / "net/dev").read_text())
            except OSError:
                continue  # It has ended meanwhile.
            return [item for item in found if item.name != "lo"]
        return []

    def _volumes_of(self, worker: PodWorker) -> list[VolumeUsage]:
        now = self._clock.monotonic_seconds()
        taken, kept = self._volumes.get(worker.uid, (float("-inf"), []))
        if now - taken < VOLUMES_SECONDS:
            return kept
        found = []
        for volume in worker.pod.spec.volumes:
            mounted = worker.volumes.get(volume.name)
            if mounted is None or volume.host_path is not None or volume.image is not None:
                continue
            claim = volume.persistent_volume_claim.claim_name if volume.persistent_volume_claim else ""
            if volume.ephemeral is not None:
                claim = f"{worker.pod.metadata.name}-{volume.name}"
            try:
                space = machine.disk_space(mounted.path)
            except OSError:
                continue  # Unmounted meanwhile.
            is_own = mounted.path.is_mount()
            used = space.total_bytes - space.free_bytes if is_own else disk_usage(mounted.path)
            inodes = space.total_inodes - space.free_inodes if is_own else _count_files(mounted.path)
            found.append(VolumeUsage(volume.name, claim, space, used, inodes))
        self._volumes[worker.uid] = (now, found)
        return found


def parse_interfaces(text: str) -> list[Interface]:
    """Read /proc/net/dev."""
    found = []
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        values = [int(word) for word in rest.split()]
        found.append(
            Interface(name.strip(), *values[0:4], *values[8:12]),
        )
    return found


def _node_cpu(proc: Path) -> int:
    """Return the CPU time that the machine has spent working, in nanoseconds."""
    fields = [int(word) for word in (proc / "stat").read_text().split("\n", 1)[0].split()[1:]]
    busy_ticks = sum(fields[:3]) + sum(fields[5:8])
    return busy_ticks * (10**9 // os.sysconf("SC_CLK_TCK"))


def _vmstat(proc: Path) -> dict[str, int]:
    pairs = (line.split() for line in (proc / "vmstat").read_text().splitlines())
    return {name: int(value) for name, value in pairs}


def _log_bytes(log: Path) -> int:
    """Return the size of a container's log with its rotated parts."""
    total = 0
    try:
        for entry in os.scandir(log.parent):
            if entry.name.startswith(log.name):
                total += entry.stat().st_size
    except OSError:
        return total  # Rotated or removed while we looked.
    return total


def _count_files(path: Path) -> int:
    return 1 + sum(len(directories) + len(files) for _, directories, files in os.walk(path))

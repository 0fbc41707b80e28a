"""Facts of the machine: CPUs, memory, disks, addresses, identity. Reads /proc and /sys; nothing is cached."""

from __future__ import annotations

import os
import platform
import socket
from dataclasses import dataclass
from pathlib import Path

from haven.api.core.v1 import NodeSwapStatus, NodeSystemInfo
from haven.kubelet.ociimage import architecture_name

__all__ = ["DiskSpace", "default_addresses", "disk_space", "memory", "pids", "system_info"]


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """A file system: bytes and inodes."""

    total_bytes: int
    free_bytes: int
    total_inodes: int
    free_inodes: int


def disk_space(path: Path) -> DiskSpace:
    """Return the file system that holds a path, or its nearest existing parent."""
    while not path.exists():
        path = path.parent
    values = os.statvfs(path)
    return DiskSpace(
        values.f_blocks * values.f_frsize, values.f_bavail * values.f_frsize, values.f_files, values.f_favail
    )


def memory() -> dict[str, int]:
    """Return /proc/meminfo in bytes, such as MemTotal and MemAvailable."""
    result: dict[str, int] = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        result[name] = int(words[0]) * (1024 if len(words) > 1 else 1)
    return result


def hugepages() -> dict[str, int]:
    """Return the bytes of huge pages that are set aside, by page size in bytes as text."""
    result: dict[str, int] = {}
    root = Path("/sys/kernel/mm/hugepages")
    if root.is_dir():
        for entry in root.iterdir():
            kilobytes = int(entry.name.removeprefix("hugepages-").removesuffix("kB"))
            pages = int((entry / "nr_hugepages").read_text())
            result[str(kilobytes * 1024)] = pages * kilobytes * 1024
    return result


def pids() -> tuple[int, int]:
    """Return how many process ids are in use, and how many there can be."""
    limit = int(Path("/proc/sys/kernel/pid_max").read_text())
    threads_max = int(Path("/proc/sys/kernel/threads-max").read_text())
    running = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
    return running, min(limit, threads_max)


def cpu_count() -> int:
    return len(os.sched_getaffinity(0))


def default_addresses() -> tuple[str, ...]:
    """Return the addresses that packets to the outside would carry, one per family; loopback if there is no way out."""
    found: list[str] = []
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))  # A datagram socket sends nothing by connecting.
                address = probe.getsockname()[0]
        except OSError:
            continue
        if address and not address.startswith(("127.", "::1", "fe80:")):
            found.append(address)
    return tuple(found) or ("127.0.0.1",)


def system_info(*, kubelet_version: str, runtime_version: str) -> NodeSystemInfo:
    """Return nodeInfo; `runtime_version` is like containerd://1.6.20."""
    swap = memory().get("SwapTotal", 0)
    return NodeSystemInfo(
        machine_id=_first_text("/etc/machine-id", "/var/lib/dbus/machine-id"),
        system_uuid=_first_text("/sys/class/dmi/id/product_uuid", "/etc/machine-id"),
        boot_id=_first_text("/proc/sys/kernel/random/boot_id"),
        kernel_version=platform.release(),
        os_image=_os_image(),
        container_runtime_version=runtime_version,
        kubelet_version=kubelet_version,
        # Required by the API but without meaning since 1.33: kube-proxy is not the kubelet's to know.
        kube_proxy_version="",
        operating_system="linux",
        architecture=architecture_name(),
        swap=NodeSwapStatus(capacity=swap) if swap else None,
    )


def _first_text(*paths: str) -> str:
    for path in paths:
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        if text:
            return text
    return ""


def _os_image() -> str:
    for line in _first_text("/etc/os-release", "/usr/lib/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return "Linux"

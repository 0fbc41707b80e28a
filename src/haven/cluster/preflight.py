"""What a machine must offer before a node can run on it; each failed check names its fix.

Checks read the host and change nothing. `required` ones stop `haven up`; the others only limit what works.
"""

from __future__ import annotations

import ctypes.util
import errno
import os
import shutil
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Check", "Host", "PackageManager", "check_all", "check_port"]

DISK_FREE_BYTES_MIN = 1 * 2**30
CNI_PLUGINS = ("bridge", "host-local", "loopback", "portmap")


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `fix` is a command or a sentence, "" when all is well."""

    name: str
    ok: bool
    required: bool
    found: str
    fix: str = ""


@dataclass(frozen=True)
class PackageManager:
    """How this machine installs programs; `packages` names them as the distribution does."""

    command: str

    def fix(self, *packages: str) -> str:
        return f"{self.command} {' '.join(packages)}"

    @classmethod
    def of_this_machine(cls) -> PackageManager:
        if shutil.which("apt-get"):
            return cls("apt-get install -y")
        if shutil.which("dnf"):
            return cls("dnf install -y")
        return cls("install these packages:")


@dataclass(frozen=True)
class Host:
    """Where to look; other than the defaults only in tests."""

    cgroup: Path = Path("/sys/fs/cgroup")
    proc: Path = Path("/proc")
    cni_bin: Path = Path("/usr/lib/cni")
    data: Path = Path("/var/lib/haven")
    which: Callable[[str], str | None] = shutil.which
    effective_uid: Callable[[], int] = os.geteuid
    find_library: Callable[[str], str | None] = ctypes.util.find_library


def check_all(host: Host, ports: Iterable[int], packages: PackageManager) -> list[Check]:
    """Return every check's finding, in the order in which one would mend them."""
    return [
        _root(host),
        _program(host, packages, "containerd", ("containerd",), "containerd"),
        _program(host, packages, "OCI runtime", ("crun", "runc"), "crun"),
        _program(host, packages, "conntrack", ("conntrack",), "conntrack", required=False),
        _cni(host, packages),
        _nftables(host, packages),
        _cgroup(host),
        _overlay(host),
        _disk(host),
        *(check_port(port) for port in ports),
    ]


def _root(host: Host) -> Check:
    uid = host.effective_uid()
    if uid == 0:
        return Check("root", True, True, "uid 0")
    return Check("root", False, True, f"uid {uid}", "run it with sudo: containers and networks need root")


def _program(
    host: Host, packages: PackageManager, name: str, programs: Sequence[str], package: str, *, required: bool = True
) -> Check:
    for program in programs:
        path = host.which(program)
        if path:
            return Check(name, True, required, path)
    return Check(name, False, required, f"no {' or '.join(programs)} on the PATH", packages.fix(package))


def _cni(host: Host, packages: PackageManager) -> Check:
    missing = [plugin for plugin in CNI_PLUGINS if not (host.cni_bin / plugin).exists()]
    if not missing:
        return Check("CNI plugins", True, True, str(host.cni_bin))
    return Check(
        "CNI plugins", False, True, f"{host.cni_bin} lacks {', '.join(missing)}",
        packages.fix("containernetworking-plugins"),
    )  # fmt: skip


def _nftables(host: Host, packages: PackageManager) -> Check:
    if host.find_library("nftables"):
        return Check("nftables", True, True, "libnftables")
    return Check("nftables", False, True, "no libnftables", packages.fix("nftables"))


def _cgroup(host: Host) -> Check:
    if (host.cgroup / "cgroup.controllers").exists():
        controllers = (host.cgroup / "cgroup.controllers").read_text().split()
        version, missing = "v2", [name for name in ("cpu", "memory", "pids") if name not in controllers]
    else:
        version, missing = "v1", [name for name in ("cpu", "memory", "pids") if not (host.cgroup / name).is_dir()]
    if not missing:
        return Check("cgroups", True, True, version)
    return Check(
        "cgroups", False, True, f"{version} without {', '.join(missing)}",
        f"add cgroup_enable={missing[0]} to the kernel's command line and reboot",
    )  # fmt: skip


def _overlay(host: Host) -> Check:
    filesystems = (host.proc / "filesystems").read_text()
    if "overlay" in filesystems:
        return Check("overlayfs", True, True, "in the kernel")
    return Check("overlayfs", False, True, "not in the kernel", "modprobe overlay")


def _disk(host: Host) -> Check:
    folder = next(path for path in (host.data, *host.data.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    found = f"{free / 2**30:.1f} GiB free below {folder}"
    if free >= DISK_FREE_BYTES_MIN:
        return Check("disk", True, True, found)
    return Check("disk", False, True, found, f"free at least {DISK_FREE_BYTES_MIN // 2**30} GiB below {folder}")


def check_port(port: int, address: str = "127.0.0.1") -> Check:
    """Return whether nothing listens on a TCP port that the cluster needs."""
    name = f"port {port}"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return Check(name, False, True, str(error), f"make {address} available on this machine")
            return Check(
                name, False, True, f"{address}:{port} is in use",
                f"stop what listens there (ss -ltnp 'sport = :{port}'), or choose another port",
            )  # fmt: skip
    return Check(name, True, True, "free")

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
from dataclasses import dataclass, field
from pathlib import Path

from haven.cluster.networks import Taken, conflicts

__all__ = [
    "CLUSTER_FILES",
    "Check",
    "Endpoint",
    "Host",
    "PackageManager",
    "check_all",
    "check_endpoint",
    "check_network",
]

DISK_FREE_BYTES_MIN = 1 * 2**30
RESTART_FREE_BYTES_MIN = 32 * 2**20  # What exists must come up on a nearly full disk too, to be cleaned from inside.
CLUSTER_FILES = ("settings.json", "store.db", "pki", "containerd", "journal.json", "log", "run", "manifests")
"""What says that a directory is a cluster's: nothing is put into others, and nothing removed from them."""
SOCKET_PATH_BYTES_MAX = 107
LONGEST_SOCKET = "run/containerd/containerd.sock.ttrpc"
CNI_PLUGINS = ("bridge", "host-local", "loopback", "portmap")
CONTROLLERS = ("cpu", "memory", "pids")
_IP_FREEBIND = 15  # linux/in.h: an address that this host does not have yet may be tried too.


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `fix` is a command or a sentence, "" when all is well."""

    name: str
    ok: bool
    required: bool
    found: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a part of the cluster will listen. `option` moves it elsewhere, "" where nothing can."""

    part: str
    address: str
    port: int
    option: str = ""
    udp: bool = False


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
    modules: Path = field(default_factory=lambda: Path("/lib/modules", os.uname().release))
    data: Path = Path("/var/lib/haven")
    which: Callable[[str], str | None] = field(default=lambda program: find_program(program))
    effective_uid: Callable[[], int] = os.geteuid
    find_library: Callable[[str], str | None] = ctypes.util.find_library
    writable: Callable[[Path], bool] = field(default=lambda path: os.access(path, os.W_OK))
    free_bytes: Callable[[Path], int] = field(default=lambda path: shutil.disk_usage(path).free)


def find_program(program: str) -> str | None:
    """Return a program's path; administrators' directories count though `su` leaves them off the PATH."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin".strip(":"))


def check_all(
    host: Host, endpoints: Iterable[Endpoint], packages: PackageManager, *, fresh: bool = True
) -> list[Check]:
    """Return every check's finding, in the order in which one would mend them; `fresh` is before the first start."""
    return [
        _root(host),
        _program(host, packages, "containerd", ("containerd",), "containerd"),
        _program(host, packages, "OCI runtime", ("crun", "runc"), "crun"),
        _program(host, packages, "conntrack", ("conntrack",), "conntrack", required=False),
        _program(host, packages, "iptables", ("iptables",), "iptables", required=False),
        _cni(host, packages),
        _nftables(host, packages),
        _cgroup(host),
        _overlay(host),
        _bridge_filter(host),
        _place(host, fresh=fresh),
        _disk(host, fresh=fresh),
        *(check_endpoint(endpoint) for endpoint in endpoints),
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
    root = host.cgroup
    is_v2 = (root / "cgroup.controllers").exists()
    if is_v2:
        version, tops = "v2", [root]
        there = set((root / "cgroup.controllers").read_text().split())
    else:
        version, tops = "v1", [root / name for name in CONTROLLERS]
        there = {name for name in CONTROLLERS if (root / name / "cgroup.procs").exists()}
    missing = [name for name in CONTROLLERS if name not in there]
    if missing:
        found = f"{version} without {', '.join(missing)}" if is_v2 or there else f"none below {root}"
        return Check("cgroups", False, True, found, _cgroup_fix(host, missing))
    if not all(host.writable(top) for top in tops):
        fix = f"mount -o remount,rw {root}; in a container, start it with its own writable cgroups (--privileged)"
        return Check("cgroups", False, True, f"{version}, but {root} is read-only", fix)
    if is_v2 and _is_crowded(root):
        fix = f"mkdir {root}/init && xargs -rn1 < {root}/cgroup.procs > {root}/init/cgroup.procs"
        return Check("cgroups", False, True, "v2, but processes are in this container's topmost cgroup", fix)
    return Check("cgroups", True, True, version)


def _is_crowded(root: Path) -> bool:
    """Version 2 enables no controllers below a cgroup that has processes itself, unless it is the machine's root."""
    enabled = (root / "cgroup.subtree_control").read_text().split()
    is_machine_root = not (root / "cgroup.type").exists()
    return not is_machine_root and not set(CONTROLLERS) <= set(enabled) and bool((root / "cgroup.procs").read_text())


def _cgroup_fix(host: Host, missing: Sequence[str]) -> str:
    """The kernel has a controller that is not mounted, or was started without it."""
    enabled: set[str] = set()
    if (host.proc / "cgroups").exists():
        rows = [line.split() for line in (host.proc / "cgroups").read_text().splitlines() if line[:1] != "#"]
        enabled = {row[0] for row in rows if row[3:4] == ["1"]}
    if set(missing) <= enabled:
        return f"mount cgroups: mount -t cgroup2 none {host.cgroup}"
    first = next(name for name in missing if name not in enabled)
    return f"add cgroup_enable={first} to the kernel's command line and reboot"


def _overlay(host: Host) -> Check:
    is_there = "overlay" in (host.proc / "filesystems").read_text()
    return _kernel(host, "overlayfs", "overlay", is_there=is_there)


def _bridge_filter(host: Host) -> Check:
    """Without it a Pod cannot reach a Service whose endpoint is on the same node."""
    return _kernel(host, "bridge filter", "br_netfilter", is_there=(host.proc / "sys/net/bridge").is_dir())


def _kernel(host: Host, name: str, module: str, *, is_there: bool) -> Check:
    if is_there:
        return Check(name, True, True, "in the kernel")
    index = host.modules / "modules.dep"
    if index.exists() and f"/{module}.ko" in index.read_text():
        return Check(name, True, True, "a module, which haven up loads")
    return Check(name, False, True, "not in the kernel", f"modprobe {module}, or use a kernel that has it")


def _place(host: Host, *, fresh: bool) -> Check:
    if host.data.exists() and not host.data.is_dir():
        return Check("data directory", False, True, f"{host.data} is a file", "name a directory with HAVEN_DATA_DIR")
    others = sorted(os.listdir(host.data)) if fresh and host.data.is_dir() else []
    if set(others) - {"lost+found"} and not set(others) & set(CLUSTER_FILES):
        shown = ", ".join(others[:3]) + ("…" if len(others) > 3 else "")
        found = f"{host.data} holds other files ({shown})"
        return Check("data directory", False, True, found, "name an empty directory with HAVEN_DATA_DIR")
    if len(str(host.data / LONGEST_SOCKET)) > SOCKET_PATH_BYTES_MAX:
        fix = f"name one with at most {SOCKET_PATH_BYTES_MAX - len(LONGEST_SOCKET) - 1} characters"
        return Check("data directory", False, True, f"{host.data} is too long for sockets in it", fix)
    folder = _nearest(host.data)
    if not host.writable(folder):
        return Check("data directory", False, True, f"{folder} is read-only", f"mount -o remount,rw {folder}")
    return Check("data directory", True, True, str(host.data))


def _nearest(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _disk(host: Host, *, fresh: bool) -> Check:
    folder = _nearest(host.data)
    free = host.free_bytes(folder)
    needed = DISK_FREE_BYTES_MIN if fresh else RESTART_FREE_BYTES_MIN
    found = f"{free / 2**30:.1f} GiB free below {folder}"
    if free >= needed:
        return Check("disk", True, True, found)
    amount = f"{needed // 2**30} GiB" if needed >= 2**30 else f"{needed // 2**20} MiB"
    return Check("disk", False, True, found, f"free at least {amount} below {folder}")


def check_endpoint(endpoint: Endpoint) -> Check:
    """Return whether nothing listens where a part of the cluster will."""
    kind = socket.SOCK_DGRAM if endpoint.udp else socket.SOCK_STREAM
    protocol = "udp" if endpoint.udp else "tcp"
    name = f"port {endpoint.port}/{protocol}"
    where = f"{endpoint.address}:{endpoint.port}"
    with socket.socket(socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET, kind) as probe:
        probe.setsockopt(socket.SOL_IP, _IP_FREEBIND, 1)
        if not endpoint.udp:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((endpoint.address, endpoint.port))
            if not endpoint.udp:
                probe.listen(1)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return Check(name, False, True, f"{where}: {error.strerror}", f"make {where} available to this user")
            listing = f"ss -l{'u' if endpoint.udp else 't'}np 'sport = :{endpoint.port}'"
            other = f", or choose another place with haven up {endpoint.option}" if endpoint.option else ""
            found = f"{where}, where the {endpoint.part} listens, is in use"
            return Check(name, False, True, found, f"stop what listens there ({listing}){other}")
    return Check(name, True, True, f"free for the {endpoint.part}")


def check_network(what: str, cidr: str, others: Iterable[Taken], fix: str) -> Check:
    """Return whether nobody else on this machine uses addresses of a network of ours."""
    others = list(others)
    inside = conflicts(cidr, others, around=False)
    if inside:
        found = f"{cidr} is used by {inside[0].by} ({inside[0].network})"
        return Check(f"network of {what}", False, True, found, fix)
    around = conflicts(cidr, others, around=True)
    if around:
        found = f"{cidr} hides a part of {around[0].network} ({around[0].by})"
        return Check(f"network of {what}", False, False, found, fix)
    return Check(f"network of {what}", True, True, cidr)

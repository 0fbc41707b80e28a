"""haven reset: remove the cluster and everything it left on this machine, and prove it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click

from haven.cli import processes
from haven.cli.down import stop_programs
from haven.cli.failure import Failure
from haven.cli.network import other_clusters, remove_network
from haven.cli.progress import step
from haven.cli.settings import ClusterSettings, places_of_environment
from haven.cluster.preflight import CLUSTER_FILES

__all__ = ["command", "leftovers", "reset"]

SHARED_FOLDERS = (
    # Programs that are not Haven's keep a little there; the folders go if they are empty.
    "/run/crun", "/run/runc",
    "/run/containerd/runc/k8s.io", "/run/containerd/runc", "/run/containerd/s", "/run/containerd",
    "/var/lib/cni/results", "/var/lib/cni/networks", "/var/lib/cni",
)  # fmt: skip

KILL_SECONDS_MAX = 60.0


@click.command(help="Remove the cluster and all it left on this machine.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(yes: bool) -> None:
    if os.geteuid() != 0:
        raise Failure("the cluster belongs to root: run sudo haven reset")
    settings = ClusterSettings(places=places_of_environment())
    with contextlib.suppress(Failure):  # Damaged settings must not stop their own removal.
        settings = ClusterSettings.load()
    _check_place(settings)
    if not yes:
        if not sys.stdin.isatty():
            raise Failure("this deletes the cluster and its data: say so with --yes")
        click.confirm(f"Delete the cluster in {settings.places.data} and all its data?", abort=True)
    with processes.exclusive(settings.places):
        reset(settings)


def _check_place(settings: ClusterSettings) -> None:
    data = settings.places.data
    if not data.exists():
        return
    if not data.is_dir():
        raise Failure(f"{data} is a file: name a cluster's directory with HAVEN_DATA_DIR")
    names = set(os.listdir(data)) - {"lost+found"}
    if names and not names & set(CLUSTER_FILES):
        raise Failure(f"{data} holds no cluster but other files: name a cluster's directory with HAVEN_DATA_DIR")


def reset(settings: ClusterSettings, *, keep: frozenset[Path] = frozenset()) -> None:
    """Remove everything but the paths to keep; raise Failure naming what is left, if anything is."""
    stop_programs(settings)
    with step("removing Pods and containerd"):
        _remove_pods(settings)
    with step("removing networks"):
        remove_network(settings)
    with step("removing cgroups, mounts and files"):
        _unmount(settings)
        _remove_cgroups(settings)
        _restore_sysctls(settings)
        _remove_files(settings, keep)
    with step("looking for leftovers"):
        left = [] if keep else leftovers(settings)
        if left:
            raise Failure("these are left, remove them by hand: " + ", ".join(left))


def _remove_pods(settings: ClusterSettings) -> None:
    from haven.cli.node import remove_pods
    from haven.cri.errors import RuntimeFailure
    from haven.kubelet.containerd import MissingRuntime

    if not settings.places.containerd.exists():
        return
    try:
        remove_pods(settings)
    except (RuntimeFailure, MissingRuntime, TimeoutError, ExceptionGroup) as error:
        click.echo(f"containerd did not take its Pods down ({error}); ending them by force", err=True)
    _kill_runtime(settings)


def _kill_runtime(settings: ClusterSettings) -> None:
    """End what is left of containerd: shims, clients of its socket, and through cgroups what the shims watched over."""
    deadline = time.monotonic() + KILL_SECONDS_MAX
    while left := {*_runtime_processes(settings), *_cgroup_processes(settings)}:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            break  # The kernel holds it, in a mount that hangs for one; what is left is told at the end.
        time.sleep(0.01)


def _runtime_processes(settings: ClusterSettings) -> list[int]:
    """Return the processes that were told where this cluster's containerd listens."""
    from haven.kubelet.containerd import command_lines

    socket = str(settings.places.containerd_state / "containerd.sock").encode()
    return [pid for pid, line in command_lines() if socket in line.split(b"\0")]


def _cgroup_processes(settings: ClusterSettings) -> list[int]:
    """Return the processes of this cluster's Pods, those included that are about to end."""
    found: list[int] = []
    for top in _cgroups(settings):
        for folder, _, _ in os.walk(top):
            with contextlib.suppress(OSError):  # It is gone meanwhile.
                found += map(int, Path(folder, "cgroup.procs").read_text().split())
    return found


def _mounts(settings: ClusterSettings) -> list[str]:
    """Return the mounts below the cluster's folders, and those of Haven's on the folders themselves."""
    from haven.kubelet.mounts import is_self_bind

    places = settings.places
    roots = tuple(f"{path}/" for path in (places.data, places.run))
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    found = [point for point in points if point.startswith(roots)]
    return found + [str(path) for path in (places.data, places.run) if is_self_bind(path)]


def _unmount(settings: ClusterSettings) -> None:
    for point in sorted(_mounts(settings), key=len, reverse=True):
        subprocess.run(["umount", "-l", point], capture_output=True, check=False)


def _cgroups(settings: ClusterSettings) -> list[Path]:
    from haven.cli.node import delegation_of

    root = Path("/sys/fs/cgroup")
    delegated = root / delegation_of(settings).path.strip("/")
    bases = [root, delegated, *(path for path in root.iterdir() if path.is_dir())] if root.exists() else []
    found = {base / settings.places.cgroup for base in bases}
    return sorted(path for path in found if path.is_dir())


def _remove_cgroups(settings: ClusterSettings) -> None:
    from haven.cli.node import delegation_of

    delegation_of(settings).end()
    deadline = time.monotonic() + KILL_SECONDS_MAX
    while left := _cgroups(settings):
        for top in left:
            for folder, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)  # What was killed leaves its cgroup a moment after it is seen dead.


def _restore_sysctls(settings: ClusterSettings) -> None:
    if other_clusters(settings):
        return  # They need them as they are.
    changed: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError):
        changed = json.loads(settings.places.journal.read_text())
    for name, value in changed.items():
        with contextlib.suppress(OSError):
            Path("/proc/sys", *name.split(".")).write_text(value)


def _remove_files(settings: ClusterSettings, keep: frozenset[Path]) -> None:
    places = settings.places
    for folder in (places.run, places.pod_logs, places.container_logs, places.logs, places.data):
        if not folder.is_dir() or folder in keep:
            continue
        for entry in folder.iterdir():
            if entry in keep or entry.name == "lost+found":
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # Not empty, or a disk of its own that the user mounted there.
            folder.rmdir()
    runtime = Path("/run/containerd/runc/k8s.io")
    if runtime.is_dir() and os.listdir(runtime) == [".cache"]:  # crun's seccomp filters, translated.
        shutil.rmtree(runtime / ".cache", ignore_errors=True)
    for name in SHARED_FOLDERS:
        with contextlib.suppress(OSError):
            os.rmdir(name)
    from haven.cli.up import COMMAND_LINK
    from haven.kubelet.logind import OVERRIDE

    if not other_clusters(settings):
        OVERRIDE.unlink(missing_ok=True)  # How long logind lets Pods end; all clusters of a machine share it.

    if COMMAND_LINK.is_symlink() and COMMAND_LINK.readlink() == Path(sys.executable).parent / "haven":
        COMMAND_LINK.unlink()


def leftovers(settings: ClusterSettings) -> list[str]:
    """Return what of a cluster is still on this machine; [] after a reset."""
    from pyroute2 import IPRoute

    from haven.kubeproxy.driver import Nftables

    places = settings.places
    left = [f"mount {point}" for point in _mounts(settings)]
    left += [f"cgroup {path}" for path in _cgroups(settings)]
    left += [f"process {pid}" for pid in _runtime_processes(settings)]
    for path in (places.data, places.run, places.logs, places.pod_logs, places.container_logs):
        if path.is_dir() and (not os.path.ismount(path) or set(os.listdir(path)) - {"lost+found"}):
            left.append(f"directory {path}")
    nftables = Nftables()
    tables = nftables.run("list tables\n")
    nftables.close()
    left += [f"nft table {places.nft_table}"] * (f" {places.nft_table}\n" in tables)
    with IPRoute() as route:
        left += [f"link {places.bridge}"] * bool(route.link_lookup(ifname=places.bridge))
        labels = {item.get_attr("IFA_LABEL") for item in route.get_addr()}
        left += [f"addresses labelled {places.address_label}"] * (places.address_label in labels)
    return left

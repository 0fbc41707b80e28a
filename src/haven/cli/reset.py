"""haven reset: remove the cluster and everything it left on this machine, and prove it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import click

from haven.cli import processes
from haven.cli.failure import Failure
from haven.cli.progress import step
from haven.cli.settings import ClusterSettings

__all__ = ["command", "leftovers"]

NFT_TABLES = ("haven-services",)


@click.command(help="Remove the cluster and all it left on this machine.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(yes: bool) -> None:
    if os.geteuid() != 0:
        raise Failure("the cluster belongs to root: run sudo haven reset")
    settings = ClusterSettings.load()
    if not yes:
        if not sys.stdin.isatty():
            raise Failure("this deletes the cluster and its data: say so with --yes")
        click.confirm(f"Delete the cluster in {settings.places.data} and all its data?", abort=True)
    reset(settings)


def reset(settings: ClusterSettings) -> None:
    """Remove everything; raise Failure naming what is left, if anything is."""
    pid = processes.supervisor_pid(settings.places)
    if pid:
        with step("stopping the control plane and the agent"):
            processes.stop(pid, "haven.cli.supervisor", seconds=45)
    with step("removing Pods and containerd"):
        _remove_pods(settings)
    with step("removing networks"):
        _remove_network(settings)
    with step("removing cgroups, mounts and files"):
        _unmount(settings)
        _remove_cgroups(settings)
        _restore_sysctls(settings)
        _remove_files(settings)
    with step("looking for leftovers"):
        left = leftovers(settings)
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
    _kill_shims(settings)


def _kill_shims(settings: ClusterSettings) -> None:
    """End what containerd left running: its shims, and through their cgroups what they watched over."""
    socket = str(settings.places.containerd_state / "containerd.sock")
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if (
                "containerd-shim" in (line := (folder / "cmdline").read_bytes().decode(errors="replace"))
                and socket in line
            ):
                os.kill(int(folder.name), 9)
    for folder in _cgroups(settings):
        for tasks in folder.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                for pid in tasks.read_text().split():
                    os.kill(int(pid), 9)


def _remove_network(settings: ClusterSettings) -> None:
    import asyncio

    from haven.cli.agent import BRIDGE
    from haven.cni.driver import remove_bridge
    from haven.dns.driver import release_address
    from haven.kubeproxy import rules
    from haven.kubeproxy.driver import Nftables

    nftables = Nftables()
    nftables.run(rules.remove())
    nftables.close()
    remove_bridge(BRIDGE)
    for address in _own_addresses(settings):
        asyncio.run(release_address(address))
    _remove_host_port_chains()


def _remove_host_port_chains() -> None:
    """The portmap plugin keeps its (empty) chains in iptables' tables, which only iptables can name."""
    for program in ("iptables", "ip6tables"):
        path = shutil.which(program)
        if path is None:
            continue
        listed = subprocess.run([path, "-t", "nat", "-S"], capture_output=True, text=True, check=False).stdout
        lines = [line for line in listed.splitlines() if "CNI-" in line]
        chains = [line.split()[1] for line in lines if line.startswith("-N ")]
        for line in lines:
            if line.startswith("-A "):
                subprocess.run([path, "-t", "nat", "-D", *line.split()[1:]], capture_output=True, check=False)
        for chain in chains:
            subprocess.run([path, "-t", "nat", "-F", chain], capture_output=True, check=False)
        for chain in chains:
            subprocess.run([path, "-t", "nat", "-X", chain], capture_output=True, check=False)


def _mounts(settings: ClusterSettings) -> list[str]:
    places = settings.places
    roots = tuple(f"{path}/" for path in (places.data, places.run))
    exact = {str(places.data), str(places.run)}
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point.startswith(roots) or point in exact]


def _unmount(settings: ClusterSettings) -> None:
    for point in sorted(_mounts(settings), key=len, reverse=True):
        subprocess.run(["umount", "-l", point], capture_output=True, check=False)


def _cgroups(settings: ClusterSettings) -> list[Path]:
    root = Path("/sys/fs/cgroup")
    bases = [root, *(path for path in root.iterdir() if path.is_dir())] if root.exists() else []
    found = {base / settings.places.cgroup for base in bases}
    return sorted(path for path in found if path.is_dir())


def _remove_cgroups(settings: ClusterSettings) -> None:
    for top in _cgroups(settings):
        folders = [top, *(path for path in top.rglob("*") if path.is_dir())]
        for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
            with contextlib.suppress(OSError):
                folder.rmdir()


def _restore_sysctls(settings: ClusterSettings) -> None:
    journal = settings.places.journal
    if not journal.exists():
        return
    for name, value in json.loads(journal.read_text()).items():
        with contextlib.suppress(OSError):
            Path("/proc/sys", *name.split(".")).write_text(value)


def _remove_files(settings: ClusterSettings) -> None:
    places = settings.places
    for path in (places.data, places.run, places.logs, places.pod_logs, places.container_logs):
        shutil.rmtree(path, ignore_errors=True)
    from haven.cli.up import COMMAND_LINK

    if COMMAND_LINK.is_symlink() and COMMAND_LINK.readlink() == Path(sys.executable).parent / "haven":
        COMMAND_LINK.unlink()


def leftovers(settings: ClusterSettings) -> list[str]:
    """Return what of a cluster is still on this machine; [] after a reset."""
    from pyroute2 import IPRoute

    from haven.cli.agent import BRIDGE
    from haven.kubeproxy.driver import Nftables

    places = settings.places
    left = [f"mount {point}" for point in _mounts(settings)]
    left += [f"cgroup {path}" for path in _cgroups(settings)]
    for path in (places.data, places.run, places.logs, places.pod_logs, places.container_logs):
        if path.exists():
            left.append(f"directory {path}")
    nftables = Nftables()
    tables = nftables.run("list tables\n")
    nftables.close()
    left += [f"nft table {name}" for name in NFT_TABLES if f" {name}\n" in tables]
    with IPRoute() as route:
        left += [f"link {BRIDGE}"] * bool(route.link_lookup(ifname=BRIDGE))
        addresses = [item.get_attr("IFA_ADDRESS") for item in route.get_addr()]
        left += [f"address {address}" for address in _own_addresses(settings) if address in addresses]
    return left


def _own_addresses(settings: ClusterSettings) -> list[str]:
    return [address for address in (settings.dns_address, settings.pod_side_address) if address]

"""What the kernel must do for Pods: stack file systems, forward packets, and show bridged ones to the service rules."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path

__all__ = ["MODULES", "SYSCTLS", "load_modules", "prepare_kernel", "remove_bridge"]

MODULES = {
    # module: what is there once it is loaded, or built in
    "overlay": "sys/module/overlay",
    "br_netfilter": "proc/sys/net/bridge",
}

SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    # Pods on one bridge reach each other's Services through the host's rules only with this (node to node it is moot).
    "net/bridge/bridge-nf-call-iptables": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/bridge/bridge-nf-call-ip6tables": "1",
}


def load_modules(root: Path = Path("/")) -> None:
    """Load what is not there yet. What cannot be loaded is no error here: preflight checks tell what is missing."""
    program = shutil.which("modprobe", path="/usr/sbin:/sbin:/usr/bin:/bin")
    for name, sign in MODULES.items():
        if program is not None and not (root / sign).exists():
            subprocess.run([program, "--quiet", name], capture_output=True, check=False)


def prepare_kernel(proc: Path = Path("/proc/sys")) -> dict[str, str]:
    """Set what is not set yet; return the former values of what was changed, for undoing it.

    A switch that this kernel does not have is left out: IPv6 may be off.
    """
    changed: dict[str, str] = {}
    for name, value in SYSCTLS.items():
        path = proc / name
        with contextlib.suppress(FileNotFoundError):
            before = path.read_text().strip()
            if before != value:
                path.write_text(value)
                changed[name.replace("/", ".")] = before
    return changed


def remove_bridge(name: str) -> None:
    """Remove the Pods' bridge; one that is not there is no error."""
    from pyroute2 import IPRoute

    with IPRoute() as route:
        for index in route.link_lookup(ifname=name):
            route.link("del", index=index)

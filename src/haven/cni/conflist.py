"""The CNI configuration of a node: a bridge for its pods, addresses from its pod range, host ports.

The plugins are the distribution's (bridge, host-local, portmap, loopback); this file decides their configuration and
writes it. Masquerading is off: what leaves the cluster is kube-proxy's decision, which knows the whole pod range.
Source: https://www.cni.dev/docs/spec/
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

__all__ = ["CONFLIST_NAME", "MissingPlugins", "PodNetwork", "conflist", "plugin_directory", "remove", "write"]

CONFLIST_NAME = "10-haven.conflist"
_CNI_VERSION = "0.4.0"  # What the plugins 1.1 of Debian 12 and every containerd since 1.6 understand.
_PLUGINS = ("bridge", "host-local", "loopback", "portmap")
_PLUGIN_DIRS = ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni")


class MissingPlugins(Exception):
    """The node lacks CNI plugins; the message names them and the package that has them."""


@dataclass(frozen=True, slots=True)
class PodNetwork:
    """What the configuration depends on. `pod_cidrs` has one range per address family."""

    pod_cidrs: tuple[str, ...]
    name: str = "haven"
    bridge: str = "haven0"
    mtu: int = 0
    """0 takes the bridge's own."""
    data_directory: str = "/var/lib/cni/networks"
    """Where host-local keeps which address is taken; one per node, also on a shared file system."""
    cluster_cidrs: tuple[str, ...] = ()
    """Routed through the bridge's gateway along with the default route; informative."""


def conflist(network: PodNetwork) -> dict[str, object]:
    """Return the configuration list as a tree; raise ValueError if a pod range is not one."""
    if not network.pod_cidrs:
        raise ValueError("a node's network needs at least one pod range")
    ranges = [ipaddress.ip_network(cidr) for cidr in network.pod_cidrs]
    bridge: dict[str, object] = {
        "type": "bridge",
        "bridge": network.bridge,
        "isGateway": True,
        "isDefaultGateway": False,
        # Lets a pod reach itself through its own Service.
        "hairpinMode": True,
        "ipMasq": False,
        "forceAddress": False,
        "ipam": {
            "type": "host-local",
            "dataDir": network.data_directory,
            "ranges": [[{"subnet": str(item)}] for item in ranges],
            "routes": [{"dst": "0.0.0.0/0" if item.version == 4 else "::/0"} for item in ranges],
        },
    }
    if network.mtu:
        bridge["mtu"] = network.mtu
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
    return {"cniVersion": _CNI_VERSION, "name": network.name, "plugins": [bridge, portmap]}


def write(network: PodNetwork, directory: Path) -> bool:
    """Put the configuration into a directory, at once or not at all; return whether anything changed."""
    content = msgspec.json.format(msgspec.json.encode(conflist(network)), indent=2) + b"\n"
    path = directory / CONFLIST_NAME
    if path.exists() and path.read_bytes() == content:
        return False
    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / f".{CONFLIST_NAME}.new"
    partial.write_bytes(content)
    os.replace(partial, path)
    return True


def remove(directory: Path) -> None:
    """Take the configuration away; the runtime then reports its network as not ready."""
    (directory / CONFLIST_NAME).unlink(missing_ok=True)


def plugin_directory(directories: Sequence[str] = _PLUGIN_DIRS) -> Path:
    """Return the directory that has all plugins; raise MissingPlugins if none has."""
    best: tuple[list[str], str] | None = None
    for directory in directories:
        missing = [plugin for plugin in _PLUGINS if not os.access(os.path.join(directory, plugin), os.X_OK)]
        if not missing:
            return Path(directory)
        if best is None or len(missing) < len(best[0]):
            best = (missing, directory)
    assert best is not None
    raise MissingPlugins(
        f"CNI plugins are missing in {best[1]}: {', '.join(best[0])}; install the package containernetworking-plugins"
    )

"""What a cluster puts into this machine's network besides its Pods' links, and taking it away."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import subprocess
from pathlib import Path

from haven.cli.settings import ClusterSettings

__all__ = ["other_clusters", "remove_network"]


def remove_network(settings: ClusterSettings) -> None:
    """Remove the Pods' bridge, the service rules, the cluster's own addresses and the host ports' empty chains."""
    from haven.cni.driver import remove_bridge
    from haven.dns.driver import release_address
    from haven.kubeproxy import rules
    from haven.kubeproxy.driver import Nftables

    nftables = Nftables()
    places = settings.places
    nftables.run(rules.remove(places.nft_table))
    nftables.close()
    remove_bridge(places.bridge)
    for address in _own_addresses(settings):
        asyncio.run(release_address(address, places.address_label))
    if not other_clusters(settings):
        _remove_host_port_chains()


def other_clusters(settings: ClusterSettings) -> list[str]:
    """Return the bridges of other clusters on this machine."""
    links = [path.name for path in Path("/sys/class/net").iterdir()]
    return [name for name in links if (name == "haven0" or name.startswith("hv-")) and name != settings.places.bridge]


def _remove_host_port_chains() -> None:
    """The portmap plugin keeps its chains in iptables' tables, which only iptables can name.

    Pods took their own rules with them; what is left is empty, unless other programs of this machine use the plugin.
    """
    for program in ("iptables", "ip6tables"):
        path = shutil.which(program)
        if path is None:
            continue
        listed = subprocess.run([path, "-t", "nat", "-S"], capture_output=True, text=True, check=False).stdout
        lines = [line for line in listed.splitlines() if "CNI-" in line]
        if any(line.startswith("-A CNI-HOSTPORT-DNAT") for line in lines):
            continue  # A host port of somebody else's Pod.
        for line in lines:
            if line.startswith("-A "):
                subprocess.run([path, "-t", "nat", "-D", *shlex.split(line)[1:]], capture_output=True, check=False)
        for chain in [line.split()[1] for line in lines if line.startswith("-N ")]:
            subprocess.run([path, "-t", "nat", "-X", chain], capture_output=True, check=False)


def _own_addresses(settings: ClusterSettings) -> list[str]:
    return [address for address in (settings.dns_address, settings.pod_side_address) if address]

"""The settings of a cluster on this machine: chosen at the first `haven up`, then kept with its data."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import socket
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from haven.cli.failure import Failure
from haven.cli.places import Places

__all__ = ["ClusterSettings", "kept_settings", "places_of_environment"]


@dataclass(frozen=True)
class ClusterSettings:
    """What `haven up` builds. Paths come from HAVEN_DATA_DIR where several clusters share a machine."""

    node_name: str = field(default_factory=lambda: socket.gethostname().split(".")[0].lower())
    listen: str = "127.0.0.1"  # Nothing listens beyond loopback unless asked.
    api_port: int = 6443
    kubelet_port: int = 10250
    pod_cidr: str = "10.244.0.0/24"
    service_cidr: str = "10.96.0.0/16"
    dns_address: str = "10.96.0.10"
    cluster_domain: str = "cluster.local"
    node_port_first: int = 30000
    node_port_last: int = 32767
    etcd_servers: str = ""  # Addresses with commas between; "" keeps the state in SQLite.
    etcd_cafile: str = ""
    etcd_certfile: str = ""
    etcd_keyfile: str = ""
    server_workers: int = 1  # Processes of the control plane that share its port; more than one needs etcd.
    runtime: str = ""  # crun or runc; "" takes crun where it is installed.
    server: dict[str, str | list[str]] = field(default_factory=dict)
    """Flags of the API server, by upstream's names: {"audit-policy-file": "/etc/haven/audit.yaml"}."""
    shutdown_grace_seconds: int = 0  # How long a shutdown of the machine waits for Pods; of it, for critical ones:
    shutdown_grace_critical_seconds: int = 0
    places: Places = field(default_factory=Places)

    @property
    def is_made(self) -> bool:
        """Whether the cluster was started before: some of its settings can then no longer change."""
        mark = self.places.admin_kubeconfig if self.etcd_servers else self.places.store
        return mark.exists()

    @property
    def pod_network(self) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        """The addresses of Pods, parsed."""
        return ipaddress.ip_network(self.pod_cidr)

    @property
    def pod_side_address(self) -> str:
        """Where Pods reach the API server: the first address of their network, since loopback is not theirs.

        "" when it listens for other machines anyway.
        """
        if not self.listen.startswith("127."):
            return ""
        return str(next(ipaddress.ip_network(self.pod_cidr).hosts()))

    @property
    def api_url(self) -> str:
        """Where this machine's programs reach the API server."""
        host = "127.0.0.1" if self.listen in ("0.0.0.0", "::") else self.listen
        return f"https://[{host}]:{self.api_port}" if ":" in host else f"https://{host}:{self.api_port}"

    @classmethod
    def load(cls) -> ClusterSettings:
        """Return the settings kept with the data, or the defaults before the first start."""
        places = places_of_environment()
        return cls(**kept_settings(places), places=places)

    def save(self) -> None:
        """Keep the settings with the data."""
        self.places.data.mkdir(parents=True, exist_ok=True)
        kept: dict[str, Any] = {name: value for name, value in asdict(self).items() if name != "places"}
        temporary = self.places.settings.with_suffix(".new")
        temporary.write_text(json.dumps(kept, indent=1) + "\n")
        os.replace(temporary, self.places.settings)

    def complaints(self) -> list[str]:
        """Return everything that is wrong with the settings, each with its fix."""
        wrong = []
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", self.node_name) or len(self.node_name) > 253:
            wrong.append(f"node name {self.node_name!r} is no DNS name: use --node-name with lower-case letters and -")
        networks = []
        for name in ("pod_cidr", "service_cidr"):
            try:
                networks.append(ipaddress.ip_network(getattr(self, name)))
            except ValueError as error:
                wrong.append(f"--{name.replace('_', '-')}: {error}")
        if len(networks) == 2 and networks[0].overlaps(networks[1]):
            wrong.append(f"--pod-cidr {self.pod_cidr} and --service-cidr {self.service_cidr} overlap: choose others")
        try:
            if len(networks) == 2 and ipaddress.ip_address(self.dns_address) not in networks[1]:
                wrong.append(f"--dns-address {self.dns_address} is not inside --service-cidr {self.service_cidr}")
            ipaddress.ip_address(self.listen)
        except ValueError as error:
            wrong.append(f"--dns-address, --listen: {error}")
        if not 0 <= self.shutdown_grace_critical_seconds <= self.shutdown_grace_seconds:
            wrong.append(
                "--shutdown-grace-critical-seconds is a part of --shutdown-grace-seconds: choose 0 to that many"
            )
        if self.api_port == self.kubelet_port:
            wrong.append(f"--api-port and --kubelet-port are both {self.api_port}: choose two")
        for name in ("api_port", "kubelet_port", "node_port_first", "node_port_last"):
            if not 0 < getattr(self, name) < 65536:
                wrong.append(f"--{name.replace('_', '-')} {getattr(self, name)} is no port: use 1 to 65535")
        if self.server_workers < 1:
            wrong.append(f"--server-workers {self.server_workers} is too few: use 1 or more")
        if self.server_workers > 1 and not self.etcd_servers:
            wrong.append("--server-workers above 1 needs a store that processes can share: give --etcd-servers too")
        for name in ("etcd_cafile", "etcd_certfile", "etcd_keyfile"):
            if getattr(self, name) and not self.etcd_servers:
                wrong.append(f"--{name.replace('_', '-')} means nothing without --etcd-servers")
        return wrong


_KINDS: dict[str, type[Any]] = {"int": int, "str": str}
_WORDS: dict[type[Any], str] = {int: "number", str: "text", dict: "object"}


def kept_settings(places: Places) -> dict[str, Any]:
    """Return what was chosen and kept, {} before the first start; raise Failure if it is damaged."""
    path = places.settings
    try:
        kept = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except NotADirectoryError:
        raise Failure(f"{places.data} is a file: name a directory with HAVEN_DATA_DIR") from None
    except PermissionError:
        raise Failure(f"{path} cannot be read: run it as root (sudo haven …)") from None
    except ValueError as error:
        raise Failure(f"{path} is damaged ({error}): mend it, or remove it to begin with the defaults") from None
    kinds = {item.name: _KINDS.get(str(item.type), dict) for item in fields(ClusterSettings) if item.name != "places"}
    if not isinstance(kept, dict):
        raise Failure(f"{path} is damaged (no object): mend it, or remove it to begin with the defaults")
    wrong = [name for name, kind in kinds.items() if name in kept and type(kept[name]) is not kind]
    if wrong:
        names = ", ".join(f"{name} is no {_WORDS[kinds[name]]}" for name in wrong)
        raise Failure(f"{path} is damaged ({names}): mend it, or remove it to begin with the defaults")
    return {name: value for name, value in kept.items() if name in kinds}


def places_of_environment() -> Places:
    """Return where the cluster lives: the usual places, or all below HAVEN_DATA_DIR."""
    data = os.environ.get("HAVEN_DATA_DIR")
    if not data:
        return Places()
    root = Path(data).resolve()
    return Places(
        data=root,
        run=root / "run",
        logs=root / "log",
        pod_logs=root / "log" / "pods",
        container_logs=root / "log" / "containers",
    )

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

__all__ = ["ClusterSettings"]


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
    runtime: str = ""  # crun or runc; "" takes crun where it is installed.
    places: Places = field(default_factory=Places)

    @property
    def pod_side_address(self) -> str:
        """Where Pods reach the API server: the first address of their network, since loopback is not theirs.

        "" when it listens for other machines anyway.
        """
        if not self.listen.startswith("127."):
            return ""
        return str(next(ipaddress.ip_network(self.pod_cidr).hosts()))

    @classmethod
    def load(cls) -> ClusterSettings:
        """Return the settings kept with the data, or the defaults before the first start."""
        places = places_of_environment()
        try:
            kept = json.loads(places.settings.read_text())
        except FileNotFoundError:
            kept = {}
        except PermissionError:
            raise Failure(f"{places.settings} cannot be read: run it as root (sudo haven …)") from None
        except json.JSONDecodeError as error:
            raise Failure(f"{places.settings} is damaged ({error}): restore it, or run haven reset") from None
        known = {item.name for item in fields(cls)} - {"places"}
        return cls(**{name: value for name, value in kept.items() if name in known}, places=places)

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
        if len(networks) == 2 and ipaddress.ip_address(self.dns_address) not in networks[1]:
            wrong.append(f"--dns-address {self.dns_address} is not inside --service-cidr {self.service_cidr}")
        for name in ("api_port", "kubelet_port", "node_port_first", "node_port_last"):
            if not 0 < getattr(self, name) < 65536:
                wrong.append(f"--{name.replace('_', '-')} {getattr(self, name)} is no port: use 1 to 65535")
        return wrong


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

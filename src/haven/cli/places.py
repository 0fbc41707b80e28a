"""Where a cluster lives on this machine."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Places"]


@dataclass(frozen=True)
class Places:
    """All paths of one cluster on this machine; nothing else is written outside of what the journal records.

    `data` survives reboots, `run` does not need to.
    """

    data: Path = Path("/var/lib/haven")
    run: Path = Path("/run/haven")
    logs: Path = Path("/var/log/haven")
    pod_logs: Path = Path("/var/log/pods")
    container_logs: Path = Path("/var/log/containers")
    cni_bin: Path = Path("/usr/lib/cni")

    @property
    def tag(self) -> str:
        """What tells apart the names that clusters on one machine give to things outside their folders.

        "" in the usual place: most machines have one cluster, and its names should be plain.
        """
        if self.data == Path("/var/lib/haven"):
            return ""
        return hashlib.sha256(str(self.data).encode()).hexdigest()[:8]

    @property
    def cgroup(self) -> str:
        """The name of the cgroup of all Pods."""
        return f"kubepods-{self.tag}" if self.tag else "kubepods"

    @property
    def scope(self) -> str:
        """systemd's name for what all Pods run in."""
        return f"haven-pods-{self.tag}.scope" if self.tag else "haven-pods.scope"

    @property
    def bridge(self) -> str:
        """The link that joins all Pods; the kernel allows 15 characters."""
        return f"hv-{self.tag}" if self.tag else "haven0"

    @property
    def address_label(self) -> str:
        """The label of the addresses that the loopback interface gets; the kernel wants the interface's name first."""
        return f"lo:hv-{self.tag}" if self.tag else "lo:haven"

    @property
    def nft_table(self) -> str:
        """The table of the service rules."""
        return f"haven-services-{self.tag}" if self.tag else "haven-services"

    @property
    def cni_network(self) -> str:
        """The name of the Pods' network, which the portmap plugin writes beside each of its rules."""
        return f"haven-{self.tag}" if self.tag else "haven"

    @property
    def kubelet(self) -> Path:
        return self.data / "kubelet"

    @property
    def containerd(self) -> Path:
        return self.data / "containerd"

    @property
    def cni_conf(self) -> Path:
        return self.data / "cni" / "net.d"

    @property
    def cni_state(self) -> Path:
        """Which address each Pod has (host-local)."""
        return self.data / "cni" / "networks"

    @property
    def store(self) -> Path:
        return self.data / "store.db"

    @property
    def pki(self) -> Path:
        return self.data / "pki"

    @property
    def admin_kubeconfig(self) -> Path:
        return self.pki / "admin.conf"

    @property
    def settings(self) -> Path:
        return self.data / "settings.json"

    @property
    def journal(self) -> Path:
        return self.data / "journal.json"

    @property
    def supervisor_pid(self) -> Path:
        return self.run / "supervisor.pid"

    @property
    def supervisor_state(self) -> Path:
        return self.run / "supervisor.json"

    @property
    def containerd_state(self) -> Path:
        return self.run / "containerd"

    @property
    def manifests(self) -> Path:
        return self.data / "manifests"

    def log(self, component: str) -> Path:
        """Return the log file of server, agent, containerd or supervisor."""
        return self.logs / f"{component}.log"

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
    def cgroup(self) -> str:
        """The name of the cgroup of all Pods; clusters in other places have names of their own."""
        if self.data == Path("/var/lib/haven"):
            return "kubepods"
        return f"kubepods-{hashlib.sha256(str(self.data).encode()).hexdigest()[:8]}"

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

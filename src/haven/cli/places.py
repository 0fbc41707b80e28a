"""Where a cluster lives on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Places"]


@dataclass(frozen=True)
class Places:
    """All paths of one cluster on this machine; nothing else is written outside of what the journal records.

    `data` survives reboots, `run` does not need to. The kubelet's folder has upstream's path because CSI drivers and
    node agents have it built in.
    """

    data: Path = Path("/var/lib/haven")
    run: Path = Path("/run/haven")
    kubelet: Path = Path("/var/lib/kubelet")
    logs: Path = Path("/var/log/haven")
    pod_logs: Path = Path("/var/log/pods")
    cni_conf: Path = Path("/var/lib/haven/cni/net.d")
    cni_bin: Path = Path("/usr/lib/cni")

    @property
    def store(self) -> Path:
        return self.data / "store.db"

    @property
    def pki(self) -> Path:
        return self.data / "pki"

    @property
    def admin_kubeconfig(self) -> Path:
        return self.data / "admin.kubeconfig"

    @property
    def settings(self) -> Path:
        return self.data / "settings.json"

    @property
    def journal(self) -> Path:
        return self.data / "journal.jsonl"

    @property
    def supervisor_pid(self) -> Path:
        return self.run / "supervisor.pid"

    @property
    def supervisor_state(self) -> Path:
        return self.run / "supervisor.json"

    @property
    def containerd_socket(self) -> Path:
        return self.run / "containerd" / "containerd.sock"

    @property
    def manifests(self) -> Path:
        return self.data / "manifests"

    def log(self, component: str) -> Path:
        """Return the log file of server, agent, containerd or supervisor."""
        return self.logs / f"{component}.log"

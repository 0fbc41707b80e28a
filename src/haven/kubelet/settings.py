"""What a node agent needs to be told. Parsed and checked by haven.cli; nothing here reads flags or files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from haven.apimachinery.quantity import Quantity
from haven.kubelet.eviction import EvictionSettings
from haven.kubelet.images import ImageSettings
from haven.kubelet.shutdownplan import ShutdownSettings

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """One node. Durations are in seconds; defaults are upstream's unless a reason is given."""

    node_name: str
    hostname: str = ""
    """What the node calls itself; "" takes node_name."""
    node_ips: tuple[str, ...] = ()
    """Addresses to report, at most one per family; () takes the one of the default route."""
    root_directory: Path = Path("/var/lib/kubelet")
    pod_logs_directory: Path = Path("/var/log/pods")
    container_logs_directory: Path = Path("/var/log/containers")
    manifest_directory: Path | None = None
    """Static pods; None for none."""
    cni_conf_directory: Path | None = None
    """Where to write the pod network's configuration when the node has a pod range; None if someone else does."""
    cni_data_directory: str = "/var/lib/cni/networks"
    cni_bridge: str = "haven0"
    cni_network: str = "haven"
    """The network's name, by which the plugins keep apart what belongs to which cluster of a host."""
    pod_cidr: str = ""
    """The pod range where no controller gives one (spec.podCIDR)."""
    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    resolver_config: str = "/etc/resolv.conf"
    cgroup_root: str = "/kubepods"
    server_port: int = 10250
    max_pods: int = 110
    pod_pids_max: int | None = None
    register_node: bool = True
    node_labels: dict[str, str] = field(default_factory=dict)
    node_taints: tuple[tuple[str, str, str], ...] = ()
    """Key, value, effect; only set when the node is registered for the first time."""
    system_reserved: dict[str, Quantity] = field(default_factory=dict)
    provider_id: str = ""
    node_status_update_seconds: float = 10.0
    node_status_report_seconds: float = 300.0
    """How often an unchanged status is written."""
    lease_duration_seconds: int = 40
    sync_seconds: float = 60.0
    """How often a pod is looked at although nothing happened."""
    housekeeping_seconds: float = 2.0
    sandbox_starts_max: int = 4
    """Measured: more at once makes all of them slower on 2 cores."""
    crash_backoff_seconds: float = 10.0
    crash_backoff_seconds_max: float = 300.0
    container_log_bytes_max: int = 10 * 1024 * 1024
    container_log_files_max: int = 5
    container_log_check_seconds: float = 10.0
    dead_containers_per_container_max: int = 1
    seccomp_default: bool = False
    version: str = "v1.36.2+haven"
    allowed_unsafe_sysctls: tuple[str, ...] = ()
    event_burst: int = 100
    images: ImageSettings = field(default_factory=ImageSettings)
    eviction: EvictionSettings = field(default_factory=EvictionSettings)
    shutdown: ShutdownSettings = field(default_factory=ShutdownSettings)

    @property
    def reported_hostname(self) -> str:
        return self.hostname or self.node_name

    @property
    def seccomp_directory(self) -> Path:
        return self.root_directory / "seccomp"

    def pod_directory(self, uid: str) -> Path:
        """Return where everything of a pod on this node lives."""
        return self.root_directory / "pods" / uid

"""What a container runtime tells: its abilities, what it holds, and what that uses, in typed values.

Times are integers in nanoseconds since 1970, as CRI has them; 0 means "never".
Source: https://github.com/kubernetes/cri-api (CRI v1)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from haven.cri.requests import LinuxResources, NamespaceMode

__all__ = [
    "ContainerEvent",
    "ContainerInfo",
    "ContainerState",
    "ContainerStats",
    "ContainerStatus",
    "ContainerUser",
    "ExecResult",
    "Features",
    "FilesystemUsage",
    "HandlerFeatures",
    "Image",
    "NetworkUsage",
    "PodStats",
    "RuntimeCondition",
    "RuntimeStatus",
    "SandboxInfo",
    "SandboxState",
    "SandboxStatus",
    "Version",
]


class ContainerState(Enum):
    """Where a container is in its life; values are CRI's numbers."""

    CREATED = 0
    RUNNING = 1
    EXITED = 2
    UNKNOWN = 3


class SandboxState(Enum):
    """Whether a sandbox can hold containers; values are CRI's numbers."""

    READY = 0
    NOT_READY = 1


@dataclass(frozen=True, slots=True)
class Version:
    """Who answers: for example containerd 1.6.20, API v1."""

    runtime_name: str
    runtime_version: str
    api_version: str


@dataclass(frozen=True, slots=True)
class RuntimeCondition:
    """RuntimeReady or NetworkReady, and why not."""

    type: str
    status: bool
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class HandlerFeatures:
    """What one runtime handler (runtime class) can do."""

    name: str
    recursive_read_only_mounts: bool = False
    user_namespaces: bool = False


@dataclass(frozen=True, slots=True)
class RuntimeStatus:
    """The runtime's health and abilities. `handlers` is empty on runtimes that cannot tell."""

    conditions: tuple[RuntimeCondition, ...]
    handlers: tuple[HandlerFeatures, ...] = ()
    supplemental_groups_policy: bool = False

    def condition(self, type: str) -> RuntimeCondition | None:
        """Return the condition of that type."""
        return next((condition for condition in self.conditions if condition.type == type), None)


@dataclass(frozen=True, slots=True)
class Features:
    """What a runtime offers beyond the base of CRI v1, found out by asking it once."""

    container_events: bool
    runtime_config: bool
    systemd_cgroups: bool | None
    """What RuntimeConfig says; None where the runtime cannot tell."""
    handlers: tuple[HandlerFeatures, ...] = ()

    def handler(self, name: str) -> HandlerFeatures:
        """Return the abilities of a handler; one that the runtime does not describe has none."""
        return next((handler for handler in self.handlers if handler.name == name), HandlerFeatures(name))


@dataclass(frozen=True, slots=True)
class SandboxInfo:
    """A sandbox, as a list shows it."""

    id: str
    name: str
    namespace: str
    uid: str
    attempt: int
    state: SandboxState
    created_at: int
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    runtime_handler: str = ""


@dataclass(frozen=True, slots=True)
class SandboxStatus:
    """A sandbox with its addresses. `pid` is the init process, 0 where the runtime does not tell."""

    info: SandboxInfo
    ips: tuple[str, ...] = ()
    network: NamespaceMode = NamespaceMode.POD
    netns: str = ""
    pid: int = 0


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """A container, as a list shows it."""

    id: str
    sandbox_id: str
    name: str
    attempt: int
    image: str
    image_ref: str
    state: ContainerState
    created_at: int
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    image_id: str = ""


@dataclass(frozen=True, slots=True)
class ContainerUser:
    """Who the first process of a container was started as."""

    uid: int
    gid: int
    supplemental_groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ContainerStatus:
    """A container in full."""

    id: str
    name: str
    attempt: int
    state: ContainerState
    created_at: int
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    image: str = ""
    image_ref: str = ""
    image_id: str = ""
    reason: str = ""
    message: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    log_path: str = ""
    resources: LinuxResources | None = None
    user: ContainerUser | None = None
    stop_signal: str = ""
    pid: int = 0


@dataclass(frozen=True, slots=True)
class Image:
    """An image in the runtime's store. `user` is numeric (uid) or a name (username), from the image's config."""

    id: str
    repo_tags: tuple[str, ...]
    repo_digests: tuple[str, ...]
    size_bytes: int
    uid: int | None = None
    username: str = ""
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What a command in a container printed and returned."""

    stdout: bytes
    stderr: bytes
    exit_code: int


@dataclass(frozen=True, slots=True)
class ContainerEvent:
    """Something happened to a container or sandbox; ask for the state, do not trust the order."""

    container_id: str
    pod_uid: str


@dataclass(frozen=True, slots=True)
class ContainerStats:
    """What a container uses now."""

    id: str
    name: str
    labels: Mapping[str, str]
    timestamp: int = 0
    cpu_usage_core_nanoseconds: int = 0
    cpu_usage_nanocores: int = 0
    memory_working_set_bytes: int = 0
    memory_usage_bytes: int = 0
    memory_rss_bytes: int = 0
    memory_available_bytes: int = 0
    memory_page_faults: int = 0
    memory_major_page_faults: int = 0
    writable_layer_bytes: int = 0
    writable_layer_inodes: int = 0


@dataclass(frozen=True, slots=True)
class NetworkUsage:
    """Counters of one interface."""

    name: str
    rx_bytes: int = 0
    rx_errors: int = 0
    tx_bytes: int = 0
    tx_errors: int = 0


@dataclass(frozen=True, slots=True)
class PodStats:
    """What a sandbox uses now; `containers` may be empty where the runtime does not tell."""

    id: str
    name: str
    namespace: str
    uid: str
    timestamp: int = 0
    cpu_usage_core_nanoseconds: int = 0
    cpu_usage_nanocores: int = 0
    memory_working_set_bytes: int = 0
    memory_usage_bytes: int = 0
    memory_rss_bytes: int = 0
    interfaces: tuple[NetworkUsage, ...] = ()
    process_count: int = 0
    containers: tuple[ContainerStats, ...] = ()


@dataclass(frozen=True, slots=True)
class FilesystemUsage:
    """How much the image store uses, and where it is."""

    mountpoint: str
    used_bytes: int
    inodes_used: int
    timestamp: int = 0

"""CRI v1 in typed values: what a node asks of its container runtime and what it hears back.

Only what Haven uses is here. Times are integers in nanoseconds since 1970, as CRI has them; 0 means "never".
`Runtime` has two implementations, haven.cri.driver (gRPC: containerd, cri-o) and haven.cri.fake, which pass one
contract suite.
Source: https://github.com/kubernetes/cri-api (CRI v1)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

__all__ = [
    "Auth",
    "ContainerConfig",
    "ContainerEvent",
    "ContainerInfo",
    "ContainerState",
    "ContainerStats",
    "ContainerStatus",
    "ContainerUser",
    "DNSConfig",
    "Device",
    "ExecResult",
    "Features",
    "FilesystemUsage",
    "HandlerFeatures",
    "Image",
    "LinuxResources",
    "Mount",
    "NamespaceMode",
    "NamespaceOptions",
    "NetworkUsage",
    "PodStats",
    "PortMapping",
    "Propagation",
    "Runtime",
    "RuntimeCondition",
    "RuntimeStatus",
    "SandboxConfig",
    "SandboxInfo",
    "SandboxState",
    "SandboxStatus",
    "SeccompProfile",
    "SecurityContext",
    "UserNamespace",
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


class NamespaceMode(Enum):
    """Whose Linux namespace a container uses; values are CRI's numbers."""

    POD = 0
    CONTAINER = 1
    NODE = 2
    TARGET = 3


class Propagation(Enum):
    """How mounts made later travel between host and container; values are CRI's numbers."""

    PRIVATE = 0
    HOST_TO_CONTAINER = 1
    BIDIRECTIONAL = 2


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
class UserNamespace:
    """A user namespace: `uids` and `gids` are (host, container, length)."""

    mode: NamespaceMode
    uids: tuple[tuple[int, int, int], ...] = ()
    gids: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class NamespaceOptions:
    """Which namespaces are shared. CRI's zero value of `pid` is POD, a shared one: always say what you mean."""

    network: NamespaceMode = NamespaceMode.POD
    pid: NamespaceMode = NamespaceMode.CONTAINER
    ipc: NamespaceMode = NamespaceMode.POD
    target_id: str = ""
    userns: UserNamespace | None = None


@dataclass(frozen=True, slots=True)
class SeccompProfile:
    """`kind` is RuntimeDefault, Unconfined or Localhost; `path` is for Localhost."""

    kind: str
    path: str = ""


@dataclass(frozen=True, slots=True)
class SecurityContext:
    """The Linux security of a sandbox or a container; a sandbox uses only the fields that CRI has for it."""

    namespaces: NamespaceOptions = NamespaceOptions()
    privileged: bool = False
    run_as_user: int | None = None
    run_as_username: str = ""
    run_as_group: int | None = None
    readonly_rootfs: bool = False
    supplemental_groups: tuple[int, ...] = ()
    supplemental_groups_strict: bool = False
    no_new_privs: bool = False
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    seccomp: SeccompProfile | None = None
    apparmor: SeccompProfile | None = None
    selinux: tuple[str, str, str, str] | None = None
    """User, role, type, level."""


@dataclass(frozen=True, slots=True)
class LinuxResources:
    """cgroup limits of a container or a pod. 0 means "not set"."""

    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_shares: int = 0
    memory_limit_bytes: int = 0
    memory_swap_limit_bytes: int = 0
    oom_score_adj: int = 0
    cpuset_cpus: str = ""
    hugepage_limits: tuple[tuple[str, int], ...] = ()
    unified: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PortMapping:
    """A host port that leads to a container port."""

    protocol: str
    container_port: int
    host_port: int
    host_ip: str = ""


@dataclass(frozen=True, slots=True)
class DNSConfig:
    """The lines of a resolv.conf."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """A sandbox to run. `hostname` must be "" when the pod uses the node's network."""

    name: str
    namespace: str
    uid: str
    attempt: int = 0
    hostname: str = ""
    log_directory: str = ""
    dns: DNSConfig | None = None
    port_mappings: tuple[PortMapping, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    cgroup_parent: str = ""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    security: SecurityContext = SecurityContext()
    overhead: LinuxResources | None = None
    resources: LinuxResources | None = None


@dataclass(frozen=True, slots=True)
class Mount:
    """A host path (or, with `image`, an image's files) inside a container."""

    container_path: str
    host_path: str = ""
    readonly: bool = False
    recursive_read_only: bool = False
    propagation: Propagation = Propagation.PRIVATE
    selinux_relabel: bool = False
    image: str = ""
    image_sub_path: str = ""


@dataclass(frozen=True, slots=True)
class Device:
    """A device node inside a container."""

    container_path: str
    host_path: str
    permissions: str = "mrw"


@dataclass(frozen=True, slots=True)
class ContainerConfig:
    """A container to create. `image` is what the runtime knows (an id), `user_image` what the pod says."""

    name: str
    image: str
    attempt: int = 0
    user_image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    log_path: str = ""
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    resources: LinuxResources = LinuxResources()
    security: SecurityContext = SecurityContext()
    stop_signal: str = ""


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
class Auth:
    """What a registry wants to see."""

    username: str = ""
    password: str = ""
    auth: str = ""
    server_address: str = ""
    identity_token: str = ""
    registry_token: str = ""


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


class Runtime(Protocol):
    """CRI v1. Every call raises a haven.cri.errors.RuntimeFailure when the runtime refuses or fails it."""

    async def version(self) -> Version:
        """Return who answers."""
        ...

    async def status(self) -> RuntimeStatus:
        """Return health and abilities."""
        ...

    async def features(self) -> Features:
        """Return what this runtime can do beyond the base of CRI v1."""
        ...

    async def update_pod_cidr(self, pod_cidr: str) -> None:
        """Tell the runtime the node's pod range."""
        ...

    async def run_sandbox(self, config: SandboxConfig, runtime_handler: str = "") -> str:
        """Create and start a sandbox, network included; return its id."""
        ...

    async def stop_sandbox(self, sandbox_id: str) -> None:
        """Stop everything in the sandbox and free its network; nothing to do is success."""
        ...

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """Remove the sandbox and its containers; a sandbox that is gone is success."""
        ...

    async def sandbox_status(self, sandbox_id: str, *, verbose: bool = False) -> SandboxStatus:
        """Return the sandbox; `netns` and `pid` only when verbose."""
        ...

    async def list_sandboxes(self, labels: Mapping[str, str] | None = None) -> Sequence[SandboxInfo]:
        """Return all sandboxes, or those that carry all of `labels`."""
        ...

    async def create_container(self, sandbox_id: str, config: ContainerConfig, sandbox: SandboxConfig) -> str:
        """Create a container in a sandbox; return its id."""
        ...

    async def start_container(self, container_id: str) -> None:
        """Start a created container."""
        ...

    async def stop_container(self, container_id: str, timeout_seconds: int) -> None:
        """Send the stop signal, kill after the timeout; a container that is gone is success."""
        ...

    async def remove_container(self, container_id: str) -> None:
        """Remove a container, running or not; a container that is gone is success."""
        ...

    async def container_status(self, container_id: str, *, verbose: bool = False) -> ContainerStatus:
        """Return the container; `pid` only when verbose."""
        ...

    async def list_containers(
        self, *, sandbox_id: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[ContainerInfo]:
        """Return all containers, or those of a sandbox, or those that carry all of `labels`."""
        ...

    async def update_container_resources(self, container_id: str, resources: LinuxResources) -> None:
        """Change the limits of a running container."""
        ...

    async def reopen_container_log(self, container_id: str) -> None:
        """Open the log file anew, after it was renamed."""
        ...

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_seconds: float) -> ExecResult:
        """Run a command to its end; raise DeadlineExceeded after the timeout (0 means none)."""
        ...

    async def exec_url(
        self, container_id: str, command: Sequence[str], *, tty: bool, stdin: bool, stdout: bool, stderr: bool
    ) -> str:
        """Return the URL where the command's streams are served."""
        ...

    async def attach_url(self, container_id: str, *, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> str:
        """Return the URL where the container's streams are served."""
        ...

    async def port_forward_url(self, sandbox_id: str, ports: Sequence[int]) -> str:
        """Return the URL where connections into the sandbox are served."""
        ...

    async def list_images(self) -> Sequence[Image]:
        """Return all images."""
        ...

    async def image_status(self, image: str) -> Image | None:
        """Return an image by name or id, None if it is not there."""
        ...

    async def pull_image(self, image: str, auth: Auth | None = None, sandbox: SandboxConfig | None = None) -> str:
        """Fetch an image; return its id."""
        ...

    async def remove_image(self, image: str) -> None:
        """Remove an image; one that is gone is success."""
        ...

    async def image_filesystem(self) -> Sequence[FilesystemUsage]:
        """Return what images and layers use."""
        ...

    async def container_stats(self) -> Sequence[ContainerStats]:
        """Return the use of all running containers."""
        ...

    async def pod_stats(self) -> Sequence[PodStats]:
        """Return the use of all ready sandboxes."""
        ...

    def events(self) -> AsyncIterator[ContainerEvent]:
        """Yield events until the stream breaks; raise Unimplemented where there are none."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...

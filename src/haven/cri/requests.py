"""What a node asks of its container runtime: sandboxes and containers to make, in typed values.

Source: https://github.com/kubernetes/cri-api (CRI v1)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

__all__ = [
    "Auth",
    "ContainerConfig",
    "DNSConfig",
    "Device",
    "LinuxResources",
    "Mount",
    "NamespaceMode",
    "NamespaceOptions",
    "PortMapping",
    "Propagation",
    "SandboxConfig",
    "SeccompProfile",
    "SecurityContext",
    "UserNamespace",
]


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
class Auth:
    """What a registry wants to see."""

    username: str = ""
    password: str = ""
    auth: str = ""
    server_address: str = ""
    identity_token: str = ""
    registry_token: str = ""

"""CRI v1 as a Protocol: what a node asks of its container runtime and what it hears back.

Only what Haven uses is here. `Runtime` has two implementations, haven.cri.driver (gRPC: containerd, cri-o) and
haven.cri.fake, which pass one contract suite.
Source: https://github.com/kubernetes/cri-api (CRI v1)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from haven.cri.reports import (
    ContainerEvent,
    ContainerInfo,
    ContainerState,
    ContainerStats,
    ContainerStatus,
    ContainerUser,
    ExecResult,
    Features,
    FilesystemUsage,
    HandlerFeatures,
    Image,
    NetworkUsage,
    PodStats,
    RuntimeCondition,
    RuntimeStatus,
    SandboxInfo,
    SandboxState,
    SandboxStatus,
    Version,
)
from haven.cri.requests import (
    Auth,
    ContainerConfig,
    Device,
    DNSConfig,
    LinuxResources,
    Mount,
    NamespaceMode,
    NamespaceOptions,
    PortMapping,
    Propagation,
    SandboxConfig,
    SeccompProfile,
    SecurityContext,
    UserNamespace,
)
from haven.telemetry import Durations

__all__ = [
    "Auth",
    "CallTally",
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


@dataclass(slots=True)
class CallTally:
    """What became of the calls of one operation. One owner: the driver."""

    durations: Durations = field(default_factory=Durations)
    errors: int = 0


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
        """Start a created container; goes on to the end even if it is cancelled meanwhile, as does creating one."""
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

    def call_tallies(self) -> Mapping[str, CallTally]:
        """Return how often each operation was called, how often it failed and how long it took."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...

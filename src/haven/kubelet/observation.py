"""What the runtime shows of one pod, in the form that the deciding code of this room reads."""

from __future__ import annotations

from dataclasses import dataclass

from haven.cri.interface import ContainerState, ContainerStatus, NamespaceMode, SandboxState, SandboxStatus

__all__ = [
    "ANNOTATION_HASH",
    "ANNOTATION_PORTS",
    "ANNOTATION_PRE_STOP",
    "ANNOTATION_RESTART_COUNT",
    "ANNOTATION_TERMINATION_GRACE",
    "ANNOTATION_TERMINATION_PATH",
    "ANNOTATION_TERMINATION_POLICY",
    "LABEL_CONTAINER",
    "LABEL_POD",
    "LABEL_POD_NAMESPACE",
    "LABEL_POD_UID",
    "ObservedContainer",
    "ObservedPod",
]

# Names that other tools on a node (crictl, log collectors, cAdvisor) look for.
LABEL_POD = "io.kubernetes.pod.name"
LABEL_POD_NAMESPACE = "io.kubernetes.pod.namespace"
LABEL_POD_UID = "io.kubernetes.pod.uid"
LABEL_CONTAINER = "io.kubernetes.container.name"
ANNOTATION_HASH = "io.kubernetes.container.hash"
ANNOTATION_RESTART_COUNT = "io.kubernetes.container.restartCount"
ANNOTATION_TERMINATION_PATH = "io.kubernetes.container.terminationMessagePath"
ANNOTATION_TERMINATION_POLICY = "io.kubernetes.container.terminationMessagePolicy"
ANNOTATION_PRE_STOP = "io.kubernetes.container.preStopHandler"
ANNOTATION_PORTS = "io.kubernetes.container.ports"
ANNOTATION_TERMINATION_GRACE = "io.kubernetes.pod.terminationGracePeriod"


@dataclass(frozen=True, slots=True)
class ObservedContainer:
    """A container of a pod. `message` already includes its termination message."""

    status: ContainerStatus
    sandbox_id: str
    message: str = ""

    @property
    def name(self) -> str:
        return self.status.labels.get(LABEL_CONTAINER, self.status.name)

    @property
    def state(self) -> ContainerState:
        return self.status.state

    @property
    def restart_count(self) -> int:
        return int(self.status.annotations.get(ANNOTATION_RESTART_COUNT, self.status.attempt))

    @property
    def hash(self) -> str:
        return self.status.annotations.get(ANNOTATION_HASH, "")


@dataclass(frozen=True, slots=True)
class ObservedPod:
    """All sandboxes and containers of a pod, newest first."""

    sandboxes: tuple[SandboxStatus, ...] = ()
    containers: tuple[ObservedContainer, ...] = ()
    runtime_name: str = "containerd"

    @property
    def sandbox(self) -> SandboxStatus | None:
        """The newest sandbox."""
        return self.sandboxes[0] if self.sandboxes else None

    @property
    def ips(self) -> tuple[str, ...]:
        """The addresses of the newest sandbox if it is ready and has a network of its own."""
        sandbox = self.sandbox
        if sandbox is None or sandbox.network is not NamespaceMode.POD:
            return ()
        return sandbox.ips if sandbox.info.state is SandboxState.READY else ()

    def find(self, name: str) -> ObservedContainer | None:
        """Return the newest container of that name."""
        return next((container for container in self.containers if container.name == name), None)

    def active(self) -> tuple[ObservedContainer, ...]:
        """Return the containers of the newest sandbox."""
        sandbox = self.sandbox
        if sandbox is None:
            return ()
        return tuple(container for container in self.containers if container.sandbox_id == sandbox.info.id)

    def running(self) -> tuple[ObservedContainer, ...]:
        """Return the containers that run, or may."""
        return tuple(
            container
            for container in self.containers
            if container.state in (ContainerState.RUNNING, ContainerState.UNKNOWN)
        )

    @property
    def is_quiet(self) -> bool:
        """Whether nothing runs and no sandbox is ready."""
        return not self.running() and all(sandbox.info.state is SandboxState.NOT_READY for sandbox in self.sandboxes)

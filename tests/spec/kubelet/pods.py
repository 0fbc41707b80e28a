"""Pods and what a runtime shows of them, for the specs of this room."""

from __future__ import annotations

from typing import Any

from haven.api.core.v1 import Container, ContainerRestartRule, ContainerRestartRuleOnExitCodes, Pod, PodSpec
from haven.apimachinery import meta
from haven.apimachinery.names import UID
from haven.cri import interface as cri
from haven.cri.interface import ContainerState, SandboxState
from haven.kubelet.observation import (
    ANNOTATION_HASH,
    ANNOTATION_RESTART_COUNT,
    LABEL_CONTAINER,
    ObservedContainer,
    ObservedPod,
)
from haven.kubelet.podspec import container_hash

NANO = 1_000_000_000


def a_container(name: str = "main", **more: Any) -> Container:
    return Container(name=name, image="img:1", **more)


def a_sidecar(name: str, **more: Any) -> Container:
    return a_container(name, restart_policy="Always", **more)


def a_rule(action: str, *codes: int, operator: str = "In") -> ContainerRestartRule:
    return ContainerRestartRule(
        action=action, exit_codes=ContainerRestartRuleOnExitCodes(operator=operator, values=list(codes))
    )


def a_pod(*containers: Container, **spec: Any) -> Pod:
    metadata = meta.ObjectMeta(name="web", namespace="default", uid=UID("uid-1"), generation=1)
    spec.setdefault("restart_policy", "Always")
    return Pod(metadata=metadata, spec=PodSpec(containers=list(containers) or [a_container()], **spec))


def a_sandbox(
    *, ready: bool = True, attempt: int = 0, network: cri.NamespaceMode = cri.NamespaceMode.POD, ip: str = "10.0.0.5"
) -> cri.SandboxStatus:
    state = SandboxState.READY if ready else SandboxState.NOT_READY
    info = cri.SandboxInfo(f"sandbox-{attempt}", "web", "default", "uid-1", attempt, state, attempt * NANO)
    return cri.SandboxStatus(info, (ip,) if ip and ready else (), network)


def seen(
    container: Container,
    state: ContainerState = ContainerState.RUNNING,
    *,
    exit_code: int = 0,
    restart_count: int = 0,
    created: int = 1,
    sandbox: str = "sandbox-0",
    reason: str = "",
    resources: cri.LinuxResources | None = None,
) -> ObservedContainer:
    status = cri.ContainerStatus(
        id=f"{container.name}-{restart_count}",
        name=container.name,
        attempt=restart_count,
        state=state,
        created_at=created * NANO,
        started_at=created * NANO if state is not ContainerState.CREATED else 0,
        finished_at=(created + 1) * NANO if state is ContainerState.EXITED else 0,
        exit_code=exit_code,
        image="docker.io/library/img:1",
        image_ref="sha256:abc",
        reason=reason or ("Completed" if exit_code == 0 else "Error"),
        labels={LABEL_CONTAINER: container.name},
        annotations={ANNOTATION_RESTART_COUNT: str(restart_count), ANNOTATION_HASH: container_hash(container)},
        resources=resources,
    )
    return ObservedContainer(status, sandbox)


def exited(container: Container, exit_code: int = 0, **more: Any) -> ObservedContainer:
    return seen(container, ContainerState.EXITED, exit_code=exit_code, **more)


def observed(*containers: ObservedContainer, sandbox: cri.SandboxStatus | None = None) -> ObservedPod:
    return ObservedPod((sandbox or a_sandbox(),), tuple(containers))

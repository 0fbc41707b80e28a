"""Builds what the runtime is given: a pod's sandbox and its containers. Pure; the caller has gathered the inputs.

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from haven.api.core.v1 import Container, Pod, VolumeMount
from haven.cri import interface as cri
from haven.kubelet.env import ConfigError
from haven.kubelet.expansion import MissingVariable, expand, expand_strictly
from haven.kubelet.observation import (
    ANNOTATION_HASH,
    ANNOTATION_PORTS,
    ANNOTATION_PRE_STOP,
    ANNOTATION_RESTART_COUNT,
    ANNOTATION_TERMINATION_GRACE,
    ANNOTATION_TERMINATION_PATH,
    ANNOTATION_TERMINATION_POLICY,
    LABEL_CONTAINER,
    LABEL_POD,
    LABEL_POD_NAMESPACE,
    LABEL_POD_UID,
)
from haven.kubelet.podnetwork import ResolverSettings, kernel_hostname, pod_dns, port_mappings
from haven.kubelet.podspec import container_hash, is_host_network
from haven.kubelet.resources import container_resources
from haven.kubelet.security import container_security, sandbox_security
from haven.kubelet.volumes.manager import MountedVolume

__all__ = [
    "ContainerInputs",
    "MountPlan",
    "PodInputs",
    "container_config",
    "cri_mount",
    "log_directory",
    "mounts_of",
    "sandbox_config",
]

_PROPAGATION = {
    None: cri.Propagation.PRIVATE,
    "": cri.Propagation.PRIVATE,
    "None": cri.Propagation.PRIVATE,
    "HostToContainer": cri.Propagation.HOST_TO_CONTAINER,
    "Bidirectional": cri.Propagation.BIDIRECTIONAL,
}


@dataclass(frozen=True, slots=True)
class PodInputs:
    """What sandbox and containers depend on beside the pod."""

    logs_root: Path
    cgroup_parent: str
    resolver: ResolverSettings
    cluster_domain: str
    seccomp_directory: Path
    seccomp_default: bool
    memory_capacity_bytes: int
    features: cri.HandlerFeatures = cri.HandlerFeatures("")
    supports_strict_groups: bool = False


@dataclass(frozen=True, slots=True)
class ContainerInputs:
    """What one container depends on."""

    image: cri.Image
    env: Mapping[str, str]
    mounts: Sequence[cri.Mount]
    restart_count: int = 0
    target_id: str = ""


def log_directory(logs_root: Path, pod: Pod) -> Path:
    """Return where the logs of a pod's containers are."""
    metadata = pod.metadata
    return logs_root / f"{metadata.namespace}_{metadata.name}_{metadata.uid}"


def sandbox_config(pod: Pod, attempt: int, inputs: PodInputs) -> cri.SandboxConfig:
    """Return the sandbox of a pod; raise ConfigError or HostnameError."""
    metadata = pod.metadata
    context = pod.spec.security_context
    sysctls = {item.name.replace("/", "."): item.value for item in context.sysctls} if context else {}
    labels = {
        **metadata.labels,
        LABEL_POD: metadata.name,
        LABEL_POD_NAMESPACE: metadata.namespace,
        LABEL_POD_UID: metadata.uid,
    }
    return cri.SandboxConfig(
        name=metadata.name,
        namespace=metadata.namespace,
        uid=metadata.uid,
        attempt=attempt,
        # The runtime refuses a host name for a pod that shares the node's.
        hostname="" if is_host_network(pod) else kernel_hostname(pod, inputs.cluster_domain),
        log_directory=str(log_directory(inputs.logs_root, pod)),
        dns=pod_dns(pod, inputs.resolver).config,
        port_mappings=port_mappings(pod),
        labels=labels,
        annotations=dict(metadata.annotations),
        cgroup_parent=inputs.cgroup_parent,
        sysctls=sysctls,
        security=sandbox_security(pod, features=inputs.features, supports_strict_groups=inputs.supports_strict_groups),
    )


def container_config(pod: Pod, container: Container, inputs: PodInputs, own: ContainerInputs) -> cri.ContainerConfig:
    """Return a container of a pod; raise ConfigError."""
    env = dict(own.env)
    image = own.image
    lifecycle = container.lifecycle
    return cri.ContainerConfig(
        name=container.name,
        attempt=own.restart_count,
        image=image.id,
        user_image=container.image,
        command=tuple(expand(item, env) for item in container.command),
        args=tuple(expand(item, env) for item in container.args),
        working_dir=container.working_dir,
        env=tuple(env.items()),
        mounts=tuple(own.mounts),
        labels={
            LABEL_POD: pod.metadata.name,
            LABEL_POD_NAMESPACE: pod.metadata.namespace,
            LABEL_POD_UID: pod.metadata.uid,
            LABEL_CONTAINER: container.name,
        },
        annotations=_annotations(pod, container, own.restart_count),
        log_path=f"{container.name}/{own.restart_count}.log",
        stdin=container.stdin,
        stdin_once=container.stdin_once,
        tty=container.tty,
        resources=container_resources(pod, container, inputs.memory_capacity_bytes),
        security=container_security(
            pod,
            container,
            features=inputs.features,
            supports_strict_groups=inputs.supports_strict_groups,
            seccomp_directory=inputs.seccomp_directory,
            seccomp_default=inputs.seccomp_default,
            image=image,
            target_id=own.target_id,
        ),
        stop_signal=(lifecycle.stop_signal or "") if lifecycle else "",
    )


def _annotations(pod: Pod, container: Container, restart_count: int) -> dict[str, str]:
    """What must be known of a container when its pod is not: after a restart of this agent, or a lost manifest."""
    result = {
        ANNOTATION_HASH: container_hash(container),
        ANNOTATION_RESTART_COUNT: str(restart_count),
        ANNOTATION_TERMINATION_PATH: container.termination_message_path,
        ANNOTATION_TERMINATION_POLICY: container.termination_message_policy,
    }
    grace = pod.metadata.deletion_grace_period_seconds
    if grace is None:
        grace = pod.spec.termination_grace_period_seconds
    if grace is not None:
        result[ANNOTATION_TERMINATION_GRACE] = str(grace)
    if container.lifecycle is not None and container.lifecycle.pre_stop is not None:
        result[ANNOTATION_PRE_STOP] = msgspec.json.encode(container.lifecycle.pre_stop).decode()
    if container.ports:
        result[ANNOTATION_PORTS] = msgspec.json.encode(container.ports).decode()
    return result


@dataclass(frozen=True, slots=True)
class MountPlan:
    """A volume mount with its subpath expanded; the shell prepares the subpath."""

    mount: VolumeMount
    volume: MountedVolume
    sub_path: str
    recursive_read_only: bool


def mounts_of(
    container: Container,
    volumes: Mapping[str, MountedVolume],
    env: Mapping[str, str],
    features: cri.HandlerFeatures,
) -> list[MountPlan]:
    """Return what a container mounts of its pod's volumes; raise ConfigError."""
    plans: list[MountPlan] = []
    for mount in container.volume_mounts:
        volume = volumes.get(mount.name)
        if volume is None:
            raise ConfigError(f'cannot find volume "{mount.name}" to mount into container "{container.name}"')
        sub_path = mount.sub_path
        if mount.sub_path_expr:
            try:
                sub_path = expand_strictly(mount.sub_path_expr, env)
            except MissingVariable as error:
                raise ConfigError(str(error)) from error
        plans.append(MountPlan(mount, volume, sub_path, _recursive_read_only(mount, features)))
    return plans


def _recursive_read_only(mount: VolumeMount, features: cri.HandlerFeatures) -> bool:
    mode = mount.recursive_read_only
    if mode in (None, "Disabled"):
        return False
    prefix = (
        f'failed to resolve recursive read-only mode: volume "{mount.name}" requested recursive read-only mode, but'
    )
    if not mount.read_only:
        raise ConfigError(f"{prefix} it is not read-only")
    if mount.mount_propagation not in (None, "None"):
        raise ConfigError(f'{prefix} it is not compatible with propagation "{mount.mount_propagation}"')
    if mode == "IfPossible":
        return features.recursive_read_only_mounts
    if not features.recursive_read_only_mounts:
        raise ConfigError(f"{prefix} it is not supported by the runtime")
    return True


def cri_mount(plan: MountPlan, host_path: Path) -> cri.Mount:
    """Return a planned mount with the path that the shell prepared."""
    mount = plan.mount
    container_path = mount.mount_path if mount.mount_path.startswith("/") else f"/{mount.mount_path}"
    if plan.volume.image:
        return cri.Mount(container_path, image=plan.volume.image, image_sub_path=plan.sub_path, readonly=True)
    return cri.Mount(
        container_path=container_path,
        host_path=str(host_path),
        readonly=mount.read_only or plan.volume.read_only,
        recursive_read_only=plan.recursive_read_only,
        propagation=_PROPAGATION[mount.mount_propagation],
    )

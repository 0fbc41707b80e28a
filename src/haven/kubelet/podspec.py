"""Questions about a pod's spec that several parts of the node ask: sidecars, restart rules, hosts, names.

Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec

from haven.api.core.podresources import is_sidecar
from haven.api.core.v1 import Container, ContainerRestartRule, EphemeralContainer, Pod

__all__ = [
    "CONFIG_HASH",
    "CONFIG_MIRROR",
    "CONFIG_SOURCE",
    "all_containers",
    "can_restart_all_containers",
    "container_hash",
    "container_type",
    "ephemeral_as_container",
    "find_container",
    "format_pod",
    "full_name",
    "has_sidecars",
    "is_critical",
    "is_host_network",
    "is_mirror",
    "is_static",
    "is_terminal",
    "matching_restart_rule",
    "pod_restarts_on_failure",
    "should_restart",
]

CONFIG_SOURCE = "kubernetes.io/config.source"
CONFIG_HASH = "kubernetes.io/config.hash"
CONFIG_MIRROR = "kubernetes.io/config.mirror"
_CRITICAL_PRIORITY = 2_000_000_000


def has_sidecars(pod: Pod) -> bool:
    return any(is_sidecar(container) for container in pod.spec.init_containers)


def is_host_network(pod: Pod) -> bool:
    return pod.spec.host_network


def is_terminal(pod: Pod) -> bool:
    """Return whether the API already says that the pod is over."""
    return pod.status.phase in ("Succeeded", "Failed")


def is_static(pod: Pod) -> bool:
    """Return whether the pod comes from a manifest on this node rather than from the API."""
    return pod.metadata.annotations.get(CONFIG_SOURCE, "api") != "api"


def is_mirror(pod: Pod) -> bool:
    """Return whether the API object only reflects a static pod."""
    return CONFIG_MIRROR in pod.metadata.annotations


def is_critical(pod: Pod) -> bool:
    """Return whether the node must keep the pod at the expense of others."""
    if is_static(pod) or is_mirror(pod):
        return True
    return pod.spec.priority is not None and pod.spec.priority >= _CRITICAL_PRIORITY


def full_name(pod: Pod) -> str:
    return f"{pod.metadata.name}_{pod.metadata.namespace}"


def format_pod(pod: Pod) -> str:
    """Return the pod as upstream's messages write it."""
    return f"{pod.metadata.name}_{pod.metadata.namespace}({pod.metadata.uid})"


def ephemeral_as_container(ephemeral: EphemeralContainer) -> Container:
    """Return an ephemeral container as an ordinary one."""
    values = {name: getattr(ephemeral, name) for name in Container.__struct_fields__}
    return Container(**values)


def all_containers(pod: Pod) -> Iterator[Container]:
    """Yield init, regular and ephemeral containers, in this order."""
    yield from pod.spec.init_containers
    yield from pod.spec.containers
    for ephemeral in pod.spec.ephemeral_containers:
        yield ephemeral_as_container(ephemeral)


def find_container(pod: Pod, name: str) -> Container | None:
    """Return the container of that name, of any kind."""
    return next((container for container in all_containers(pod) if container.name == name), None)


def container_type(pod: Pod, name: str) -> str:
    """Return what metrics call the kind of a container."""
    if any(container.name == name for container in pod.spec.init_containers):
        return "init_container"
    if any(container.name == name for container in pod.spec.ephemeral_containers):
        return "ephemeral_container"
    return "container"


def pod_restarts_on_failure(pod: Pod) -> bool:
    return pod.spec.restart_policy != "Never"


def matching_restart_rule(container: Container, exit_code: int) -> ContainerRestartRule | None:
    """Return the first rule that covers an exit code."""
    for rule in container.restart_policy_rules:
        if rule.exit_codes is None:
            continue
        is_member = exit_code in rule.exit_codes.values
        if is_member == (rule.exit_codes.operator == "In"):
            return rule
    return None


def should_restart(container: Container, pod: Pod, exit_code: int) -> bool:
    """Return whether a container that ended so is started again: its rules, its own policy, then the pod's."""
    if container.restart_policy:
        rule = matching_restart_rule(container, exit_code)
        if rule is not None and rule.action in ("Restart", "RestartAllContainers"):
            return True
        policy = container.restart_policy
    else:
        policy = pod.spec.restart_policy
    if policy == "Never":
        return False
    return policy != "OnFailure" or exit_code != 0


def can_restart_all_containers(pod: Pod) -> bool:
    """Return whether any container has a rule that starts the whole pod anew."""
    return any(
        rule.action == "RestartAllContainers"
        for container in (*pod.spec.init_containers, *pod.spec.containers)
        for rule in container.restart_policy_rules
    )


def container_hash(container: Container) -> str:
    """Return a digest of what cannot change without a restart: name and image."""
    return hashlib.sha256(msgspec.json.encode([container.name, container.image])).hexdigest()[:8]

"""Makes a pod's sandbox: the network and the namespaces that its containers share."""

from __future__ import annotations

import asyncio

from haven.api.core.v1 import Pod
from haven.api.node.v1 import RuntimeClass
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors
from haven.cri import errors
from haven.kubelet.containerstart import Sandbox
from haven.kubelet.env import ConfigError
from haven.kubelet.events import pod_reference
from haven.kubelet.podconfig import PodInputs, log_directory, sandbox_config
from haven.kubelet.podnetwork import HostnameError, pod_dns
from haven.kubelet.podservices import PodServices, SyncError
from haven.kubelet.podspec import is_host_network
from haven.kubelet.podstate import PodActions
from haven.kubelet.podstatus import order_ips

__all__ = ["ensure_sandbox", "pod_inputs", "runtime_handler"]


async def runtime_handler(services: PodServices, pod: Pod) -> str:
    """Return the runtime handler of a pod's runtime class, "" for the default one; raise SyncError."""
    name = pod.spec.runtime_class_name
    if not name:
        return ""
    try:
        found = await services.client.get(resource_of(RuntimeClass), "", name)
    except apierrors.ApiError as error:
        text = f"failed to get sandbox runtime: {error.message}"
        _failed(services, pod, text)
        raise SyncError(text) from error
    return found.handler


def pod_inputs(services: PodServices, pod: Pod, qos_class: str, handler: str) -> PodInputs:
    """Return what sandbox and containers of a pod depend on."""
    settings, node = services.settings, services.node
    return PodInputs(
        logs_root=settings.pod_logs_directory,
        cgroup_parent=services.cgroups.pod_path(pod.metadata.uid, qos_class),
        resolver=node.resolver,
        cluster_domain=settings.cluster_domain,
        seccomp_directory=settings.seccomp_directory,
        seccomp_default=settings.seccomp_default,
        memory_capacity_bytes=node.memory_bytes,
        features=node.features.handler(handler),
        supports_strict_groups=node.supports_strict_groups,
    )


async def ensure_sandbox(
    services: PodServices, pod: Pod, actions: PodActions, inputs: PodInputs, handler: str, ips: tuple[str, ...]
) -> Sandbox:
    """Return the pod's sandbox, made anew if the actions say so; `ips` are the present one's. Raise SyncError."""
    try:
        config = sandbox_config(pod, actions.attempt, inputs)
    except (ConfigError, HostnameError) as error:
        _failed(services, pod, str(error))
        raise SyncError(str(error)) from error
    if not actions.create_sandbox:
        return Sandbox(actions.sandbox_id, config, ips)
    for warning in pod_dns(pod, inputs.resolver).warnings:
        services.recorder.warning(pod_reference(pod), "DNSConfigForming", warning)
    await asyncio.to_thread(log_directory(inputs.logs_root, pod).mkdir, parents=True, exist_ok=True)
    async with services.sandbox_slots:
        try:
            sandbox_id = await services.runtime.run_sandbox(config, handler)
            status = await services.runtime.sandbox_status(sandbox_id)
        except errors.RuntimeFailure as error:
            _failed(services, pod, error.rpc_text)
            raise SyncError(error.rpc_text) from error
    host_ips = services.node.host_ips
    return Sandbox(sandbox_id, config, host_ips if is_host_network(pod) else tuple(order_ips(status.ips, host_ips)))


def _failed(services: PodServices, pod: Pod, text: str) -> None:
    services.recorder.warning(pod_reference(pod), "FailedCreatePodSandBox", f"Failed to create pod sandbox: {text}")

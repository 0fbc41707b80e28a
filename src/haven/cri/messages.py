"""Between haven.cri.interface and CRI's protobuf messages. Pure; `driver` sends what this makes."""

from __future__ import annotations

import json
from typing import Any

from cri_api.v1 import api_pb2

from haven.cri import interface as cri

__all__ = [
    "container_config",
    "container_info",
    "container_stats",
    "container_status",
    "image",
    "linux_resources",
    "pod_stats",
    "runtime_status",
    "sandbox_config",
    "sandbox_info",
    "sandbox_status",
]

pb: Any = api_pb2  # The generated stubs type enums more narrowly than the wire does.

_PROFILES = {"RuntimeDefault": 0, "Unconfined": 1, "Localhost": 2}
_PROTOCOLS = {"TCP": 0, "UDP": 1, "SCTP": 2}


def _namespaces(options: cri.NamespaceOptions) -> Any:
    message = pb.NamespaceOption(
        network=options.network.value, pid=options.pid.value, ipc=options.ipc.value, target_id=options.target_id
    )
    if options.userns is not None:
        message.userns_options.mode = options.userns.mode.value
        for target, ranges in (("uids", options.userns.uids), ("gids", options.userns.gids)):
            for host, container, length in ranges:
                getattr(message.userns_options, target).add(host_id=host, container_id=container, length=length)
    return message


def _profile(profile: cri.SeccompProfile | None) -> Any:
    if profile is None:
        return None
    return pb.SecurityProfile(profile_type=_PROFILES[profile.kind], localhost_ref=profile.path)


def _selinux(options: tuple[str, str, str, str] | None) -> Any:
    if options is None:
        return None
    user, role, type_, level = options
    return pb.SELinuxOption(user=user, role=role, type=type_, level=level)


def _int64(value: int | None) -> Any:
    return None if value is None else pb.Int64Value(value=value)


def _legacy_seccomp(profile: cri.SeccompProfile | None) -> str:
    """The older field, which containerd before 1.5 reads and later versions ignore when the new one is set."""
    if profile is None:
        return ""
    if profile.kind == "Localhost":
        return f"localhost/{profile.path}"
    return {"RuntimeDefault": "runtime/default", "Unconfined": "unconfined"}[profile.kind]


def linux_resources(resources: cri.LinuxResources | None) -> Any:
    """Return cgroup limits as CRI's message, None for none."""
    if resources is None:
        return None
    return pb.LinuxContainerResources(
        cpu_period=resources.cpu_period,
        cpu_quota=resources.cpu_quota,
        cpu_shares=resources.cpu_shares,
        memory_limit_in_bytes=resources.memory_limit_bytes,
        memory_swap_limit_in_bytes=resources.memory_swap_limit_bytes,
        oom_score_adj=resources.oom_score_adj,
        cpuset_cpus=resources.cpuset_cpus,
        hugepage_limits=[pb.HugepageLimit(page_size=size, limit=limit) for size, limit in resources.hugepage_limits],
        unified=dict(resources.unified),
    )


def sandbox_config(config: cri.SandboxConfig) -> Any:
    """Return a sandbox as CRI's message."""
    security = config.security
    message = pb.PodSandboxConfig(
        metadata=pb.PodSandboxMetadata(
            name=config.name, namespace=config.namespace, uid=config.uid, attempt=config.attempt
        ),
        hostname=config.hostname,
        log_directory=config.log_directory,
        port_mappings=[
            pb.PortMapping(
                protocol=_PROTOCOLS[port.protocol],
                container_port=port.container_port,
                host_port=port.host_port,
                host_ip=port.host_ip,
            )
            for port in config.port_mappings
        ],
        labels=dict(config.labels),
        annotations=dict(config.annotations),
        linux=pb.LinuxPodSandboxConfig(
            cgroup_parent=config.cgroup_parent,
            sysctls=dict(config.sysctls),
            overhead=linux_resources(config.overhead),
            resources=linux_resources(config.resources),
            security_context=pb.LinuxSandboxSecurityContext(
                namespace_options=_namespaces(security.namespaces),
                selinux_options=_selinux(security.selinux),
                run_as_user=_int64(security.run_as_user),
                run_as_group=_int64(security.run_as_group),
                readonly_rootfs=security.readonly_rootfs,
                supplemental_groups=security.supplemental_groups,
                supplemental_groups_policy=1 if security.supplemental_groups_strict else 0,
                privileged=security.privileged,
                seccomp=_profile(security.seccomp),
                seccomp_profile_path=_legacy_seccomp(security.seccomp),
                apparmor=_profile(security.apparmor),
            ),
        ),
    )
    if config.dns is not None:
        message.dns_config.CopyFrom(
            pb.DNSConfig(servers=config.dns.servers, searches=config.dns.searches, options=config.dns.options)
        )
    return message


def _mount(mount: cri.Mount) -> Any:
    message = pb.Mount(
        container_path=mount.container_path,
        host_path=mount.host_path,
        readonly=mount.readonly,
        recursive_read_only=mount.recursive_read_only,
        propagation=mount.propagation.value,
        selinux_relabel=mount.selinux_relabel,
    )
    if mount.image:
        message.image.image = mount.image
        message.image_sub_path = mount.image_sub_path
    return message


def container_config(config: cri.ContainerConfig) -> Any:
    """Return a container as CRI's message."""
    security = config.security
    message = pb.ContainerConfig(
        metadata=pb.ContainerMetadata(name=config.name, attempt=config.attempt),
        image=pb.ImageSpec(image=config.image, user_specified_image=config.user_image),
        command=config.command,
        args=config.args,
        working_dir=config.working_dir,
        envs=[pb.KeyValue(key=key, value=value) for key, value in config.env],
        mounts=[_mount(mount) for mount in config.mounts],
        devices=[
            pb.Device(container_path=device.container_path, host_path=device.host_path, permissions=device.permissions)
            for device in config.devices
        ],
        labels=dict(config.labels),
        annotations=dict(config.annotations),
        log_path=config.log_path,
        stdin=config.stdin,
        stdin_once=config.stdin_once,
        tty=config.tty,
        linux=pb.LinuxContainerConfig(
            resources=linux_resources(config.resources),
            security_context=pb.LinuxContainerSecurityContext(
                capabilities=pb.Capability(
                    add_capabilities=security.add_capabilities, drop_capabilities=security.drop_capabilities
                ),
                privileged=security.privileged,
                namespace_options=_namespaces(security.namespaces),
                selinux_options=_selinux(security.selinux),
                run_as_user=_int64(security.run_as_user),
                run_as_username=security.run_as_username,
                run_as_group=_int64(security.run_as_group),
                readonly_rootfs=security.readonly_rootfs,
                supplemental_groups=security.supplemental_groups,
                supplemental_groups_policy=1 if security.supplemental_groups_strict else 0,
                no_new_privs=security.no_new_privs,
                masked_paths=security.masked_paths,
                readonly_paths=security.readonly_paths,
                seccomp=_profile(security.seccomp),
                seccomp_profile_path=_legacy_seccomp(security.seccomp),
                apparmor=_profile(security.apparmor),
            ),
        ),
    )
    if config.stop_signal:
        message.stop_signal = pb.Signal.Value(config.stop_signal)
    return message


def runtime_status(message: Any) -> cri.RuntimeStatus:
    """Read a StatusResponse."""
    return cri.RuntimeStatus(
        conditions=tuple(
            cri.RuntimeCondition(item.type, item.status, item.reason, item.message)
            for item in message.status.conditions
        ),
        handlers=tuple(
            cri.HandlerFeatures(
                item.name,
                recursive_read_only_mounts=item.features.recursive_read_only_mounts,
                user_namespaces=item.features.user_namespaces,
            )
            for item in message.runtime_handlers
        ),
        supplemental_groups_policy=message.features.supplemental_groups_policy,
    )


def sandbox_info(message: Any) -> cri.SandboxInfo:
    """Read a PodSandbox or a PodSandboxStatus."""
    metadata = message.metadata
    return cri.SandboxInfo(
        id=message.id,
        name=metadata.name,
        namespace=metadata.namespace,
        uid=metadata.uid,
        attempt=metadata.attempt,
        state=cri.SandboxState(message.state),
        created_at=message.created_at,
        labels=dict(message.labels),
        annotations=dict(message.annotations),
        runtime_handler=message.runtime_handler,
    )


def sandbox_status(response: Any) -> cri.SandboxStatus:
    """Read a PodSandboxStatusResponse."""
    status = response.status
    ips = [status.network.ip, *(item.ip for item in status.network.additional_ips)]
    info = _info(response.info)
    netns = ""
    for namespace in info.get("runtimeSpec", {}).get("linux", {}).get("namespaces", []):
        if namespace.get("type") == "network":
            netns = namespace.get("path", "")
    return cri.SandboxStatus(
        info=sandbox_info(status),
        ips=tuple(ip for ip in ips if ip),
        network=cri.NamespaceMode(status.linux.namespaces.options.network),
        netns=netns,
        pid=int(info.get("pid", 0)),
    )


def _info(entries: Any) -> dict[str, Any]:
    text = entries.get("info", "") if entries else ""
    parsed = json.loads(text) if text else {}
    return parsed if isinstance(parsed, dict) else {}


def container_info(message: Any) -> cri.ContainerInfo:
    """Read a Container."""
    return cri.ContainerInfo(
        id=message.id,
        sandbox_id=message.pod_sandbox_id,
        name=message.metadata.name,
        attempt=message.metadata.attempt,
        image=message.image.image,
        image_ref=message.image_ref,
        state=cri.ContainerState(message.state),
        created_at=message.created_at,
        labels=dict(message.labels),
        annotations=dict(message.annotations),
        image_id=message.image_id,
    )


def _resources(message: Any) -> cri.LinuxResources:
    return cri.LinuxResources(
        cpu_period=message.cpu_period,
        cpu_quota=message.cpu_quota,
        cpu_shares=message.cpu_shares,
        memory_limit_bytes=message.memory_limit_in_bytes,
        memory_swap_limit_bytes=message.memory_swap_limit_in_bytes,
        oom_score_adj=message.oom_score_adj,
        cpuset_cpus=message.cpuset_cpus,
        hugepage_limits=tuple((item.page_size, item.limit) for item in message.hugepage_limits),
        unified=dict(message.unified),
    )


def container_status(response: Any) -> cri.ContainerStatus:
    """Read a ContainerStatusResponse."""
    status = response.status
    user = None
    if status.HasField("user") and status.user.HasField("linux"):
        linux = status.user.linux
        user = cri.ContainerUser(linux.uid, linux.gid, tuple(linux.supplemental_groups))
    return cri.ContainerStatus(
        id=status.id,
        name=status.metadata.name,
        attempt=status.metadata.attempt,
        state=cri.ContainerState(status.state),
        created_at=status.created_at,
        started_at=status.started_at,
        finished_at=status.finished_at,
        exit_code=status.exit_code,
        image=status.image.image,
        image_ref=status.image_ref,
        image_id=status.image_id,
        reason=status.reason,
        message=status.message,
        labels=dict(status.labels),
        annotations=dict(status.annotations),
        log_path=status.log_path,
        resources=_resources(status.resources.linux) if status.resources.HasField("linux") else None,
        user=user,
        stop_signal=pb.Signal.Name(status.stop_signal) if status.stop_signal else "",
        pid=int(_info(response.info).get("pid", 0)),
    )


def image(message: Any) -> cri.Image:
    """Read an Image."""
    return cri.Image(
        id=message.id,
        repo_tags=tuple(message.repo_tags),
        repo_digests=tuple(message.repo_digests),
        size_bytes=message.size,
        uid=message.uid.value if message.HasField("uid") else None,
        username=message.username,
        pinned=message.pinned,
    )


def container_stats(message: Any) -> cri.ContainerStats:
    """Read a ContainerStats."""
    memory = message.memory
    return cri.ContainerStats(
        id=message.attributes.id,
        name=message.attributes.metadata.name,
        labels=dict(message.attributes.labels),
        timestamp=message.cpu.timestamp or memory.timestamp,
        cpu_usage_core_nanoseconds=message.cpu.usage_core_nano_seconds.value,
        cpu_usage_nanocores=message.cpu.usage_nano_cores.value,
        memory_working_set_bytes=memory.working_set_bytes.value,
        memory_usage_bytes=memory.usage_bytes.value,
        memory_rss_bytes=memory.rss_bytes.value,
        memory_available_bytes=memory.available_bytes.value,
        memory_page_faults=memory.page_faults.value,
        memory_major_page_faults=memory.major_page_faults.value,
        writable_layer_bytes=message.writable_layer.used_bytes.value,
        writable_layer_inodes=message.writable_layer.inodes_used.value,
    )


def pod_stats(message: Any) -> cri.PodStats:
    """Read a PodSandboxStats."""
    attributes, linux = message.attributes, message.linux
    interfaces = [linux.network.default_interface, *linux.network.interfaces]
    return cri.PodStats(
        id=attributes.id,
        name=attributes.metadata.name,
        namespace=attributes.metadata.namespace,
        uid=attributes.metadata.uid,
        timestamp=linux.cpu.timestamp or linux.memory.timestamp,
        cpu_usage_core_nanoseconds=linux.cpu.usage_core_nano_seconds.value,
        cpu_usage_nanocores=linux.cpu.usage_nano_cores.value,
        memory_working_set_bytes=linux.memory.working_set_bytes.value,
        memory_usage_bytes=linux.memory.usage_bytes.value,
        memory_rss_bytes=linux.memory.rss_bytes.value,
        interfaces=tuple(
            cri.NetworkUsage(
                item.name, item.rx_bytes.value, item.rx_errors.value, item.tx_bytes.value, item.tx_errors.value
            )
            for item in interfaces
            if item.name
        ),
        process_count=linux.process.process_count.value,
        containers=tuple(container_stats(item) for item in linux.containers),
    )

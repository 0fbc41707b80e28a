"""Turns security contexts into what the runtime is told: users, capabilities, seccomp, namespaces.

What the runtime would silently ignore is refused here, with the reason.
Source: https://kubernetes.io/docs/tasks/configure-pod-container/security-context/
"""

from __future__ import annotations

import os
from pathlib import Path

from haven.api.core.v1 import Container, Pod, PodSecurityContext, SeccompProfile, SecurityContext
from haven.cri import interface as cri
from haven.cri.interface import NamespaceMode
from haven.kubelet.env import ConfigError

__all__ = [
    "container_security",
    "effective",
    "is_privileged",
    "namespaces",
    "sandbox_security",
    "verify_run_as_non_root",
]

_MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
_READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def effective(pod: Pod, container: Container) -> SecurityContext:
    """Return a container's security context with the pod's values where it has none of its own."""
    own = container.security_context or SecurityContext()
    shared = pod.spec.security_context or PodSecurityContext()
    result = SecurityContext(**{name: getattr(own, name) for name in SecurityContext.__struct_fields__})
    for name in ("se_linux_options", "run_as_user", "run_as_group", "run_as_non_root", "seccomp_profile",
                 "app_armor_profile"):  # fmt: skip
        if getattr(result, name) is None:
            setattr(result, name, getattr(shared, name))
    return result


def is_privileged(container: Container) -> bool:
    return bool(container.security_context and container.security_context.privileged)


def namespaces(pod: Pod, *, features: cri.HandlerFeatures, target_id: str = "") -> cri.NamespaceOptions:
    """Return which namespaces the pod shares; raise ConfigError where the runtime has no user namespaces."""
    spec = pod.spec
    if spec.host_users is False and not features.user_namespaces:
        raise ConfigError(
            "the container runtime does not support user namespaces (hostUsers: false): "
            "it would ignore the setting and run the pod as the host's users"
        )
    if spec.host_pid:
        pid = NamespaceMode.NODE
    elif spec.share_process_namespace:
        pid = NamespaceMode.POD
    else:
        pid = NamespaceMode.CONTAINER
    if target_id and pid is NamespaceMode.CONTAINER:
        pid = NamespaceMode.TARGET
    return cri.NamespaceOptions(
        network=NamespaceMode.NODE if spec.host_network else NamespaceMode.POD,
        ipc=NamespaceMode.NODE if spec.host_ipc else NamespaceMode.POD,
        pid=pid,
        target_id=target_id if pid is NamespaceMode.TARGET else "",
    )


def _groups(pod: Pod) -> tuple[int, ...]:
    shared = pod.spec.security_context
    if shared is None:
        return ()
    own = (shared.fs_group,) if shared.fs_group is not None else ()
    return (*own, *shared.supplemental_groups)


def _is_strict(pod: Pod, *, supports_strict: bool) -> bool:
    shared = pod.spec.security_context
    if shared is None or shared.supplemental_groups_policy != "Strict":
        return False
    if not supports_strict:
        raise ConfigError("supplementalGroupsPolicy Strict is not supported by the container runtime")
    return True


def sandbox_security(pod: Pod, *, features: cri.HandlerFeatures, supports_strict_groups: bool) -> cri.SecurityContext:
    """Return the security of the sandbox."""
    shared = pod.spec.security_context
    containers = (*pod.spec.init_containers, *pod.spec.containers)
    return cri.SecurityContext(
        namespaces=namespaces(pod, features=features),
        privileged=any(is_privileged(container) for container in containers),
        run_as_user=shared.run_as_user if shared else None,
        run_as_group=shared.run_as_group if shared else None,
        supplemental_groups=_groups(pod),
        supplemental_groups_strict=_is_strict(pod, supports_strict=supports_strict_groups),
        seccomp=cri.SeccompProfile("RuntimeDefault"),
        selinux=_selinux(shared.se_linux_options if shared else None),
    )


def container_security(
    pod: Pod,
    container: Container,
    *,
    features: cri.HandlerFeatures,
    supports_strict_groups: bool,
    seccomp_directory: Path,
    seccomp_default: bool,
    image: cri.Image | None,
    target_id: str = "",
) -> cri.SecurityContext:
    """Return the security of a container; the image's user counts where the pod names none."""
    context = effective(pod, container)
    privileged = bool(context.privileged)
    user, username = context.run_as_user, ""
    if user is None and image is not None:
        user, username = image.uid, image.username
    unmasked = context.proc_mount == "Unmasked" or privileged
    capabilities = context.capabilities
    return cri.SecurityContext(
        namespaces=namespaces(pod, features=features, target_id=target_id),
        privileged=privileged,
        run_as_user=user,
        run_as_username=username,
        run_as_group=context.run_as_group,
        readonly_rootfs=bool(context.read_only_root_filesystem),
        supplemental_groups=_groups(pod),
        supplemental_groups_strict=_is_strict(pod, supports_strict=supports_strict_groups),
        no_new_privs=context.allow_privilege_escalation is False,
        add_capabilities=tuple(capabilities.add) if capabilities else (),
        drop_capabilities=tuple(capabilities.drop) if capabilities else (),
        masked_paths=() if unmasked else _MASKED_PATHS,
        readonly_paths=() if unmasked else _READONLY_PATHS,
        seccomp=_seccomp(context.seccomp_profile, privileged, seccomp_directory, is_default=seccomp_default),
        apparmor=_apparmor(context),
        selinux=_selinux(context.se_linux_options),
    )


def _seccomp(
    profile: SeccompProfile | None, privileged: bool, directory: Path, *, is_default: bool
) -> cri.SeccompProfile:
    if privileged:
        return cri.SeccompProfile("Unconfined")
    if profile is None:
        return cri.SeccompProfile("RuntimeDefault" if is_default else "Unconfined")
    if profile.type != "Localhost":
        return cri.SeccompProfile(profile.type)
    if not profile.localhost_profile:
        raise ConfigError("localhostProfile must be set if seccompProfile type is Localhost.")
    path = os.path.normpath(directory / profile.localhost_profile)
    if not path.startswith(f"{directory}/"):
        raise ConfigError(f"seccomp profile {profile.localhost_profile} is outside of {directory}")
    return cri.SeccompProfile("Localhost", path)


def _apparmor(context: SecurityContext) -> cri.SeccompProfile | None:
    profile = context.app_armor_profile
    if profile is None:
        return None
    if not Path("/sys/module/apparmor/parameters/enabled").exists():
        if profile.type == "Unconfined":
            return None
        raise ConfigError("Cannot enforce AppArmor: AppArmor is not enabled on the host")
    return cri.SeccompProfile(profile.type, profile.localhost_profile or "")


def _selinux(options: object) -> tuple[str, str, str, str] | None:
    if options is None:
        return None
    user, role, type_, level = (getattr(options, name) for name in ("user", "role", "type", "level"))
    return (user, role, type_, level)


def verify_run_as_non_root(pod: Pod, container: Container, image: cri.Image | None) -> None:
    """Raise ConfigError if the container must not run as root but would, or might."""
    context = effective(pod, container)
    if not context.run_as_non_root:
        return
    where = f'(pod: "{pod.metadata.name}_{pod.metadata.namespace}({pod.metadata.uid})", container: {container.name})'
    if context.run_as_user is not None:
        if context.run_as_user == 0:
            raise ConfigError(f"container's runAsUser breaks non-root policy {where}")
        return
    if image is None:
        return
    if image.uid is not None and image.uid != 0:
        return
    if image.uid is None and image.username:
        raise ConfigError(
            f"container has runAsNonRoot and image has non-numeric user ({image.username}), cannot verify user is "
            f"non-root {where}"
        )
    raise ConfigError(f"container has runAsNonRoot and image will run as root {where}")

"""The checks of the Pod Security Standards, each with the versions in which it counts. Pure.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from haven.api.core import v1 as core
from haven.apimachinery import meta
from haven.apimachinery.goformat import quote
from haven.apiserver import podreferences
from haven.apiserver.admission.podsecurity.policy import Level, LevelVersion

__all__ = ["CHECKS", "Check", "Violation", "describe", "evaluate"]


class Violation(NamedTuple):
    """What a pod breaks, in short and in detail."""

    reason: str
    detail: str


Examine = Callable[[meta.ObjectMeta, core.PodSpec], Violation | None]
_Container = core.Container | core.EphemeralContainer


class Check(NamedTuple):
    """One rule. `versions` holds (minor version from which it reads so, function); `overrides` the baseline rule that
    a restricted one makes superfluous."""

    name: str
    level: Level
    versions: tuple[tuple[int, Examine], ...]
    overrides: str = ""


def evaluate(asked: LevelVersion, metadata: meta.ObjectMeta, spec: core.PodSpec) -> list[Violation]:
    """Return what a pod breaks of a level, in upstream's order."""
    if asked.level is Level.PRIVILEGED:
        return []
    found = (examine(metadata, spec) for examine in _examinations(asked.level, min(asked.minor, _NEWEST)))
    return [violation for violation in found if violation is not None]


def describe(violations: Sequence[Violation]) -> str:
    """Return the details of violations as messages have them."""
    return ", ".join(f"{reason} ({detail})" if detail else reason for reason, detail in violations)


@lru_cache(maxsize=256)
def _examinations(level: Level, minor: int) -> tuple[Examine, ...]:
    chosen = [
        (check, examine)
        for check in CHECKS
        if check.level.value <= level.value and (examine := _version(check, minor)) is not None
    ]
    overridden = {check.overrides for check, _ in chosen}
    chosen.sort(key=lambda item: (item[0].level.value, item[0].name))
    return tuple(examine for check, examine in chosen if check.name not in overridden)


def _version(check: Check, minor: int) -> Examine | None:
    result = None
    for since, examine in check.versions:
        if since <= minor:
            result = examine
    return result


def _containers(spec: core.PodSpec) -> Iterator[tuple[_Container, core.SecurityContext]]:
    """Yield containers with their security context, an empty one where there is none."""
    for container in podreferences.containers(spec):
        yield container, container.security_context or _NONE


_NONE = core.SecurityContext()
_POD_NONE = core.PodSecurityContext()


def _quoted(items: Iterable[str]) -> str:
    return ", ".join(f'"{item}"' for item in items)


def _plural(word: str, items: Sequence[str]) -> str:
    return f"{word if len(items) == 1 else word + 's'} {_quoted(items)}"


def _setters(pod: bool, containers: Sequence[str]) -> str:
    parts = ["pod"] if pod else []
    return " and ".join([*parts, _plural("container", containers)] if containers else parts)


def _is_windows(spec: core.PodSpec) -> bool:
    return spec.os is not None and spec.os.name == "windows"


def _except_windows(examine: Examine) -> Examine:
    return lambda metadata, spec: None if _is_windows(spec) else examine(metadata, spec)


def _except_user_namespaces(examine: Examine) -> Examine:
    """Root inside of a user namespace is nobody outside."""
    return lambda metadata, spec: None if spec.host_users is False else examine(metadata, spec)


# ---- baseline


_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"


def _apparmor(metadata: meta.ObjectMeta, spec: core.PodSpec) -> Violation | None:
    allowed = ("RuntimeDefault", "Localhost")
    profile = (spec.security_context or _POD_NONE).app_armor_profile
    bad_pod = profile is not None and profile.type not in allowed
    values = {profile.type} if profile is not None and bad_pod else set()
    containers = []
    for container, context in _containers(spec):
        own = context.app_armor_profile
        if own is not None and own.type not in allowed:
            containers.append(container.name)
            values.add(own.type)
    annotations = sorted(
        f"{key}={quote(value)}"
        for key, value in metadata.annotations.items()
        if key.startswith(_APPARMOR) and value not in ("", "runtime/default") and not value.startswith("localhost/")
    )
    if not (bad_pod or containers or annotations):
        return None
    setters = [part for part in (_setters(bad_pod, containers),) if part]
    if annotations:
        setters.append("annotation" if len(annotations) == 1 else "annotations")
    shown = [*sorted(values), *annotations]
    reason = "forbidden AppArmor profile" if len(shown) == 1 else "forbidden AppArmor profiles"
    return Violation(reason, f"{' and '.join(setters)} must not set AppArmor profile type to {_quoted(shown)}")


_DEFAULT_CAPABILITIES = frozenset({
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
    "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
})  # fmt: skip


def _capabilities_baseline(_metadata: meta.ObjectMeta, spec: core.PodSpec) -> Violation | None:
    containers, bad = _added(spec, _DEFAULT_CAPABILITIES)
    if not containers:
        return None
    where = _plural("container", containers)
    return Violation(
        "non-default capabilities", f"{where} must not include {_quoted(bad)} in securityContext.capabilities.add"
    )


def _added(spec: core.PodSpec, allowed: frozenset[str]) -> tuple[list[str], list[str]]:
    """Return which containers add capabilities beyond `allowed`, and which ones these are."""
    containers, bad = [], set()
    for container, context in _containers(spec):
        added = set(context.capabilities.add if context.capabilities is not None else ()) - allowed
        if added:
            containers.append(container.name)
            bad |= added
    return containers, sorted(bad)


def _host_namespaces(_metadata: meta.ObjectMeta, spec: core.PodSpec) -> Violation | None:
    flags = (("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc))
    used = [f"{name}=true" for name, value in flags if value]
    return Violation("host namespaces", ", ".join(used)) if used else None


def _host_paths(_metadata: meta.ObjectMeta, spec: core.PodSpec) -> Violation | None:
    volumes = [volume.name for volume in spec.volumes if volume.host_path is not None]
    return Violation("hostPath volumes", _plural("volume", volumes)) if volumes else None


def _host_ports(_metadata: meta.ObjectMeta, spec: core.PodSpec) -> Violation | None:
    containers, ports = [], set()
    for container in podreferences.containers(spec):
        used = {str(port.host_port) for port in container.ports if port.host_port}
        if used:
            containers.append(container.name)
            ports |= used
    if not containers:
        return None
    uses = "uses" if len(containers) == 1 else "use"
    word = "hostPort" if len(ports) == 1 else "hostPorts"
    return Violation("hostPort", f"{_plural('container', containers)} {uses} {word} {', '.join(sorted(ports))}")


def _hosts_of(container: _Container) -> Iterator[str]:
    handlers: list[core.Probe | core.LifecycleHandler | None] = [
        container.liveness_probe,
        container.readiness_probe,
        container.startup_probe,
    ]
    if container.lifecycle is not None:
        handlers += [container.lifecycle.post_start, container.lifecycle.pre_stop]
    for handler in handlers:
        if handler is None:
            continue
        if handler.http_get is not None and handler.http_get.host:
            yield handler.http_get.host
        if handler.tcp_socket is not None and handler.tcp_socket.host:
            yield handler.tcp_socket.host


def _probe_hosts(_metadata: meta.ObjectMeta, spec: core.PodSpec) -> Violation | None:
    containers, hosts = set(), set()
    for container in podreferences.containers(spec):
        found = set(_hosts_of(container))
        if found:
            containers.add(container.name)
            hosts |= found
    if not containers:
        return None
    uses = "uses" if len(containers) == 1 else "use"
    word = "probe or lifecycle host"
    return Violation(
        word, f"{_plural('container', sorted(containers))} {uses} {word}{'' if len(hosts) == 1 else 's'}"
        f" {_quoted(sorted(hosts))}"
    )  # fmt: skip


def _privileged(_metadata: meta.ObjectMeta, spec: core.PodSpec) -> Violation | None:
    containers = [container.name for container, context in _containers(spec) if context.privileged]
    if not containers:
        return None
    return Violation("privileged", f"{_plural('container', containers)} must not set securityContext.privileged=true")


def _proc_mount(_metadata: meta.ObjectMeta, spec: core.PodSpec) -> Violation | None:
    containers, kinds = [], set()
    for container, context in _containers(spec):
        if context.proc_mount is not None and context.proc_mount != "Default":
            containers.append(container.name)
            kinds.add(context.proc_mount)
    if not containers:
        return None
    where = _plural("container", containers)
    return Violation("procMount", f"{where} must not set securityContext.procMount to {_quoted(sorted(kinds))}")


_SELINUX_TYPES = frozenset({"", "container_t", "container_init_t", "container_kvm_t"})


def _selinux(allowed: frozenset[str]) -> Examine:
    def examine(_metadata: meta.ObjectMeta, spec: core.PodSpec) -> Violation | None:
        options = [(None, (spec.security_context or _POD_NONE).se_linux_options)]
        named = [(container.name, context.se_linux_options) for container, context in _containers(spec)]
        bad = [
            (name, option)
            for name, option in (*options, *named)
            if option is not None and (option.type not in allowed or option.user or option.role)
        ]
        if not bad:
            return None
        types = sorted({option.type for _, option in bad if option.type not in allowed})
        data = [_plural("type", types)] if types else []
        data += ["user may not be set"] if any(option.user for _, option in bad) else []
        data += ["role may not be set"] if any(option.role for _, option in bad) else []
        setters = _setters(any(name is None for name, _ in bad), [name for name, _ in bad if name is not None])
        return Violation("seLinuxOptions", f"{setters} set forbidden securityContext.seLinuxOptions: {'; '.join(data)}")

    return examine


_SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"
_SECCOMP_TYPES = ("RuntimeDefault", "Localhost")


def _seccomp_annotations(metadata: meta.ObjectMeta, spec: core.PodSpec) -> Violation | None:
    keys = [_SECCOMP_POD, *(_SECCOMP_CONTAINER + container.name for container in podreferences.containers(spec))]
    bad = sorted(
        f"{key}={quote(metadata.annotations[key])}"
        for key in dict.fromkeys(keys)
        if key in metadata.annotations
        and metadata.annotations[key] not in ("runtime/default", "docker/default")
        and not metadata.annotations[key].startswith("localhost/")
    )
    if not bad:
        return None
    return Violation("seccompProfile", f"forbidden annotation{'' if len(bad) == 1 else 's'} {', '.join(bad)}")


def _seccomp(*, required: bool) -> Examine:
    def examine(_metadata: meta.ObjectMeta, spec: core.PodSpec) -> Violation | None:
        profile = (spec.security_context or _POD_NONE).seccomp_profile
        bad_pod = profile is not None and profile.type not in _SECCOMP_TYPES
        values = {profile.type} if profile is not None and bad_pod else set()
        explicit, implicit = [], []
        for container, context in _containers(spec):
            own = context.seccomp_profile
            if own is None:
                implicit.append(container.name)
            elif own.type not in _SECCOMP_TYPES:
                explicit.append(container.name)
                values.add(own.type)
        if bad_pod or explicit:
            setters = _setters(bad_pod, explicit)
            text = f"{setters} must not set securityContext.seccompProfile.type to {_quoted(sorted(values))}"
            return Violation("seccompProfile", text)
        if required and profile is None and implicit:
            where = _plural("container", implicit)
            text = f'pod or {where} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
            return Violation("seccompProfile", text)
        return None

    return examine


_SYSCTLS_1_0 = frozenset({
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
})  # fmt: skip
_SYSCTLS_1_27 = _SYSCTLS_1_0 | {"net.ipv4.ip_local_reserved_ports"}
_SYSCTLS_1_29 = _SYSCTLS_1_27 | {
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}  # fmt: skip
_SYSCTLS_1_32 = _SYSCTLS_1_29 | {"net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"}


def _sysctls(allowed: frozenset[str]) -> Examine:
    def examine(_metadata: meta.ObjectMeta, spec: core.PodSpec) -> Violation | None:
        context = spec.security_context or _POD_NONE
        bad = [sysctl.name for sysctl in context.sysctls if sysctl.name not in allowed]
        return Violation("forbidden sysctls", ", ".join(bad)) if bad else None

    return examine


def _host_process(_metadata: meta.ObjectMeta, spec: core.PodSpec) -> Violation | None:
    def is_set(options: core.WindowsSecurityContextOptions | None) -> bool:
        return options is not None and bool(options.host_process)

    pod = is_set((spec.security_context or _POD_NONE).windows_options)
    containers = [container.name for container, context in _containers(spec) if is_set(context.windows_options)]
    if not (pod or containers):
        return None
    text = f"{_setters(pod, containers)} must not set securityContext.windowsOptions.hostProcess=true"
    return Violation("hostProcess", text)


# ---- restricted


def _escalation(_metadata: meta.ObjectMeta, spec: core.PodSpec) -> Violation | None:
    containers = [
        container.name for container, context in _containers(spec) if context.allow_privilege_escalation is not False
    ]
    if not containers:
        return None
    where = _plural("container", containers)
    return Violation(
        "allowPrivilegeEscalation != false", f"{where} must set securityContext.allowPrivilegeEscalation=false"
    )


def _capabilities_restricted(_metadata: meta.ObjectMeta, spec: core.PodSpec) -> Violation | None:
    keeping = [
        container.name
        for container, context in _containers(spec)
        if context.capabilities is None or "ALL" not in context.capabilities.drop
    ]
    adding, bad = _added(spec, frozenset({"NET_BIND_SERVICE"}))
    details = []
    if keeping:
        details.append(f'{_plural("container", keeping)} must set securityContext.capabilities.drop=["ALL"]')
    if adding:
        where = _plural("container", adding)
        details.append(f"{where} must not include {_quoted(bad)} in securityContext.capabilities.add")
    return Violation("unrestricted capabilities", "; ".join(details)) if details else None


_VOLUMES = (
    "config_map", "csi", "downward_api", "empty_dir", "ephemeral", "image", "persistent_volume_claim", "projected",
    "secret",
)  # fmt: skip
_OTHER_VOLUMES = {
    "host_path": "hostPath", "gce_persistent_disk": "gcePersistentDisk",
    "aws_elastic_block_store": "awsElasticBlockStore", "git_repo": "gitRepo", "nfs": "nfs", "iscsi": "iscsi",
    "glusterfs": "glusterfs", "rbd": "rbd", "flex_volume": "flexVolume", "cinder": "cinder", "cephfs": "cephfs",
    "flocker": "flocker", "fc": "fc", "azure_file": "azureFile", "vsphere_volume": "vsphereVolume",
    "quobyte": "quobyte", "azure_disk": "azureDisk", "photon_persistent_disk": "photonPersistentDisk",
    "portworx_volume": "portworxVolume", "scale_io": "scaleIO", "storageos": "storageos",
}  # fmt: skip


def _volumes(_metadata: meta.ObjectMeta, spec: core.PodSpec) -> Violation | None:
    volumes, kinds = [], set()
    for volume in spec.volumes:
        if any(getattr(volume, source) is not None for source in _VOLUMES):
            continue
        volumes.append(volume.name)
        found = (word for source, word in _OTHER_VOLUMES.items() if getattr(volume, source) is not None)
        kinds.add(next(found, "unknown"))
    if not volumes:
        return None
    uses = "uses" if len(volumes) == 1 else "use"
    word = f"restricted volume type{'' if len(kinds) == 1 else 's'}"
    return Violation("restricted volume types", f"{_plural('volume', volumes)} {uses} {word} {_quoted(sorted(kinds))}")


def _non_root(_metadata: meta.ObjectMeta, spec: core.PodSpec) -> Violation | None:
    pod = (spec.security_context or _POD_NONE).run_as_non_root
    explicit = [container.name for container, context in _containers(spec) if context.run_as_non_root is False]
    implicit = [container.name for container, context in _containers(spec) if context.run_as_non_root is None]
    reason = "runAsNonRoot != true"
    if pod is False or explicit:
        return Violation(reason, f"{_setters(pod is False, explicit)} must not set securityContext.runAsNonRoot=false")
    if pod is None and implicit:
        where = _plural("container", implicit)
        return Violation(reason, f"pod or {where} must set securityContext.runAsNonRoot=true")
    return None


def _user_0(_metadata: meta.ObjectMeta, spec: core.PodSpec) -> Violation | None:
    pod = (spec.security_context or _POD_NONE).run_as_user == 0
    containers = [container.name for container, context in _containers(spec) if context.run_as_user == 0]
    if not (pod or containers):
        return None
    return Violation("runAsUser=0", f"{_setters(pod, containers)} must not set runAsUser=0")


CHECKS = (
    Check("appArmorProfile", Level.BASELINE, ((0, _apparmor),)),
    Check("capabilities_baseline", Level.BASELINE, ((0, _capabilities_baseline),)),
    Check("hostNamespaces", Level.BASELINE, ((0, _host_namespaces),)),
    Check("hostPathVolumes", Level.BASELINE, ((0, _host_paths),)),
    Check("hostPorts", Level.BASELINE, ((0, _host_ports),)),
    Check("hostProbesAndHostLifecycle", Level.BASELINE, ((34, _probe_hosts),)),
    Check("privileged", Level.BASELINE, ((0, _privileged),)),
    Check("procMount", Level.BASELINE, ((0, _proc_mount), (35, _except_user_namespaces(_proc_mount)))),
    Check(
        "seLinuxOptions",
        Level.BASELINE,
        ((0, _selinux(_SELINUX_TYPES)), (31, _selinux(_SELINUX_TYPES | {"container_engine_t"}))),
    ),
    Check("seccompProfile_baseline", Level.BASELINE, ((0, _seccomp_annotations), (19, _seccomp(required=False)))),
    Check(
        "sysctls",
        Level.BASELINE,
        (
            (0, _sysctls(_SYSCTLS_1_0)),
            (27, _sysctls(_SYSCTLS_1_27)),
            (29, _sysctls(_SYSCTLS_1_29)),
            (32, _sysctls(_SYSCTLS_1_32)),
        ),
    ),
    Check("windowsHostProcess", Level.BASELINE, ((0, _host_process),)),
    Check("allowPrivilegeEscalation", Level.RESTRICTED, ((8, _escalation), (25, _except_windows(_escalation)))),
    Check(
        "capabilities_restricted",
        Level.RESTRICTED,
        ((22, _capabilities_restricted), (25, _except_windows(_capabilities_restricted))),
        overrides="capabilities_baseline",
    ),
    Check("procMount_restricted", Level.RESTRICTED, ((35, _proc_mount),), overrides="procMount"),
    Check("restrictedVolumes", Level.RESTRICTED, ((0, _volumes),), overrides="hostPathVolumes"),
    Check("runAsNonRoot", Level.RESTRICTED, ((0, _non_root), (35, _except_user_namespaces(_non_root)))),
    Check("runAsUser", Level.RESTRICTED, ((23, _user_0), (35, _except_user_namespaces(_user_0)))),
    Check(
        "seccompProfile_restricted",
        Level.RESTRICTED,
        ((19, _seccomp(required=True)), (25, _except_windows(_seccomp(required=True)))),
        overrides="seccompProfile_baseline",
    ),
)
_NEWEST = max(since for check in CHECKS for since, _ in check.versions)
"""Versions after this one read as this one."""

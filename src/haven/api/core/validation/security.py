"""What is wrong with the security context of a container or a Pod.

Source: https://kubernetes.io/docs/tasks/configure-pod-container/security-context/ and the behaviour of
pkg/apis/core/validation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from haven.api.core import v1
from haven.api.core.validation.paths import validate_local_path
from haven.api.internalform import internal_form
from haven.apimachinery.fielderrors import (
    ErrorList,
    Path,
    duplicate,
    forbidden,
    invalid,
    not_supported,
    required,
    too_long,
)
from haven.apimachinery.goformat import quote
from haven.apimachinery.validation.names import byte_length, dns1123_subdomain_errors, user_id_errors

__all__ = [
    "APP_ARMOR_ANNOTATION",
    "SECCOMP_CONTAINER_ANNOTATION",
    "SECCOMP_POD_ANNOTATION",
    "WINDOWS_CONTAINER_FORBIDDEN",
    "app_armor_annotation_complaint",
    "app_armor_errors",
    "app_armor_field",
    "is_host_sysctl_conflict",
    "seccomp_annotation_errors",
    "validate_container_security",
    "validate_pod_security",
    "windows_forbidden",
]

APP_ARMOR_ANNOTATION = "container.apparmor.security.beta.kubernetes.io/"
SECCOMP_POD_ANNOTATION = "seccomp.security.alpha.kubernetes.io/pod"
SECCOMP_CONTAINER_ANNOTATION = "container.seccomp.security.alpha.kubernetes.io/"

_SYSCTL = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
_sysctl = re.compile(_SYSCTL.removeprefix("^").removesuffix("$")).fullmatch
_SYSCTL_MAX = 253
_PATH_MAX = 4095
_CREDENTIAL_KIB_MAX = 64
_control = re.compile(r"[\x00-\x1f\x7f]").search
_net_bios = re.compile(r'[^\\/:*?"<>|.][^\\/:*?"<>|]{0,14}').fullmatch
_dns_label = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_dns_domain = re.compile(rf"{_dns_label}(?:\.{_dns_label})*").fullmatch
_bad_user_chars = re.compile(r'["/\\:;|=,+*?<>@\[\]]').search
_dots_and_spaces = re.compile(r"[. ]+").fullmatch


def validate_container_security(context: v1.SecurityContext, path: Path, *, host_users: bool) -> ErrorList:
    """Check what a container may do."""
    errors: ErrorList = []
    if context.run_as_user is not None:
        errors += _number(context.run_as_user, path.child("runAsUser"))
    if context.run_as_group is not None:
        errors += _number(context.run_as_group, path.child("runAsGroup"))
    if context.proc_mount is not None:
        if context.proc_mount not in ("Default", "Unmasked"):
            errors.append(not_supported(path.child("procMount"), context.proc_mount, ("Default", "Unmasked")))
        if host_users and context.proc_mount == "Unmasked":
            words = "`hostUsers` must be false to use `Unmasked`"
            errors.append(invalid(path.child("procMount"), context.proc_mount, words))
    errors += _seccomp(context.seccomp_profile, path.child("seccompProfile"))
    if context.allow_privilege_escalation is False:
        prefix = "cannot set `allowPrivilegeEscalation` to false and"
        if context.privileged:
            errors.append(invalid(path, internal_form(context), f"{prefix} `privileged` to true"))
        for capability in context.capabilities.add if context.capabilities is not None else ():
            if capability == "CAP_SYS_ADMIN":
                words = f"{prefix} `capabilities.Add` CAP_SYS_ADMIN"
                errors.append(invalid(path, internal_form(context), words))
    errors += _windows_options(context.windows_options, path.child("windowsOptions"))
    return errors + app_armor_errors(context.app_armor_profile, path.child("appArmorProfile"))


def validate_pod_security(spec: v1.PodSpec, path: Path, *, old_host_sysctls: bool, any_se_linux: bool) -> ErrorList:
    """Check the security context of a Pod; `path` is the context's."""
    context = spec.security_context
    if context is None:
        return []
    errors: ErrorList = []
    if context.fs_group is not None:
        errors += _number(context.fs_group, path.child("fsGroup"))
    if context.run_as_user is not None:
        errors += _number(context.run_as_user, path.child("runAsUser"))
    if context.run_as_group is not None:
        errors += _number(context.run_as_group, path.child("runAsGroup"))
    for index, group in enumerate(context.supplemental_groups):
        errors += _number(group, path.child("supplementalGroups").index(index))
    if spec.share_process_namespace and spec.host_pid:
        words = "ShareProcessNamespace and HostPID cannot both be enabled"
        errors.append(invalid(path.child("shareProcessNamespace"), True, words))
    if context.sysctls:
        errors += _sysctls(spec, context, path.child("sysctls"), old_host_sysctls)
    policy = context.fs_group_change_policy
    if policy is not None and policy not in ("Always", "OnRootMismatch"):
        errors.append(not_supported(path.child("fsGroupChangePolicy"), policy, ("Always", "OnRootMismatch")))
    errors += _seccomp(context.seccomp_profile, path.child("seccompProfile"))
    errors += _windows_options(context.windows_options, path.child("windowsOptions"))
    errors += app_armor_errors(context.app_armor_profile, path.child("appArmorProfile"))
    policy = context.supplemental_groups_policy
    if policy is not None and policy not in ("Merge", "Strict"):
        errors.append(not_supported(path.child("supplementalGroupsPolicy"), policy, ("Merge", "Strict")))
    policy = context.se_linux_change_policy
    allowed = ("MountOption", "Recursive") if any_se_linux else ("Recursive",)
    if policy is not None and policy not in allowed:
        errors.append(not_supported(path.child("seLinuxChangePolicy"), policy, allowed))
    return errors


def _number(value: int, path: Path) -> ErrorList:
    return [invalid(path, value, text) for text in user_id_errors(value)]


def is_host_sysctl_conflict(name: str, spec: v1.PodSpec) -> str:
    """Say why a kernel setting cannot belong to a Pod that shares the host's namespace; "" if it can."""
    slash, dot = name.find("/"), name.find(".")
    if slash >= 0 and (dot < 0 or slash < dot):
        name = name.translate(_SLASHES)
    if spec.host_network and name.startswith("net."):
        return "may not be specified when 'hostNetwork' is true"
    if spec.host_ipc and (name == "kernel.sem" or name.startswith(("kernel.shm", "kernel.msg", "fs.mqueue."))):
        return "may not be specified when 'hostIPC' is true"
    return ""


_SLASHES = str.maketrans({"/": ".", ".": "/"})


def _sysctls(spec: v1.PodSpec, context: v1.PodSecurityContext, path: Path, forgive: bool) -> ErrorList:
    errors: ErrorList = []
    seen: set[str] = set()
    for index, setting in enumerate(context.sysctls):
        place = path.index(index).child("name")
        if not setting.name:
            errors.append(required(place, ""))
        elif len(setting.name) > _SYSCTL_MAX or not _sysctl(setting.name):
            words = f"must have at most {_SYSCTL_MAX} characters and match regex {_SYSCTL}"
            errors.append(invalid(place, setting.name, words))
        elif setting.name in seen:
            errors.append(duplicate(place, setting.name))
        if not forgive and (words := is_host_sysctl_conflict(setting.name, spec)):
            errors.append(invalid(place, setting.name, words))
        seen.add(setting.name)
    return errors


_PROFILE_TYPES = ("Localhost", "RuntimeDefault", "Unconfined")


def _seccomp(profile: v1.SeccompProfile | None, path: Path) -> ErrorList:
    if profile is None:
        return []
    errors: ErrorList = []
    if not profile.type:
        errors.append(required(path.child("type"), "type is required when seccompProfile is set"))
    elif profile.type not in _PROFILE_TYPES:
        errors.append(not_supported(path.child("type"), profile.type, _PROFILE_TYPES))
    place = path.child("localhostProfile")
    if profile.type == "Localhost":
        if profile.localhost_profile is None:
            errors.append(required(place, "must be set when seccomp type is Localhost"))
        else:
            errors += validate_local_path(profile.localhost_profile, place)
    elif profile.localhost_profile is not None:
        errors.append(invalid(place, internal_form(profile), "can only be set when seccomp type is Localhost"))
    return errors


def app_armor_errors(profile: v1.AppArmorProfile | None, path: Path) -> ErrorList:
    """Check an AppArmor profile."""
    if profile is None:
        return []
    errors: ErrorList = []
    place = path.child("localhostProfile")
    if profile.type == "Localhost":
        name = profile.localhost_profile
        if name is None:
            errors.append(required(place, "must be set when AppArmor type is Localhost"))
        else:
            if name.strip() != name:
                errors.append(invalid(place, name, "must not be padded with whitespace"))
            elif not name:
                errors.append(required(place, "must be set when AppArmor type is Localhost"))
            if byte_length(name) > _PATH_MAX:
                errors.append(too_long(place, "", _PATH_MAX))
    elif profile.type in _PROFILE_TYPES:
        if profile.localhost_profile is not None:
            words = "can only be set when AppArmor type is Localhost"
            errors.append(invalid(place, profile.localhost_profile, words))
    elif not profile.type:
        errors.append(required(path.child("type"), "type is required when appArmorProfile is set"))
    else:
        errors.append(not_supported(path.child("type"), profile.type, _PROFILE_TYPES))
    return errors


def app_armor_field(annotation: str) -> v1.AppArmorProfile | None:
    """Return the field that says the same as an annotation."""
    if annotation == "unconfined":
        return v1.AppArmorProfile(type="Unconfined")
    if annotation == "runtime/default":
        return v1.AppArmorProfile(type="RuntimeDefault")
    if annotation.startswith("localhost/") and (name := annotation.removeprefix("localhost/")):
        return v1.AppArmorProfile(type="Localhost", localhost_profile=name)
    return None


def seccomp_annotation_errors(annotations: Mapping[str, str], path: Path) -> ErrorList:
    """Check the annotations that named seccomp profiles before there were fields."""
    errors: ErrorList = []
    names = [SECCOMP_POD_ANNOTATION] if SECCOMP_POD_ANNOTATION in annotations else []
    names += [key for key in sorted(annotations) if key.startswith(SECCOMP_CONTAINER_ANNOTATION)]
    for key in names:
        profile = annotations[key]
        if profile in ("runtime/default", "docker/default", "unconfined"):
            continue
        if profile.startswith("localhost/"):
            errors += validate_local_path(profile.removeprefix("localhost/"), path.child(key))
        else:
            errors.append(invalid(path.child(key), profile, "must be a valid seccomp profile"))
    return errors


def app_armor_annotation_complaint(profile: str) -> str:
    """Say what is wrong with the name of an AppArmor profile in an annotation; "" for nothing."""
    if profile in ("", "runtime/default", "unconfined") or profile.startswith("localhost/"):
        return ""
    return f"invalid AppArmor profile name: {quote(profile)}"


def _windows_options(options: v1.WindowsSecurityContextOptions | None, path: Path) -> ErrorList:
    if options is None:
        return []
    errors: ErrorList = []
    name = options.gmsa_credential_spec_name
    if name is not None:
        for text in dns1123_subdomain_errors(name):
            errors.append(invalid(path.child("gmsaCredentialSpecName"), name, text))
    credential = options.gmsa_credential_spec
    if credential is not None:
        if not credential:
            words = "gmsaCredentialSpec cannot be an empty string"
            errors.append(invalid(path.child("gmsaCredentialSpec"), credential, words))
        elif byte_length(credential) > _CREDENTIAL_KIB_MAX * 1024:
            words = f"gmsaCredentialSpec size must be under {_CREDENTIAL_KIB_MAX} KiB"
            errors.append(invalid(path.child("gmsaCredentialSpec"), credential, words))
    if options.run_as_user_name is not None:
        for words in _windows_user_complaints(options.run_as_user_name):
            errors.append(invalid(path.child("runAsUserName"), options.run_as_user_name, words))
    return errors


def _windows_user_complaints(name: str) -> list[str]:
    if not name:
        return ["runAsUserName cannot be an empty string"]
    if _control(name):
        return ["runAsUserName cannot contain control characters"]
    if name.count("\\") > 1:
        return ["runAsUserName cannot contain more than one backslash"]
    domain, backslash, user = name.rpartition("\\")
    complaints = []
    if byte_length(domain) >= 256:
        complaints.append("runAsUserName's Domain length must be under 256 characters")
    if backslash and not (_net_bios(domain) or _dns_domain(domain)):
        complaints.append("runAsUserName's Domain doesn't match the NetBios nor the DNS format")
    if not user:
        complaints.append("runAsUserName's User cannot be empty")
    elif byte_length(user) > 104:
        complaints.append("runAsUserName's User length must not be longer than 104 characters")
    if _dots_and_spaces(user):
        complaints.append("runAsUserName's User cannot contain only periods or spaces")
    if _bad_user_chars(user):
        complaints.append("runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]")
    return complaints


def windows_forbidden(spec: v1.PodSpec, path: Path) -> ErrorList:
    """Complain about everything that a Windows Pod cannot have."""
    words = "cannot be set for a windows pod"
    errors: ErrorList = []
    context = spec.security_context
    if context is not None:
        inside = path.child("securityContext")
        rules = (
            (context.app_armor_profile is not None, inside, "appArmorProfile"),
            (context.se_linux_options is not None, inside, "seLinuxOptions"),
            (spec.host_users is not None, path, "hostUsers"),
            (spec.host_pid, path, "hostPID"),
            (spec.host_ipc, path, "hostIPC"),
            (context.seccomp_profile is not None, inside, "seccompProfile"),
            (context.fs_group is not None, inside, "fsGroup"),
            (context.fs_group_change_policy is not None, inside, "fsGroupChangePolicy"),
            (bool(context.sysctls), inside, "sysctls"),
            (spec.share_process_namespace is not None, path, "shareProcessNamespace"),
            (context.run_as_user is not None, inside, "runAsUser"),
            (context.run_as_group is not None, inside, "runAsGroup"),
            (bool(context.supplemental_groups), inside, "supplementalGroups"),
            (context.supplemental_groups_policy is not None, inside, "supplementalGroupsPolicy"),
            (context.se_linux_change_policy is not None, inside, "seLinuxChangePolicy"),
        )
        errors += [forbidden(place.child(name), words) for is_set, place, name in rules if is_set]
    return errors


WINDOWS_CONTAINER_FORBIDDEN = (
    ("app_armor_profile", "appArmorProfile"),
    ("se_linux_options", "seLinuxOptions"),
    ("seccomp_profile", "seccompProfile"),
    ("capabilities", "capabilities"),
    ("read_only_root_filesystem", "readOnlyRootFilesystem"),
    ("privileged", "privileged"),
    ("allow_privilege_escalation", "allowPrivilegeEscalation"),
    ("proc_mount", "procMount"),
    ("run_as_user", "runAsUser"),
    ("run_as_group", "runAsGroup"),
)
"""What a container of a Windows Pod cannot have: (attribute, field)."""

"""What is wrong with containers, init containers and ephemeral containers.

Source: https://kubernetes.io/docs/concepts/workloads/pods/ and the behaviour of pkg/apis/core/validation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from haven.api.core import v1
from haven.api.core.validation.env import validate_env, validate_env_from
from haven.api.core.validation.metadata import validate_dns1123_label
from haven.api.core.validation.mounts import validate_volume_devices, validate_volume_mounts
from haven.api.core.validation.probes import (
    validate_lifecycle,
    validate_liveness_probe,
    validate_readiness_probe,
    validate_startup_probe,
)
from haven.api.core.validation.quantities import validate_resource_requirements
from haven.api.core.validation.security import validate_container_security
from haven.apimachinery.fielderrors import (
    ErrorList,
    Path,
    duplicate,
    forbidden,
    invalid,
    not_found,
    not_supported,
    required,
    too_many,
)
from haven.apimachinery.validation.names import port_name_errors, port_number_errors

__all__ = [
    "Container",
    "ContainerContext",
    "containers_of",
    "validate_containers",
    "validate_ephemeral_containers",
    "validate_image_spacing",
    "validate_init_containers",
]

Container = v1.Container | v1.EphemeralContainerCommon
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_RESTART_RULES_MAX = 20
_EXIT_CODES_MAX = 255
_ONLY_SIDECARS = "may not be set for init containers without restartPolicy=Always"


@dataclass(frozen=True, slots=True)
class ContainerContext:
    """What containers are checked against: facts about their Pod, and what an older Pod is forgiven."""

    volumes: Mapping[str, v1.Volume]
    claim_names: Collection[str]
    restart_policy: str
    grace_period_seconds: int | None
    os: v1.PodOS | None
    host_users: bool
    allow_indivisible_huge_pages: bool = False
    allow_restart_container_of_init: bool = False


def validate_containers(containers: Sequence[v1.Container], context: ContainerContext, path: Path) -> ErrorList:
    """Check the containers that run all the time."""
    if not containers:
        return [required(path, "")]
    errors: ErrorList = []
    names: set[str] = set()
    for index, container in enumerate(containers):
        place = path.index(index)
        errors += _validate_common(container, context, place)
        if container.name in names:
            errors.append(duplicate(place.child("name"), container.name))
        names.add(container.name)
        errors += _probes_and_hooks(container, context, place)
        if container.restart_policy is not None or container.restart_policy_rules:
            errors += _restart_policy(container, place)
    return errors + _host_port_conflicts(containers, path)


def _probes_and_hooks(container: v1.Container, context: ContainerContext, path: Path) -> ErrorList:
    errors: ErrorList = []
    grace = context.grace_period_seconds
    if container.lifecycle is not None:
        errors += validate_lifecycle(container.lifecycle, grace, path.child("lifecycle"), context.os)
    if container.liveness_probe is not None:
        errors += validate_liveness_probe(container.liveness_probe, grace, path.child("livenessProbe"))
    if container.readiness_probe is not None:
        errors += validate_readiness_probe(container.readiness_probe, grace, path.child("readinessProbe"))
    if container.startup_probe is not None:
        errors += validate_startup_probe(container.startup_probe, grace, path.child("startupProbe"))
    return errors


def validate_init_containers(
    containers: Sequence[v1.Container], regular: Sequence[v1.Container], context: ContainerContext, path: Path
) -> ErrorList:
    """Check the containers that run before the others, or beside them (restartPolicy Always)."""
    errors: ErrorList = []
    names = {container.name for container in regular}
    for index, container in enumerate(containers):
        place = path.index(index)
        errors += _validate_common(container, context, place)
        if container.restart_policy is None:
            if container.restart_policy_rules:
                words = "must specify restartPolicy when restart rules are used"
                errors.append(required(place.child("restartPolicy"), words))
        else:
            errors += _restart_policy(container, place)
        is_sidecar = container.restart_policy == "Always"
        if container.name in names:
            errors.append(duplicate(place.child("name"), container.name))
        elif container.name:
            names.add(container.name)
        errors += _host_port_conflicts([container], path)
        if is_sidecar:
            errors += _probes_and_hooks(container, context, place)
        else:
            for name, value in (
                ("lifecycle", container.lifecycle),
                ("livenessProbe", container.liveness_probe),
                ("readinessProbe", container.readiness_probe),
                ("startupProbe", container.startup_probe),
            ):
                if value is not None:
                    errors.append(forbidden(place.child(name), _ONLY_SIDECARS))
        if not is_sidecar and not context.allow_restart_container_of_init:
            for number, policy in enumerate(container.resize_policy):
                if policy.restart_policy == "RestartContainer":
                    where = place.child("resizePolicy").index(number).child("restartPolicy")
                    words = "must not be set to 'RestartContainer' for non-sidecar initContainers"
                    errors.append(invalid(where, policy.restart_policy, words))
    return errors


_EPHEMERAL_FORBIDDEN = (
    ("ports", "ports"),
    ("resources", "resources"),
    ("resize_policy", "resizePolicy"),
    ("restart_policy", "restartPolicy"),
    ("restart_policy_rules", "restartPolicyRules"),
    ("liveness_probe", "livenessProbe"),
    ("readiness_probe", "readinessProbe"),
    ("startup_probe", "startupProbe"),
    ("lifecycle", "lifecycle"),
)
_NOT_EPHEMERAL = "cannot be set for an Ephemeral Container"


def validate_ephemeral_containers(
    containers: Sequence[v1.EphemeralContainer], others: Sequence[v1.Container], context: ContainerContext, path: Path
) -> ErrorList:
    """Check the containers that were added for debugging."""
    errors: ErrorList = []
    other_names = {container.name for container in others}
    names = set(other_names)
    empty = v1.EphemeralContainer()
    for index, container in enumerate(containers):
        place = path.index(index)
        errors += _validate_common(container, context, place)
        errors += validate_image_spacing(container.image, place)
        if container.name in names:
            errors.append(duplicate(place.child("name"), container.name))
        names.add(container.name)
        if container.target_container_name and container.target_container_name not in other_names:
            errors.append(not_found(place.child("targetContainerName"), container.target_container_name))
        for attribute, name in _EPHEMERAL_FORBIDDEN:
            if getattr(container, attribute) != getattr(empty, attribute):
                errors.append(forbidden(place.child(name), _NOT_EPHEMERAL))
        for number, mount in enumerate(container.volume_mounts):
            where = place.child("volumeMounts").index(number)
            if mount.sub_path:
                errors.append(forbidden(where.child("subPath"), _NOT_EPHEMERAL))
            if mount.sub_path_expr:
                errors.append(forbidden(where.child("subPathExpr"), _NOT_EPHEMERAL))
    return errors


def validate_image_spacing(image: str, path: Path) -> ErrorList:
    """Check that an image's name has no spaces around it."""
    if image.strip() == image:
        return []
    return [invalid(path.child("image"), image, "must not have leading or trailing whitespace")]


def _validate_common(container: Container, context: ContainerContext, path: Path) -> ErrorList:
    errors: ErrorList = []
    if not container.name:
        errors.append(required(path.child("name"), ""))
    else:
        errors += validate_dns1123_label(container.name, path.child("name"))
    if not container.image:
        errors.append(required(path.child("image"), ""))
    policy = container.termination_message_policy
    if not policy:
        errors.append(required(path.child("terminationMessagePolicy"), ""))
    elif policy not in ("File", "FallbackToLogsOnError"):
        policies = ("File", "FallbackToLogsOnError")
        errors.append(not_supported(path.child("terminationMessagePolicy"), policy, policies))
    if container.ports:
        errors += _ports(container.ports, path.child("ports"))
    if container.env:
        errors += validate_env(container.env, path.child("env"))
    if container.env_from:
        errors += validate_env_from(container.env_from, path.child("envFrom"))
    if container.volume_mounts:
        errors += validate_volume_mounts(container, context.volumes, path.child("volumeMounts"))
    if container.volume_devices:
        errors += validate_volume_devices(
            container.volume_devices, container.volume_mounts, context.volumes, path.child("volumeDevices")
        )
    if not container.image_pull_policy:
        errors.append(required(path.child("imagePullPolicy"), ""))
    elif container.image_pull_policy not in _PULL_POLICIES:
        errors.append(not_supported(path.child("imagePullPolicy"), container.image_pull_policy, _PULL_POLICIES))
    errors += validate_resource_requirements(
        container.resources,
        context.claim_names,
        path.child("resources"),
        allow_indivisible=context.allow_indivisible_huge_pages,
    )
    if container.resize_policy:
        errors += _resize_policy(container.resize_policy, context.restart_policy, path.child("resizePolicy"))
    if container.security_context is not None:
        errors += validate_container_security(
            container.security_context, path.child("securityContext"), host_users=context.host_users
        )
    return errors


def _ports(ports: Sequence[v1.ContainerPort], path: Path) -> ErrorList:
    errors: ErrorList = []
    names: set[str] = set()
    for index, port in enumerate(ports):
        place = path.index(index)
        if port.name:
            if found := port_name_errors(port.name):
                errors += [invalid(place.child("name"), port.name, text) for text in found]
            elif port.name in names:
                errors.append(duplicate(place.child("name"), port.name))
            else:
                names.add(port.name)
        if port.container_port == 0:
            errors.append(required(place.child("containerPort"), ""))
        else:
            for text in port_number_errors(port.container_port):
                errors.append(invalid(place.child("containerPort"), port.container_port, text))
        if port.host_port != 0:
            for text in port_number_errors(port.host_port):
                errors.append(invalid(place.child("hostPort"), port.host_port, text))
        if not port.protocol:
            errors.append(required(place.child("protocol"), ""))
        elif port.protocol not in _PROTOCOLS:
            errors.append(not_supported(place.child("protocol"), port.protocol, _PROTOCOLS))
    return errors


def _host_port_conflicts(containers: Sequence[v1.Container], path: Path) -> ErrorList:
    errors: ErrorList = []
    taken: set[str] = set()
    for index, container in enumerate(containers):
        for number, port in enumerate(container.ports):
            if port.host_port == 0:
                continue
            key = f"{port.protocol}/{port.host_ip}/{port.host_port}"
            if key in taken:
                errors.append(duplicate(path.index(index).child("ports").index(number).child("hostPort"), key))
            taken.add(key)
    return errors


def _resize_policy(policies: Sequence[v1.ContainerResizePolicy], restart_policy: str, path: Path) -> ErrorList:
    errors: ErrorList = []
    seen: set[str] = set()
    for index, policy in enumerate(policies):
        name, restart = policy.resource_name, policy.restart_policy
        if name in seen:
            errors.append(duplicate(path.index(index), name))
        seen.add(name)
        if not name:
            errors.append(required(path, ""))
        elif name not in ("cpu", "memory"):
            errors.append(not_supported(path, name, ("cpu", "memory")))
        if not restart:
            errors.append(required(path, ""))
        elif restart not in ("NotRequired", "RestartContainer"):
            errors.append(not_supported(path, restart, ("NotRequired", "RestartContainer")))
        if restart_policy == "Never" and restart != "NotRequired":
            errors.append(invalid(path, restart, "must be 'NotRequired' when pod `restartPolicy` is 'Never'"))
    return errors


def _restart_policy(container: v1.Container, path: Path) -> ErrorList:
    errors: ErrorList = []
    policies = ("Always", "Never", "OnFailure")
    if container.restart_policy is None:
        words = "must specify restartPolicy when restart rules are used"
        errors.append(required(path.child("restartPolicy"), words))
    elif container.restart_policy not in policies:
        errors.append(not_supported(path.child("restartPolicy"), container.restart_policy, policies))
    rules = container.restart_policy_rules
    if len(rules) > _RESTART_RULES_MAX:
        errors.append(too_many(path.child("restartPolicyRules"), len(rules), _RESTART_RULES_MAX))
    for index, rule in enumerate(rules):
        place = path.child("restartPolicyRules").index(index)
        if rule.action not in ("Restart", "RestartAllContainers"):
            errors.append(not_supported(place.child("action"), rule.action, ("Restart", "RestartAllContainers")))
        codes = rule.exit_codes
        if codes is None:
            errors.append(required(place.child("exitCodes"), "must be specified"))
            continue
        if codes.operator not in ("In", "NotIn"):
            errors.append(not_supported(place.child("exitCodes").child("operator"), codes.operator, ("In", "NotIn")))
        if len(codes.values) > _EXIT_CODES_MAX:
            where = place.child("exitCodes").child("values")
            errors.append(too_many(where, len(codes.values), _EXIT_CODES_MAX))
    return errors


def containers_of(spec: v1.PodSpec, path: Path) -> Iterator[tuple[Container, Path]]:
    """Return every container with its path: init containers, containers, ephemeral ones."""
    for index, container in enumerate(spec.init_containers):
        yield container, path.child("initContainers").index(index)
    for index, container in enumerate(spec.containers or ()):
        yield container, path.child("containers").index(index)
    for index, ephemeral in enumerate(spec.ephemeral_containers):
        yield ephemeral, path.child("ephemeralContainers").index(index)

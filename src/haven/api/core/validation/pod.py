"""What is wrong with a Pod or a pod template.

Source: https://kubernetes.io/docs/concepts/workloads/pods/ and the behaviour of pkg/apis/core/validation and
pkg/api/pod.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from haven.api.core import v1
from haven.api.core.resources import aggregate_container_limits, aggregate_container_requests, is_huge_page
from haven.api.core.validation.affinity import (
    has_invalid_required_node_values,
    has_invalid_selector_values,
    has_invalid_spread_keys,
    validate_affinity,
    validate_tolerations,
    validate_topology_spread,
)
from haven.api.core.validation.containers import (
    ContainerContext,
    containers_of,
    validate_containers,
    validate_ephemeral_containers,
    validate_image_spacing,
    validate_init_containers,
)
from haven.api.core.validation.metadata import (
    validate_dns1123_label,
    validate_dns1123_subdomain,
    validate_meta,
    validate_qualified_name,
)
from haven.api.core.validation.poddns import validate_dns_config
from haven.api.core.validation.podos import validate_os, validate_windows_host_process
from haven.api.core.validation.quantities import is_divisible_huge_page, validate_resource_requirements
from haven.api.core.validation.security import (
    APP_ARMOR_ANNOTATION,
    SECCOMP_CONTAINER_ANNOTATION,
    SECCOMP_POD_ANNOTATION,
    app_armor_annotation_complaint,
    is_host_sysctl_conflict,
    seccomp_annotation_errors,
    validate_pod_security,
)
from haven.api.core.validation.volumes import validate_volumes
from haven.api.internalform import internal_form
from haven.apimachinery import meta, serialization
from haven.apimachinery.fielderrors import (
    ErrorList,
    Path,
    duplicate,
    forbidden,
    invalid,
    not_found,
    not_supported,
    required,
    too_long,
)
from haven.apimachinery.validation.addresses import validate_legacy_ip
from haven.apimachinery.validation.labels import validate_label_selector, validate_labels
from haven.apimachinery.validation.names import (
    byte_length,
    dns1123_subdomain_errors,
)
from haven.apimachinery.validation.objectmeta import validate_annotations

__all__ = [
    "MIRROR_ANNOTATION",
    "PodOptions",
    "pod_options",
    "validate_deletion_cost",
    "validate_pod_annotations",
    "validate_pod_create",
    "validate_pod_metadata_and_spec",
    "validate_pod_spec",
    "validate_pod_template_spec",
    "validate_preemption_policy",
]

MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_TOLERATIONS_ANNOTATION = "scheduler.alpha.kubernetes.io/tolerations"
_INT32_MAX = 2**31 - 1
_SPEC = Path("spec")
_METADATA = Path("metadata")


@dataclass(frozen=True, slots=True)
class PodOptions:
    """Whether a Pod itself is checked (not a template), and what it is forgiven because its older form had it."""

    is_pod: bool = False
    allow_invalid_deletion_cost: bool = False
    allow_indivisible_huge_pages: bool = False
    allow_invalid_selector: bool = False
    allow_invalid_node_values: bool = False
    allow_invalid_spread_selector: bool = False
    allow_host_sysctls: bool = False
    allow_restart_container_of_init: bool = False
    allow_comparison_tolerations: bool = False
    allow_any_se_linux_policy: bool = False
    allow_host_network_user_namespaces: bool = False
    allow_user_namespaces_with_devices: bool = False
    legacy_spread_keys: bool = False


_POD = PodOptions(is_pod=True)
_TEMPLATE = PodOptions()


def pod_options(old: v1.PodSpec | None, old_metadata: meta.ObjectMeta | None = None, *, is_pod: bool) -> PodOptions:
    """Return what may stay as it was in an older form."""
    if old is None:
        return _POD if is_pod else _TEMPLATE
    affinity = old.affinity
    node_affinity = affinity.node_affinity if affinity is not None else None
    constraints = old.topology_spread_constraints
    context = old.security_context
    everything = list(containers_of(old, Path("")))
    return PodOptions(
        is_pod=is_pod,
        allow_invalid_deletion_cost=old_metadata is not None
        and bool(validate_deletion_cost(old_metadata.annotations, Path(""))),
        allow_indivisible_huge_pages=any(
            is_huge_page(name) and not is_divisible_huge_page(name, amount)
            for container, _ in everything
            for amounts in (container.resources.limits, container.resources.requests)
            for name, amount in amounts.items()
        ),
        allow_invalid_selector=has_invalid_selector_values(affinity),
        allow_invalid_node_values=node_affinity is not None
        and has_invalid_required_node_values(node_affinity.required_during_scheduling_ignored_during_execution),
        allow_invalid_spread_selector=any(
            validate_label_selector(constraint.label_selector, Path("")) for constraint in constraints
        ),
        legacy_spread_keys=has_invalid_spread_keys(constraints),
        allow_host_sysctls=context is not None
        and any(is_host_sysctl_conflict(setting.name, old) for setting in context.sysctls),
        allow_restart_container_of_init=any(
            policy.restart_policy == "RestartContainer"
            for container in old.init_containers
            if container.restart_policy != "Always"
            for policy in container.resize_policy
        ),
        allow_comparison_tolerations=any(toleration.operator in ("Lt", "Gt") for toleration in old.tolerations),
        allow_any_se_linux_policy=context is not None and context.se_linux_change_policy is not None,
        allow_host_network_user_namespaces=old.host_network and old.host_users is False,
        allow_user_namespaces_with_devices=old.host_users is False
        and any(container.volume_devices for container, _ in everything),
    )


def validate_pod_create(pod: v1.Pod) -> ErrorList:
    """Check a new Pod."""
    errors = validate_pod_metadata_and_spec(pod, _POD)
    spec = pod.spec
    if spec.ephemeral_containers:
        errors.append(forbidden(_SPEC.child("ephemeralContainers"), "cannot be set on create"))
    if spec.node_name and spec.scheduling_gates:
        words = "cannot be set until all schedulingGates have been cleared"
        errors.append(forbidden(_SPEC.child("nodeName"), words))
    if pod.metadata.annotations:
        errors += _profiles_match(pod.metadata, spec, _SPEC)
    return errors


def validate_pod_metadata_and_spec(pod: v1.Pod, options: PodOptions) -> ErrorList:
    """Check what holds for Pods at all times."""
    spec = pod.spec
    errors = validate_meta(pod.metadata, namespaced=True)
    errors += validate_pod_annotations(pod.metadata.annotations, spec, _METADATA.child("annotations"), options)
    errors += validate_pod_spec(spec, pod.metadata, _SPEC, options)
    if not spec.service_account_name:
        for index, volume in enumerate(spec.volumes):
            if volume.projected is None:
                continue
            for number, source in enumerate(volume.projected.sources or ()):
                if source.service_account_token is not None:
                    place = _SPEC.child("volumes").index(index).child("projected").child("sources").index(number)
                    words = "must not be specified when serviceAccountName is not set"
                    errors.append(forbidden(place.child("serviceAccountToken"), words))
    for index, container in enumerate(spec.containers or ()):
        errors += validate_image_spacing(container.image, _SPEC.child("containers").index(index))
    for index, container in enumerate(spec.init_containers):
        errors += validate_image_spacing(container.image, _SPEC.child("initContainers").index(index))
    return errors


def validate_pod_template_spec(template: v1.PodTemplateSpec, path: Path, options: PodOptions = _TEMPLATE) -> ErrorList:
    """Check a template of Pods."""
    metadata, spec = template.metadata, template.spec
    errors = validate_labels(metadata.labels, path.child("labels"))
    errors += validate_annotations(metadata.annotations, path.child("annotations"))
    errors += validate_pod_annotations(metadata.annotations, spec, path.child("annotations"), options)
    errors += validate_pod_spec(spec, None, path.child("spec"), options)
    if metadata.annotations:
        errors += _profiles_match(metadata, spec, path.child("spec"))
    if spec.ephemeral_containers:
        words = "ephemeral containers not allowed in pod template"
        errors.append(forbidden(path.child("spec", "ephemeralContainers"), words))
    return errors


def validate_deletion_cost(annotations: dict[str, str], path: Path) -> ErrorList:
    """Check the annotation that says which Pod goes first."""
    cost = annotations.get(_DELETION_COST)
    if cost is None:
        return []
    digits = cost[1:] if cost[:1] in ("-", "+") else cost
    canonical = digits.isascii() and digits.isdigit() and (len(digits) == 1 or not digits.startswith("0"))
    if canonical and not cost.startswith("+") and cost != "-0" and -(2**31) <= int(cost) < 2**31:
        return []
    return [invalid(path.key(_DELETION_COST), cost, "must be a 32bit integer")]


def validate_pod_annotations(
    annotations: dict[str, str], spec: v1.PodSpec, path: Path, options: PodOptions
) -> ErrorList:
    """Check the annotations that mean something for Pods."""
    if not annotations:
        return []
    errors: ErrorList = []
    if MIRROR_ANNOTATION in annotations and not spec.node_name:
        words = "must set spec.nodeName if mirror pod annotation is set"
        errors.append(invalid(path.key(MIRROR_ANNOTATION), annotations[MIRROR_ANNOTATION], words))
    if annotations.get(_TOLERATIONS_ANNOTATION):
        errors += _annotated_tolerations(annotations[_TOLERATIONS_ANNOTATION], path, options)
    if not options.allow_invalid_deletion_cost:
        errors += validate_deletion_cost(annotations, path)
    errors += seccomp_annotation_errors(annotations, path)
    for key in sorted(annotations):
        if not key.startswith(APP_ARMOR_ANNOTATION):
            continue
        name = key.removeprefix(APP_ARMOR_ANNOTATION)
        if all(container.name != name for container, _ in containers_of(spec, path)):
            errors.append(invalid(path.key(key), name, "container not found"))
        if words := app_armor_annotation_complaint(annotations[key]):
            errors.append(invalid(path.key(key), annotations[key], words))
    return errors


def _annotated_tolerations(text: str, path: Path, options: PodOptions) -> ErrorList:
    try:
        tolerations = serialization.convert(json.loads(text), list[v1.Toleration])
    except (ValueError, msgspec.ValidationError) as error:
        return [invalid(path, _TOLERATIONS_ANNOTATION, str(error))]
    place = path.child(_TOLERATIONS_ANNOTATION)
    return validate_tolerations(tolerations, place, allow_comparison=options.allow_comparison_tolerations)


_SECCOMP_WORDS: dict[str, tuple[str, ...]] = {
    "Unconfined": ("unconfined",),
    "RuntimeDefault": ("runtime/default", "docker/default"),
}
_APP_ARMOR_WORDS: dict[str, tuple[str, ...]] = {"Unconfined": ("unconfined",), "RuntimeDefault": ("runtime/default",)}


def _profile_matches(
    annotation: str, profile: v1.SeccompProfile | v1.AppArmorProfile, words: dict[str, tuple[str, ...]], kind: str,
    path: Path,
) -> ErrorList:  # fmt: skip
    if profile.type == "Localhost":
        if not annotation.startswith("localhost/"):
            return [forbidden(path.child("type"), f"{kind} type in annotation and field must match")]
        if profile.localhost_profile is None or annotation.removeprefix("localhost/") != profile.localhost_profile:
            return [forbidden(path.child("localhostProfile"), f"{kind} profile in annotation and field must match")]
    elif profile.type in words and annotation not in words[profile.type]:
        return [forbidden(path.child("type"), f"{kind} type in annotation and field must match")]
    return []


def _profiles_match(metadata: meta.ObjectMeta, spec: v1.PodSpec, path: Path) -> ErrorList:
    """Check that profiles named in annotations and in fields agree."""
    errors: ErrorList = []
    annotations = metadata.annotations
    context = spec.security_context
    if context is not None and context.seccomp_profile is not None and SECCOMP_POD_ANNOTATION in annotations:
        place = path.child("securityContext").child("seccompProfile")
        annotation = annotations[SECCOMP_POD_ANNOTATION]
        errors += _profile_matches(annotation, context.seccomp_profile, _SECCOMP_WORDS, "seccomp", place)
    for container, where in containers_of(spec, path):
        own = container.security_context
        found = annotations.get(SECCOMP_CONTAINER_ANNOTATION + container.name)
        if own is not None and own.seccomp_profile is not None and found is not None:
            place = where.child("securityContext").child("seccompProfile")
            errors += _profile_matches(found, own.seccomp_profile, _SECCOMP_WORDS, "seccomp", place)
    if spec.os is not None and spec.os.name == "windows":
        return errors
    for container, where in containers_of(spec, path):
        own = container.security_context
        profile = context.app_armor_profile if context is not None else None
        if own is not None and own.app_armor_profile is not None:
            profile = own.app_armor_profile
        found = annotations.get(APP_ARMOR_ANNOTATION + container.name)
        if profile is not None and found is not None:
            place = where.child("securityContext").child("appArmorProfile")
            errors += _profile_matches(found, profile, _APP_ARMOR_WORDS, "apparmor", place)
    return errors


def validate_pod_spec(spec: v1.PodSpec, metadata: meta.ObjectMeta | None, path: Path, options: PodOptions) -> ErrorList:
    """Check the spec of a Pod or of a template (then `metadata` is None)."""
    errors: ErrorList = []
    grace = spec.termination_grace_period_seconds
    if grace is None:
        errors.append(required(path.child("terminationGracePeriodSeconds"), ""))
    volumes, found = validate_volumes(spec.volumes, metadata, path.child("volumes"), is_pod=options.is_pod)
    errors += found
    claim_names = {claim.name for claim in spec.resource_claims if claim.name}
    if spec.resource_claims:
        errors += _resource_claims(spec.resource_claims, metadata, path.child("resourceClaims"))
    context = ContainerContext(
        volumes=volumes,
        claim_names=claim_names,
        restart_policy=spec.restart_policy,
        grace_period_seconds=grace,
        os=spec.os,
        host_users=spec.host_users is not False,
        allow_indivisible_huge_pages=options.allow_indivisible_huge_pages,
        allow_restart_container_of_init=options.allow_restart_container_of_init,
    )
    containers = spec.containers or []
    errors += validate_containers(containers, context, path.child("containers"))
    if spec.init_containers:
        errors += validate_init_containers(spec.init_containers, containers, context, path.child("initContainers"))
    if spec.ephemeral_containers:
        place = path.child("ephemeralContainers")
        others = [*containers, *spec.init_containers]
        errors += validate_ephemeral_containers(spec.ephemeral_containers, others, context, place)
    if spec.resources is not None:
        errors += _pod_resources(spec, spec.resources, claim_names, path, options)
    if spec.host_network:
        errors += _host_network_ports(containers, path, options)
    policy = spec.restart_policy
    if not policy:
        errors.append(required(path.child("restartPolicy"), ""))
    elif policy not in ("Always", "OnFailure", "Never"):
        errors.append(not_supported(path.child("restartPolicy"), policy, ("Always", "OnFailure", "Never")))
    policy = spec.dns_policy
    if not policy:
        errors.append(required(path.child("dnsPolicy"), ""))
    elif policy not in _DNS_POLICIES:
        errors.append(not_supported(path.child("dnsPolicy"), policy, _DNS_POLICIES))
    if spec.node_selector:
        errors += validate_labels(spec.node_selector, path.child("nodeSelector"))
    errors += validate_pod_security(
        spec,
        path.child("securityContext"),
        old_host_sysctls=options.allow_host_sysctls,
        any_se_linux=options.allow_any_se_linux_policy,
    )
    if spec.affinity is not None:
        errors += validate_affinity(
            spec.affinity,
            path.child("affinity"),
            allow_invalid_selector=options.allow_invalid_selector,
            allow_invalid_node=options.allow_invalid_node_values,
        )
    if spec.dns_config is not None or spec.dns_policy == "None":
        errors += validate_dns_config(spec, path.child("dnsConfig"))
    for index, gate in enumerate(spec.readiness_gates):
        place = path.child("readinessGates").index(index).child("conditionType")
        errors += validate_qualified_name(gate.condition_type, place)
    errors += _scheduling_gates(spec.scheduling_gates, path.child("schedulingGates"))
    if spec.topology_spread_constraints:
        errors += validate_topology_spread(
            spec.topology_spread_constraints,
            path.child("topologySpreadConstraints"),
            allow_invalid_selector=options.allow_invalid_spread_selector,
            legacy_keys=options.legacy_spread_keys,
        )
    errors += validate_windows_host_process(spec, path)
    if spec.host_users is False:
        errors += _user_namespace(spec, path, options)
    if spec.hostname_override is not None:
        errors += _hostname_override(spec, spec.hostname_override, path.child("hostnameOverride"))
    return errors + _identity(spec, path, options)


_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")


def _identity(spec: v1.PodSpec, path: Path, options: PodOptions) -> ErrorList:
    """Check names and the rest, in upstream's order."""
    errors: ErrorList = []
    if spec.service_account_name:
        errors += validate_dns1123_subdomain(spec.service_account_name, path.child("serviceAccountName"))
    if spec.node_name:
        errors += validate_dns1123_subdomain(spec.node_name, path.child("nodeName"))
    deadline = spec.active_deadline_seconds
    if deadline is not None and not 1 <= deadline <= _INT32_MAX:
        words = f"must be between 1 and {_INT32_MAX}, inclusive"
        errors.append(invalid(path.child("activeDeadlineSeconds"), deadline, words))
    if spec.hostname:
        errors += validate_dns1123_label(spec.hostname, path.child("hostname"))
    if spec.subdomain:
        errors += validate_dns1123_label(spec.subdomain, path.child("subdomain"))
    if spec.tolerations:
        errors += validate_tolerations(
            spec.tolerations, path.child("tolerations"), allow_comparison=options.allow_comparison_tolerations
        )
    for index, alias in enumerate(spec.host_aliases):
        place = path.child("hostAliases").index(index)
        errors += validate_legacy_ip(alias.ip, place.child("ip"))
        for number, name in enumerate(alias.hostnames):
            errors += validate_dns1123_subdomain(name, place.child("hostnames").index(number))
    if spec.priority_class_name:
        errors += validate_dns1123_subdomain(spec.priority_class_name, path.child("priorityClassName"))
    if spec.runtime_class_name is not None:
        errors += validate_dns1123_subdomain(spec.runtime_class_name, path.child("runtimeClassName"))
    if spec.preemption_policy is not None:
        errors += validate_preemption_policy(spec.preemption_policy, path.child("preemptionPolicy"))
    if spec.overhead:
        overhead = v1.ResourceRequirements(limits=spec.overhead)
        errors += validate_resource_requirements(
            overhead, (), path.child("overhead"), allow_indivisible=options.allow_indivisible_huge_pages
        )
    if spec.os is not None:
        errors += validate_os(spec, spec.os, path)
    if spec.scheduling_group is not None:
        errors += _scheduling_group(spec.scheduling_group, path.child("schedulingGroup"))
    return errors + _file_key_volumes(spec, path)


def validate_preemption_policy(policy: str, path: Path) -> ErrorList:
    """Check whether a Pod may push others out."""
    if not policy:
        return [required(path, "")]
    allowed = ("PreemptLowerPriority", "Never")
    return [] if policy in allowed else [not_supported(path, policy, allowed)]


def _resource_claims(claims: Sequence[v1.PodResourceClaim], metadata: meta.ObjectMeta | None, path: Path) -> ErrorList:
    errors: ErrorList = []
    names: set[str] = set()
    for index, claim in enumerate(claims):
        place = path.index(index)
        if metadata is not None and MIRROR_ANNOTATION in metadata.annotations:
            errors.append(forbidden(Path(""), "static pods do not support resource claims"))
            continue
        if not claim.name:
            errors.append(required(place.child("name"), ""))
        elif claim.name in names:
            errors.append(duplicate(place.child("name"), claim.name))
        else:
            errors += validate_dns1123_label(claim.name, place.child("name"))
            names.add(claim.name)
        name, template = claim.resource_claim_name, claim.resource_claim_template_name
        if name is not None and template is not None:
            words = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            errors.append(invalid(place, internal_form(claim), words))
        if name is None and template is None:
            words = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
            errors.append(invalid(place, internal_form(claim), words))
        if name is not None:
            errors += validate_dns1123_subdomain(name, place.child("resourceClaimName"))
        if template is not None:
            errors += validate_dns1123_subdomain(template, place.child("resourceClaimTemplateName"))
    return errors


def _pod_resources(
    spec: v1.PodSpec, resources: v1.ResourceRequirements, claim_names: set[str], path: Path, options: PodOptions
) -> ErrorList:
    place = path.child("resources")
    if spec.os is not None and spec.os.name == "windows":
        return [forbidden(place, "may not be set for a windows pod")]
    errors: ErrorList = []
    if resources.claims:
        errors.append(forbidden(place.child("claims"), "claims may not be set for Resources at pod-level"))
    errors += validate_resource_requirements(
        resources, claim_names, place, of_pod=True, allow_indivisible=options.allow_indivisible_huge_pages
    )
    for name, total in sorted(aggregate_container_requests(spec).items()):
        own = resources.requests.get(name)
        if own is not None and total > own:
            words = f"must be greater than or equal to aggregate container requests of {total}"
            errors.append(invalid(place.child("requests").key(name), str(own), words))
    for name, total in sorted(aggregate_container_limits(spec).items()):
        own = resources.limits.get(name)
        if is_huge_page(name) and own is not None and total > own:
            words = f"must be greater than or equal to aggregate container limits of {total}"
            errors.append(invalid(place.child("limits").key(name), str(own), words))
    for index, container in enumerate(spec.containers or ()):
        for name, limit in sorted(container.resources.limits.items()):
            own = resources.limits.get(name)
            if own is not None and limit > own:
                where = place.child("containers").index(index).key(name).child("limits")
                errors.append(invalid(where, str(limit), f"must be less than or equal to pod limits of {own}"))
    return errors


def _host_network_ports(containers: Sequence[v1.Container], path: Path, options: PodOptions) -> ErrorList:
    errors: ErrorList = []
    for index, container in enumerate(containers):
        for number, port in enumerate(container.ports):
            if (options.is_pod or port.host_port) and port.host_port != port.container_port:
                place = path.child("containers").index(index).child("ports").index(number).child("hostPort")
                words = "must match `containerPort` when `hostNetwork` is true"
                errors.append(invalid(place, port.host_port, words))
    return errors


def _scheduling_gates(gates: Sequence[v1.PodSchedulingGate], path: Path) -> ErrorList:
    errors: ErrorList = []
    seen: set[str] = set()
    for index, gate in enumerate(gates):
        errors += validate_qualified_name(gate.name, path.index(index))
        if gate.name in seen:
            errors.append(duplicate(path.index(index), gate.name))
        seen.add(gate.name)
    return errors


def _user_namespace(spec: v1.PodSpec, path: Path, options: PodOptions) -> ErrorList:
    errors: ErrorList = []
    words = "when `hostUsers` is false"
    if spec.host_network and not options.allow_host_network_user_namespaces:
        errors.append(forbidden(path.child("hostNetwork"), words))
    if spec.host_pid:
        errors.append(forbidden(path.child("HostPID"), words))
    if spec.host_ipc:
        errors.append(forbidden(path.child("HostIPC"), words))
    if not options.allow_user_namespaces_with_devices:
        for container, place in containers_of(spec, path):
            if container.volume_devices:
                errors.append(forbidden(place.child("volumeDevices"), words))
    return errors


def _hostname_override(spec: v1.PodSpec, name: str, path: Path) -> ErrorList:
    errors: ErrorList = []
    if spec.set_hostname_as_fqdn:
        errors.append(forbidden(path, "may not be specified when setHostnameAsFQDN is true"))
    if spec.host_network:
        errors.append(forbidden(path, "may not be specified when hostNetwork is true"))
    if byte_length(name) > 64:
        errors.append(too_long(path, "", 64))
    return errors + validate_dns1123_subdomain(name, path)


def _scheduling_group(group: v1.PodSchedulingGroup, path: Path) -> ErrorList:
    place = path.child("podGroupName")
    if group.pod_group_name is None:
        return [invalid(place, None, "must specify one of: `podGroupName`")]
    name = group.pod_group_name
    return [invalid(place, name, text) for text in dns1123_subdomain_errors(name)]


def _file_key_volumes(spec: v1.PodSpec, path: Path) -> ErrorList:
    errors: ErrorList = []
    volumes = {volume.name: volume for volume in spec.volumes}
    for container, place in containers_of(spec, path):
        for index, variable in enumerate(container.env):
            if variable.value_from is None or variable.value_from.file_key_ref is None:
                continue
            name = variable.value_from.file_key_ref.volume_name
            where = place.child("env").index(index).child("valueFrom").child("fileKeyRef").child("volumeName")
            volume = volumes.get(name)
            if volume is None:
                errors.append(not_found(where, name))
            elif volume.empty_dir is None:
                errors.append(invalid(where, name, "referenced volume must be of type emptyDir"))
    return errors

"""Which statuses of a Pod are wrong.

Source: the behaviour of pkg/apis/core/validation.
"""

from __future__ import annotations

from collections.abc import Sequence

from haven.api.core import v1
from haven.api.core.resources import is_native
from haven.api.core.validation.metadata import validate_dns1123_label, validate_meta_update, validate_qualified_name
from haven.api.core.validation.pod import PodOptions
from haven.api.core.validation.podupdate import validate_annotation_update
from haven.api.internalform import internal_form
from haven.apimachinery.fielderrors import (
    ErrorList,
    Path,
    duplicate,
    forbidden,
    internal,
    invalid,
    not_supported,
    required,
    too_long,
)
from haven.apimachinery.validation.addresses import is_ipv6, parse_address, validate_legacy_ip
from haven.apimachinery.validation.names import byte_length, dns1123_subdomain_errors, user_id_errors
from haven.apimachinery.validation.objectmeta import validate_immutable

__all__ = ["validate_pod_status_update"]

_STATUS = Path("status")
_NOT_BACK = "may not be transitioned to non-terminated state"
_HEALTH_MESSAGE_MAX = 32 * 1024


def validate_pod_status_update(new: v1.Pod, old: v1.Pod, options: PodOptions) -> ErrorList:
    """Check a changed status."""
    errors = validate_meta_update(new.metadata, old.metadata)
    errors += validate_annotation_update(new, old, options)
    status, before = new.status, old.status
    for index, condition in enumerate(status.conditions):
        place = _STATUS.child("conditions").index(index)
        if condition.observed_generation < 0:
            words = "must be a non-negative integer"
            errors.append(invalid(place.child("observedGeneration"), condition.observed_generation, words))
        if condition.type not in ("PodScheduled", "Ready", "Initialized"):
            errors += validate_qualified_name(condition.type, place.child("Type"))
    if new.spec.node_name != old.spec.node_name:
        errors.append(forbidden(_STATUS.child("nodeName"), "may not be changed directly"))
    nominated = status.nominated_node_name
    if nominated and nominated != before.nominated_node_name:
        place = _STATUS.child("nominatedNodeName")
        errors += [invalid(place, nominated, text) for text in dns1123_subdomain_errors(nominated)]
        if old.spec.node_name:
            errors.append(forbidden(place, "may not be set on pods that are already bound to a node"))
    if status.observed_generation < 0:
        words = "must be a non-negative integer"
        errors.append(invalid(_STATUS.child("observedGeneration"), status.observed_generation, words))
    errors += validate_immutable(status.qos_class, before.qos_class, _STATUS.child("qosClass"))
    errors += _transitions(status.container_statuses, before.container_statuses, "containerStatuses", old.spec)
    inits = (status.init_container_statuses, before.init_container_statuses)
    errors += _transitions(*inits, "initContainerStatuses", old.spec)
    errors += _ephemeral_transitions(status.ephemeral_container_statuses, before.ephemeral_container_statuses)
    errors += _claim_statuses(status.resource_claim_statuses, new.spec, _STATUS.child("resourceClaimStatuses"))
    if status.extended_resource_claim_status is not None:
        place = _STATUS.child("extendedResourceClaimStatus")
        errors += _extended_claim(status.extended_resource_claim_status, new.spec, place)
    errors += _node_allocatable_claims(status, new.spec, _STATUS.child("nodeAllocatableResourceClaimStatuses"))
    errors += _pod_ips(status, before)
    errors += _host_ips(status, before)
    named = (
        ("containerStatuses", status.container_statuses, new.spec.containers or []),
        ("initContainerStatuses", status.init_container_statuses, new.spec.init_containers),
        ("ephemeralContainerStatuses", status.ephemeral_container_statuses, None),
    )
    for name, statuses, _ in named:
        errors += _users(statuses, _STATUS.child(name), new.spec.os)
    for name, statuses, containers in named:
        errors += _health(statuses, _STATUS.child(name), containers)
    return errors


def _should_restart(container: v1.Container, spec: v1.PodSpec, exit_code: int) -> bool:
    """Tell whether a container that ended with this code starts again."""
    for rule in container.restart_policy_rules:
        codes = rule.exit_codes
        if codes is None:
            continue
        listed = exit_code in codes.values
        if (codes.operator == "In" and listed) or (codes.operator == "NotIn" and not listed):
            return rule.action in ("Restart", "RestartAllContainers")
    policy = container.restart_policy or spec.restart_policy
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def _all_could_restart(spec: v1.PodSpec) -> bool:
    return any(
        rule.action == "RestartAllContainers"
        for container in (*(spec.containers or ()), *spec.init_containers)
        for rule in container.restart_policy_rules
    )


def _transitions(
    new: Sequence[v1.ContainerStatus], old: Sequence[v1.ContainerStatus], name: str, spec: v1.PodSpec
) -> ErrorList:
    """Check that what ended, and does not start again, stays ended."""
    if _all_could_restart(spec):
        return []
    errors: ErrorList = []
    containers = spec.containers or [] if name == "containerStatuses" else spec.init_containers
    by_name = {container.name: container for container in containers}
    now = {status.name: status for status in new}
    for index, before in enumerate(old):
        ended = before.state.terminated
        after = now.get(before.name)
        if ended is None or after is None or after.state.terminated is not None:
            continue
        container = by_name.get(before.name)
        if container is None or not _should_restart(container, spec, ended.exit_code):
            errors.append(forbidden(_STATUS.child(name).index(index).child("state"), _NOT_BACK))
    return errors


def _ephemeral_transitions(new: Sequence[v1.ContainerStatus], old: Sequence[v1.ContainerStatus]) -> ErrorList:
    errors: ErrorList = []
    now = {status.name: status for status in new}
    for index, before in enumerate(old):
        after = now.get(before.name)
        if before.state.terminated is not None and after is not None and after.state.terminated is None:
            place = _STATUS.child("ephemeralContainerStatuses").index(index).child("state")
            errors.append(forbidden(place, _NOT_BACK))
    return errors


def _claim_statuses(statuses: Sequence[v1.PodResourceClaimStatus], spec: v1.PodSpec, path: Path) -> ErrorList:
    errors: ErrorList = []
    names: set[str] = set()
    for index, status in enumerate(statuses):
        place = path.index(index)
        if all(claim.name != status.name for claim in spec.resource_claims):
            words = "must match the name of an entry in `spec.resourceClaims`"
            errors.append(invalid(place.child("name"), status.name, words))
        if status.name in names:
            errors.append(duplicate(place.child("name"), status.name))
        names.add(status.name)
        claim = status.resource_claim_name
        if claim is not None:
            for text in dns1123_subdomain_errors(claim):
                errors.append(invalid(place.child("resourceClaimName"), claim, text))
    return errors


def _node_allocatable_claims(status: v1.PodStatus, spec: v1.PodSpec, path: Path) -> ErrorList:
    errors: ErrorList = []
    known = {claim.resource_claim_name for claim in spec.resource_claims}
    known |= {claim.resource_claim_name for claim in status.resource_claim_statuses}
    for index, item in enumerate(status.node_allocatable_resource_claim_statuses):
        place = path.index(index)
        if not item.resource_claim_name:
            errors.append(required(place.child("resourceClaimName"), "must not be empty"))
        if item.resource_claim_name not in known:
            where = place.child("resourceClaimName")
            errors.append(invalid(where, item.resource_claim_name, "no mapping found in pod reference"))
        if not item.containers:
            errors.append(required(place.child("containers"), "must not be empty"))
        if not item.resources:
            errors.append(required(place.child("resources"), "must not be empty"))
        for name, amount in sorted((item.resources or {}).items()):
            where = place.child("resources").key(name)
            if not is_native(name):
                errors.append(invalid(where, name, "must be a node allocatable resource name"))
            if amount.nano < 0:
                errors.append(invalid(where, str(amount), "must be non-negative"))
    return errors


def _extended_claim(status: v1.PodExtendedResourceClaimStatus, spec: v1.PodSpec, path: Path) -> ErrorList:
    errors: ErrorList = []
    containers = {container.name: container for container in (*spec.init_containers, *(spec.containers or ()))}
    mappings = path.child("requestMappings")
    if not status.request_mappings:
        errors.append(required(mappings, "at least one request mapping is required"))
    seen: set[tuple[str, str, str]] = set()
    for index, mapping in enumerate(status.request_mappings or ()):
        place = mappings.index(index)
        container = containers.get(mapping.container_name)
        if container is None:
            words = "must match the name of an entry in spec.initContainers.name or spec.containers.name"
            errors.append(invalid(place.child("containerName"), mapping.container_name, words))
        elif mapping.resource_name not in container.resources.requests:
            words = (
                "must match the extended resource name of an entry in spec.initContainers.resources.requests "
                "or spec.containers.resources.requests"
            )
            errors.append(invalid(place.child("resourceName"), mapping.resource_name, words))
        errors += validate_dns1123_label(mapping.request_name, path.child("requestName"))
        key = (mapping.container_name, mapping.resource_name, mapping.request_name)
        if key in seen:
            errors.append(duplicate(place.child("containerName"), mapping.container_name))
            errors.append(duplicate(place.child("resourceName"), mapping.resource_name))
            errors.append(duplicate(place.child("requestName"), mapping.request_name))
        seen.add(key)
    name = status.resource_claim_name
    if not name:
        errors.append(required(path.child("resourceClaimName"), ""))
    return errors + [
        invalid(path.child("resourceClaimName"), name, text)
        for text in (dns1123_subdomain_errors(name) if name else ())
    ]


_TOO_MANY_IPS = "may specify no more than one IP for each IP family"


def _pod_ips(status: v1.PodStatus, before: v1.PodStatus) -> ErrorList:
    path = _STATUS.child("podIPs")
    errors: ErrorList = []
    known = {item.ip for item in before.pod_ips}
    for index, item in enumerate(status.pod_ips):
        errors += validate_legacy_ip(item.ip, path.index(index), valid_old=known)
    return errors + _one_of_each_family([item.ip for item in status.pod_ips], status.pod_ips, path)


def _host_ips(status: v1.PodStatus, before: v1.PodStatus) -> ErrorList:
    if not status.host_ips:
        return []
    path = _STATUS.child("hostIPs")
    errors: ErrorList = []
    if status.host_ip != status.host_ips[0].ip:
        errors.append(invalid(path.index(0).child("ip"), status.host_ips[0].ip, "must be equal to `hostIP`"))
    known = {item.ip for item in before.host_ips}
    for index, item in enumerate(status.host_ips):
        errors += validate_legacy_ip(item.ip, path.index(index), valid_old=known)
    return errors + _one_of_each_family([item.ip for item in status.host_ips], status.host_ips, path)


def _one_of_each_family(addresses: list[str], shown: Sequence[v1.PodIP] | Sequence[v1.HostIP], path: Path) -> ErrorList:
    if len(addresses) < 2:
        return []
    bad = next((index for index, address in enumerate(addresses) if parse_address(address) is None), None)
    errors: ErrorList = []
    if bad is not None:
        because = f"failed to check for dual stack with error:invalid IP[{bad}]: {addresses[bad]}"
        errors.append(internal(path, because))
    elif len({is_ipv6(address) for address in addresses}) == 2 and len(addresses) == 2:
        return []
    return [*errors, invalid(path, internal_form(list(shown)), _TOO_MANY_IPS)]


def _users(statuses: Sequence[v1.ContainerStatus], path: Path, os: v1.PodOS | None) -> ErrorList:
    errors: ErrorList = []
    for index, status in enumerate(statuses):
        user = status.user.linux if status.user is not None else None
        if user is None:
            continue
        place = path.index(index).child("user").child("linux")
        if os is not None and os.name == "windows":
            errors.append(forbidden(place, "cannot be set for a windows pod"))
            continue
        errors += [invalid(place.child("uid"), user.uid, text) for text in user_id_errors(user.uid)]
        errors += [invalid(place.child("gid"), user.gid, text) for text in user_id_errors(user.gid)]
        for number, group in enumerate(user.supplemental_groups):
            where = place.child("supplementalGroups").index(number)
            errors += [invalid(where, group, text) for text in user_id_errors(group)]
    return errors


_CLAIM_WORDS = (
    "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' "
    "or 'claim:<claimName>' if request is empty"
)


def _health(statuses: Sequence[v1.ContainerStatus], path: Path, containers: Sequence[v1.Container] | None) -> ErrorList:
    errors: ErrorList = []
    for index, status in enumerate(statuses):
        if not status.allocated_resources_status:
            continue
        place = path.index(index).child("allocatedResourcesStatus")
        if containers is None:
            errors.append(forbidden(place, "must not be specified in container status"))
            continue
        container = next((item for item in containers if item.name == status.name), None)
        for number, resource in enumerate(status.allocated_resources_status):
            if container is not None:
                errors += _resource_name(resource.name, container, place.index(number).child("name"))
            seen: set[str] = set()
            for item_index, item in enumerate(resource.resources):
                where = place.index(number).child("resources").index(item_index)
                if item.health not in ("Healthy", "Unhealthy", "Unknown"):
                    healths = ("Healthy", "Unhealthy", "Unknown")
                    errors.append(not_supported(where.child("health"), item.health, healths))
                if item.message is not None and not item.message:
                    errors.append(required(where.child("message"), "must be non-empty if specified"))
                elif item.message is not None and byte_length(item.message) > _HEALTH_MESSAGE_MAX:
                    errors.append(too_long(where.child("message"), item.message, _HEALTH_MESSAGE_MAX))
                if item.resource_id in seen:
                    errors.append(duplicate(where.child("resourceID"), item.resource_id))
                seen.add(item.resource_id)
    return errors


def _resource_name(name: str, container: v1.Container, path: Path) -> ErrorList:
    if name.startswith("claim:"):
        claims = {
            f"claim:{item.name}" + (f"/{item.request}" if item.request else "") for item in container.resources.claims
        }
        return [] if name in claims else [invalid(path, name, _CLAIM_WORDS)]
    if name in container.resources.requests:
        return []
    return [invalid(path, name, "must match one of the container's resource requests")]

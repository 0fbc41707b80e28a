"""How Pods are written: what the server sets and what it warns of.

Source: the behaviour of pkg/registry/core/pod and pkg/api/pod (v1.36).
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from haven.api.core import v1
from haven.api.core.pod_defaults import default_pod
from haven.api.core.podresources import qos_class
from haven.api.core.podwarnings import pod_warnings
from haven.api.core.validation.containers import containers_of
from haven.api.core.validation.pod import pod_options, validate_pod_create
from haven.api.core.validation.podstatus import validate_pod_status_update
from haven.api.core.validation.podupdate import (
    validate_ephemeral_containers_update,
    validate_pod_update,
    validate_resize,
)
from haven.api.core.validation.security import APP_ARMOR_ANNOTATION, app_armor_errors, app_armor_field
from haven.api.likeness import ANNOTATIONS, HOST_NAME, LABELS, TEXT, TEXT_OR_NOTHING, Free, Likeness
from haven.api.strategy import Strategy
from haven.apimachinery import meta
from haven.apimachinery.fielderrors import ErrorList, Path
from haven.apimachinery.validation.addresses import ip_warnings
from haven.apimachinery.validation.names import dns1123_subdomain_errors

__all__ = ["POD", "create_pod", "pod_grace_period_seconds"]


def create_pod(pod: v1.Pod) -> None:
    """Set a new Pod's status; merge label keys into selectors; turn old AppArmor annotations into fields."""
    pod.metadata.generation = 1
    pod.status = v1.PodStatus(phase="Pending", qos_class=pod.status.qos_class or qos_class(pod))
    spec = pod.spec
    if spec.scheduling_gates:
        pod.status.conditions = [
            v1.PodCondition(
                type="PodScheduled",
                status="False",
                last_transition_time=pod.metadata.creation_timestamp,
                reason="SchedulingGated",
                message="Scheduling is blocked due to non-empty scheduling gates",
            )
        ]
    if spec.affinity is not None:
        _merge_affinity_keys(spec.affinity, pod.metadata.labels)
    for constraint in spec.topology_spread_constraints:
        selector = constraint.label_selector
        if constraint.match_label_keys and selector is not None:
            _add_keys(selector, constraint.match_label_keys, pod.metadata.labels, "In")
    if pod.metadata.annotations:
        _app_armor_fields(pod)


def _merge_affinity_keys(affinity: v1.Affinity, labels: dict[str, str]) -> None:
    for pods in (affinity.pod_affinity, affinity.pod_anti_affinity):
        if pods is None:
            continue
        terms = list(pods.required_during_scheduling_ignored_during_execution)
        terms += [item.pod_affinity_term for item in pods.preferred_during_scheduling_ignored_during_execution]
        for term in terms:
            if term.label_selector is not None:
                _add_keys(term.label_selector, term.match_label_keys, labels, "In")
                _add_keys(term.label_selector, term.mismatch_label_keys, labels, "NotIn")


def _add_keys(selector: meta.LabelSelector, keys: list[str], labels: dict[str, str], operator: str) -> None:
    added = [
        meta.LabelSelectorRequirement(key=key, operator=operator, values=[labels[key]]) for key in keys if key in labels
    ]
    if added:
        selector.match_expressions = [*selector.match_expressions, *added]


def _app_armor_fields(pod: v1.Pod) -> None:
    spec = pod.spec
    if spec.os is not None and spec.os.name == "windows":
        return
    of_pod = spec.security_context.app_armor_profile if spec.security_context is not None else None
    for container, _ in containers_of(spec, Path("spec")):
        annotation = pod.metadata.annotations.get(APP_ARMOR_ANNOTATION + container.name)
        own = container.security_context
        if annotation is None or (own is not None and own.app_armor_profile is not None):
            continue
        profile = app_armor_field(annotation)
        if profile is None or app_armor_errors(profile, Path("")) or profile == of_pod:
            continue
        if container.security_context is None:
            container.security_context = v1.SecurityContext()
        container.security_context.app_armor_profile = profile


def _raise_generation(new: v1.Pod, old: v1.Pod) -> None:
    if new.spec != old.spec:
        new.metadata.generation += 1


def _update_pod(new: v1.Pod, old: v1.Pod) -> None:
    new.status = old.status
    _raise_generation(new, old)


def _update_pod_status(new: v1.Pod, old: v1.Pod) -> None:
    new.spec = old.spec
    new.metadata.deletion_timestamp = None
    new.metadata.owner_references = old.metadata.owner_references
    status = new.status
    if not status.qos_class:
        status.qos_class = old.status.qos_class
    if status.observed_generation == 0:
        status.observed_generation = old.status.observed_generation
    generations: dict[str, list[int]] = {}
    for condition in old.status.conditions:
        generations.setdefault(condition.type, []).append(condition.observed_generation)
    for condition in status.conditions:
        known = generations.get(condition.type)
        generation = known.pop(0) if known else 0
        if condition.observed_generation == 0:
            condition.observed_generation = generation


def keep_metadata(new: Any, old: Any) -> None:
    """Restore the metadata that only the main endpoint may change."""
    metadata, before = new.metadata, old.metadata
    metadata.deletion_timestamp = before.deletion_timestamp
    metadata.generation = before.generation
    metadata.self_link = before.self_link
    metadata.labels = before.labels
    metadata.annotations = before.annotations
    metadata.finalizers = before.finalizers
    metadata.owner_references = before.owner_references


def _update_ephemeral_containers(new: v1.Pod, old: v1.Pod) -> None:
    new.spec = msgspec.structs.replace(old.spec, ephemeral_containers=new.spec.ephemeral_containers)
    new.status = old.status
    keep_metadata(new, old)
    _raise_generation(new, old)


def _update_resize(new: v1.Pod, old: v1.Pod) -> None:
    spec, before = new.spec, old.spec
    containers, olds = spec.containers or [], before.containers or []
    if len(containers) == len(olds) and len(spec.init_containers) == len(before.init_containers):
        new.spec = msgspec.structs.replace(
            before,
            resources=spec.resources,
            containers=_resized(containers, olds),
            init_containers=_resized(spec.init_containers, before.init_containers),
        )
        new.status = old.status
        keep_metadata(new, old)
    _raise_generation(new, old)


def _resized(new: list[v1.Container], old: list[v1.Container]) -> list[v1.Container]:
    if [item.name for item in new] != [item.name for item in old]:
        return new
    return [
        msgspec.structs.replace(before, resources=now.resources, resize_policy=now.resize_policy)
        for now, before in zip(new, old, strict=True)
    ]


def _options(new: v1.Pod, old: v1.Pod) -> Any:
    return pod_options(old.spec, old.metadata, is_pod=True)


def _validate_update(new: v1.Pod, old: v1.Pod) -> ErrorList:
    return validate_pod_update(new, old, _options(new, old))


def _validate_status_update(new: v1.Pod, old: v1.Pod) -> ErrorList:
    return validate_pod_status_update(new, old, _options(new, old))


def _validate_ephemeral(new: v1.Pod, old: v1.Pod) -> ErrorList:
    return validate_ephemeral_containers_update(new, old, _options(new, old))


def _validate_resize(new: v1.Pod, old: v1.Pod) -> ErrorList:
    return validate_resize(new, old, _options(new, old))


def _status_warnings(new: v1.Pod, _old: v1.Pod | None) -> list[str]:
    warnings: list[str] = []
    for index, pod_ip in enumerate(new.status.pod_ips):
        warnings += ip_warnings(Path("status", "podIPs").index(index).child("ip"), pod_ip.ip)
    for index, host_ip in enumerate(new.status.host_ips):
        warnings += ip_warnings(Path("status", "hostIPs").index(index).child("ip"), host_ip.ip)
    return warnings


def pod_grace_period_seconds(pod: v1.Pod, wanted: int | None) -> int:
    """Return how long a Pod has to end: what was asked for, else what it says; none at all if it does not run."""
    if not pod.spec.node_name or pod.status.phase in ("Failed", "Succeeded"):
        return 0
    seconds = pod.spec.termination_grace_period_seconds if wanted is None else wanted
    if seconds is None:
        return 0
    return 1 if seconds < 0 else seconds


POD_FIELDS = {
    "spec.nodeName": lambda pod: pod.spec.node_name,
    "spec.restartPolicy": lambda pod: pod.spec.restart_policy,
    "spec.schedulerName": lambda pod: pod.spec.scheduler_name,
    "spec.serviceAccountName": lambda pod: pod.spec.service_account_name,
    "spec.hostNetwork": lambda pod: "true" if pod.spec.host_network else "false",
    "status.phase": lambda pod: pod.status.phase,
    "status.podIP": lambda pod: pod.status.pod_ips[0].ip if pod.status.pod_ips else "",
    "status.podIPs": lambda pod: pod.status.pod_ips[0].ip if pod.status.pod_ips else "",
    "status.nominatedNodeName": lambda pod: pod.status.nominated_node_name,
}

_IMAGE = rb"[A-Za-z0-9._/:-]*:(?!latest\x00)[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
"""Images that name a tag, or what is taken for one, but not the one that is always pulled."""
_TEMPLATES = ("containers", "initContainers")
_FREE = (
    Free(("metadata", "name"), HOST_NAME),  # Of other names Pods are warned.
    ANNOTATIONS,
    *(
        Free(("spec", containers, "*", *path), rule)
        for containers in _TEMPLATES
        for path, rule in (
            (("image",), _IMAGE),
            (("env", "*", "value"), TEXT),
            (("command", "*"), TEXT_OR_NOTHING),
            (("args", "*"), TEXT_OR_NOTHING),
        )
    ),
)
_BY_LABELS = frozenset({"matchLabelKeys", "mismatchLabelKeys"})


def _free(names: frozenset[str]) -> tuple[Free, ...] | None:
    """Return what nothing depends on in a Pod with these fields."""
    if "ephemeral" in names:  # A volume whose claim is called after the Pod.
        return None
    return _FREE if names & _BY_LABELS else (*_FREE, LABELS)


POD: Strategy[Any] = Strategy(
    default=default_pod,
    prepare_for_create=create_pod,
    validate=validate_pod_create,
    prepare_for_update=_update_pod,
    validate_update=_validate_update,
    warnings=lambda new, old: pod_warnings(new) if old is None else [],
    name_errors=lambda name: list(dns1123_subdomain_errors(name)),
    has_generation=True,
    grace_period_seconds=pod_grace_period_seconds,
    selectable_fields=POD_FIELDS,
    likeness=Likeness(_free, made_up=re.compile(r"kube-api-access-[a-z0-9]{5}")),
    subresources={
        "status": Strategy(
            default=default_pod,
            prepare_for_update=_update_pod_status,
            validate_update=_validate_status_update,
            warnings=_status_warnings,
        ),
        "ephemeralcontainers": Strategy(
            default=default_pod,
            prepare_for_update=_update_ephemeral_containers,
            validate_update=_validate_ephemeral,
        ),
        "resize": Strategy(default=default_pod, prepare_for_update=_update_resize, validate_update=_validate_resize),
    },
)

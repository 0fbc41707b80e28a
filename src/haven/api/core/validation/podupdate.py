"""Which changes of a Pod are wrong: on the Pod itself, its ephemeral containers, its resources.

Source: the behaviour of pkg/apis/core/validation.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from haven.api.core import v1
from haven.api.core.podresources import qos_class
from haven.api.core.validation.affinity import validate_tolerations
from haven.api.core.validation.metadata import validate_meta_update
from haven.api.core.validation.pod import (
    MIRROR_ANNOTATION,
    PodOptions,
    validate_pod_annotations,
    validate_pod_metadata_and_spec,
)
from haven.api.core.validation.security import APP_ARMOR_ANNOTATION
from haven.api.internalform import internal_form
from haven.api.specdiff import spec_diff
from haven.apimachinery.fielderrors import ErrorList, Path, forbidden, invalid, not_supported, required
from haven.apimachinery.quantity import Quantity

__all__ = [
    "validate_annotation_update",
    "validate_binding",
    "validate_ephemeral_containers_update",
    "validate_pod_update",
    "validate_resize",
]

_SPEC = Path("spec")
_INT32_MAX = 2**31 - 1
_UPDATABLE = (
    "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
    "`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_replace = msgspec.structs.replace


def validate_annotation_update(new: v1.Pod, old: v1.Pod, options: PodOptions) -> ErrorList:
    """Check changes of annotations that mean something."""
    errors: ErrorList = []
    path = Path("metadata", "annotations")
    now, before = new.metadata.annotations, old.metadata.annotations
    for key in sorted(before):
        if now.get(key) == before[key]:
            continue
        if key.startswith(APP_ARMOR_ANNOTATION):
            errors.append(forbidden(path.key(key), "may not remove or update AppArmor annotations"))
        if key == MIRROR_ANNOTATION:
            errors.append(forbidden(path.key(key), "may not remove or update mirror pod annotation"))
    for key in sorted(now):
        if key in before:
            continue
        if key.startswith(APP_ARMOR_ANNOTATION):
            errors.append(forbidden(path.key(key), "may not add AppArmor annotations"))
        if key == MIRROR_ANNOTATION:
            errors.append(forbidden(path.key(key), "may not add mirror pod annotation"))
    return errors + validate_pod_annotations(now, new.spec, path, options)


def _container_updates(new: Sequence[v1.Container], old: Sequence[v1.Container], path: Path) -> tuple[ErrorList, bool]:
    if len(new) != len(old):
        return [forbidden(path, "pod updates may not add or remove containers")], True
    errors: ErrorList = []
    for index, container in enumerate(new):
        place = path.index(index).child("image")
        if not container.image:
            errors.append(required(place, ""))
        if container.image.strip() != container.image:
            errors.append(invalid(place, container.image, "must not have leading or trailing whitespace"))
    return errors, False


def validate_pod_update(new: v1.Pod, old: v1.Pod, options: PodOptions) -> ErrorList:
    """Check a changed Pod."""
    errors = validate_meta_update(new.metadata, old.metadata)
    errors += validate_pod_metadata_and_spec(new, options)
    errors += validate_annotation_update(new, old, options)
    spec, before = new.spec, old.spec
    found, stop = _container_updates(spec.containers or [], before.containers or [], _SPEC.child("containers"))
    errors += found
    if stop:
        return errors
    found, stop = _container_updates(spec.init_containers, before.init_containers, _SPEC.child("initContainers"))
    errors += found
    if stop:
        return errors
    late = _deadline(spec.active_deadline_seconds, before.active_deadline_seconds)
    errors += late
    if late and spec.active_deadline_seconds is not None:
        return errors
    errors += _added_tolerations(spec.tolerations, before.tolerations, options)
    errors += _deleted_gates(spec.scheduling_gates, before.scheduling_gates)
    if spec == before:
        return errors
    munged = _replace(
        spec,
        containers=_with_images(spec.containers or [], before.containers or []),
        init_containers=_with_images(spec.init_containers, before.init_containers),
        active_deadline_seconds=before.active_deadline_seconds,
        scheduling_gates=before.scheduling_gates,
        tolerations=before.tolerations,
    )
    grace = before.termination_grace_period_seconds
    if grace is not None and grace < 0 and munged.termination_grace_period_seconds == 1:
        munged.termination_grace_period_seconds = grace
    if before.scheduling_gates:
        errors += _gated_changes(munged, before)
    if munged != before:
        difference = spec_diff(before, munged)
        errors.append(forbidden(_SPEC, f"pod updates may not change fields other than {_UPDATABLE}\n{difference}"))
    return errors


def _with_images(new: Sequence[v1.Container], old: Sequence[v1.Container]) -> list[v1.Container]:
    return [_replace(container, image=before.image) for container, before in zip(new, old, strict=True)]


def _deadline(new: int | None, old: int | None) -> ErrorList:
    path = _SPEC.child("activeDeadlineSeconds")
    if new is None:
        if old is None:
            return []
        return [invalid(path, None, "must not update from a positive integer to nil value")]
    if not 0 <= new <= _INT32_MAX:
        return [invalid(path, new, f"must be between 0 and {_INT32_MAX}, inclusive")]
    if old is not None and old < new:
        return [invalid(path, new, "must be less than or equal to previous value")]
    return []


def _added_tolerations(new: Sequence[v1.Toleration], old: Sequence[v1.Toleration], options: PodOptions) -> ErrorList:
    path = _SPEC.child("tolerations")
    for before in old:
        if not any(_replace(before, toleration_seconds=now.toleration_seconds) == now for now in new):
            return [forbidden(path, "existing toleration can not be modified except its tolerationSeconds")]
    return validate_tolerations(new, path, allow_comparison=options.allow_comparison_tolerations)


def _deleted_gates(new: Sequence[v1.PodSchedulingGate], old: Sequence[v1.PodSchedulingGate]) -> ErrorList:
    known = {gate.name for gate in old}
    added = {gate.name: index for index, gate in enumerate(new) if gate.name not in known}
    return [
        forbidden(
            _SPEC.child("schedulingGates").index(index).child("name"),
            f"only deletion is allowed, but found new scheduling gate '{name}'",
        )
        for name, index in added.items()
    ]


def _gated_changes(munged: v1.PodSpec, before: v1.PodSpec) -> ErrorList:
    """Check, and take back, what only a Pod that is not scheduled yet may change: it may become pickier."""
    errors: ErrorList = []
    if munged.node_selector != before.node_selector:
        words = "only additions to spec.nodeSelector are allowed (no mutations or deletions)"
        for key in sorted(before.node_selector):
            if munged.node_selector.get(key) != before.node_selector[key]:
                errors.append(invalid(_SPEC.child("nodeSelector"), munged.node_selector, words))
                break
        munged.node_selector = before.node_selector
    old = before.affinity.node_affinity if before.affinity is not None else None
    new = munged.affinity.node_affinity if munged.affinity is not None else None
    if old == new:
        return errors
    errors += _node_affinity_change(new, old)
    affinity = munged.affinity
    if affinity is None:
        munged.affinity = v1.Affinity(node_affinity=old) if old is not None else None
    elif before.affinity is None and affinity.pod_affinity is None and affinity.pod_anti_affinity is None:
        munged.affinity = None
    else:
        munged.affinity = _replace(affinity, node_affinity=old)
    return errors


def _node_affinity_change(new: v1.NodeAffinity | None, old: v1.NodeAffinity | None) -> ErrorList:
    required_old = old.required_during_scheduling_ignored_during_execution if old is not None else None
    if required_old is None:
        return []
    required_new = new.required_during_scheduling_ignored_during_execution if new is not None else None
    old_terms = required_old.node_selector_terms or []
    new_terms = (required_new.node_selector_terms or []) if required_new is not None else []
    path = (
        _SPEC.child("affinity")
        .child("nodeAffinity")
        .child("requiredDuringSchedulingIgnoredDuringExecution")
        .child("nodeSelectorTerms")
    )
    if old_terms and len(old_terms) != len(new_terms):
        words = "no additions/deletions to non-empty NodeSelectorTerms list are allowed"
        return [invalid(path, internal_form(new_terms, "[]NodeSelectorTerm", "core"), words)]
    errors: ErrorList = []
    for index, (before, after) in enumerate(zip(old_terms, new_terms, strict=False)):
        if not _only_adds(after, before):
            words = "only additions are allowed (no mutations or deletions)"
            errors.append(invalid(path.index(index), internal_form(after), words))
    return errors


def _only_adds(new: v1.NodeSelectorTerm, old: v1.NodeSelectorTerm) -> bool:
    if not old.match_expressions and not old.match_fields and (new.match_expressions or new.match_fields):
        return False
    expressions, fields = len(old.match_expressions), len(old.match_fields)
    return (
        new.match_expressions[:expressions] == old.match_expressions and new.match_fields[:fields] == old.match_fields
    )


def validate_ephemeral_containers_update(new: v1.Pod, old: v1.Pod, options: PodOptions) -> ErrorList:
    """Check added ephemeral containers; those that exist stay as they are."""
    errors = validate_meta_update(new.metadata, old.metadata)
    errors += validate_pod_metadata_and_spec(new, options)
    errors += validate_annotation_update(new, old, options)
    if MIRROR_ANNOTATION in old.metadata.annotations:
        return [forbidden(Path(""), "static pods do not support ephemeral containers")]
    path = _SPEC.child("ephemeralContainers")
    now = {container.name: container for container in new.spec.ephemeral_containers}
    for before in old.spec.ephemeral_containers:
        after = now.get(before.name)
        if after is None:
            errors.append(forbidden(path, f'existing ephemeral containers "{before.name}" may not be removed\n'))
        elif after != before:
            difference = spec_diff(before, after)
            words = f'existing ephemeral containers "{before.name}" may not be changed\n{difference}'
            errors.append(forbidden(path, words))
    return errors


def validate_binding(binding: v1.Binding) -> ErrorList:
    """Check to which node a Pod is bound."""
    errors: ErrorList = []
    if binding.target.kind not in ("", "Node"):
        errors.append(not_supported(Path("target", "kind"), binding.target.kind, ("Node", "<empty>")))
    if not binding.target.name:
        errors.append(required(Path("target", "name"), ""))
    return errors


Amounts = dict[str, Quantity]


def validate_resize(new: v1.Pod, old: v1.Pod, options: PodOptions) -> ErrorList:
    """Check changed CPU and memory of containers that run."""
    errors = validate_meta_update(new.metadata, old.metadata)
    errors += validate_pod_metadata_and_spec(new, options)
    if MIRROR_ANNOTATION in old.metadata.annotations:
        return [forbidden(Path(""), "static pods cannot be resized")]
    if old.spec.os is not None and old.spec.os.name == "windows":
        return [forbidden(Path(""), "windows pods cannot be resized")]
    if (old.status.qos_class or qos_class(old)) != qos_class(new):
        words = "Pod QOS Class may not change as a result of resizing"
        errors.append(invalid(_SPEC, new.status.qos_class, words))
    if not _supports_resize(old):
        errors.append(forbidden(_SPEC, "Pod running on node without support for resize"))
    munged = _replace(new.spec)
    if any(
        spec.resources is not None and (spec.resources.limits or spec.resources.requests)
        for spec in (old.spec, new.spec)
    ):
        errors += _pod_level_resize(munged, old.spec)
    if order := _container_order(new.spec, old.spec):
        return errors + order
    sidecars = _SPEC.child("initContainers")
    for index, before in enumerate(old.spec.init_containers):
        now = new.spec.init_containers[index]
        errors += _removed(now.resources, before.resources, sidecars.index(index).child("resources"))
    for index, before in enumerate(old.spec.containers or ()):
        now = (new.spec.containers or [])[index]
        errors += _removed(now.resources, before.resources, _SPEC.child("containers").index(index).child("resources"))
    munged.containers = []
    for now, before in zip(new.spec.containers or [], old.spec.containers or [], strict=True):
        munged.containers.append(_without_cpu_and_memory(now, before))
        if munged.containers[-1] != before:
            errors.append(forbidden(_SPEC, "only cpu and memory resources are mutable"))
    munged.init_containers = []
    for index, (now, before) in enumerate(zip(new.spec.init_containers, old.spec.init_containers, strict=True)):
        kept = _without_cpu_and_memory(now, before)
        if kept != before:
            words = "only cpu and memory resources for init or sidecar containers are mutable"
            errors.append(forbidden(sidecars.index(index), words))
        if now != before and now.restart_policy != "Always":
            words = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized"
            restarting = [item for item in kept.resize_policy if item.restart_policy == "RestartContainer"]
            errors += [forbidden(sidecars.index(index), words) for _ in restarting]
        munged.init_containers.append(kept)
    if not errors and munged != old.spec:
        errors.append(forbidden(_SPEC, "only cpu and memory resources are mutable"))
    return errors


def _supports_resize(pod: v1.Pod) -> bool:
    for status in pod.status.container_statuses:
        if status.state.running is not None:
            return status.resources is not None
    return True


def _container_order(new: v1.PodSpec, old: v1.PodSpec) -> ErrorList:
    errors: ErrorList = []
    for name, now, before in (
        ("containers", new.containers or [], old.containers or []),
        ("initContainers", new.init_containers, old.init_containers),
    ):
        path = _SPEC.child(name)
        if len(now) != len(before):
            errors.append(forbidden(path, f"{name} may not be added or removed on resize"))
            continue
        for index, (after, earlier) in enumerate(zip(now, before, strict=True)):
            if after.name != earlier.name:
                words = f"{name} may not be renamed or reordered on resize"
                errors.append(forbidden(path.index(index).child("name"), words))
    return errors


def _is_removed(new: Amounts, old: Amounts) -> bool:
    return any(name not in new for name in old)


def _removed(new: v1.ResourceRequirements, old: v1.ResourceRequirements, path: Path) -> ErrorList:
    errors: ErrorList = []
    if _is_removed(new.requests, old.requests):
        errors.append(forbidden(path.child("requests"), "resource requests cannot be removed"))
    if _is_removed(new.limits, old.limits):
        errors.append(forbidden(path.child("limits"), "resource limits cannot be removed"))
    return errors


def _keep_cpu_and_memory(new: Amounts, old: Amounts) -> Amounts:
    kept = {name: amount for name, amount in new.items() if name not in ("cpu", "memory")}
    return kept | {name: old[name] for name in ("cpu", "memory") if name in old}


def _without_cpu_and_memory(new: v1.Container, old: v1.Container) -> v1.Container:
    resources = v1.ResourceRequirements(
        limits=_keep_cpu_and_memory(new.resources.limits, old.resources.limits),
        requests=_keep_cpu_and_memory(new.resources.requests, old.resources.requests),
    )
    return _replace(new, resources=resources)


def _pod_level_resize(munged: v1.PodSpec, old: v1.PodSpec) -> ErrorList:
    path = _SPEC.child("resources")
    if old.resources is not None and munged.resources is None:
        return [forbidden(path, "pod-level resources cannot be removed")]
    errors: ErrorList = []
    now = munged.resources
    if now is not None:
        before = old.resources if old.resources is not None else v1.ResourceRequirements()
        if _is_removed(now.requests, before.requests):
            errors.append(forbidden(path.child("requests"), "pod-level resource requests cannot be removed"))
        if _is_removed(now.limits, before.limits):
            errors.append(forbidden(path.child("limits"), "pod-level resource limits cannot be removed"))
        kept = _replace(
            now,
            requests=_keep_cpu_and_memory(now.requests, before.requests),
            limits=_keep_cpu_and_memory(now.limits, before.limits),
        )
        empty = not kept.requests and not kept.limits and not kept.claims
        munged.resources = None if old.resources is None and empty else kept
    if munged.resources != old.resources:
        errors.append(forbidden(_SPEC, "only cpu and memory resources are mutable at pod-level"))
    return errors

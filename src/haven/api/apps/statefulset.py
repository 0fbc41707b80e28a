"""What is wrong with a StatefulSet.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/ and the behaviour of
pkg/apis/apps/validation.
"""

from __future__ import annotations

import msgspec

from haven.api.apps import v1
from haven.api.apps.validation import NO_MATCH, selector_or_none, validate_always_restarted
from haven.api.core import v1 as core_v1
from haven.api.core.validation.claims import validate_claim_spec
from haven.api.core.validation.metadata import validate_dns1123_label, validate_meta, validate_meta_update
from haven.api.core.validation.pod import PodOptions, validate_pod_annotations, validate_pod_template_spec
from haven.api.givenempty import given
from haven.api.internalform import internal_form
from haven.api.intorpercent import (
    int_or_percent_value,
    validate_at_most_100_percent,
    validate_positive_int_or_percent,
)
from haven.api.statuschecks import validate_collision_count, validate_counters, validate_not_more
from haven.apimachinery.fielderrors import ErrorList, Path, forbidden, invalid, not_supported, required
from haven.apimachinery.validation.labels import validate_label_selector, validate_labels
from haven.apimachinery.validation.names import dns_label_name
from haven.apimachinery.validation.objectmeta import validate_annotations, validate_not_negative

__all__ = ["validate_stateful_set", "validate_stateful_set_status_update", "validate_stateful_set_update"]

_SPEC = Path("spec")
_MUTABLE = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)


def validate_stateful_set(stateful_set: v1.StatefulSet, options: PodOptions) -> ErrorList:
    """Check a StatefulSet."""
    errors = validate_meta(stateful_set.metadata, namespaced=True, name_rule=dns_label_name)
    return errors + _validate_spec(stateful_set.spec, options)


def validate_stateful_set_update(new: v1.StatefulSet, old: v1.StatefulSet, options: PodOptions) -> ErrorList:
    """Check a changed StatefulSet; what was wrong with its template before is forgiven."""
    errors = validate_meta_update(new.metadata, old.metadata)
    old_is_wrong = bool(_validate_spec(old.spec, options, is_update=True))
    errors += _validate_spec(new.spec, options, is_update=True, skip_template=old_is_wrong)
    same = msgspec.structs.replace(
        new.spec,
        replicas=old.spec.replicas,
        template=old.spec.template,
        update_strategy=old.spec.update_strategy,
        min_ready_seconds=old.spec.min_ready_seconds,
        ordinals=old.spec.ordinals,
        revision_history_limit=old.spec.revision_history_limit,
        persistent_volume_claim_retention_policy=old.spec.persistent_volume_claim_retention_policy,
    )
    if same != old.spec:
        errors.append(forbidden(_SPEC, _MUTABLE))
    return errors


def _validate_spec(
    spec: v1.StatefulSetSpec, options: PodOptions, *, is_update: bool = False, skip_template: bool = False
) -> ErrorList:
    errors: ErrorList = []
    policy = spec.pod_management_policy
    if not policy:
        errors.append(required(_SPEC.child("podManagementPolicy"), ""))
    elif policy not in ("OrderedReady", "Parallel"):
        words = "must be 'OrderedReady' or 'Parallel'"
        errors.append(invalid(_SPEC.child("podManagementPolicy"), policy, words))
    errors += _update_strategy(spec.update_strategy, _SPEC.child("updateStrategy"))
    retention = spec.persistent_volume_claim_retention_policy
    if retention is not None:
        path = _SPEC.child("persistentVolumeClaimRetentionPolicy")
        for name, value in (("whenDeleted", retention.when_deleted), ("whenScaled", retention.when_scaled)):
            if value not in ("Retain", "Delete"):
                errors.append(not_supported(path.child(name), value, ("Retain", "Delete")))
    if not is_update:
        for index, claim in enumerate(spec.volume_claim_templates):
            place = _SPEC.child("volumeClaimTemplates").index(index).child("spec")
            errors += validate_claim_spec(claim.spec, place)
    errors += validate_not_negative(spec.replicas or 0, _SPEC.child("replicas"))
    errors += validate_not_negative(spec.min_ready_seconds, _SPEC.child("minReadySeconds"))
    if spec.ordinals is not None:
        errors += validate_not_negative(spec.ordinals.start, _SPEC.child("ordinals.start"))
    if not is_update and spec.service_name:
        errors += validate_dns1123_label(spec.service_name, _SPEC.child("serviceName"))
    path = _SPEC.child("selector")
    if spec.selector is None:
        errors.append(required(path, ""))
    else:
        errors += validate_label_selector(spec.selector, path)
        if not spec.selector.match_labels and not spec.selector.match_expressions:
            errors.append(invalid(path, spec.selector, "empty selector is invalid for statefulset"))
    selector = selector_or_none(spec.selector)
    template = _SPEC.child("template")
    if selector is None:
        errors.append(invalid(path, spec.selector, ""))
    else:
        labels = spec.template.metadata.labels
        if not selector.is_empty and not selector.matches(labels):
            errors.append(invalid(template.child("metadata", "labels"), given(labels), NO_MATCH))
        checked = _checked_template(spec)
        if not skip_template:
            errors += validate_pod_template_spec(checked, template, options)
        annotations = checked.metadata.annotations
        errors += validate_labels(labels, template.child("labels"))
        errors += validate_annotations(annotations, template.child("annotations"))
        errors += validate_pod_annotations(annotations, checked.spec, template.child("annotations"), options)
    return errors + validate_always_restarted(spec.template, template.child("spec"), "StatefulSet")


def _checked_template(spec: v1.StatefulSetSpec) -> core_v1.PodTemplateSpec:
    """Return the template as its Pods will be: with the volumes of the claim templates, named by the controller."""
    claims = [
        core_v1.Volume(
            name=claim.metadata.name,
            persistent_volume_claim=core_v1.PersistentVolumeClaimVolumeSource(claim_name=claim.metadata.name),
        )
        for claim in spec.volume_claim_templates
    ]
    by_name = {volume.name: volume for volume in claims}
    others = [volume for volume in spec.template.spec.volumes if volume.name not in by_name]
    pod_spec = msgspec.structs.replace(
        spec.template.spec, subdomain="", hostname="", volumes=[*by_name.values(), *others]
    )
    return msgspec.structs.replace(spec.template, spec=pod_spec)


def _update_strategy(strategy: v1.StatefulSetUpdateStrategy, path: Path) -> ErrorList:
    rolling = strategy.rolling_update
    if not strategy.type:
        return [required(path, "")]
    if strategy.type == "OnDelete":
        if rolling is None:
            return []
        words = "only allowed for updateStrategy 'RollingUpdate'"
        return [invalid(path.child("rollingUpdate"), internal_form(rolling), words)]
    if strategy.type != "RollingUpdate":
        return [invalid(path, internal_form(strategy), "must be 'RollingUpdate' or 'OnDelete'")]
    if rolling is None:
        return []
    errors = validate_not_negative(rolling.partition or 0, path.child("rollingUpdate").child("partition"))
    unavailable = rolling.max_unavailable
    if unavailable is not None:
        place = path.child("rollingUpdate").child("maxUnavailable")
        errors += validate_positive_int_or_percent(unavailable, place)
        if int_or_percent_value(unavailable) == 0:
            errors.append(invalid(place, unavailable, "cannot be 0"))
        errors += validate_at_most_100_percent(unavailable, place)
    return errors


def validate_stateful_set_status_update(new: v1.StatefulSet, old: v1.StatefulSet) -> ErrorList:
    """Check a changed status."""
    status = new.status
    counters = (
        ("ready_replicas", "readyReplicas"),
        ("current_replicas", "currentReplicas"),
        ("updated_replicas", "updatedReplicas"),
        ("available_replicas", "availableReplicas"),
    )
    others = (("observed_generation", "observedGeneration"), ("collision_count", "collisionCount"))
    errors = validate_counters(status, (("replicas", "replicas"), *counters, *others))
    errors += validate_not_more(status, counters, status.replicas, "cannot be greater than status.replicas")
    words = "cannot be greater than status.readyReplicas"
    errors += validate_not_more(status, counters[3:], status.ready_replicas, words)
    errors += validate_meta_update(new.metadata, old.metadata)
    return errors + validate_collision_count(status.collision_count, old.status.collision_count)

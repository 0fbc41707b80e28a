"""What is wrong with Deployments, ReplicaSets, DaemonSets and ControllerRevisions.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/ and the behaviour of pkg/apis/apps/validation.
"""

from __future__ import annotations

from haven.api.apps import v1
from haven.api.core import v1 as core_v1
from haven.api.core.validation.metadata import validate_meta, validate_meta_update
from haven.api.core.validation.pod import PodOptions, validate_pod_template_spec
from haven.api.givenempty import given
from haven.api.internalform import internal_form
from haven.api.intorpercent import (
    int_or_percent_value,
    validate_at_most_100_percent,
    validate_positive_int_or_percent,
)
from haven.api.statuschecks import validate_collision_count, validate_counters, validate_not_more
from haven.apimachinery import meta
from haven.apimachinery.fielderrors import (
    ErrorList,
    Path,
    forbidden,
    invalid,
    not_supported,
    required,
)
from haven.apimachinery.gonumbers import parse_int
from haven.apimachinery.selectors import LabelSelector, SelectorError, from_label_selector
from haven.apimachinery.validation.labels import validate_label_selector
from haven.apimachinery.validation.objectmeta import validate_immutable, validate_not_negative

__all__ = [
    "NO_MATCH",
    "ROLLBACK",
    "TEMPLATE_GENERATION",
    "selector_or_none",
    "template_generation",
    "validate_controller_revision",
    "validate_controller_revision_update",
    "validate_daemon_set",
    "validate_daemon_set_status_update",
    "validate_daemon_set_update",
    "validate_deployment",
    "validate_deployment_status_update",
    "validate_deployment_update",
    "validate_replica_set",
    "validate_replica_set_status_update",
    "validate_replica_set_update",
]

TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
ROLLBACK = "deprecated.deployment.rollback.to"
NO_MATCH = "`selector` does not match template `labels`"
_NOT_MORE = "cannot be greater than status.replicas"
_SPEC = Path("spec")


def selector_or_none(selector: meta.LabelSelector | None) -> LabelSelector | None:
    """Return what a selector means; None if it means nothing sound."""
    try:
        return from_label_selector(selector)
    except SelectorError:
        return None


def _validate_selector(selector: meta.LabelSelector | None, path: Path, kind: str) -> ErrorList:
    if selector is None:
        return [required(path, "")]
    errors = validate_label_selector(selector, path)
    if not selector.match_labels and not selector.match_expressions:
        errors.append(invalid(path, selector, f"empty selector is invalid for {kind}"))
    return errors


def _validate_template(
    template: core_v1.PodTemplateSpec, selector: meta.LabelSelector | None, options: PodOptions
) -> ErrorList:
    found = selector_or_none(selector)
    if found is None:
        return [invalid(_SPEC.child("selector"), selector, "invalid label selector")]
    path = _SPEC.child("template")
    errors: ErrorList = []
    if not found.is_empty and not found.matches(template.metadata.labels):
        errors.append(invalid(path.child("metadata", "labels"), given(template.metadata.labels), NO_MATCH))
    errors += validate_pod_template_spec(template, path, options)
    return errors + validate_always_restarted(template, path.child("spec"), "ReplicaSet")


def validate_always_restarted(template: core_v1.PodTemplateSpec, path: Path, kind: str) -> ErrorList:
    """Check that Pods of a workload that never ends do not end either."""
    errors: ErrorList = []
    if template.spec.restart_policy != "Always":
        errors.append(not_supported(path.child("restartPolicy"), template.spec.restart_policy, ("Always",)))
    if template.spec.active_deadline_seconds is not None:
        words = f"activeDeadlineSeconds in {kind} is not Supported"
        errors.append(forbidden(path.child("activeDeadlineSeconds"), words))
    return errors


def validate_deployment(deployment: v1.Deployment, options: PodOptions) -> ErrorList:
    """Check a Deployment."""
    return validate_meta(deployment.metadata, namespaced=True) + _deployment_spec(deployment, options)


def validate_deployment_update(new: v1.Deployment, old: v1.Deployment, options: PodOptions) -> ErrorList:
    """Check a changed Deployment."""
    errors = validate_meta_update(new.metadata, old.metadata)
    errors += _deployment_spec(new, options)
    return errors + validate_immutable(new.spec.selector, old.spec.selector, _SPEC.child("selector"))


def _deployment_spec(deployment: v1.Deployment, options: PodOptions) -> ErrorList:
    spec = deployment.spec
    errors = validate_not_negative(spec.replicas or 0, _SPEC.child("replicas"))
    errors += _validate_selector(spec.selector, _SPEC.child("selector"), "deployment")
    errors += _validate_template(spec.template, spec.selector, options)
    errors += _deployment_strategy(spec.strategy, _SPEC.child("strategy"))
    errors += validate_not_negative(spec.min_ready_seconds, _SPEC.child("minReadySeconds"))
    if spec.revision_history_limit is not None:
        errors += validate_not_negative(spec.revision_history_limit, _SPEC.child("revisionHistoryLimit"))
    revision = deployment.metadata.annotations.get(ROLLBACK, "")
    if revision.removeprefix("-").isdigit():
        errors += validate_not_negative(int(revision), _SPEC.child("rollback").child("version"))
    deadline = spec.progress_deadline_seconds
    if deadline is not None:
        path = _SPEC.child("progressDeadlineSeconds")
        errors += validate_not_negative(deadline, path)
        if deadline <= spec.min_ready_seconds:
            errors.append(invalid(path, deadline, "must be greater than minReadySeconds"))
    return errors


def _deployment_strategy(strategy: v1.DeploymentStrategy, path: Path) -> ErrorList:
    rolling = strategy.rolling_update
    place = path.child("rollingUpdate")
    if strategy.type == "Recreate":
        if rolling is None:
            return []
        return [forbidden(place, "may not be specified when strategy `type` is 'Recreate'")]
    if strategy.type != "RollingUpdate":
        return [not_supported(path, internal_form(strategy), ("Recreate", "RollingUpdate"))]
    if rolling is None:
        return [required(place, "this should be defaulted and never be nil")]
    unavailable = 0 if rolling.max_unavailable is None else rolling.max_unavailable
    surge = 0 if rolling.max_surge is None else rolling.max_surge
    errors = validate_positive_int_or_percent(unavailable, place.child("maxUnavailable"))
    errors += validate_positive_int_or_percent(surge, place.child("maxSurge"))
    if int_or_percent_value(unavailable) == 0 and int_or_percent_value(surge) == 0:
        errors.append(invalid(place.child("maxUnavailable"), unavailable, "may not be 0 when `maxSurge` is 0"))
    return errors + validate_at_most_100_percent(unavailable, place.child("maxUnavailable"))


def validate_deployment_status_update(new: v1.Deployment, old: v1.Deployment) -> ErrorList:
    """Check a changed status."""
    status = new.status
    errors = validate_meta_update(new.metadata, old.metadata)
    errors += validate_counters(
        status,
        (
            ("observed_generation", "observedGeneration"),
            ("replicas", "replicas"),
            ("updated_replicas", "updatedReplicas"),
            ("ready_replicas", "readyReplicas"),
            ("available_replicas", "availableReplicas"),
            ("unavailable_replicas", "unavailableReplicas"),
            ("terminating_replicas", "terminatingReplicas"),
            ("collision_count", "collisionCount"),
        ),
    )
    errors += validate_not_more(
        status,
        (
            ("updated_replicas", "updatedReplicas"),
            ("ready_replicas", "readyReplicas"),
            ("available_replicas", "availableReplicas"),
        ),
        status.replicas,
        _NOT_MORE,
    )
    available = (("available_replicas", "availableReplicas"),)
    errors += validate_not_more(status, available, status.ready_replicas, "cannot be greater than readyReplicas")
    return errors + validate_collision_count(status.collision_count, old.status.collision_count)


def validate_replica_set(replica_set: v1.ReplicaSet, options: PodOptions) -> ErrorList:
    """Check a ReplicaSet."""
    return validate_meta(replica_set.metadata, namespaced=True) + _replica_set_spec(replica_set.spec, options)


def validate_replica_set_update(new: v1.ReplicaSet, old: v1.ReplicaSet, options: PodOptions) -> ErrorList:
    """Check a changed ReplicaSet."""
    errors = validate_meta_update(new.metadata, old.metadata)
    errors += _replica_set_spec(new.spec, options)
    return errors + validate_immutable(new.spec.selector, old.spec.selector, _SPEC.child("selector"))


def _replica_set_spec(spec: v1.ReplicaSetSpec, options: PodOptions) -> ErrorList:
    errors = validate_not_negative(spec.replicas or 0, _SPEC.child("replicas"))
    errors += validate_not_negative(spec.min_ready_seconds, _SPEC.child("minReadySeconds"))
    errors += _validate_selector(spec.selector, _SPEC.child("selector"), "deployment")
    return errors + _validate_template(spec.template, spec.selector, options)


def validate_replica_set_status_update(new: v1.ReplicaSet, old: v1.ReplicaSet) -> ErrorList:
    """Check a changed status."""
    status = new.status
    errors = validate_meta_update(new.metadata, old.metadata)
    errors += validate_counters(
        status,
        (
            ("replicas", "replicas"),
            ("fully_labeled_replicas", "fullyLabeledReplicas"),
            ("ready_replicas", "readyReplicas"),
            ("available_replicas", "availableReplicas"),
            ("observed_generation", "observedGeneration"),
            ("terminating_replicas", "terminatingReplicas"),
        ),
    )
    errors += validate_not_more(
        status,
        (
            ("fully_labeled_replicas", "fullyLabeledReplicas"),
            ("ready_replicas", "readyReplicas"),
            ("available_replicas", "availableReplicas"),
        ),
        status.replicas,
        _NOT_MORE,
    )
    available = (("available_replicas", "availableReplicas"),)
    return errors + validate_not_more(status, available, status.ready_replicas, "cannot be greater than readyReplicas")


def template_generation(daemon_set: v1.DaemonSet) -> int:
    """Return how often the template changed, which old clients find in an annotation; 0 if it is not there."""
    return parse_int(daemon_set.metadata.annotations.get(TEMPLATE_GENERATION, "0"))


def validate_daemon_set(daemon_set: v1.DaemonSet, options: PodOptions) -> ErrorList:
    """Check a DaemonSet."""
    return validate_meta(daemon_set.metadata, namespaced=True) + _daemon_set_spec(daemon_set, options)


def validate_daemon_set_update(new: v1.DaemonSet, old: v1.DaemonSet, options: PodOptions) -> ErrorList:
    """Check a changed DaemonSet."""
    errors = validate_meta_update(new.metadata, old.metadata)
    errors += validate_immutable(new.spec.selector, old.spec.selector, _SPEC.child("selector"))
    return errors + _daemon_set_spec(new, options)


def _daemon_set_spec(daemon_set: v1.DaemonSet, options: PodOptions) -> ErrorList:
    spec = daemon_set.spec
    path = _SPEC.child("selector")
    errors = validate_label_selector(spec.selector, path, allow_invalid_values=options.allow_invalid_selector)
    selector = selector_or_none(spec.selector)
    template = _SPEC.child("template")
    labels = spec.template.metadata.labels
    if selector is not None and not selector.matches(labels):
        errors.append(invalid(template.child("metadata", "labels"), given(labels), NO_MATCH))
    if spec.selector is not None and not spec.selector.match_labels and not spec.selector.match_expressions:
        errors.append(invalid(path, spec.selector, "empty selector is invalid for daemonset"))
    errors += validate_pod_template_spec(spec.template, template, options)
    errors += validate_always_restarted(spec.template, template.child("spec"), "DaemonSet")
    errors += validate_not_negative(spec.min_ready_seconds, _SPEC.child("minReadySeconds"))
    errors += validate_not_negative(template_generation(daemon_set), _SPEC.child("templateGeneration"))
    errors += _daemon_set_strategy(spec.update_strategy, _SPEC.child("updateStrategy"))
    if spec.revision_history_limit is not None:
        errors += validate_not_negative(spec.revision_history_limit, _SPEC.child("revisionHistoryLimit"))
    return errors


def _daemon_set_strategy(strategy: v1.DaemonSetUpdateStrategy, path: Path) -> ErrorList:
    if strategy.type == "OnDelete":
        return []
    if strategy.type != "RollingUpdate":
        return [not_supported(path, internal_form(strategy), ("RollingUpdate", "OnDelete"))]
    rolling = strategy.rolling_update
    place = path.child("rollingUpdate")
    if rolling is None:
        return [required(place, "")]
    unavailable = 0 if rolling.max_unavailable is None else rolling.max_unavailable
    surge = 0 if rolling.max_surge is None else rolling.max_surge
    errors = validate_positive_int_or_percent(unavailable, place.child("maxUnavailable"))
    errors += validate_positive_int_or_percent(surge, place.child("maxSurge"))
    errors += validate_at_most_100_percent(unavailable, place.child("maxUnavailable"))
    errors += validate_at_most_100_percent(surge, place.child("maxSurge"))
    has_unavailable, has_surge = int_or_percent_value(unavailable) != 0, int_or_percent_value(surge) != 0
    if has_unavailable and has_surge:
        words = "may not be set when maxUnavailable is non-zero"
        errors.append(invalid(place.child("maxSurge"), surge, words))
    elif not has_unavailable and not has_surge:
        errors.append(required(place.child("maxUnavailable"), "cannot be 0 when maxSurge is 0"))
    return errors


def validate_daemon_set_status_update(new: v1.DaemonSet, old: v1.DaemonSet) -> ErrorList:
    """Check a changed status."""
    errors = validate_meta_update(new.metadata, old.metadata)
    errors += validate_counters(
        new.status,
        (
            ("current_number_scheduled", "currentNumberScheduled"),
            ("number_misscheduled", "numberMisscheduled"),
            ("desired_number_scheduled", "desiredNumberScheduled"),
            ("number_ready", "numberReady"),
            ("observed_generation", "observedGeneration"),
            ("updated_number_scheduled", "updatedNumberScheduled"),
            ("number_available", "numberAvailable"),
            ("number_unavailable", "numberUnavailable"),
            ("collision_count", "collisionCount"),
        ),
    )
    return errors + validate_collision_count(new.status.collision_count, old.status.collision_count)


def validate_controller_revision(revision: v1.ControllerRevision) -> ErrorList:
    """Check a new ControllerRevision."""
    errors = _controller_revision(revision)
    if revision.data is None:
        errors.append(required(Path("data"), "data is mandatory"))
    elif not isinstance(revision.data, dict):
        errors.append(required(Path("data"), "data must be a valid JSON object"))
    return errors


def _controller_revision(revision: v1.ControllerRevision) -> ErrorList:
    return validate_meta(revision.metadata, namespaced=True) + validate_not_negative(
        revision.revision, Path("revision")
    )


def validate_controller_revision_update(new: v1.ControllerRevision, old: v1.ControllerRevision) -> ErrorList:
    """Check a changed ControllerRevision: its data stays."""
    errors = validate_meta_update(new.metadata, old.metadata)
    errors += _controller_revision(new)
    return errors + validate_immutable(new.data, old.data, Path("data"))

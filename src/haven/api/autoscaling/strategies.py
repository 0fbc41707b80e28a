"""HorizontalPodAutoscalers (of v2, as which they are stored): defaults, what is wrong, how they are written.

Source: https://kubernetes.io/docs/concepts/workloads/autoscaling/ and the behaviour of pkg/apis/autoscaling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from haven.api.autoscaling import v2
from haven.api.core.validation.metadata import validate_dns1123_label, validate_non_negative_quantity
from haven.api.core.validation.quantities import validate_container_resource_name
from haven.api.kinds import kind_strategy, status_strategy
from haven.api.strategy import Strategy
from haven.apimachinery.fielderrors import ErrorList, Path, forbidden, invalid, not_supported, required
from haven.apimachinery.quantity import Quantity
from haven.apimachinery.validation.names import path_segment_name
from haven.apimachinery.validation.objectmeta import validate_not_negative

__all__ = ["STRATEGIES"]

_SPEC = Path("spec")
_CPU_UTILIZATION = 80
_MAX_PERIOD = 1800
_MAX_WINDOW = 3600
_SOURCES = ("ContainerResource", "External", "Object", "Pods", "Resource")
_SELECT_POLICIES = ("Disabled", "Max", "Min")
_POLICY_TYPES = ("Percent", "Pods")
_TARGET_TYPES = ("Utilization", "Value", "AverageValue")


_V1_ONLY = frozenset(
    "autoscaling.alpha.kubernetes.io/" + name
    for name in (
        "metrics", "behavior", "scale-down-tolerance", "scale-up-tolerance", "current-metrics", "conditions",
    )
)  # fmt: skip


def _default(autoscaler: v2.HorizontalPodAutoscaler) -> None:
    annotations = autoscaler.metadata.annotations
    if not _V1_ONLY.isdisjoint(annotations):
        autoscaler.metadata.annotations = {key: text for key, text in annotations.items() if key not in _V1_ONLY}
    spec = autoscaler.spec
    if spec.min_replicas is None:
        spec.min_replicas = 1
    if not spec.metrics:
        target = v2.MetricTarget(type="Utilization", average_utilization=_CPU_UTILIZATION)
        spec.metrics = [v2.MetricSpec(type="Resource", resource=v2.ResourceMetricSource(name="cpu", target=target))]
    behavior = spec.behavior
    if behavior is None:
        return
    pods = v2.HPAScalingPolicy(type="Pods", value=4, period_seconds=15)
    percent = v2.HPAScalingPolicy(type="Percent", value=100, period_seconds=15)
    behavior.scale_up = _rules(behavior.scale_up, 0, [pods, percent])
    percent = v2.HPAScalingPolicy(type="Percent", value=100, period_seconds=15)
    behavior.scale_down = _rules(behavior.scale_down, None, [percent])


def _rules(
    given: v2.HPAScalingRules | None, window: int | None, policies: list[v2.HPAScalingPolicy]
) -> v2.HPAScalingRules:
    rules = given if given is not None else v2.HPAScalingRules()
    if rules.select_policy is None:
        rules.select_policy = "Max"
    if rules.stabilization_window_seconds is None:
        rules.stabilization_window_seconds = window
    if rules.policies is None:
        rules.policies = policies
    return rules


def _check(new: v2.HorizontalPodAutoscaler, old: v2.HorizontalPodAutoscaler | None = None) -> ErrorList:
    spec, least = new.spec, 1
    if old is not None and old.spec.min_replicas == 0:
        least = 0
    errors: ErrorList = []
    minimum, path = spec.min_replicas, _SPEC.child("maxReplicas")
    if minimum is not None and minimum < least:
        errors.append(invalid(_SPEC.child("minReplicas"), minimum, f"must be greater than or equal to {least}"))
    if spec.max_replicas == 0:
        errors.append(required(path, "must be set and greater than 0"))
    elif spec.max_replicas < 0:
        errors.append(invalid(path, spec.max_replicas, "must be greater than or equal to 1"))
    if minimum is not None and spec.max_replicas < minimum:
        errors.append(invalid(path, spec.max_replicas, "must be greater than or equal to `minReplicas`"))
    errors += _target(new, old)
    errors += _metrics(spec, _SPEC.child("metrics"), lenient=old is not None and _has_bad_object_version(old))
    if spec.behavior is not None:
        errors += _scaling_rules(spec.behavior.scale_up, _SPEC.child("behavior", "scaleUp"))
        errors += _scaling_rules(spec.behavior.scale_down, _SPEC.child("behavior", "scaleDown"))
    return errors


def _target(new: v2.HorizontalPodAutoscaler, old: v2.HorizontalPodAutoscaler | None) -> ErrorList:
    target = new.spec.scale_target_ref
    before = old.spec.scale_target_ref if old is not None else None
    same = before is not None and (before.api_version, before.kind) == (target.api_version, target.kind)
    any_group = target.kind == "ReplicationController"
    return _reference(target, _SPEC.child("scaleTargetRef"), any_version=same, empty_group=any_group)


def _has_bad_object_version(old: v2.HorizontalPodAutoscaler) -> bool:
    return any(
        metric.type == "Object"
        and metric.object is not None
        and _version_complaint(metric.object.described_object.api_version, empty_group=True)
        for metric in old.spec.metrics
    )


def _version_complaint(api_version: str, *, empty_group: bool) -> str:
    if api_version.count("/") > 1:
        return f"unexpected GroupVersion string: {api_version}"
    if not empty_group and "/" not in api_version.strip("/"):
        return "apiVersion must specify API group"
    return ""


def _reference(
    reference: v2.CrossVersionObjectReference, path: Path, *, any_version: bool, empty_group: bool
) -> ErrorList:
    errors: ErrorList = []
    for name, value in (("kind", reference.kind), ("name", reference.name)):
        if not value:
            errors.append(required(path.child(name), ""))
        errors += [invalid(path.child(name), value, text) for text in path_segment_name(value, False) if value]
    why = "" if any_version else _version_complaint(reference.api_version, empty_group=empty_group)
    if why:
        errors.append(invalid(path.child("apiVersion"), reference.api_version, why))
    return errors


def _metrics(spec: v2.HorizontalPodAutoscalerSpec, path: Path, *, lenient: bool) -> ErrorList:
    errors: ErrorList = []
    for index, metric in enumerate(spec.metrics):
        errors += _metric(metric, path.index(index), lenient)
    if spec.min_replicas == 0 and not any(metric.type in ("Object", "External") for metric in spec.metrics):
        words = "must specify at least one Object or External metric to support scaling to zero replicas"
        errors.append(forbidden(path, words))
    return errors


def _metric(metric: v2.MetricSpec, path: Path, lenient: bool) -> ErrorList:
    errors: ErrorList = []
    place = path.child("type")
    if not metric.type:
        errors.append(required(place, "must specify a metric source type"))
    if metric.type not in _SOURCES:
        errors.append(not_supported(place, metric.type, _SOURCES))
    present: list[str] = []
    if metric.object is not None:
        present.append("object")
        errors += _object(metric.object, path.child("object"), lenient)
    if metric.external is not None:
        present.append("external")
        if len(present) == 1:
            errors += _external(metric.external, path.child("external"))
    if metric.pods is not None:
        present.append("pods")
        if len(present) == 1:
            errors += _pods(metric.pods, path.child("pods"))
    if metric.resource is not None:
        present.append("resource")
        if len(present) == 1:
            errors += _resource(metric.resource, path.child("resource"))
    if metric.container_resource is not None:
        present.append("containerResource")
        if len(present) == 1:
            errors += _container_resource(metric.container_resource, path.child("containerResource"))
    expected = metric.type[:1].lower() + metric.type[1:]
    if metric.type not in _SOURCES:
        errors.append(not_supported(place, metric.type, _SOURCES))
    elif expected not in present:
        errors.append(required(path.child(expected), "must populate information for the given metric source"))
    if len(present) != 1:
        words = "must populate the given metric source only"
        errors += [forbidden(path.child(name), words) for name in present if name != expected]
    return errors


def _object(source: v2.ObjectMetricSource, path: Path, lenient: bool) -> ErrorList:
    place = path.child("describedObject")
    errors = _reference(source.described_object, place, any_version=lenient, empty_group=True)
    errors += _identifier(source.metric, path.child("metric"))
    errors += _metric_target(source.target, path.child("target"))
    if source.target.value is None and source.target.average_value is None:
        words = "must set either a target value or averageValue"
        errors.append(required(path.child("target", "averageValue"), words))
    return errors


def _external(source: v2.ExternalMetricSource, path: Path) -> ErrorList:
    target = source.target
    errors = _identifier(source.metric, path.child("metric")) + _metric_target(target, path.child("target"))
    if target.value is None and target.average_value is None:
        words = "must set either a target value for metric or a per-pod target"
        errors.append(required(path.child("target", "averageValue"), words))
    if target.value is not None and target.average_value is not None:
        words = "may not set both a target value for metric and a per-pod target"
        errors.append(forbidden(path.child("target", "value"), words))
    return errors


def _pods(source: v2.PodsMetricSource, path: Path) -> ErrorList:
    errors = _identifier(source.metric, path.child("metric")) + _metric_target(source.target, path.child("target"))
    if source.target.average_value is None:
        words = "must specify a positive target averageValue"
        errors.append(required(path.child("target", "averageValue"), words))
    return errors


def _container_resource(source: v2.ContainerResourceMetricSource, path: Path) -> ErrorList:
    if source.name:
        errors = validate_container_resource_name(source.name, path.child("name"))
    else:
        errors = [required(path.child("name"), "must specify a resource name")]
    if source.container:
        errors += validate_dns1123_label(source.container, path.child("container"))
    else:
        errors.append(required(path.child("container"), "must specify a container"))
    return errors + _resource_target(source.target, path.child("target"))


def _resource(source: v2.ResourceMetricSource, path: Path) -> ErrorList:
    errors: ErrorList = []
    if not source.name:
        errors.append(required(path.child("name"), "must specify a resource name"))
    return errors + _resource_target(source.target, path.child("target"))


def _resource_target(target: v2.MetricTarget, path: Path) -> ErrorList:
    errors = _metric_target(target, path)
    if target.average_utilization is None and target.average_value is None:
        words = "must set either a target raw value or a target utilization"
        errors.append(required(path.child("averageUtilization"), words))
    if target.average_utilization is not None and target.average_value is not None:
        words = "may not set both a target raw value and a target utilization"
        errors.append(forbidden(path.child("averageValue"), words))
    return errors


def _metric_target(target: v2.MetricTarget, path: Path) -> ErrorList:
    errors: ErrorList = []
    if not target.type:
        errors.append(required(path.child("type"), "must specify a metric target type"))
    if target.type not in _TARGET_TYPES:
        words = "must be either Utilization, Value, or AverageValue"
        errors.append(invalid(path.child("type"), target.type, words))
    for name, value in (("value", target.value), ("averageValue", target.average_value)):
        if value is not None and value <= Quantity.ZERO:
            errors.append(invalid(path.child(name), value, "must be positive"))
    percent = target.average_utilization
    if percent is not None and percent < 1:
        errors.append(invalid(path.child("averageUtilization"), percent, "must be greater than 0"))
    return errors


def _identifier(metric: v2.MetricIdentifier, path: Path) -> ErrorList:
    if not metric.name:
        return [required(path.child("name"), "must specify a metric name")]
    return [invalid(path.child("name"), metric.name, text) for text in path_segment_name(metric.name, False)]


def _scaling_rules(rules: v2.HPAScalingRules | None, path: Path) -> ErrorList:
    if rules is None:
        return []
    errors: ErrorList = []
    window, place = rules.stabilization_window_seconds, path.child("stabilizationWindowSeconds")
    if window is not None and window < 0:
        errors.append(invalid(place, window, "must be greater than or equal to zero"))
    if window is not None and window > _MAX_WINDOW:
        errors.append(invalid(place, window, f"must be less than or equal to {_MAX_WINDOW}"))
    if rules.select_policy is not None and rules.select_policy not in _SELECT_POLICIES:
        errors.append(not_supported(path.child("selectPolicy"), rules.select_policy, _SELECT_POLICIES))
    errors += _policies(rules.policies, path.child("policies"))
    if rules.tolerance is not None:
        errors += validate_non_negative_quantity(rules.tolerance, path.child("tolerance"))
    return errors


def _policies(policies: Sequence[v2.HPAScalingPolicy] | None, path: Path) -> ErrorList:
    if not policies:
        return [required(path, "must specify at least one Policy")]
    errors: ErrorList = []
    for index, policy in enumerate(policies):
        place = path.index(index)
        if policy.type not in _POLICY_TYPES:
            errors.append(not_supported(place.child("type"), policy.type, _POLICY_TYPES))
        if policy.value <= 0:
            errors.append(invalid(place.child("value"), policy.value, "must be greater than zero"))
        period, spot = policy.period_seconds, place.child("periodSeconds")
        if period <= 0:
            errors.append(invalid(spot, period, "must be greater than zero"))
        if period > _MAX_PERIOD:
            errors.append(invalid(spot, period, f"must be less than or equal to {_MAX_PERIOD}"))
    return errors


def _check_status(new: v2.HorizontalPodAutoscaler, _old: v2.HorizontalPodAutoscaler) -> ErrorList:
    errors = validate_not_negative(new.status.current_replicas, Path("status", "currentReplicas"))
    return errors + validate_not_negative(new.status.desired_replicas, Path("status", "desiredReplicas"))


STRATEGIES: dict[str, Strategy[Any]] = {
    "horizontalpodautoscalers": kind_strategy(
        namespaced=True,
        default=_default,
        check=_check,
        check_old=_check,
        has_status=True,
        subresources={"status": status_strategy(default=_default, check_update=_check_status)},
    )
}

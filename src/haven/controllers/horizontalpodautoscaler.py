"""Scale workloads by what their Pods, other objects or the world outside measure.

Each autoscaler is looked at every 15 seconds. The numbers come from autoscaling.py, the metrics from podmetrics.py.
Source: https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from haven.api.autoscaling import v1 as autoscaling_v1
from haven.api.autoscaling import v2 as autoscaling
from haven.api.core import v1 as core
from haven.api.scheme import Resource
from haven.apimachinery import apierrors, selectors, serialization, times
from haven.apimachinery.names import NamespacedName
from haven.apimachinery.quantity import Format, Quantity
from haven.controllers import podmetrics
from haven.controllers.actions import Emit, Request, Requeue, Steps, Update, Wiring, key_from
from haven.controllers.autoscaling import (
    History,
    Tolerance,
    by_ratio,
    by_total,
    by_usage,
    by_utilization,
    limited,
    limited_by_behavior,
)
from haven.controllers.counts import Counts
from haven.controllers.discovery import Discovered, discover
from haven.controllers.podmetrics import MetricsMissing
from haven.controllers.selectortext import go_selector

__all__ = ["HorizontalPodAutoscalerController"]

PERIOD_SECONDS = 15.0
CONFLICTS_MAX = 5

_Scaler = autoscaling.HorizontalPodAutoscaler
_METRIC = "horizontal_pod_autoscaler_controller_"


@dataclass(frozen=True, slots=True)
class _Proposal:
    """What one metric asks for."""

    replicas: int
    name: str
    status: autoscaling.MetricStatus


class _Failure(Exception):
    """A metric that gives no answer, and the condition's reason for it."""

    def __init__(self, reason: str, message: str, shown: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.shown = shown


def _action(desired: int, current: int) -> str:
    """Return what upstream calls the way to a number of replicas."""
    return "scale_up" if desired > current else "scale_down" if desired < current else "none"


class HorizontalPodAutoscalerController:
    """Keys are places of autoscalers."""

    workers = 5

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._scalers = wiring.reader(_Scaler)
        self._pods = wiring.reader(core.Pod)
        self.counts = Counts()
        self.counts.gauges[_METRIC + "num_horizontal_pod_autoscalers"] = lambda: {(): len(self._scalers.list())}
        self.counts.gauges[_METRIC + "desired_replicas"] = lambda: {
            (one.metadata.name, one.metadata.namespace): one.status.desired_replicas for one in self._scalers.list()
        }
        self._histories: dict[NamespacedName, History] = {}
        self._selectors: dict[NamespacedName, selectors.LabelSelector] = {}
        self._found: Discovered | None = None
        self._scalers.add_handler(self._scaler_changed)

    def _scaler_changed(self, old: _Scaler | None, new: _Scaler | None) -> None:
        if new is None and old is not None:
            self._histories.pop(key_from(old), None)
            self._selectors.pop(key_from(old), None)
        elif new is not None and (old is None or old.spec != new.spec):
            self._wiring.enqueue(key_from(new))

    def sync(self, key: NamespacedName) -> Steps[None]:
        shared = self._scalers.get(key.namespace, key.name)
        if shared is None:
            return
        yield Requeue(PERIOD_SECONDS)
        scaler = serialization.copy(shared)
        began = perf_counter()
        action, error = yield from self._reconcile(key, scaler)
        self.counts.add(_METRIC + "reconciliations_total", action, error)
        seconds = perf_counter() - began
        self.counts.observe(_METRIC + "reconciliation_duration_seconds", action, error, value=seconds)
        if scaler.status != shared.status:
            try:
                yield Update(scaler, "status")
            except apierrors.ApiError as error:
                yield Emit(shared, "Warning", "FailedUpdateStatus", str(error))

    def _reconcile(self, key: NamespacedName, scaler: _Scaler) -> Steps[tuple[str, str]]:
        """Scale the target, and write what happened into the status of our copy; return (action, kind of error)."""
        try:
            resource, scale = yield from self._scale_of(scaler)
        except (apierrors.ApiError, MetricsMissing) as error:
            yield Emit(scaler, "Warning", "FailedGetScale", str(error))
            message = f"the HPA controller was unable to get the target's current scale: {error}"
            self._set(scaler, "AbleToScale", "False", "FailedGetScale", message)
            return "none", "internal"
        message = "the HPA controller was able to get the target's current scale"
        self._set(scaler, "AbleToScale", "True", "SucceededGetScale", message)
        now, current = self._wiring.now_seconds(), scale.spec.replicas
        history = self._histories.setdefault(key, History())
        if not history.recommendations:
            history.recommendations.append((now, current))
        minimum = 1 if scaler.spec.min_replicas is None else scaler.spec.min_replicas
        desired, reason = current, ""
        statuses: list[autoscaling.MetricStatus] = []
        if current == 0:
            message = "scaling is disabled since the replica count of the target is zero"
            self._set(scaler, "ScalingActive", "False", "ScalingDisabled", message)
        elif current > scaler.spec.max_replicas:
            desired, reason = scaler.spec.max_replicas, "Current number of replicas above Spec.MaxReplicas"
        elif current < minimum:
            desired, reason = minimum, "Current number of replicas below Spec.MinReplicas"
        else:
            wanted, metric, statuses = yield from self._wanted(key, scaler, scale)
            if wanted is None:
                self._set_counts(scaler, current, scaler.status.desired_replicas, statuses)
                return "none", "internal"
            if wanted > current:
                reason = f"{metric} above target"
            elif wanted < current:
                reason = "All metrics below target"
            desired = self._limit(scaler, wanted, current, minimum, history)
        is_done = desired != current
        if is_done:
            complaint = yield from self._rescale(scaler, resource, scale, desired)
            if complaint:
                shown = f"New size: {desired}; reason: {reason}; error: {complaint}"
                yield Emit(scaler, "Warning", "FailedRescale", shown)
                message = f"the HPA controller was unable to update the target scale: {complaint}"
                self._set(scaler, "AbleToScale", "False", "FailedUpdateScale", message)
                self._set_counts(scaler, current, scaler.status.desired_replicas, statuses)
                return "none", "internal"
            message = f"the HPA controller was able to update the target scale to {desired}"
            self._set(scaler, "AbleToScale", "True", "SucceededRescale", message)
            yield Emit(scaler, "Normal", "SuccessfulRescale", f"New size: {desired}; reason: {reason}")
            history.note_change(scaler.spec.behavior, current, desired, now)
            scaler.status.last_scale_time = times.format_time(now)
        self._set_counts(scaler, current, desired, statuses)
        return _action(desired, current), "none"

    # The target

    def _scale_of(self, scaler: _Scaler) -> Steps[tuple[Resource[object], autoscaling_v1.Scale]]:
        target = scaler.spec.scale_target_ref
        place = (target.api_version, target.kind)
        if self._found is None or place not in self._found.by_kind:
            self._found = yield from discover()
        resource = self._found.by_kind.get(place)
        if resource is None:
            group = target.api_version.rpartition("/")[0]
            raise MetricsMissing(f'no matches for kind "{target.kind}" in group "{group}"')
        body = yield Request("GET", resource.path(scaler.metadata.namespace, target.name, "scale"))
        return resource, serialization.decode(body, autoscaling_v1.Scale)

    def _rescale(
        self, scaler: _Scaler, resource: Resource[object], scale: autoscaling_v1.Scale, desired: int
    ) -> Steps[str]:
        """Set the number of replicas; return why that failed, "" if it did not."""
        path = resource.path(scaler.metadata.namespace, scaler.spec.scale_target_ref.name, "scale")
        complaint = ""
        for _ in range(CONFLICTS_MAX):
            scale.spec.replicas = desired
            try:
                body = serialization.encode(scale)
                yield Request("PUT", path, body, {"Content-Type": "application/json"})
                return ""
            except apierrors.Conflict as error:
                complaint = str(error)
            except apierrors.ApiError as error:
                return str(error)
            try:
                latest = yield Request("GET", path)
            except apierrors.ApiError:
                return complaint
            scale = serialization.decode(latest, autoscaling_v1.Scale)
        return complaint

    # The metrics

    def _wanted(
        self, key: NamespacedName, scaler: _Scaler, scale: autoscaling_v1.Scale
    ) -> Steps[tuple[int | None, str, list[autoscaling.MetricStatus]]]:
        """Return the most that any metric asks for, which one that is, and the state of each.

        None if nothing can be done: no metric answers, or one that does not might keep us from scaling down.
        """
        selector = yield from self._selector_of(key, scaler, scale.status.selector)
        if selector is None:
            return None, "", []
        selected = [pod for pod in self._pods.list(key.namespace) if selector.matches(pod.metadata.labels)]
        best: _Proposal | None = None
        statuses, failures = [], []
        for spec in scaler.spec.metrics:
            began = perf_counter()
            try:
                proposal = yield from self._proposal(scaler, spec, scale, selector, selected)
            except _Failure as failure:
                self._count_metric("none", "internal", spec.type, perf_counter() - began)
                yield Emit(scaler, "Warning", failure.reason, failure.shown)
                failures.append(failure)
                statuses.append(autoscaling.MetricStatus(type=""))
                continue
            action = _action(proposal.replicas, scaler.status.current_replicas or 0)
            self._count_metric(action, "none", spec.type, perf_counter() - began)
            statuses.append(proposal.status)
            if best is None or proposal.replicas > best.replicas:
                best = proposal
        if failures and (best is None or best.replicas < scale.spec.replicas):
            first = failures[0]
            message = f"the HPA was unable to compute the replica count: {first.shown}"
            self._set(scaler, "ScalingActive", "False", first.reason, message)
            total = len(scaler.spec.metrics)
            message = f"invalid metrics ({len(failures)} invalid out of {total}), first error is: {first}"
            yield Emit(scaler, "Warning", "FailedComputeMetricsReplicas", message)
            return None, "", statuses
        name = best.name if best is not None else ""
        message = f"the HPA was able to successfully calculate a replica count from {name}"
        self._set(scaler, "ScalingActive", "True", "ValidMetricFound", message)
        return best.replicas if best is not None else scale.spec.replicas, name, statuses

    def _count_metric(self, action: str, error: str, kind: str, seconds: float) -> None:
        self.counts.add(_METRIC + "metric_computation_total", action, error, kind)
        self.counts.observe(_METRIC + "metric_computation_duration_seconds", action, error, kind, value=seconds)

    def _selector_of(self, key: NamespacedName, scaler: _Scaler, text: str) -> Steps[selectors.LabelSelector | None]:
        """Return which Pods the target has; None if that is unclear, with a condition that says why."""
        if not text:
            yield Emit(scaler, "Warning", "SelectorRequired", "selector is required")
            yield from self._no_selector(scaler, "the HPA target's scale is missing a selector", "selector is required")
            return None
        try:
            selector = selectors.parse_labels(text)
        except selectors.SelectorError as error:
            message = f"couldn't convert selector into a corresponding internal selector object: {error}"
            yield Emit(scaler, "Warning", "InvalidSelector", message)
            yield from self._no_selector(scaler, message, message)
            return None
        self._selectors[key] = selector
        selected = [pod for pod in self._pods.list(key.namespace) if selector.matches(pod.metadata.labels)]
        claiming = [
            other
            for other, theirs in self._selectors.items()
            if other.namespace == key.namespace and any(theirs.matches(pod.metadata.labels) for pod in selected)
        ]
        if len(claiming) > 1:
            names = " ".join(f"{each.namespace}/{each.name}" for each in sorted(claiming))
            message = f"pods by selector {text} are controlled by multiple HPAs: [{names}]"
            yield Emit(scaler, "Warning", "AmbiguousSelector", message)
            self._set(scaler, "ScalingActive", "False", "AmbiguousSelector", message)
            yield Emit(scaler, "Warning", "FailedComputeMetricsReplicas", message)
            return None
        return selector

    def _no_selector(self, scaler: _Scaler, message: str, shown: str) -> Steps[None]:
        self._set(scaler, "ScalingActive", "False", "InvalidSelector", message)
        yield Emit(scaler, "Warning", "FailedComputeMetricsReplicas", shown)

    def _proposal(
        self,
        scaler: _Scaler,
        spec: autoscaling.MetricSpec,
        scale: autoscaling_v1.Scale,
        selector: selectors.LabelSelector,
        selected: Sequence[core.Pod],
    ) -> Steps[_Proposal]:
        """Return what a metric asks for; raise _Failure."""
        if spec.resource is not None:
            source = spec.resource
            try:
                replicas, name, current = yield from self._by_resource(
                    scaler, scale, selector, selected, source.name, "", source.target
                )
            except MetricsMissing as error:
                message = f"failed to get {source.name} resource metric value: {error}"
                raise _Failure("FailedGetResourceMetric", message, str(error)) from error
            status = autoscaling.ResourceMetricStatus(name=source.name, current=current)
            return _Proposal(replicas, name, autoscaling.MetricStatus(type=spec.type, resource=status))
        if spec.container_resource is not None:
            own = spec.container_resource
            try:
                replicas, name, current = yield from self._by_resource(
                    scaler, scale, selector, selected, own.name, own.container, own.target
                )
            except MetricsMissing as error:
                message = f"failed to get {own.container} container metric value: {error}"
                raise _Failure("FailedGetContainerResourceMetric", message, str(error)) from error
            state = autoscaling.ContainerResourceMetricStatus(name=own.name, container=own.container, current=current)
            return _Proposal(replicas, name, autoscaling.MetricStatus(type=spec.type, container_resource=state))
        if spec.pods is not None:
            try:
                return (yield from self._by_pods(scaler, scale, selector, selected, spec.pods))
            except MetricsMissing as error:
                shown = f"unable to get metric {spec.pods.metric.name}: {error}"
                raise _Failure("FailedGetPodsMetric", f"failed to get pods metric value: {shown}", shown) from error
        if spec.object is not None:
            try:
                return (yield from self._by_object(scaler, scale, selected, spec.object))
            except MetricsMissing as error:
                of = spec.object.described_object
                place = f"{of.kind} {scaler.metadata.namespace}/{of.name}"
                shown = f"unable to get metric {spec.object.metric.name}: {error} on {place}"
                raise _Failure("FailedGetObjectMetric", f"failed to get object metric value: {shown}", shown) from error
        assert spec.external is not None, spec.type
        try:
            return (yield from self._by_external(scaler, scale, selected, spec.external))
        except MetricsMissing as error:
            metric = spec.external.metric
            place = f"{scaler.metadata.namespace}/{metric.name}/{go_selector(metric.selector)}"
            shown = f"unable to get external metric {place}: {error}"
            message = f"failed to get {metric.name} external metric value: {shown}"
            raise _Failure("FailedGetExternalMetric", message, shown) from error

    def _by_resource(
        self,
        scaler: _Scaler,
        scale: autoscaling_v1.Scale,
        selector: selectors.LabelSelector,
        selected: Sequence[core.Pod],
        resource: str,
        container: str,
        target: autoscaling.MetricTarget,
    ) -> Steps[tuple[int, str, autoscaling.MetricValueStatus]]:
        is_usage = target.average_value is not None
        try:
            metrics = yield from podmetrics.resource_metrics(scaler.metadata.namespace, selector, resource, container)
        except MetricsMissing as error:
            what = "usage" if is_usage else "utilization"
            text = f"failed to get {resource} {what}: unable to get metrics for resource {resource}: {error}"
            raise MetricsMissing(text) from error
        now, current, tolerance = self._wiring.now_seconds(), scale.spec.replicas, _tolerance(scaler)
        if target.average_value is not None:
            wanted = target.average_value.milli_value
            try:
                replicas, used = by_usage(selected, metrics, resource, wanted, current, tolerance, now)
            except MetricsMissing as error:
                raise MetricsMissing(f"failed to get {resource} usage: {error}") from error
            status = autoscaling.MetricValueStatus(average_value=_amount(resource, used))
            return replicas, f"{resource} resource", status
        try:
            replicas, percent, used = by_utilization(
                selected, metrics, resource, container, target.average_utilization or 0, current, tolerance, now
            )
        except MetricsMissing as error:
            raise MetricsMissing(f"failed to get {resource} utilization: {error}") from error
        kind = "container resource" if container else "resource"
        status = autoscaling.MetricValueStatus(average_utilization=percent, average_value=_amount(resource, used))
        return replicas, f"{resource} {kind} utilization (percentage of request)", status

    def _by_pods(
        self,
        scaler: _Scaler,
        scale: autoscaling_v1.Scale,
        selector: selectors.LabelSelector,
        selected: Sequence[core.Pod],
        source: autoscaling.PodsMetricSource,
    ) -> Steps[_Proposal]:
        assert self._found is not None
        metrics = yield from podmetrics.pod_metrics(self._found, scaler.metadata.namespace, selector, source.metric)
        wanted = source.target.average_value.milli_value if source.target.average_value is not None else 0
        now, current = self._wiring.now_seconds(), scale.spec.replicas
        replicas, used = by_usage(selected, metrics, "", wanted, current, _tolerance(scaler), now)
        value = autoscaling.MetricValueStatus(average_value=Quantity.of_milli(used))
        status = autoscaling.PodsMetricStatus(metric=source.metric, current=value)
        name = f"pods metric {source.metric.name}"
        return _Proposal(replicas, name, autoscaling.MetricStatus(type="Pods", pods=status))

    def _by_object(
        self,
        scaler: _Scaler,
        scale: autoscaling_v1.Scale,
        selected: Sequence[core.Pod],
        source: autoscaling.ObjectMetricSource,
    ) -> Steps[_Proposal]:
        assert self._found is not None
        namespace, described = scaler.metadata.namespace, source.described_object
        value = yield from podmetrics.object_value(self._found, namespace, described, source.metric)
        replicas, current = _shared(value, source.target, scale, selected, _tolerance(scaler))
        status = autoscaling.ObjectMetricStatus(metric=source.metric, described_object=described, current=current)
        if source.target.type == "Value":
            name = f"{described.kind} metric {source.metric.name}"
        else:
            name = f"external metric {source.metric.name}({go_selector(source.metric.selector)})"
        return _Proposal(replicas, name, autoscaling.MetricStatus(type="Object", object=status))

    def _by_external(
        self,
        scaler: _Scaler,
        scale: autoscaling_v1.Scale,
        selected: Sequence[core.Pod],
        source: autoscaling.ExternalMetricSource,
    ) -> Steps[_Proposal]:
        values = yield from podmetrics.external_values(scaler.metadata.namespace, source.metric)
        replicas, current = _shared(sum(values), source.target, scale, selected, _tolerance(scaler))
        status = autoscaling.ExternalMetricStatus(metric=source.metric, current=current)
        name = f"external metric {source.metric.name}({go_selector(source.metric.selector)})"
        return _Proposal(replicas, name, autoscaling.MetricStatus(type="External", external=status))

    # The status

    def _limit(self, scaler: _Scaler, wanted: int, current: int, minimum: int, history: History) -> int:
        now, maximum, behavior = self._wiring.now_seconds(), scaler.spec.max_replicas, scaler.spec.behavior
        if behavior is None:
            result = limited(wanted, current, minimum, maximum, history, now)
        else:
            result = limited_by_behavior(wanted, current, minimum, maximum, behavior, history, now)
        self._set(scaler, "AbleToScale", "True", result.able_reason, result.able_message)
        status = "True" if result.is_limited else "False"
        self._set(scaler, "ScalingLimited", status, result.limit_reason, result.limit_message)
        return result.replicas

    def _set(self, scaler: _Scaler, type: str, status: str, reason: str, message: str) -> None:
        condition = next((each for each in scaler.status.conditions if each.type == type), None)
        if condition is None:
            condition = autoscaling.HorizontalPodAutoscalerCondition(type=type)
            scaler.status.conditions.append(condition)
        if condition.status != status:
            condition.last_transition_time = times.format_time(self._wiring.now_seconds())
        condition.status, condition.reason, condition.message = status, reason, message

    def _set_counts(
        self, scaler: _Scaler, current: int, desired: int, statuses: list[autoscaling.MetricStatus]
    ) -> None:
        scaler.status.current_replicas = current
        scaler.status.desired_replicas = desired
        scaler.status.current_metrics = statuses or None


def _shared(
    value: int,
    target: autoscaling.MetricTarget,
    scale: autoscaling_v1.Scale,
    selected: Sequence[core.Pod],
    tolerance: Tolerance,
) -> tuple[int, autoscaling.MetricValueStatus]:
    """Return replicas for a value that all Pods share, and the state to show."""
    if target.average_value is not None:
        replicas, share = by_total(value, target.average_value.milli_value, scale.status.replicas, tolerance)
        return replicas, autoscaling.MetricValueStatus(average_value=Quantity.of_milli(share))
    assert target.value is not None, "the API server sees to it that there is a target"
    replicas = by_ratio(selected, value / target.value.milli_value, scale.spec.replicas, tolerance)
    return replicas, autoscaling.MetricValueStatus(value=Quantity.of_milli(value))


def _amount(resource: str, milli: int) -> Quantity:
    return Quantity.of_milli(milli, Format.BINARY_SI if resource == "memory" else Format.DECIMAL_SI)


def _tolerance(scaler: _Scaler) -> Tolerance:
    behavior, usual = scaler.spec.behavior, Tolerance()
    if behavior is None:
        return usual
    up = behavior.scale_up.tolerance if behavior.scale_up is not None else None
    down = behavior.scale_down.tolerance if behavior.scale_down is not None else None
    return Tolerance(
        usual.up if up is None else up.milli_value / 1000, usual.down if down is None else down.milli_value / 1000
    )

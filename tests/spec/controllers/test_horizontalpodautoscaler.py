from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists, none, one_of, sampled_from
from tests.spec.controllers.world import START, World

from haven.api.autoscaling import v2 as autoscaling
from haven.api.core import v1 as core
from haven.apimachinery import apierrors, meta, times
from haven.apimachinery.quantity import Quantity
from haven.controllers.actions import Request
from haven.controllers.autoscaling import History, Tolerance, by_usage, limited, limited_by_behavior
from haven.controllers.horizontalpodautoscaler import HorizontalPodAutoscalerController
from haven.controllers.podmetrics import MetricsMissing, PodMetric

LABELS = {"app": "a"}
TOLERANCE = Tolerance()


def a_pod(name: str, *, cpu: str = "100m", ready: bool = True, phase: str = "Running", **metadata: Any) -> core.Pod:
    stamp = times.format_time(START - 3600)
    resources = core.ResourceRequirements(requests={"cpu": Quantity.parse(cpu)})
    condition = core.PodCondition(type="Ready", status="True" if ready else "False", last_transition_time=stamp)
    return core.Pod(
        metadata=meta.ObjectMeta(name=name, namespace="default", labels=LABELS, **metadata),
        spec=core.PodSpec(containers=[core.Container(name="c", resources=resources)]),
        status=core.PodStatus(phase=phase, start_time=stamp, conditions=[condition]),
    )


def utilization(percent: int) -> autoscaling.MetricSpec:
    target = autoscaling.MetricTarget(type="Utilization", average_utilization=percent)
    return autoscaling.MetricSpec(type="Resource", resource=autoscaling.ResourceMetricSource(name="cpu", target=target))


def external(total: str) -> autoscaling.MetricSpec:
    target = autoscaling.MetricTarget(type="AverageValue", average_value=Quantity.parse(total))
    source = autoscaling.ExternalMetricSource(metric=autoscaling.MetricIdentifier(name="queue"), target=target)
    return autoscaling.MetricSpec(type="External", external=source)


class Cluster:
    """A Deployment with Pods that use so much CPU, behind the API that the controller asks."""

    def __init__(self, *uses: str, replicas: int | None = None, selector: str = "app=a") -> None:
        self.world = World()
        self.replicas = len(uses) if replicas is None else replicas
        self.uses = {f"p{number}": use for number, use in enumerate(uses)}
        self.queue: list[str] = []
        self._selector = selector
        self.world.answer = self._answer
        self.world.put(*(a_pod(name) for name in self.uses))

    def _answer(self, request: Request) -> bytes:
        url = urlsplit(request.path)
        if request.path.endswith("/deployments/d/scale"):
            if request.method == "PUT":
                self.replicas = json.loads(request.body)["spec"]["replicas"]
            status = {"replicas": self.replicas, "selector": self._selector}
            return json.dumps({"spec": {"replicas": self.replicas}, "status": status}).encode()
        if url.path == "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods":
            assert parse_qs(url.query) == {"labelSelector": ["app=a"]}
            return json.dumps({"items": [self._metric(name, use) for name, use in self.uses.items()]}).encode()
        if url.path == "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue":
            return json.dumps({"items": [{"metricName": "queue", "value": value} for value in self.queue]}).encode()
        if url.path == "/apis":
            resource = {
                "resource": "deployments",
                "scope": "Namespaced",
                "singularResource": "deployment",
                "verbs": ["get"],
                "responseKind": {"group": "apps", "version": "v1", "kind": "Deployment"},
            }
            version = {"version": "v1", "resources": [resource]}
            return json.dumps({"items": [{"metadata": {"name": "apps"}, "versions": [version]}]}).encode()
        if url.path == "/api":
            return b'{"items": []}'
        raise apierrors.NotFound(request.path)

    def _metric(self, name: str, use: str) -> dict[str, Any]:
        stamp = times.format_time(self.world.now)
        containers = [{"name": "c", "usage": {"cpu": use}}]
        return {"metadata": {"name": name}, "timestamp": stamp, "window": "30s", "containers": containers}

    def scale(self, *metrics: autoscaling.MetricSpec, minimum: int = 1, maximum: int = 10, **spec: Any) -> Any:
        """Run the controller over an autoscaler of the Deployment; return its status."""
        target = autoscaling.CrossVersionObjectReference(api_version="apps/v1", kind="Deployment", name="d")
        self.world.put(
            autoscaling.HorizontalPodAutoscaler(
                metadata=meta.ObjectMeta(name="h", namespace="default"),
                spec=autoscaling.HorizontalPodAutoscalerSpec(
                    scale_target_ref=target, min_replicas=minimum, max_replicas=maximum, metrics=list(metrics), **spec
                ),
            )
        )
        self.world.start(HorizontalPodAutoscalerController)
        return self.status()

    def status(self) -> autoscaling.HorizontalPodAutoscalerStatus:
        return self.world.get(autoscaling.HorizontalPodAutoscaler, "default", "h").status  # type: ignore[no-any-return]


def conditions(status: autoscaling.HorizontalPodAutoscalerStatus) -> dict[str, tuple[str, str]]:
    return {each.type: (each.status, each.reason) for each in status.conditions}


def test_busy_pods_get_company() -> None:
    cluster = Cluster("90m", "90m")

    status = cluster.scale(utilization(50))

    assert cluster.replicas == 4
    assert (status.current_replicas, status.desired_replicas) == (2, 4)
    assert status.current_metrics[0].resource.current.average_utilization == 90
    assert str(status.current_metrics[0].resource.current.average_value) == "90m"
    assert conditions(status) == {
        "AbleToScale": ("True", "SucceededRescale"),
        "ScalingActive": ("True", "ValidMetricFound"),
        "ScalingLimited": ("False", "DesiredWithinRange"),
    }
    assert cluster.world.events[-1].message == (
        "New size: 4; reason: cpu resource utilization (percentage of request) above target"
    )


def test_nothing_is_done_about_small_differences() -> None:
    cluster = Cluster("54m", "54m")

    status = cluster.scale(utilization(50))

    assert (cluster.replicas, status.last_scale_time) == (2, None)
    assert conditions(status)["AbleToScale"] == ("True", "ReadyForNewScale")


def test_idle_pods_go_only_after_five_quiet_minutes() -> None:
    cluster = Cluster("10m", "10m", "10m", "10m")

    status = cluster.scale(utilization(50))
    assert conditions(status)["AbleToScale"] == ("True", "ScaleDownStabilized")
    cluster.world.wait(290)
    assert cluster.replicas == 4
    cluster.world.wait(30)

    assert cluster.replicas == 1
    assert cluster.world.events[-1].message == "New size: 1; reason: All metrics below target"


def test_the_limits_hold_without_any_metric() -> None:
    too_many, too_few = Cluster("1m", replicas=20), Cluster("1m", replicas=1)

    too_many.scale(utilization(50), maximum=5)
    too_few.scale(utilization(50), minimum=3)

    assert (too_many.replicas, too_few.replicas) == (5, 3)


def test_a_target_of_nothing_is_left_at_nothing() -> None:
    cluster = Cluster(replicas=0)

    status = cluster.scale(utilization(50))

    assert cluster.replicas == 0
    assert conditions(status)["ScalingActive"] == ("False", "ScalingDisabled")


def test_no_more_than_twice_as_many_at_a_time() -> None:
    cluster = Cluster(*["1"] * 5)

    status = cluster.scale(utilization(10), maximum=100)

    assert cluster.replicas == 10
    assert conditions(status)["ScalingLimited"] == ("True", "ScaleUpLimit")


def test_the_largest_of_several_metrics_counts() -> None:
    cluster = Cluster("50m", "50m")
    cluster.queue = ["10", "20"]

    cluster.scale(utilization(50), external("5"))

    assert cluster.replicas == 4  # Six are asked for, twice as many are allowed.
    cluster.world.wait(16)
    assert cluster.replicas == 6


def test_a_metric_that_gives_no_answer_is_reported_and_stops_scaling_down_only() -> None:
    cluster = Cluster("10m", "10m")
    status = cluster.scale(utilization(50), external("5"))
    assert cluster.replicas == 2
    assert conditions(status)["ScalingActive"] == ("False", "FailedGetExternalMetric")
    assert "no metrics returned from external metrics API" in cluster.world.events[0].message

    cluster.uses = dict.fromkeys(cluster.uses, "100m")
    cluster.world.wait(16)

    assert cluster.replicas == 4


@pytest.mark.parametrize(("selector", "reason"), [("", "InvalidSelector"), ("app in (", "InvalidSelector")])
def test_a_target_without_a_clear_selector_is_not_scaled(selector: str, reason: str) -> None:
    cluster = Cluster("90m", selector=selector)

    status = cluster.scale(utilization(50))

    assert (cluster.replicas, conditions(status)["ScalingActive"]) == (1, ("False", reason))


def test_rules_of_the_user_set_the_pace() -> None:
    rules = autoscaling.HPAScalingRules(
        stabilization_window_seconds=0,
        select_policy="Max",
        policies=[autoscaling.HPAScalingPolicy(type="Pods", value=1, period_seconds=60)],
    )
    behavior = autoscaling.HorizontalPodAutoscalerBehavior(scale_up=rules, scale_down=rules)
    cluster = Cluster("100m", "100m")

    status = cluster.scale(utilization(10), behavior=behavior)
    assert (cluster.replicas, conditions(status)["ScalingLimited"]) == (3, ("True", "ScaleUpLimit"))
    cluster.world.wait(50)
    assert cluster.replicas == 3
    cluster.world.wait(20)

    assert cluster.replicas == 4


def test_pods_without_metrics_are_counted_against_the_change() -> None:
    pods = [a_pod("a"), a_pod("b"), a_pod("c")]

    up, _ = by_usage(pods, {"a": PodMetric(3000, START, 60)}, "", 1000, 3, TOLERANCE, START)
    down, _ = by_usage(pods, {"a": PodMetric(100, START, 60)}, "", 1000, 3, TOLERANCE, START)

    assert (up, down) == (3, 3)


def test_pods_being_deleted_failed_or_pending_do_not_count_as_idle() -> None:
    pods = [
        a_pod("a"),
        a_pod("gone", deletion_timestamp=times.format_time(START)),
        a_pod("failed", phase="Failed"),
        a_pod("pending", phase="Pending"),
    ]

    replicas, used = by_usage(pods, {"a": PodMetric(500, START, 60)}, "cpu", 1000, 2, TOLERANCE, START)

    assert (replicas, used) == (1, 500)
    with pytest.raises(MetricsMissing):
        by_usage(pods[1:], {"gone": PodMetric(500, START, 60)}, "cpu", 1000, 2, TOLERANCE, START)


_values = lists(one_of(none(), integers(0, 5000)), min_size=1, max_size=8)


@given(_values, integers(1, 3000), integers(1, 10))
def test_missing_metrics_never_turn_the_direction_around(values: list[int | None], target: int, current: int) -> None:
    pods = [a_pod(f"p{number}") for number in range(len(values))]
    metrics = {f"p{n}": PodMetric(value, START, 60) for n, value in enumerate(values) if value is not None}
    if not metrics:
        return

    replicas, used = by_usage(pods, metrics, "", target, current, TOLERANCE, START)

    if len(metrics) < len(pods):
        assert replicas >= current or used <= target
        assert replicas <= current or used >= target


@given(lists(integers(0, 100), min_size=1, max_size=20), integers(1, 20), integers(0, 20))
def test_the_result_is_always_between_the_limits(wanted: list[int], minimum: int, more: int) -> None:
    maximum, history, current, now = minimum + more, History(), minimum, START

    for desired in wanted:
        current = limited(desired, current, minimum, maximum, history, now).replicas
        assert minimum <= current <= maximum
        now += 15


@given(lists(integers(1, 100), min_size=1, max_size=20), integers(1, 9), sampled_from(["Max", "Min"]))
def test_no_period_sees_more_pods_added_than_its_policy_allows(wanted: list[int], value: int, select: str) -> None:
    rules = autoscaling.HPAScalingRules(
        stabilization_window_seconds=0,
        select_policy=select,
        policies=[autoscaling.HPAScalingPolicy(type="Pods", value=value, period_seconds=60)],
    )
    behavior = autoscaling.HorizontalPodAutoscalerBehavior(scale_up=rules, scale_down=rules)
    history, seen, now = History(), [(START, 1)], START

    for desired in sorted(wanted):
        current = seen[-1][1]
        after = limited_by_behavior(desired, current, 1, 100, behavior, history, now).replicas
        history.note_change(behavior, current, after, now)
        seen.append((now, after))
        recent = [count for at, count in seen if at > now - 60]
        assert max(recent) - min(recent) <= value
        now += 15

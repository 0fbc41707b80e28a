"""Tables show what upstream was recorded to show."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
import yaml

from haven.api import scheme
from haven.api.apps import v1 as apps_v1
from haven.api.autoscaling import v2 as autoscaling_v2
from haven.api.core import v1 as core_v1
from haven.apimachinery import meta, serialization, times
from haven.apimachinery.quantity import Quantity
from haven.apiserver.printers import printer_for
from haven.apiserver.printers.format import human_duration

GOLDEN = pathlib.Path(__file__).resolve().parents[4] / "shared" / "golden"
NOW = 1_800_000_000.0
MINUTE, HOUR, DAY = 60, 3600, 86_400


def ago(seconds: float) -> str:
    return times.format_time(NOW - seconds)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"), (-1.5, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (125, "2m5s"), (10 * MINUTE, "10m"),
        (179 * MINUTE, "179m"), (3 * HOUR, "3h"), (3 * HOUR + 120, "3h2m"), (9 * HOUR, "9h"), (47 * HOUR, "47h"),
        (2 * DAY, "2d"), (2 * DAY + HOUR, "2d1h"), (30 * DAY, "30d"), (800 * DAY, "2y70d"), (730 * DAY, "2y"),
        (4000 * DAY, "10y"),
    ],
)  # fmt: skip
def test_a_time_span_has_two_or_three_significant_figures(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


def a_pod(**status: Any) -> core_v1.Pod:
    pod = core_v1.Pod(metadata=meta.ObjectMeta(name="p", creation_timestamp=ago(125)))
    pod.spec.containers = [core_v1.Container(name="c", image="i")]
    pod.status = core_v1.PodStatus(**{"phase": "Running", **status})
    return pod


def cells(item: Any, group: str = "") -> list[Any]:
    return printer_for(group, type(item).__name__).cells(item, NOW)


def waiting(name: str, reason: str) -> core_v1.ContainerStatus:
    return core_v1.ContainerStatus(
        name=name, state=core_v1.ContainerState(waiting=core_v1.ContainerStateWaiting(reason=reason))
    )


def running(name: str, **fields: Any) -> core_v1.ContainerStatus:
    return core_v1.ContainerStatus(
        name=name, ready=True, state=core_v1.ContainerState(running=core_v1.ContainerStateRunning()), **fields
    )


def ended(name: str, code: int, reason: str = "", **fields: Any) -> core_v1.ContainerStatus:
    state = core_v1.ContainerStateTerminated(exit_code=code, reason=reason, **fields)
    return core_v1.ContainerStatus(name=name, state=core_v1.ContainerState(terminated=state))


def test_a_running_pod_shows_what_is_ready_and_where_it_is() -> None:
    pod = a_pod(container_statuses=[running("c")], pod_ips=[core_v1.PodIP(ip="10.0.0.7")])
    pod.spec.node_name = "n1"

    assert cells(pod) == ["p", "1/1", "Running", "0", "2m5s", "10.0.0.7", "n1", "<none>", "<none>"]


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        ({"container_statuses": [waiting("c", "CrashLoopBackOff")]}, "CrashLoopBackOff"),
        ({"container_statuses": [ended("c", 1, "Error")]}, "Error"),
        ({"container_statuses": [ended("c", 3)]}, "ExitCode:3"),
        ({"container_statuses": [ended("c", 0, signal=9)]}, "Signal:9"),
        ({"container_statuses": [ended("a", 0, "Completed"), running("c")]}, "NotReady"),
        ({"phase": "Failed", "reason": "Evicted"}, "Evicted"),
        ({"phase": "Pending", "init_container_statuses": [waiting("i", "PodInitializing")]}, "Init:0/2"),
        ({"phase": "Pending", "init_container_statuses": [ended("i", 0), ended("j", 1, "Error")]}, "Init:Error"),
        ({"phase": "Pending", "init_container_statuses": [waiting("i", "ErrImagePull")]}, "Init:ErrImagePull"),
        (
            {"conditions": [core_v1.PodCondition(type="PodScheduled", status="False", reason="SchedulingGated")]},
            "SchedulingGated",
        ),
    ],
)
def test_the_status_of_a_pod_names_what_holds_it_up(status: dict[str, Any], shown: str) -> None:
    pod = a_pod(**status)
    pod.spec.init_containers = [core_v1.Container(name="i"), core_v1.Container(name="j")]

    assert cells(pod)[2] == shown


def test_a_pod_that_is_being_deleted_is_terminating() -> None:
    pod = a_pod(container_statuses=[running("c")])
    pod.metadata.deletion_timestamp = ago(1)

    assert cells(pod)[2] == "Terminating"


def test_restarts_tell_when_the_last_one_was() -> None:
    last = core_v1.ContainerState(terminated=core_v1.ContainerStateTerminated(finished_at=ago(90)))
    pod = a_pod(container_statuses=[running("c", restart_count=3, last_state=last)])

    assert cells(pod)[3] == "3 (90s ago)"


def test_a_finished_pod_is_marked_as_such() -> None:
    conditions = printer_for("", "Pod").conditions

    assert conditions is not None
    assert [item.reason for item in conditions(a_pod(phase="Succeeded"))] == ["Succeeded"]
    assert conditions(a_pod()) == []


def test_services_show_their_ports_and_addresses() -> None:
    service = core_v1.Service(metadata=meta.ObjectMeta(name="s", creation_timestamp=ago(5)))
    service.spec.type, service.spec.cluster_ips = "NodePort", ["10.0.0.1"]
    service.spec.selector = {"b": "2", "a": "1"}
    service.spec.ports = [
        core_v1.ServicePort(port=80, node_port=30080, protocol="TCP"),
        core_v1.ServicePort(port=53, protocol="UDP"),
    ]

    assert cells(service) == ["s", "NodePort", "10.0.0.1", "<none>", "80:30080/TCP,53/UDP", "5s", "a=1,b=2"]


def test_a_deployment_counts_its_replicas() -> None:
    deployment = apps_v1.Deployment(metadata=meta.ObjectMeta(name="d", creation_timestamp=ago(5)))
    deployment.spec.replicas = 3
    deployment.spec.selector = meta.LabelSelector(match_labels={"a": "b"})
    deployment.spec.template.spec.containers = [core_v1.Container(name="c", image="i"), core_v1.Container(name="e")]
    deployment.status.ready_replicas = 2

    assert cells(deployment, "apps") == ["d", "2/3", 0, 0, "5s", "c,e", "i,", "a=b"]


def test_metrics_of_an_autoscaler_are_cut_after_two() -> None:
    item = autoscaling_v2.HorizontalPodAutoscaler(metadata=meta.ObjectMeta(name="h", creation_timestamp=ago(5)))
    item.spec.max_replicas = 5
    target = autoscaling_v2.MetricTarget(type="Utilization", average_utilization=80)
    average = autoscaling_v2.MetricTarget(type="AverageValue", average_value=Quantity.parse("100m"))
    item.spec.metrics = [
        autoscaling_v2.MetricSpec(
            type="Resource", resource=autoscaling_v2.ResourceMetricSource(name="cpu", target=target)
        ),
        autoscaling_v2.MetricSpec(type="Pods", pods=autoscaling_v2.PodsMetricSource(target=average)),
        autoscaling_v2.MetricSpec(type="Pods", pods=autoscaling_v2.PodsMetricSource(target=average)),
    ]

    row = cells(item, "autoscaling")

    assert row[2:6] == ["cpu: <unknown>/80%, <unknown>/100m + 1 more...", "<unset>", 5, 0]


def recorded_columns() -> list[Any]:
    if not GOLDEN.exists():
        return [pytest.param("", [], marks=pytest.mark.skip(reason="the recorded conversations are not here"))]
    scenarios = yaml.safe_load((GOLDEN / "scenarios" / "kind-tables.yaml").read_text())
    expected = json.loads((GOLDEN / "expected" / "kind-tables.json").read_text())
    return [
        pytest.param(step["do"].split(" ")[1], answer["body"], id=step["do"])
        for scenario in scenarios
        for step, answer in zip(scenario["steps"], expected[scenario["name"]], strict=True)
        if "Table" in step.get("accept", "") and isinstance(answer["body"], dict)
        if answer["body"].get("columnDefinitions")
    ]


@pytest.mark.parametrize(("path", "body"), recorded_columns())
def test_the_columns_of_a_kind_are_the_recorded_ones(path: str, body: dict[str, Any]) -> None:
    parts = path.split("?")[0].strip("/").split("/")
    group, version, rest = ("", parts[1], parts[2:]) if parts[0] == "api" else (parts[1], parts[2], parts[3:])
    if rest[0] == "namespaces" and len(rest) > 2:
        rest = rest[2:]
    kind = scheme.find(group, version, rest[0]).kind

    assert json.loads(serialization.encode(list(printer_for(group, kind).columns))) == body["columnDefinitions"]


def test_every_resource_has_a_row_that_fits_its_columns() -> None:
    for resource in scheme.table().values():
        if "list" not in resource.verbs:
            continue
        item = resource.type()
        item.metadata.name, item.metadata.creation_timestamp = "x", ago(5)
        if resource.kind == "HorizontalPodAutoscaler":
            item = autoscaling_v2.HorizontalPodAutoscaler(metadata=item.metadata)
        printer = printer_for(resource.group, resource.kind)
        if (resource.group, resource.kind) == ("events.k8s.io", "Event"):
            item = core_v1.Event(metadata=item.metadata)

        row = printer.cells(item, NOW)

        surplus = 1 if resource.kind == "IPAddress" else 0
        assert len(row) == len(printer.columns) + surplus, resource
        assert "x" in row, resource

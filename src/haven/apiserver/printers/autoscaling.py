"""Rows of the group autoscaling."""

from __future__ import annotations

from typing import Any

from haven.api.autoscaling import v1 as autoscaling_v1
from haven.api.autoscaling import v2 as autoscaling_v2
from haven.apiserver.printers.format import NONE, UNKNOWN, UNSET, age, quantity

__all__ = ["ROWS"]

_METRICS_MAX = 2


def _horizontal_pod_autoscaler(item: autoscaling_v2.HorizontalPodAutoscaler, now: float) -> list[Any]:
    spec = item.spec
    return [
        item.metadata.name,
        f"{spec.scale_target_ref.kind}/{spec.scale_target_ref.name}",
        _metrics(spec.metrics, item.status.current_metrics or []),
        UNSET if spec.min_replicas is None else str(spec.min_replicas),
        spec.max_replicas,
        item.status.current_replicas,
        age(item.metadata.creation_timestamp, now),
    ]


def _metrics(specs: list[autoscaling_v2.MetricSpec], statuses: list[autoscaling_v2.MetricStatus]) -> str:
    if not specs:
        return NONE
    listed = [_metric(spec, statuses[i] if i < len(statuses) else None) for i, spec in enumerate(specs)]
    text = ", ".join(listed[:_METRICS_MAX])
    return f"{text} + {len(listed) - _METRICS_MAX} more..." if len(listed) > _METRICS_MAX else text


def _metric(spec: autoscaling_v2.MetricSpec, status: autoscaling_v2.MetricStatus | None) -> str:
    if spec.pods is not None and spec.type == "Pods":
        pods = status.pods if status else None
        current = quantity(pods.current.average_value) if pods else UNKNOWN
        return f"{current}/{quantity(spec.pods.target.average_value)}"
    if spec.external is not None and spec.type == "External":
        return _of_value(spec.external.target, status.external.current if status and status.external else None)
    if spec.object is not None and spec.type == "Object":
        return _of_value(spec.object.target, status.object.current if status and status.object else None)
    if spec.resource is not None and spec.type == "Resource":
        found = status.resource.current if status and status.resource else None
        return f"{spec.resource.name}: {_of_usage(spec.resource.target, found)}"
    if spec.container_resource is not None and spec.type == "ContainerResource":
        found = status.container_resource.current if status and status.container_resource else None
        return f"{spec.container_resource.name}: {_of_usage(spec.container_resource.target, found)}"
    return "<unknown type>"


def _of_value(target: autoscaling_v2.MetricTarget, current: autoscaling_v2.MetricValueStatus | None) -> str:
    if target.average_value is not None:
        known = current is not None and current.average_value is not None
        return f"{current.average_value if known and current else UNKNOWN}/{target.average_value} (avg)"
    return f"{quantity(current.value) if current else UNKNOWN}/{quantity(target.value)}"


def _of_usage(target: autoscaling_v2.MetricTarget, current: autoscaling_v2.MetricValueStatus | None) -> str:
    if target.average_value is not None:
        return f"{quantity(current.average_value) if current else UNKNOWN}/{target.average_value}"
    used = UNKNOWN if current is None or current.average_utilization is None else f"{current.average_utilization}%"
    wanted = "<auto>" if target.average_utilization is None else f"{target.average_utilization}%"
    return f"{used}/{wanted}"


def _scale(item: autoscaling_v1.Scale, now: float) -> list[Any]:
    return [
        item.metadata.name,
        item.spec.replicas,
        item.status.replicas,
        age(item.metadata.creation_timestamp, now),
    ]


ROWS = {"HorizontalPodAutoscaler": _horizontal_pod_autoscaler, "Scale": _scale}

"""What Pods and other objects measure, asked from the metrics APIs that add-ons serve.

Source: https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#support-for-metrics-apis
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from haven.api.autoscaling import v2 as autoscaling
from haven.apimachinery import apierrors, meta, selectors, serialization, times
from haven.apimachinery.quantity import InvalidQuantity, Quantity
from haven.apimachinery.schema.goscalars import BadScalar, parse_duration
from haven.controllers.actions import Request, Steps
from haven.controllers.discovery import Discovered

__all__ = ["MetricsMissing", "PodMetric", "external_values", "object_value", "pod_metrics", "resource_metrics"]

WINDOW_SECONDS = 60.0  # What a metric without a window is taken over.
CUSTOM, EXTERNAL = "custom.metrics.k8s.io", "external.metrics.k8s.io"


class MetricsMissing(Exception):
    """There is no value to go by; says why, for humans."""


@dataclass(frozen=True, slots=True)
class PodMetric:
    """One Pod's value in thousandths, when it was taken, and over how long."""

    milli: int
    seconds: float
    window_seconds: float


def resource_metrics(
    namespace: str, selector: selectors.LabelSelector, resource: str, container: str
) -> Steps[dict[str, PodMetric]]:
    """Return the use of a resource by Pod name, of one container of each Pod or of all together."""
    path = f"/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods"
    items = yield from _items("resource metrics API", "pods.metrics.k8s.io", path, {"labelSelector": str(selector)})
    result = {}
    for item in items:
        amounts = [
            each.get("usage", {}).get(resource)
            for each in item.get("containers") or ()
            if container in ("", each.get("name"))
        ]
        if amounts and None not in amounts:
            total = sum(_milli(amount) for amount in amounts)
            result[item["metadata"]["name"]] = PodMetric(total, _seconds(item), _window(item))
    return result


def pod_metrics(
    found: Discovered, namespace: str, selector: selectors.LabelSelector, metric: autoscaling.MetricIdentifier
) -> Steps[dict[str, PodMetric]]:
    """Return the values of a custom metric by Pod name."""
    path = f"{_custom(found)}/namespaces/{namespace}/pods/*/{quote(metric.name, safe='')}"
    query = {"labelSelector": str(selector), "metricLabelSelector": _text(metric.selector)}
    items = yield from _items("custom metrics API", f"pods.{CUSTOM}", path, query)
    return {
        item["describedObject"]["name"]: PodMetric(_milli(item["value"]), _seconds(item), _window(item))
        for item in items
    }


def object_value(
    found: Discovered,
    namespace: str,
    described: autoscaling.CrossVersionObjectReference,
    metric: autoscaling.MetricIdentifier,
) -> Steps[int]:
    """Return the value, in thousandths, that a custom metric has for an object."""
    name = quote(metric.name, safe="")
    if described.kind == "Namespace" and "/" not in described.api_version:
        path = f"{_custom(found)}/namespaces/{namespace}/metrics/{name}"
    else:
        resource = found.by_kind.get((described.api_version, described.kind))
        if resource is None:
            message = f'no matches for kind "{described.kind}" in version "{described.api_version}"'
            raise MetricsMissing(f"unable to fetch metrics from custom metrics API: {message}")
        path = f"{_custom(found)}/namespaces/{namespace}/{resource.group_resource}/{described.name}/{name}"
    items = yield from _items("custom metrics API", CUSTOM, path, {"metricLabelSelector": _text(metric.selector)})
    return _milli(items[0]["value"])


def external_values(namespace: str, metric: autoscaling.MetricIdentifier) -> Steps[list[int]]:
    """Return the values, in thousandths, of a metric of something outside the cluster."""
    path = f"/apis/{EXTERNAL}/v1beta1/namespaces/{namespace}/{quote(metric.name, safe='')}"
    query = {"labelSelector": _text(metric.selector)}
    items = yield from _items("external metrics API", f"{metric.name}.{EXTERNAL}", path, query)
    return [_milli(item["value"]) for item in items]


def _items(api: str, resource: str, path: str, query: dict[str, str]) -> Steps[list[dict[str, Any]]]:
    given = urlencode({name: value for name, value in query.items() if value})
    try:
        body = yield Request("GET", f"{path}?{given}" if given else path)
    except apierrors.NotFound as error:
        message = f"the server could not find the requested resource (get {resource})"
        raise MetricsMissing(f"unable to fetch metrics from {api}: {message}") from error
    except apierrors.ApiError as error:
        raise MetricsMissing(f"unable to fetch metrics from {api}: {error}") from error
    items: list[dict[str, Any]] = serialization.decode_tree(body).get("items") or []
    if not items:
        raise MetricsMissing(f"no metrics returned from {api}")
    return items


def _custom(found: Discovered) -> str:
    versions = {resource.version for resource in _of_group(found, CUSTOM)}
    version = next((each for each in ("v1beta2", "v1beta1") if each in versions), "v1beta1")
    return f"/apis/{CUSTOM}/{version}"


def _of_group(found: Discovered, group: str) -> Iterator[Any]:
    return (resource for resource in found.by_kind.values() if resource.group == group)


def _text(selector: meta.LabelSelector | None) -> str:
    return str(selectors.from_label_selector(selector)) if selector is not None else ""


def _milli(amount: Any) -> int:
    try:
        return Quantity.parse(str(amount)).milli_value
    except InvalidQuantity as error:
        raise MetricsMissing(f"a metric has the value {amount}, which is no quantity") from error


def _seconds(item: dict[str, Any]) -> float:
    stamp = item.get("timestamp")
    return times.parse(stamp) if stamp else 0.0


def _window(item: dict[str, Any]) -> float:
    if item.get("windowSeconds") is not None:
        return float(item["windowSeconds"])
    try:
        return parse_duration(item["window"]) / 1e9 if item.get("window") else WINDOW_SECONDS
    except BadScalar:
        return WINDOW_SECONDS

"""Which version of a kind is stored, and how the other versions that are served are read and written.

Most versions of a kind have the same fields, so only the apiVersion changes. The functions here are for those that
differ; they turn trees of one version into trees of another. Source: upstream's conversion functions.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

from haven.api.autoscaling import v1, v2
from haven.api.events.conversion import from_core, to_core
from haven.api.internalform import internal_form
from haven.api.scheme import Resource, table
from haven.apimachinery import serialization

__all__ = ["Conversion", "conversion", "storage_resource"]

Tree = dict[str, Any]
Change = Callable[[Tree], None]

_TYPED: dict[tuple[str, str, str], tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    ("events.k8s.io", "v1", "events"): (to_core, from_core),
}
"""The same without trees, for a kind that is written with every Pod."""
# The group and the plural name, and where objects live when the group or version differs from the one asked for.
_STORED_ELSEWHERE = {("events.k8s.io", "events"): ("", "v1", "events")}
_STORED_VERSIONS = {
    ("autoscaling", "horizontalpodautoscalers"): "v2",
    ("coordination.k8s.io", "leasecandidates"): "v1beta1",
    ("certificates.k8s.io", "clustertrustbundles"): "v1beta1",
    ("resource.k8s.io", "devicetaintrules"): "v1beta2",
}


@cache
def _stored() -> dict[tuple[str, str], Resource[Any]]:
    result: dict[tuple[str, str], Resource[Any]] = {}
    for resource in table().values():
        key = (resource.group, resource.plural)
        wanted = _STORED_VERSIONS.get(key)
        if resource.version == wanted or (wanted is None and (key not in result or resource.version == "v1")):
            result[key] = resource
    for key, (group, _, plural) in _STORED_ELSEWHERE.items():
        result[key] = result[(group, plural)]
    return result


def storage_resource(resource: Resource[Any]) -> Resource[Any]:
    """Return the resource as which the objects of another one are stored (itself, for most)."""
    return _stored().get((resource.group, resource.plural), resource)


class Conversion:
    """Between one served version of a kind and the stored one."""

    def __init__(self, served: Resource[Any], stored: Resource[Any], to_stored: Change, to_served: Change) -> None:
        self.served = served
        self.stored = stored
        self._to_stored = to_stored
        self._to_served = to_served
        self._typed = _TYPED.get((served.group, served.version, served.plural))
        self.is_identity = served == stored

    def tree_to_stored(self, tree: Tree) -> Tree:
        """Return the tree as the stored version has it; the argument may be changed."""
        if self.is_identity:
            return tree
        tree["apiVersion"], tree["kind"] = self.stored.api_version, self.stored.kind
        self._to_stored(tree)
        return tree

    def tree_to_served(self, tree: Tree) -> Tree:
        """Return the tree as the served version has it; the argument may be changed."""
        if self.is_identity:
            return tree
        tree["apiVersion"], tree["kind"] = self.served.api_version, self.served.kind
        self._to_served(tree)
        return tree

    def to_stored(self, obj: Any) -> Any:
        """Return a typed object of the served version as one of the stored version."""
        if self.is_identity:
            return obj
        if self._typed is not None:
            return self._typed[0](obj)
        return serialization.convert(self.tree_to_stored(serialization.to_tree(obj)), self.stored.type)

    def to_served(self, obj: Any) -> Any:
        """Return a typed object of the stored version as one of the served version."""
        if self.is_identity:
            return obj
        if self._typed is not None:
            return self._typed[1](obj)
        return serialization.convert(self.tree_to_served(serialization.to_tree(obj)), self.served.type)

    def served_bytes(self, data: bytes) -> bytes:
        """Return an object's JSON in the served version."""
        if self.is_identity:
            return data
        obj = serialization.convert(self.tree_to_served(serialization.decode_tree(data)), self.served.type)
        return serialization.encode(obj)


@cache
def conversion(resource: Resource[Any]) -> Conversion:
    """Return how a served resource and its stored form are converted."""
    stored = storage_resource(resource)
    to_stored, to_served = _CHANGES.get((resource.group, resource.version, resource.plural), (_same, _same))
    return Conversion(resource, stored, to_stored, to_served)


def _same(_tree: Tree) -> None:
    """The versions have the same fields."""


def _move(tree: Tree, source: str, target: str) -> None:
    if source in tree:
        tree[target] = tree.pop(source)


# ---- events.k8s.io/v1 and core/v1

_EVENT_FIELDS = (
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
)


def _event_to_stored(tree: Tree) -> None:
    for new, core in _EVENT_FIELDS:
        _move(tree, new, core)
    tree.setdefault("involvedObject", {})


def _event_to_served(tree: Tree) -> None:
    for new, core in _EVENT_FIELDS:
        _move(tree, core, new)
    tree.setdefault("eventTime", None)


# ---- autoscaling/v1 and v2

_METRICS = "autoscaling.alpha.kubernetes.io/metrics"
_CURRENT_METRICS = "autoscaling.alpha.kubernetes.io/current-metrics"
_CONDITIONS = "autoscaling.alpha.kubernetes.io/conditions"
_BEHAVIOR = "autoscaling.alpha.kubernetes.io/behavior"


def _is_cpu_utilization(metric: Tree) -> bool:
    resource = metric.get("resource") or {}
    target = resource.get("target") or {}
    return metric.get("type") == "Resource" and resource.get("name") == "cpu" and (
        target.get("averageUtilization") is not None
    )  # fmt: skip


def _take_annotation(tree: Tree, name: str) -> Any:
    metadata = tree.get("metadata") or {}
    annotations = metadata.get("annotations") or {}
    text = annotations.pop(name, None)
    if not annotations:
        metadata.pop("annotations", None)
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None  # Upstream also forgets what it cannot read here.


def _put_annotation(tree: Tree, name: str, value: bytes) -> None:
    annotations = tree.setdefault("metadata", {}).setdefault("annotations", {})
    annotations[name] = value.decode()


def _in_order(items: list[Tree], kind: type[Any]) -> bytes:
    """Return trees as JSON, with their fields in the order of a type."""
    return serialization.encode([serialization.convert(item, kind) for item in items])


def _internal_behavior(behavior: Tree) -> bytes:
    """Return the behavior as upstream's internal type is written, which has no names for JSON."""
    typed = serialization.convert(behavior, v2.HorizontalPodAutoscalerBehavior)
    return bytes(internal_form(typed))


def _external_names(value: Any) -> Any:
    """Undo that: StabilizationWindowSeconds is stabilizationWindowSeconds."""
    if isinstance(value, list):
        return [_external_names(item) for item in value]
    if isinstance(value, dict):
        return {name[:1].lower() + name[1:]: _external_names(item) for name, item in value.items() if item is not None}
    return value


def _autoscaler_to_stored(tree: Tree) -> None:
    spec = tree.setdefault("spec", {})
    metrics = _v1_metrics_to_v2(_take_annotation(tree, _METRICS) or [])
    utilization = spec.pop("targetCPUUtilizationPercentage", None)
    if utilization is not None:
        target = {"type": "Utilization", "averageUtilization": utilization}
        metrics.insert(0, {"type": "Resource", "resource": {"name": "cpu", "target": target}})
    if metrics:
        spec["metrics"] = metrics
    behavior = _take_annotation(tree, _BEHAVIOR)
    if behavior:
        spec["behavior"] = _external_names(behavior)
    status = tree.setdefault("status", {})
    annotated = _take_annotation(tree, _CURRENT_METRICS)
    current = _v1_current_to_v2(annotated or [])
    utilization = status.pop("currentCPUUtilizationPercentage", None)
    if utilization is not None and annotated is None:  # The annotation knows more.
        value = {"averageUtilization": utilization}
        current.append({"type": "Resource", "resource": {"name": "cpu", "current": value}})
    status["currentMetrics"] = current or None
    conditions = _take_annotation(tree, _CONDITIONS)
    if conditions:
        status["conditions"] = conditions
    status.setdefault("desiredReplicas", 0)


def _autoscaler_to_served(tree: Tree) -> None:
    spec = tree.setdefault("spec", {})
    others: list[Tree] = []
    for metric in spec.pop("metrics", None) or []:
        if _is_cpu_utilization(metric) and "targetCPUUtilizationPercentage" not in spec:
            spec["targetCPUUtilizationPercentage"] = metric["resource"]["target"]["averageUtilization"]
        else:
            others.append(metric)
    if others:
        _put_annotation(tree, _METRICS, _in_order([_metric_to_v1(metric) for metric in others], v1.MetricSpec))
    behavior = spec.pop("behavior", None)
    if behavior:
        _put_annotation(tree, _BEHAVIOR, _internal_behavior(behavior))
    status = tree.setdefault("status", {})
    metrics = status.pop("currentMetrics", None) or []
    for metric in metrics:
        resource = metric.get("resource") or {}
        value = (resource.get("current") or {}).get("averageUtilization")
        if metric.get("type") == "Resource" and resource.get("name") == "cpu" and value is not None:
            status["currentCPUUtilizationPercentage"] = value
    if metrics:
        current = [_current_to_v1(metric) for metric in metrics]
        _put_annotation(tree, _CURRENT_METRICS, _in_order(current, v1.MetricStatus))
    conditions = status.pop("conditions", None)
    if conditions:
        _put_annotation(tree, _CONDITIONS, _in_order(conditions, v1.HorizontalPodAutoscalerCondition))
    status.setdefault("currentReplicas", 0)


# Each kind of metric: v2's place of the metric's name and selector, the target's fields, and v1's flat fields.
def _metric_to_v1(metric: Tree) -> Tree:
    kind = metric.get("type", "")
    key = kind[:1].lower() + kind[1:]
    source = dict(metric.get(key) or {})
    target = source.pop("target", None) or {}
    inner = source.pop("metric", None) or {}
    flat: Tree = dict(source)
    if kind == "Object":
        flat["target"] = source.pop("describedObject", {})
        flat.pop("describedObject", None)
        flat["targetValue"] = target.get("value", "0")
        if "averageValue" in target:
            flat["averageValue"] = target["averageValue"]
    elif kind == "Pods":
        flat["targetAverageValue"] = target.get("averageValue", "0")
    elif kind in ("Resource", "ContainerResource"):
        if target.get("averageUtilization") is not None:
            flat["targetAverageUtilization"] = target["averageUtilization"]
        if "averageValue" in target:
            flat["targetAverageValue"] = target["averageValue"]
    elif kind == "External":
        if "value" in target:
            flat["targetValue"] = target["value"]
        if "averageValue" in target:
            flat["targetAverageValue"] = target["averageValue"]
    if inner:
        name = "metricName"
        flat[name] = inner.get("name", "")
        if inner.get("selector"):
            flat["metricSelector" if kind == "External" else "selector"] = inner["selector"]
    return {"type": kind, key: flat}


def _v1_metrics_to_v2(metrics: list[Tree]) -> list[Tree]:
    result = []
    for metric in metrics:
        kind = metric.get("type", "")
        key = kind[:1].lower() + kind[1:]
        flat = dict(metric.get(key) or {})
        target: Tree = {}
        if kind == "Object":
            flat["describedObject"] = flat.pop("target", {})
            average = flat.pop("averageValue", None)
            value = flat.pop("targetValue", None)
            target = {"type": "Value", "value": value} if average is None else {"type": "AverageValue"}
        else:
            average = flat.pop("targetAverageValue", None)
            utilization = flat.pop("targetAverageUtilization", None)
            value = flat.pop("targetValue", None)
            if utilization is not None:
                target = {"type": "Utilization", "averageUtilization": utilization}
            elif value is not None:
                target = {"type": "Value", "value": value}
            else:
                target = {"type": "AverageValue"}
        if average is not None:
            target["averageValue"] = average
        if "metricName" in flat:
            inner: Tree = {"name": flat.pop("metricName")}
            selector = flat.pop("metricSelector", None) or flat.pop("selector", None)
            if selector:
                inner["selector"] = selector
            flat["metric"] = inner
        flat["target"] = target
        result.append({"type": kind, key: flat})
    return result


def _current_to_v1(metric: Tree) -> Tree:
    kind = metric.get("type", "")
    key = kind[:1].lower() + kind[1:]
    source = dict(metric.get(key) or {})
    current = source.pop("current", None) or {}
    inner = source.pop("metric", None) or {}
    if kind == "Object":
        source["target"] = source.pop("describedObject", {})
        source["currentValue"] = current.get("value", "0")
        if "averageValue" in current:
            source["averageValue"] = current["averageValue"]
    else:
        if current.get("averageUtilization") is not None:
            source["currentAverageUtilization"] = current["averageUtilization"]
        source["currentAverageValue"] = current.get("averageValue", "0")
        if "value" in current:
            source["currentValue"] = current["value"]
    if inner:
        source["metricName"] = inner.get("name", "")
        if inner.get("selector"):
            source["metricSelector" if kind == "External" else "selector"] = inner["selector"]
    return {"type": kind, key: source}


def _v1_current_to_v2(metrics: list[Tree]) -> list[Tree]:
    result = []
    for metric in metrics:
        kind = metric.get("type", "")
        key = kind[:1].lower() + kind[1:]
        flat = dict(metric.get(key) or {})
        current: Tree = {}
        for source, target in (
            ("currentValue", "value"),
            ("averageValue", "averageValue"),
            ("currentAverageValue", "averageValue"),
            ("currentAverageUtilization", "averageUtilization"),
        ):
            if source in flat:
                current[target] = flat.pop(source)
        if kind == "Object":
            flat["describedObject"] = flat.pop("target", {})
        if "metricName" in flat:
            inner: Tree = {"name": flat.pop("metricName")}
            selector = flat.pop("metricSelector", None) or flat.pop("selector", None)
            if selector:
                inner["selector"] = selector
            flat["metric"] = inner
        flat["current"] = current
        result.append({"type": kind, key: flat})
    return result


# ---- resource.k8s.io/v1beta1 and v1: exact requests lie one level deeper, devices one level higher

_REQUEST_FIELDS = (
    "deviceClassName", "selectors", "allocationMode", "count", "adminAccess", "tolerations", "capacity",
)  # fmt: skip


def _claim_specs(tree: Tree) -> list[Tree]:
    spec = tree.get("spec") or {}
    return [spec, spec.get("spec") or {}]


def _requests_to_stored(tree: Tree) -> None:
    for spec in _claim_specs(tree):
        for request in (spec.get("devices") or {}).get("requests") or []:
            exact = {name: request.pop(name) for name in _REQUEST_FIELDS if name in request}
            if exact.get("deviceClassName"):
                request["exactly"] = exact


def _requests_to_served(tree: Tree) -> None:
    for spec in _claim_specs(tree):
        for request in (spec.get("devices") or {}).get("requests") or []:
            request.update(request.pop("exactly", None) or {})


def _slice_to_stored(tree: Tree) -> None:
    for device in (tree.get("spec") or {}).get("devices") or []:
        device.update(device.pop("basic", None) or {})


def _slice_to_served(tree: Tree) -> None:
    for device in (tree.get("spec") or {}).get("devices") or []:
        name = device.pop("name", "")
        basic = dict(device)
        device.clear()
        device.update(name=name, basic=basic)


_CHANGES: dict[tuple[str, str, str], tuple[Change, Change]] = {
    ("events.k8s.io", "v1", "events"): (_event_to_stored, _event_to_served),
    ("autoscaling", "v1", "horizontalpodautoscalers"): (_autoscaler_to_stored, _autoscaler_to_served),
    ("resource.k8s.io", "v1beta1", "resourceclaims"): (_requests_to_stored, _requests_to_served),
    ("resource.k8s.io", "v1beta1", "resourceclaimtemplates"): (_requests_to_stored, _requests_to_served),
    ("resource.k8s.io", "v1beta1", "resourceslices"): (_slice_to_stored, _slice_to_served),
}

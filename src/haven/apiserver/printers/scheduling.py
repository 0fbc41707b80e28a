"""Rows of the group scheduling.k8s.io."""

from __future__ import annotations

from typing import Any

from haven.api.scheduling import v1 as scheduling_v1
from haven.api.scheduling import v1alpha2
from haven.apiserver.printers.format import NONE, age

__all__ = ["ROWS"]


def _priority_class(item: scheduling_v1.PriorityClass, now: float) -> list[Any]:
    return [
        item.metadata.name,
        item.value,
        item.global_default,
        age(item.metadata.creation_timestamp, now),
        item.preemption_policy or "",
    ]


def _workload(item: v1alpha2.Workload, now: float) -> list[Any]:
    return [item.metadata.name, age(item.metadata.creation_timestamp, now)]


def _pod_group(item: v1alpha2.PodGroup, now: float) -> list[Any]:
    conditions = {condition.type: condition for condition in item.status.conditions}
    status = "Pending"
    if (scheduled := conditions.get("PodGroupScheduled")) is not None:
        status = "Scheduled" if scheduled.status == "True" else "Unschedulable"
    if (disrupted := conditions.get("DisruptionTarget")) is not None:
        status = disrupted.reason
    template = item.spec.pod_group_template_ref
    return [
        item.metadata.name,
        "Gang" if item.spec.scheduling_policy.gang is not None else "Basic",
        template.workload.workload_name if template is not None and template.workload is not None else NONE,
        status,
        age(item.metadata.creation_timestamp, now),
    ]


ROWS = {"PodGroup": _pod_group, "PriorityClass": _priority_class, "Workload": _workload}

"""Rows of the group policy."""

from __future__ import annotations

from typing import Any

from haven.api.policy import v1 as policy_v1
from haven.apiserver.printers.format import age

__all__ = ["ROWS"]


def _pod_disruption_budget(item: policy_v1.PodDisruptionBudget, now: float) -> list[Any]:
    spec = item.spec
    return [
        item.metadata.name,
        "N/A" if spec.min_available is None else str(spec.min_available),
        "N/A" if spec.max_unavailable is None else str(spec.max_unavailable),
        item.status.disruptions_allowed,
        age(item.metadata.creation_timestamp, now),
    ]


ROWS = {"PodDisruptionBudget": _pod_disruption_budget}

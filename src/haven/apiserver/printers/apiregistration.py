"""Rows of the group apiregistration.k8s.io."""

from __future__ import annotations

from typing import Any

from haven.api.apiregistration import v1 as apiregistration_v1
from haven.apiserver.printers.format import age

__all__ = ["ROWS"]


def _api_service(item: apiregistration_v1.APIService, now: float) -> list[Any]:
    service = item.spec.service
    available = "Unknown"
    condition = next((one for one in item.status.conditions if one.type == "Available"), None)
    if condition is not None:
        with_reason = condition.status != "True" and condition.reason
        available = f"{condition.status} ({condition.reason})" if with_reason else condition.status
    return [
        item.metadata.name,
        "Local" if service is None else f"{service.namespace}/{service.name}",
        available,
        age(item.metadata.creation_timestamp, now),
    ]


ROWS = {"APIService": _api_service}

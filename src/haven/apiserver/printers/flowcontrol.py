"""Rows of the group flowcontrol.apiserver.k8s.io."""

from __future__ import annotations

from typing import Any

from haven.api.flowcontrol import v1 as flowcontrol_v1
from haven.apiserver.printers.format import NONE, age

__all__ = ["ORDERS", "ROWS"]


def _flow_schema(item: flowcontrol_v1.FlowSchema, now: float) -> list[Any]:
    spec = item.spec
    dangling = next((one.status for one in item.status.conditions if one.type == "Dangling"), "?")
    return [
        item.metadata.name,
        spec.priority_level_configuration.name,
        spec.matching_precedence,
        NONE if spec.distinguisher_method is None else spec.distinguisher_method.type,
        age(item.metadata.creation_timestamp, now),
        dangling,
    ]


def _flow_schema_order(item: flowcontrol_v1.FlowSchema) -> tuple[int, str]:
    return item.spec.matching_precedence, item.metadata.name


def _priority_level(item: flowcontrol_v1.PriorityLevelConfiguration, now: float) -> list[Any]:
    shares: Any = NONE
    queues: Any = NONE
    hand_size: Any = NONE
    length_limit: Any = NONE
    if (limited := item.spec.limited) is not None:
        shares = limited.nominal_concurrency_shares or 0
        if (queuing := limited.limit_response.queuing) is not None:
            queues, hand_size, length_limit = queuing.queues, queuing.hand_size, queuing.queue_length_limit
    return [
        item.metadata.name,
        item.spec.type,
        shares,
        queues,
        hand_size,
        length_limit,
        age(item.metadata.creation_timestamp, now),
    ]


ROWS = {"FlowSchema": _flow_schema, "PriorityLevelConfiguration": _priority_level}
ORDERS = {"FlowSchema": _flow_schema_order}

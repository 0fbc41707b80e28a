"""Rows of the group resource.k8s.io."""

from __future__ import annotations

from typing import Any

from haven.api.resource import v1 as resource_v1
from haven.api.resource import v1alpha3, v1beta2
from haven.apimachinery import meta
from haven.apiserver.printers.format import NONE, age

__all__ = ["ROWS"]


def _device_class(item: resource_v1.DeviceClass, now: float) -> list[Any]:
    return [item.metadata.name, age(item.metadata.creation_timestamp, now)]


def _claim_template(item: resource_v1.ResourceClaimTemplate, now: float) -> list[Any]:
    return [item.metadata.name, age(item.metadata.creation_timestamp, now)]


def _claim(item: resource_v1.ResourceClaim, now: float) -> list[Any]:
    states = ["deleted"] if item.metadata.deletion_timestamp else []
    if item.status.allocation is not None:
        states.append("allocated")
        if item.status.reserved_for:
            states.append("reserved")
    return [item.metadata.name, ",".join(states) or "pending", age(item.metadata.creation_timestamp, now)]


def _slice(item: resource_v1.ResourceSlice, now: float) -> list[Any]:
    spec = item.spec
    return [
        item.metadata.name,
        spec.node_name or "",
        spec.driver,
        spec.pool.name,
        age(item.metadata.creation_timestamp, now),
    ]


def _taint_rule(item: v1beta2.DeviceTaintRule, now: float) -> list[Any]:
    taint = item.spec.taint
    return [
        item.metadata.name,
        taint.key,
        taint.value,
        taint.effect,
        age(taint.time_added, now) if taint.time_added else "",
        age(item.metadata.creation_timestamp, now),
    ]


def _pool_status_request(item: v1alpha3.ResourcePoolStatusRequest, now: float) -> list[Any]:
    result = item.status
    counts, pools, status, completed = ["-"] * 5, 0, "Pending", NONE
    if result is not None:
        final = _final(result.conditions)
        if final is not None:
            status = final.type
            if status == "Complete":
                completed = age(final.last_transition_time, now)
        pools = result.pool_count or 0
        if status == "Complete" and pools > len(result.pools):
            status = f"Complete ({len(result.pools)}/{pools} pools)"
        if status != "Failed":
            sums = [
                sum(pool.total_devices or 0 for pool in result.pools),
                sum(pool.available_devices or 0 for pool in result.pools),
                sum(pool.allocated_devices or 0 for pool in result.pools),
                sum(pool.unavailable_devices or 0 for pool in result.pools),
                sum(pool.validation_error is not None for pool in result.pools),
            ]
            counts = [str(number) for number in sums]
    return [item.metadata.name, item.spec.driver, *counts, pools, status, completed]


def _final(conditions: list[meta.Condition]) -> meta.Condition | None:
    return next((one for one in conditions if one.type in ("Complete", "Failed") and one.status == "True"), None)


ROWS = {
    "DeviceClass": _device_class,
    "DeviceTaintRule": _taint_rule,
    "ResourceClaim": _claim,
    "ResourceClaimTemplate": _claim_template,
    "ResourcePoolStatusRequest": _pool_status_request,
    "ResourceSlice": _slice,
}

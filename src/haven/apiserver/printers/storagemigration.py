"""Rows of the group storagemigration.k8s.io."""

from __future__ import annotations

from typing import Any

from haven.api.storagemigration import v1beta1

__all__ = ["ROWS"]

_STATES = ("Running", "Failed", "Succeeded")


def _migration(item: v1beta1.StorageVersionMigration, _now: float) -> list[Any]:
    resource = item.spec.resource
    states = [one.type for one in item.status.conditions if one.status == "True" and one.type in _STATES]
    return [
        item.metadata.name,
        f"{resource.resource}.{resource.group}" if resource.group else resource.resource,
        states[-1] if states else "Unknown",
    ]


ROWS = {"StorageVersionMigration": _migration}

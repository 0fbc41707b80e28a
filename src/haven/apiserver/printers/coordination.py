"""Rows of the group coordination.k8s.io."""

from __future__ import annotations

from typing import Any

from haven.api.coordination import v1 as coordination_v1
from haven.api.coordination import v1beta1 as coordination_v1beta1
from haven.apiserver.printers.format import age

__all__ = ["ROWS"]


def _lease(item: coordination_v1.Lease, now: float) -> list[Any]:
    return [item.metadata.name, item.spec.holder_identity or "", age(item.metadata.creation_timestamp, now)]


def _lease_candidate(item: coordination_v1beta1.LeaseCandidate, now: float) -> list[Any]:
    spec = item.spec
    return [
        item.metadata.name,
        spec.lease_name,
        spec.binary_version,
        spec.emulation_version,
        age(item.metadata.creation_timestamp, now),
    ]


ROWS = {"Lease": _lease, "LeaseCandidate": _lease_candidate}

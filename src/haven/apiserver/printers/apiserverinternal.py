"""Rows of the group internal.apiserver.k8s.io."""

from __future__ import annotations

from typing import Any

from haven.api.apiserverinternal import v1alpha1
from haven.apiserver.printers.format import UNSET, age, shortened

__all__ = ["ROWS"]


def _storage_version(item: v1alpha1.StorageVersion, now: float) -> list[Any]:
    status = item.status
    versions = [f"{version.api_server_id}={version.encoding_version}" for version in status.storage_versions]
    return [
        item.metadata.name,
        UNSET if status.common_encoding_version is None else status.common_encoding_version,
        shortened(versions),
        age(item.metadata.creation_timestamp, now),
    ]


ROWS = {"StorageVersion": _storage_version}

"""Rows of the group rbac.authorization.k8s.io."""

from __future__ import annotations

from typing import Any

from haven.api.rbac import v1 as rbac_v1
from haven.apiserver.printers.format import age

__all__ = ["ROWS"]


def _binding(item: rbac_v1.RoleBinding | rbac_v1.ClusterRoleBinding, now: float) -> list[Any]:
    subjects = item.subjects or ()
    return [
        item.metadata.name,
        f"{item.role_ref.kind}/{item.role_ref.name}",
        age(item.metadata.creation_timestamp, now),
        ", ".join(subject.name for subject in subjects if subject.kind == "User"),
        ", ".join(subject.name for subject in subjects if subject.kind == "Group"),
        ", ".join(f"{subject.namespace}/{subject.name}" for subject in subjects if subject.kind == "ServiceAccount"),
    ]


ROWS = {"ClusterRoleBinding": _binding, "RoleBinding": _binding}

"""Real clusters for tests: in this process, without root, ready in a tenth of a second.

`pip install 'haven-k8s[testing]'` brings the pytest fixture `haven_cluster`; without pytest, use `Cluster`.
See docs/testing.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from haven.testing.garbage import uncollected

if TYPE_CHECKING:
    from haven.apimachinery.apierrors import (
        AlreadyExists,
        ApiError,
        BadRequest,
        Conflict,
        Expired,
        Forbidden,
        Invalid,
        NotFound,
        TooManyRequests,
        Unauthorized,
    )
    from haven.hollow.behaviour import Behaviour, Exec, ExecResult, Usage
    from haven.testing.audit import AuditRecord, NotRequested
    from haven.testing.cluster import Cluster
    from haven.testing.faults import Fault
    from haven.testing.pods import NodeHandle, PodHandle
    from haven.testing.user import User
    from haven.testing.waiting import WaitTimeout
    from haven.testing.webhooks import Admission, Denied
    from haven.testing.world import Options, World

_WHERE = {
    "haven.apimachinery.apierrors": (
        "AlreadyExists", "ApiError", "BadRequest", "Conflict", "Expired", "Forbidden", "Invalid", "NotFound",
        "TooManyRequests", "Unauthorized",
    ),
    "haven.hollow.behaviour": ("Behaviour", "Exec", "ExecResult", "Usage"),
    "haven.testing.audit": ("AuditRecord", "NotRequested"),
    "haven.testing.cluster": ("Cluster",),
    "haven.testing.faults": ("Fault",),
    "haven.testing.pods": ("NodeHandle", "PodHandle"),
    "haven.testing.user": ("User",),
    "haven.testing.waiting": ("WaitTimeout",),
    "haven.testing.webhooks": ("Admission", "Denied"),
    "haven.testing.world": ("Options", "World"),
}  # fmt: skip

__all__ = [
    "Admission",
    "AlreadyExists",
    "ApiError",
    "AuditRecord",
    "BadRequest",
    "Behaviour",
    "Cluster",
    "Conflict",
    "Denied",
    "Exec",
    "ExecResult",
    "Expired",
    "Fault",
    "Forbidden",
    "Invalid",
    "NodeHandle",
    "NotFound",
    "NotRequested",
    "Options",
    "PodHandle",
    "TooManyRequests",
    "Unauthorized",
    "Usage",
    "User",
    "WaitTimeout",
    "World",
]


def __getattr__(name: str) -> Any:
    """Import on first use: pytest loads this package in every run, also where nobody needs a cluster."""
    for module, names in _WHERE.items():
        if name in names:
            with uncollected():
                if name in ("Cluster", "World"):
                    importlib.import_module("haven.testing.tokenkey").token_key()
                return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""metadata.managedFields: who set which field."""

from __future__ import annotations

from typing import Any

from haven.apimachinery import apierrors
from haven.apiserver.registry.endpoint import Endpoint
from haven.apiserver.request import Request
from haven.apiserver.watchcache import Entry

__all__ = ["FieldManagement", "manager_of"]

_MANAGER_MAX = 128


def manager_of(field_manager: str, request: Request) -> str:
    """Return the name under which a write is kept: as asked for, else what the client calls itself."""
    if field_manager:
        return field_manager
    agent = request.headers.get("user-agent", "").partition("/")[0]
    result = "".join(char for char in agent if char.isprintable())
    while len(result.encode()) > _MANAGER_MAX:
        result = result[:-1]
    return result or "unknown"


class FieldManagement:
    """Keeps track of ownership."""

    def created(self, obj: Any, endpoint: Endpoint, manager: str) -> None:
        obj.metadata.managed_fields = []

    def updated(self, new: Any, live: Entry | None, endpoint: Endpoint, manager: str, subresource: str) -> None:
        new.metadata.managed_fields = []

    def applied(
        self, live: Entry | None, patch: Any, endpoint: Endpoint, manager: str, subresource: str, *, force: bool
    ) -> dict[str, Any]:
        raise apierrors.UnsupportedMediaType("server-side apply is on its way")

    def keep_times(self, new: Any, old: Any) -> None:
        pass

"""What a write leaves, and what it says when there is something already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from haven.apimachinery import apierrors
from haven.apiserver.damage import Damage
from haven.apiserver.registry.endpoint import Endpoint
from haven.apiserver.registry.storage import Storage
from haven.apiserver.watchcache import Entry

__all__ = ["GENERATED_NAME_ATTEMPTS", "Result", "already_exists", "ttl_seconds"]

GENERATED_NAME_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class Result:
    """What a write left: the stored entry, or the object of a dry run or a deletion, of the stored version."""

    entry: Entry | None = None
    object: Any = None
    created: bool = False

    @property
    def final(self) -> Any:
        """The object as it is now."""
        return self.entry.object if self.entry is not None else self.object


def already_exists(endpoint: Endpoint, existing: Entry | Damage, *, generated: bool) -> apierrors.AlreadyExists:
    """Return the refusal of a new object whose name is taken."""
    error = apierrors.AlreadyExists.of(endpoint.group_resource, existing.name)
    if generated:
        error.message += ", the server was not able to generate a unique name for the object"
        assert error.details is not None
        error.details = msgspec.structs.replace(error.details, retry_after_seconds=1)
    if not isinstance(existing, Damage) and existing.glimpse.metadata.deletion_timestamp:
        error.message = f"object is being deleted: {error.message}"
    return error


def ttl_seconds(storage: Storage, of_events: int) -> int:
    """Return how long an object lives; 0 for ever."""
    return of_events if storage.resource.kind == "Event" else 0

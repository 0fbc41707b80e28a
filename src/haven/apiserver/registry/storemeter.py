"""What is asked of the store and of the watch caches, counted under upstream's metric names."""

from __future__ import annotations

from typing import Any

from haven.api.scheme import Resource
from haven.metrics.families import Histogram, Registry, Value

__all__ = ["StoreMeter"]


class StoreMeter:
    """Counts what is asked of the store."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: dict[tuple[str, str, str], tuple[Value, Histogram]] = {}

    def done(self, kind: Resource[Any], operation: str, seconds: float) -> None:
        """Count one request."""
        key = (kind.group, operation, kind.plural)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = (
                self._registry["etcd_requests_total"].child(*key),
                self._registry["etcd_request_duration_seconds"].histogram(*key),
            )
        found[0].value += 1
        found[1].add(seconds)

    def failed(self, kind: Resource[Any], operation: str) -> None:
        """Count one that the store could not do."""
        self._registry["etcd_request_errors_total"].child(kind.group, operation, kind.plural).value += 1

    def unreadable(self, kind: Resource[Any]) -> None:
        """Count a stored object that cannot be read."""
        self._registry["apiserver_storage_decode_errors_total"].child(kind.group, kind.plural).value += 1

    def listed(self, kind: Resource[Any], *, fetched: int, returned: int) -> None:
        """Count a list that the store answered."""
        prefix, place = "apiserver_storage_list_", (kind.group, kind.plural)
        self._registry[prefix + "total"].child(*place).value += 1
        self._registry[prefix + "fetched_objects_total"].child(*place).value += fetched
        self._registry[prefix + "evaluated_objects_total"].child(*place).value += fetched
        self._registry[prefix + "returned_objects_total"].child(*place).value += returned

    def listed_from_cache(self, kind: Resource[Any], *, fetched: int, returned: int, consistent: bool = False) -> None:
        """Count a list that the watch cache answered, which knows what the store knows: nobody has to wait for it.

        `consistent` ones asked for the newest state.
        """
        if consistent:
            self._registry["apiserver_watch_cache_consistent_read_total"].child(
                "false", kind.group, kind.plural, "true"
            ).value += 1
        self._registry["apiserver_watch_cache_read_wait_seconds"].histogram(kind.group, kind.plural).add(0.0)
        prefix, place = "apiserver_cache_list_", (kind.group, kind.plural)
        self._registry[prefix + "total"].child(kind.group, "", kind.plural).value += 1
        self._registry[prefix + "fetched_objects_total"].child(kind.group, "", kind.plural).value += fetched
        self._registry[prefix + "returned_objects_total"].child(*place).value += returned

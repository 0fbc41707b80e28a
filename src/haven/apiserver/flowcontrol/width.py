"""How many seats a request is worth: lists by the size of what they read, writes by who watches. Pure.

Source: https://kubernetes.io/docs/concepts/cluster-administration/flow-control/#seats-occupied-by-a-request
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import NamedTuple

from haven.apimachinery.selectors import SelectorError, parse_fields
from haven.apiserver.request import RequestInfo

__all__ = ["Sizes", "WatchCounts", "Width", "list_seats", "write_width"]

LIST_SEATS_MAX = 100
WRITE_SEATS_MAX = 10
BYTES_PER_SEAT = 100_000
BYTES_AT_ONCE_MAX = 1_000_000
"""Lists are sent piece by piece: no more of them than this is in memory twice."""
WATCHES_PER_SEAT = 10.0
EVENT_SECONDS = 0.005

Sizes = Callable[[str, str], tuple[int, int] | None]
"""Return (objects stored, their average size in bytes) of a group's resource, None if it is not stored here."""


class Width(NamedTuple):
    """Seats while a request runs, seats afterwards while its event is handed out, and how long that takes."""

    seats: int = 1
    final_seats: int = 0
    linger_seconds: float = 0.0


ONE = Width()


def list_seats(info: RequestInfo, query: Mapping[str, Sequence[str]], sizes: Sizes, seats_max: int) -> int:
    """Return the seats of a list, or of a watch that begins with one."""
    highest = min(seats_max, LIST_SEATS_MAX) if seats_max else LIST_SEATS_MAX
    if info.verb == "watch":
        initial = query.get("sendInitialEvents", ("",))[0].lower() in ("true", "1")
        if not initial and query.get("resourceVersion", ("",))[0] not in ("", "0"):
            return 1
    found = sizes(info.group, info.resource)
    if found is None:
        return 1
    count, average = found
    if info.name:
        count = 1
    limit = query.get("limit", ("",))[0]
    if limit.isdigit() and 0 < int(limit) < count:
        count = int(limit)
    return max(1, min(ceil(min(count * average, BYTES_AT_ONCE_MAX) / BYTES_PER_SEAT), highest))


def write_width(watches: int, seats_max: int) -> Width:
    """Return the width of a write that so many watches will hear of."""
    if watches < WATCHES_PER_SEAT:
        return ONE
    highest = min(seats_max, WRITE_SEATS_MAX) if seats_max else WRITE_SEATS_MAX
    seats = ceil(watches / WATCHES_PER_SEAT)
    work = seats * EVENT_SECONDS
    seats = min(seats, highest)
    return Width(1, seats, work / seats)


_INDEXED = {"pods": "spec.nodeName"}


class WatchCounts:
    """Counts watches by what they are about. Those of one node's pods do not count: few writes concern them."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, str, str], int] = {}

    def add(self, info: RequestInfo) -> Callable[[], None]:
        """Count a watch; return how to forget it."""
        field = _INDEXED.get(info.resource)
        if field is not None and info.field_selector and _exact(info.field_selector, field):
            return _nothing
        key = (info.group, info.resource, info.namespace, info.name)
        self._counts[key] = self._counts.get(key, 0) + 1

        def forget() -> None:
            left = self._counts.get(key, 0) - 1
            if left > 0:
                self._counts[key] = left
            else:
                self._counts.pop(key, None)

        return forget

    def interested(self, info: RequestInfo) -> int:
        """Return how many watches hear of a write."""
        counts = self._counts
        if not counts or (info.resource == "serviceaccounts" and info.subresource == "token"):
            return 0
        group, resource = info.group, info.resource
        found = counts.get((group, resource, "", ""), 0)
        if info.namespace:
            found += counts.get((group, resource, info.namespace, ""), 0)
        if info.name:
            found += counts.get((group, resource, info.namespace, info.name), 0)
        return found


def _nothing() -> None:
    return None


def _exact(selector: str, field: str) -> str:
    try:
        return parse_fields(selector).exact(field) or ""
    except SelectorError:
        return ""

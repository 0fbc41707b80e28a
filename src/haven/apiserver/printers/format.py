"""Text that cells of many kinds share: ages, labels, containers, shortened lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from haven.api.core import v1 as core_v1
from haven.apimachinery import times
from haven.apimachinery.quantity import Quantity

__all__ = [
    "age",
    "bool_text",
    "containers",
    "default_row",
    "first_of",
    "human_duration",
    "is_true",
    "joined",
    "labels",
    "load_balancer",
    "quantity",
    "shortened",
]

NONE, UNSET, UNKNOWN = "<none>", "<unset>", "<unknown>"
_LOAD_BALANCER_BYTES_MAX = 16
_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86_400, 365


def human_duration(seconds: float) -> str:
    """Return a time span with two or three significant figures, as kubectl shows it."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 0:
        return "0s"
    if whole < 2 * _MINUTE:
        return f"{whole}s"
    minutes = whole // _MINUTE
    if minutes < 10:
        return _two(minutes, "m", whole % _MINUTE, "s")
    if minutes < 180:
        return f"{minutes}m"
    hours = whole // _HOUR
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    days = whole // _DAY
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 2 * _YEAR:
        return f"{days}d"
    if days < 8 * _YEAR:
        return _two(days // _YEAR, "y", days % _YEAR, "d")
    return f"{days // _YEAR}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def age(moment: str | None, now: float) -> str:
    """Return how long ago a point in time was."""
    return human_duration(now - times.parse(moment)) if moment else UNKNOWN


def default_row(obj: Any, _now: float) -> list[Any]:
    """Return the cells of a kind without columns of its own."""
    metadata = obj.metadata
    return [metadata.name, metadata.creation_timestamp or "0001-01-01T00:00:00Z"]


def labels(items: Mapping[str, str]) -> str:
    """Return labels sorted by key."""
    return ",".join(f"{key}={items[key]}" for key in sorted(items)) or NONE


def containers(items: Iterable[core_v1.Container]) -> list[str]:
    """Return two cells: the names and the images of containers."""
    listed = list(items)
    return [",".join(item.name for item in listed), ",".join(item.image for item in listed)]


def joined(items: Iterable[str]) -> str:
    """Return texts in one cell."""
    return ",".join(items)


def shortened(items: Sequence[str], shown_max: int = 3) -> str:
    """Return at most so many texts and how many more there are."""
    text = ",".join(items[:shown_max])
    if len(items) > shown_max:
        return f"{text} + {len(items) - shown_max} more..."
    return text or UNSET


def load_balancer(ingress: Iterable[Any]) -> str:
    """Return the addresses of a load balancer."""
    return ",".join(sorted({item.ip or item.hostname for item in ingress} - {""}))


def quantity(value: Quantity | None) -> str:
    """Return an amount as Go prints a pointer to one."""
    return "<nil>" if value is None else str(value)


def bool_text(value: bool | None) -> str:
    """Return a flag that may not be set."""
    return UNSET if value is None else str(value)


def first_of(*texts: str) -> str:
    """Return the first text that is not empty."""
    return next((text for text in texts if text), "")


def is_true(conditions: Iterable[Any], kind: str) -> bool:
    """Tell whether the first condition of a type is true."""
    return next((item.status == "True" for item in conditions if item.type == kind), False)

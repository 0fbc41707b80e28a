"""The row of a Status."""

from __future__ import annotations

from typing import Any

from haven.apimachinery.meta import Status

__all__ = ["ROWS"]


def _status(item: Status, _now: float) -> list[Any]:
    return [item.status, item.reason, item.message]


ROWS = {"Status": _status}

"""Numbers that may be given as a share, such as maxUnavailable: 25%."""

from __future__ import annotations

__all__ = ["scaled"]


def scaled(value: int | str | None, total: int, *, round_up: bool) -> int:
    """Return what a value means for a total; None means 0. Raise ValueError for text that is no percentage."""
    if value is None:
        return 0
    if isinstance(value, int):
        return value
    if not value.endswith("%"):
        raise ValueError(f"invalid value for IntOrString: invalid type: string is not a percentage: {value}")
    percent = int(value[:-1])
    return -(-percent * total // 100) if round_up else percent * total // 100

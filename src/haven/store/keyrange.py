"""Ranges of keys: what starts with a prefix."""

from __future__ import annotations

__all__ = ["first_key", "overlaps", "prefix_end"]


def prefix_end(prefix: bytes) -> bytes | None:
    """Return the smallest key that is greater than every key with this prefix; None if there is none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else None


def first_key(prefix: bytes, after: bytes) -> bytes:
    """Return the lower bound of the keys that start with `prefix` and are greater than `after`."""
    return max(prefix, after + b"\x00") if after else prefix


def overlaps(prefix: bytes, other: bytes) -> bool:
    """Tell whether a key can have both prefixes."""
    return prefix.startswith(other) or other.startswith(prefix)

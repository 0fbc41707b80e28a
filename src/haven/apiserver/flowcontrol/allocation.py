"""How the server's seats are divided among priority levels: by shares, then lent to those that can use them. Pure.

Source: https://kubernetes.io/docs/concepts/cluster-administration/flow-control/#prioritylevelconfiguration
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

from haven.apiserver.flowcontrol.levels import Level

__all__ = ["Claim", "divide", "lend", "set_nominal"]

_TARGET_MIN = 0.001


class Claim(NamedTuple):
    """What one level may get, and what it would like."""

    low: float
    high: float
    target: float


def set_nominal(levels: Sequence[Level], seats: int) -> None:
    """Give each level its part of the server's seats, and how much of that it lends and borrows."""
    total = sum(level.shares for level in levels) or 1
    for level in levels:
        level.nominal = ceil(seats * level.shares / total)
        lendable = _percent(level.nominal, level.lendable_percent)
        borrowing = seats if level.borrowing_percent is None else _percent(level.nominal, level.borrowing_percent)
        level.seats_min = level.nominal - lendable
        level.seats_max = level.nominal + borrowing
        if not level.limit:
            level.limit = level.nominal - lendable // 2


def lend(levels: Sequence[Level]) -> float:
    """Set every level's present limit from its demand; return the fair fraction (0 if exempt requests need all)."""
    total = sum(level.nominal for level in levels)
    remaining = total
    limited: list[Level] = []
    for level in levels:
        if level.exempt:
            level.limit = max(level.seats_min, level.demand.high_watermark)
            remaining -= level.limit
        else:
            limited.append(level)
    floors = {level.name: max(level.seats_min, min(level.nominal, level.demand.high_watermark)) for level in limited}
    low_sum, floor_sum = sum(level.seats_min for level in limited), sum(floors.values())
    if remaining <= low_sum:
        for level in limited:
            level.limit = level.seats_min
        return 0.0
    if remaining <= floor_sum:
        part = (remaining - low_sum) / (floor_sum - low_sum)
        for level in limited:
            level.limit = level.seats_min + _round((floors[level.name] - level.seats_min) * part)
        return 0.0
    claims = [
        Claim(floors[level.name], level.seats_max, max(floors[level.name], level.demand.smoothed)) for level in limited
    ]
    given, fraction = divide(total, claims)
    for level, seats in zip(limited, given, strict=True):
        level.limit = _round(seats)
    return fraction


def divide(total: float, claims: Sequence[Claim]) -> tuple[list[float], float]:
    """Return what each claim gets, all the same multiple of its target as far as its bounds allow, and that multiple.

    The parts add up to `total` if the bounds allow it; else every claim has its lower, or its upper bound.
    """
    targets = [max(claim.target, _TARGET_MIN) for claim in claims]
    lows = sum(claim.low for claim in claims)
    highs = sum(claim.high for claim in claims)
    if not claims or total <= 0:
        return [0.0] * len(claims), 0.0
    if total <= lows:
        return [claim.low for claim in claims], min(c.low / t for c, t in zip(claims, targets, strict=True))
    if total >= highs:
        return [claim.high for claim in claims], max(c.high / t for c, t in zip(claims, targets, strict=True))
    # The sum grows with the multiple, in straight pieces between the multiples at which a claim meets a bound.
    bends = sorted({bound / t for c, t in zip(claims, targets, strict=True) for bound in (c.low, c.high)})
    before = bends[0]
    for bend in bends:
        if _sum(claims, targets, bend) >= total:
            slope = sum(
                t for c, t in zip(claims, targets, strict=True) if c.low < c.high and c.low / t <= before < c.high / t
            )
            start = _sum(claims, targets, before)
            multiple = before + (total - start) / slope if slope else bend
            break
        before = bend
    else:
        multiple = bends[-1]
    return [min(max(multiple * t, c.low), c.high) for c, t in zip(claims, targets, strict=True)], multiple


def _sum(claims: Sequence[Claim], targets: Sequence[float], multiple: float) -> float:
    return sum(min(max(multiple * t, c.low), c.high) for c, t in zip(claims, targets, strict=True))


def _percent(seats: int, percent: int) -> int:
    return _round(seats * percent / 100)


def _round(value: float) -> int:
    """Round half away from zero, as upstream does."""
    return int(value + 0.5)

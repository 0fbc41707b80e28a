"""Raw scores to 0…100 over the feasible nodes, in whole numbers as upstream reckons them."""

from __future__ import annotations

import numpy as np

from haven.scheduler.plugins.interface import Floats
from haven.scheduler.snapshot import Ints

__all__ = ["reversed_share", "share", "spread"]


def share(raw: Ints) -> Floats | None:
    """More is better: each as a share of the largest; None when all are 0."""
    largest = int(raw.max(initial=0))
    if largest == 0:
        return None
    return (100 * raw // largest).astype(np.float64)


def reversed_share(raw: Ints) -> Floats | None:
    """Less is better: 100 minus the share of the largest; None when all are 0, and so alike."""
    largest = int(raw.max(initial=0))
    if largest == 0:
        return None
    return (100 - 100 * raw // largest).astype(np.float64)


def spread(raw: Floats) -> Floats | None:
    """More is better, between the smallest (0) and the largest (100); None when all are alike."""
    low, high = float(raw.min(initial=np.inf)), float(raw.max(initial=-np.inf))
    if not high > low:
        return None
    return np.floor(100 * (raw - low) / (high - low))

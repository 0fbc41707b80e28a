"""Taints and tolerations. Source: https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from haven.api.core import v1 as core

__all__ = ["NO_EXECUTE", "NO_SCHEDULE", "PREFER_NO_SCHEDULE", "blocks_scheduling", "tolerates", "untolerated"]

NO_SCHEDULE, PREFER_NO_SCHEDULE, NO_EXECUTE = "NoSchedule", "PreferNoSchedule", "NoExecute"


def tolerates(toleration: core.Toleration, taint: core.Taint) -> bool:
    """Tell whether one toleration bears one taint; an empty key with Exists bears all."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if toleration.operator in ("", "Equal"):
        return toleration.value == taint.value
    if toleration.operator == "Exists":
        return True
    if toleration.operator in ("Lt", "Gt"):
        return _compares(toleration, taint)
    return False


def _compares(toleration: core.Toleration, taint: core.Taint) -> bool:
    try:
        wanted, found = int(toleration.value), int(taint.value)
    except ValueError:
        return False
    return found < wanted if toleration.operator == "Lt" else found > wanted


def blocks_scheduling(taint: core.Taint) -> bool:
    """Tell whether the taint keeps new Pods away (PreferNoSchedule only makes a node less liked)."""
    return taint.effect in (NO_SCHEDULE, NO_EXECUTE)


def untolerated(
    taints: Iterable[core.Taint], tolerations: Sequence[core.Toleration], counts: Callable[[core.Taint], bool]
) -> core.Taint | None:
    """Return the first taint that counts and that no toleration bears."""
    for taint in taints:
        if counts(taint) and not any(tolerates(toleration, taint) for toleration in tolerations):
            return taint
    return None

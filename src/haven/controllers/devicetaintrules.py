"""What a DeviceTaintRule's status says about the Pods that have to go because of it.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/#device-taints-and-tolerations
"""

from __future__ import annotations

from dataclasses import dataclass

from haven.api.resource import v1beta2
from haven.apimachinery import meta

__all__ = ["CONDITION", "Counts", "condition_of"]

CONDITION = "EvictionInProgress"
_FINAL = "This information will not be updated again. Recreate the DeviceTaintRule to trigger an update."


@dataclass(frozen=True, slots=True)
class Counts:
    """How many Pods have to go (or would have to, if the effect was NoExecute), in how many namespaces; how many went
    since this controller runs; how many devices a rule without effect selects, published and allocated.
    """

    pods: int = 0
    namespaces: int = 0
    evicted: int = 0
    published: int = 0
    allocated: int = 0


def condition_of(rule: v1beta2.DeviceTaintRule, counts: Counts) -> meta.Condition:
    """Return the condition, without the time of its last transition."""
    status, message = "False", ""
    match rule.spec.taint.effect:
        case "NoExecute" if counts.pods:
            status, reason = "True", "PodsPendingEviction"
            need = "1 pod needs" if counts.pods == 1 else f"{counts.pods} pods need"
            message = f"{need} to be evicted in {_namespaces(counts.namespaces)}."
        case "NoExecute":
            reason = "Completed" if counts.evicted else "NotStarted"
        case "None":
            reason = "NoEffect"
            message = (
                f"{_number(counts.published, 'published device')} selected. "
                f"{_number(counts.allocated, 'allocated device')} selected. "
                f"{_number(counts.pods, 'pod')} would be evicted in {_namespaces(counts.namespaces)} "
                f"if the effect was NoExecute. {_FINAL}"
            )
        case _:
            reason, message = "OtherEffect", "Eviction only happens for the NoExecute effect."
    if counts.evicted:
        message = f"{message} {_number(counts.evicted, 'pod')} evicted since starting the controller.".lstrip()
    return meta.Condition(
        type=CONDITION,
        status=status,
        reason=reason,
        message=message,
        observed_generation=rule.metadata.generation,
    )


def _number(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _namespaces(number: int) -> str:
    return "1 namespace" if number == 1 else f"{number} different namespaces"

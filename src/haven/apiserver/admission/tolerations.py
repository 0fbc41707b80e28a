"""Plugins that write tolerations and taints.

DefaultTolerationSeconds lets pods stay a while on a node that fails; ExtendedResourceToleration lets pods that ask for
a device onto nodes that are reserved for it; TaintNodesByCondition keeps pods off a node that has just been born.
Source: https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/
"""

from __future__ import annotations

from haven.api.core import v1 as core
from haven.api.core.resources import is_extended
from haven.apimachinery.apierrors import GroupResource
from haven.apiserver.admission.interface import CREATE, UPDATE, AdmissionRequest

__all__ = [
    "DefaultTolerationSeconds",
    "ExtendedResourceToleration",
    "TaintNodesByCondition",
    "covers_toleration",
    "merge_tolerations",
]

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
STAY_SECONDS = 300
_PODS = frozenset({GroupResource("", "pods")})


class DefaultTolerationSeconds:
    """Gives every pod that does not say otherwise five minutes on a failing node."""

    name = "DefaultTolerationSeconds"
    resources = _PODS
    is_steady = True

    def __init__(self, *, not_ready_seconds: int = STAY_SECONDS, unreachable_seconds: int = STAY_SECONDS) -> None:
        self._seconds = ((NOT_READY, not_ready_seconds), (UNREACHABLE, unreachable_seconds))

    def handles(self, operation: str) -> bool:
        return operation in (CREATE, UPDATE)

    async def admit(self, request: AdmissionRequest) -> None:
        if request.subresource:
            return
        spec: core.PodSpec = request.object.spec
        present = spec.tolerations
        added = [
            core.Toleration(key=key, operator="Exists", effect="NoExecute", toleration_seconds=seconds)
            for key, seconds in self._seconds
            if not any(item.key in (key, "") and item.effect in ("NoExecute", "") for item in present)
        ]
        if added:
            spec.tolerations = [*present, *added]


class ExtendedResourceToleration:
    """Tolerates the taint that is named after a device which the pod asks for."""

    name = "ExtendedResourceToleration"
    resources = _PODS
    is_steady = True

    def handles(self, operation: str) -> bool:
        return operation in (CREATE, UPDATE)

    async def admit(self, request: AdmissionRequest) -> None:
        if request.subresource:
            return
        spec: core.PodSpec = request.object.spec
        names = {
            name
            for container in (*(spec.containers or ()), *spec.init_containers)
            for name in container.resources.requests
            if is_extended(name)
        }
        for name in sorted(names):
            wanted = core.Toleration(key=name, operator="Exists", effect="NoSchedule")
            if not any(covers_toleration(present, wanted) for present in spec.tolerations):
                spec.tolerations = [*spec.tolerations, wanted]


class TaintNodesByCondition:
    """Taints new nodes as not ready, until the node lifecycle controller has looked at their conditions."""

    name = "TaintNodesByCondition"
    resources = frozenset({GroupResource("", "nodes")})

    def handles(self, operation: str) -> bool:
        return operation == CREATE

    async def admit(self, request: AdmissionRequest) -> None:
        if request.subresource:
            return
        spec: core.NodeSpec = request.object.spec
        if not any(taint.key == NOT_READY and taint.effect == "NoSchedule" for taint in spec.taints):
            spec.taints = [*spec.taints, core.Taint(key=NOT_READY, effect="NoSchedule")]


def merge_tolerations(first: list[core.Toleration], second: list[core.Toleration]) -> list[core.Toleration]:
    """Join tolerations, leaving out those that another one covers."""
    everything = [*first, *second]
    merged: list[core.Toleration] = []
    for index, item in enumerate(everything):
        if any(covers_toleration(kept, item) for kept in merged):
            continue
        if any(later != item and covers_toleration(later, item) for later in everything[index + 1 :]):
            continue
        merged.append(item)
    return merged


def covers_toleration(wide: core.Toleration, narrow: core.Toleration) -> bool:
    """Tell whether a toleration bears everything that another one bears."""
    if wide == narrow:
        return True
    if wide.key != narrow.key and (wide.key or wide.operator != "Exists"):
        return False
    if wide.effect not in (narrow.effect, ""):
        return False
    if wide.effect == "NoExecute" and wide.toleration_seconds is not None:
        seconds = narrow.toleration_seconds
        if seconds is None or seconds > wide.toleration_seconds:
            return False
    if wide.operator in ("Equal", ""):
        return narrow.operator == "Equal" and narrow.value == wide.value
    return wide.operator == "Exists"

"""How much of each resource a Pod asks for, and its QoS class.

Sidecars (init containers that restart always) run beside everything after them; other init containers run alone, so
they count by maximum. Pod-level resources replace the containers' sum for the resources they name.
Source: https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers,
KEP-753, KEP-2837.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from haven.api.core import v1 as core
from haven.apimachinery.quantity import Quantity

__all__ = ["BEST_EFFORT", "BURSTABLE", "GUARANTEED", "is_sidecar", "pod_limits", "pod_requests", "qos_class"]

GUARANTEED, BURSTABLE, BEST_EFFORT = "Guaranteed", "Burstable", "BestEffort"
ResourceList = dict[str, Quantity]


def is_sidecar(container: core.Container) -> bool:
    """Tell whether an init container goes on running beside the main ones."""
    return container.restart_policy == "Always"


def pod_requests(
    pod: core.Pod, *, missing: Mapping[str, Quantity] | None = None, overhead: bool = True
) -> ResourceList:
    """Return what a Pod reserves on a node; `missing` stands in for requests that a container does not make.

    A container that is being resized counts with the larger of what it wants and what it has.
    """
    spec = pod.spec
    statuses = {}
    if any(status.resources is not None for status in pod.status.container_statuses):
        statuses = {status.name: status for status in pod.status.container_statuses}
    containers = [_Ask(c, _effective(c, statuses.get(c.name), missing)) for c in spec.containers]
    inits = [_Ask(c, _effective(c, None, missing)) for c in spec.init_containers]
    total = _combine(containers, inits)
    if spec.resources is not None:
        total.update(spec.resources.requests)
    if overhead:
        _add(total, spec.overhead)
    return total


def pod_limits(pod: core.Pod, *, overhead: bool = True) -> ResourceList:
    """Return the most that a Pod may use; a resource without any limit is left out."""
    spec = pod.spec
    total = _combine(
        [_Ask(c, c.resources.limits) for c in spec.containers],
        [_Ask(c, c.resources.limits) for c in spec.init_containers],
    )
    if spec.resources is not None:
        total.update(spec.resources.limits)
    if overhead:
        for name, amount in spec.overhead.items():
            if name in total:
                total[name] = total[name] + amount
    return total


def qos_class(pod: core.Pod) -> str:
    """Return Guaranteed, Burstable or BestEffort, judged by cpu and memory of all containers (or of the Pod).

    Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/
    """
    spec = pod.spec
    if spec.resources is not None and (spec.resources.requests or spec.resources.limits):
        parts: Iterable[core.ResourceRequirements] = [spec.resources]
    else:
        parts = [container.resources for container in (*spec.containers, *spec.init_containers)]
    any_set, guaranteed = False, True
    for part in parts:
        requests = _asked(part.requests)
        limits = _asked(part.limits)
        any_set = any_set or bool(requests) or bool(limits)
        if len(limits) < 2 or any(requests.get(name, amount) != amount for name, amount in limits.items()):
            guaranteed = False
    if not any_set:
        return BEST_EFFORT
    return GUARANTEED if guaranteed else BURSTABLE


def _asked(amounts: Mapping[str, Quantity]) -> dict[str, Quantity]:
    """Return how much cpu and memory is asked for; nothing, and less, does not count."""
    return {name: amounts[name] for name in ("cpu", "memory") if name in amounts and amounts[name].nano > 0}


@dataclass(frozen=True, slots=True)
class _Ask:
    container: core.Container
    amounts: Mapping[str, Quantity]


def _effective(
    container: core.Container, status: core.ContainerStatus | None, missing: Mapping[str, Quantity] | None
) -> Mapping[str, Quantity]:
    amounts: Mapping[str, Quantity] = container.resources.requests
    if status is not None and status.resources is not None:
        largest = dict(amounts)
        for having in (status.resources.requests, status.allocated_resources):
            for name, amount in having.items():
                if name not in largest or largest[name] < amount:
                    largest[name] = amount
        amounts = largest
    if missing:
        amounts = {**missing, **amounts}
    return amounts


def _combine(containers: list[_Ask], inits: list[_Ask]) -> ResourceList:
    total: ResourceList = {}
    for ask in containers:
        _add(total, ask.amounts)
    sidecars: ResourceList = {}
    peak: ResourceList = {}
    for ask in inits:
        if is_sidecar(ask.container):
            _add(total, ask.amounts)
            _add(sidecars, ask.amounts)
            _raise(peak, sidecars)
        else:
            alone = dict(sidecars)
            _add(alone, ask.amounts)
            _raise(peak, alone)
    _raise(total, peak)
    return total


def _add(total: ResourceList, amounts: Mapping[str, Quantity]) -> None:
    for name, amount in amounts.items():
        total[name] = total[name] + amount if name in total else amount


def _raise(total: ResourceList, amounts: Mapping[str, Quantity]) -> None:
    for name, amount in amounts.items():
        if name not in total or total[name] < amount:
            total[name] = amount

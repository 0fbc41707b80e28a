"""What controllers ask about Pods, and Pods made from templates.

Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/ and, for the order in which surplus Pods go,
https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#scaling-a-replicaset
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from haven.api.core import v1 as core
from haven.api.scheme import GroupVersionKind, resource_of
from haven.apimachinery import meta, serialization, times
from haven.client.interface import Patch, PatchType
from haven.client.owner import controller_of, controller_reference
from haven.controllers.actions import Change, Delete, Steps

__all__ = [
    "OWNED",
    "condition",
    "deletion_order",
    "fail_and_delete",
    "from_template",
    "index_owned",
    "is_active",
    "is_available",
    "is_finished",
    "is_ready",
    "is_terminating",
    "max_restarts",
    "next_availability_seconds",
    "owned_and_orphans",
    "seconds_of",
]

OWNED = "controller-or-orphans"
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


def is_finished(pod: core.Pod) -> bool:
    """Tell whether the Pod ended."""
    return pod.status.phase in ("Succeeded", "Failed")


def is_active(pod: core.Pod) -> bool:
    """Tell whether the Pod counts as a replica: neither ended nor being deleted."""
    return not is_finished(pod) and pod.metadata.deletion_timestamp is None


def is_terminating(pod: core.Pod) -> bool:
    """Tell whether the Pod is being deleted and has not ended."""
    return not is_finished(pod) and pod.metadata.deletion_timestamp is not None


def condition(pod: core.Pod, type: str) -> core.PodCondition | None:
    """Return a condition of the Pod."""
    for each in pod.status.conditions:
        if each.type == type:
            return each
    return None


def is_ready(pod: core.Pod) -> bool:
    """Tell whether the Pod's Ready condition is true."""
    ready = condition(pod, "Ready")
    return ready is not None and ready.status == "True"


def seconds_of(time: str | None) -> float:
    """Return an API time as seconds since 1970; 0 if it is not set."""
    return times.parse(time) if time else 0.0


def is_available(pod: core.Pod, min_ready_seconds: int, now_seconds: float) -> bool:
    """Tell whether the Pod has been ready for so long."""
    if not is_ready(pod):
        return False
    if min_ready_seconds == 0:
        return True
    ready = condition(pod, "Ready")
    assert ready is not None
    since = ready.last_transition_time
    return since is not None and seconds_of(since) + min_ready_seconds <= now_seconds


def next_availability_seconds(pods: Iterable[core.Pod], min_ready_seconds: int, now_seconds: float) -> float | None:
    """Return in how many seconds the next ready Pod becomes available; None if no Pod is on its way."""
    waits = []
    for pod in pods:
        ready = condition(pod, "Ready")
        if ready is None or ready.status != "True" or not ready.last_transition_time:
            continue
        wait = seconds_of(ready.last_transition_time) + min_ready_seconds - now_seconds
        if wait > 0:
            waits.append(wait)
    return min(waits) if waits else None


def max_restarts(pod: core.Pod) -> tuple[int, int]:
    """Return the highest number of restarts among containers, and among sidecars."""
    sidecars = {each.name for each in pod.spec.init_containers if each.restart_policy == "Always"}
    regular = max((each.restart_count for each in pod.status.container_statuses), default=0)
    side = max((s.restart_count for s in pod.status.init_container_statuses if s.name in sidecars), default=0)
    return regular, side


def deletion_order(pods: Sequence[core.Pod], related_on_node: dict[str, int], now_seconds: float) -> list[core.Pod]:
    """Return the Pods, those first that are missed least.

    Unassigned, then pending, then unready, then cheap (pod-deletion-cost), then crowded on a node, then young (ages
    compare by order of magnitude), then often restarted. The UID settles ties.
    """

    def rank(pod: core.Pod) -> tuple[Any, ...]:
        ready = is_ready(pod)
        ready_condition = condition(pod, "Ready")
        ready_age = _magnitude(ready_condition.last_transition_time if ready and ready_condition else None, now_seconds)
        regular, side = max_restarts(pod)
        return (
            bool(pod.spec.node_name),
            {"Pending": 0, "Unknown": 1}.get(pod.status.phase, 2),
            ready,
            _deletion_cost(pod),
            -related_on_node.get(pod.spec.node_name, 0),
            ready_age,
            -regular,
            -side,
            _magnitude(pod.metadata.creation_timestamp, now_seconds),
            pod.metadata.uid,
        )

    return sorted(pods, key=rank)


def _magnitude(time: str | None, now_seconds: float) -> int:
    if not time:
        return -1
    age = now_seconds - times.parse(time)
    return int(math.log2(age)) if age >= 1 else 0


def _deletion_cost(pod: core.Pod) -> int:
    text = pod.metadata.annotations.get(DELETION_COST, "")
    try:
        return int(text)
    except ValueError:
        return 0


def from_template(template: core.PodTemplateSpec, owner: Any, kind: GroupVersionKind) -> core.Pod:
    """Return the Pod that a template describes, controlled by `owner`, named by the server."""
    source = serialization.copy(template)
    return core.Pod(
        metadata=meta.ObjectMeta(
            generate_name=f"{owner.metadata.name}-",
            namespace=owner.metadata.namespace,
            labels=source.metadata.labels,
            annotations=source.metadata.annotations,
            finalizers=source.metadata.finalizers,
            owner_references=[controller_reference(owner, kind)],
        ),
        spec=source.spec,
    )


def index_owned(obj: Any) -> Iterable[str]:
    """Index objects by their controller's UID, and orphans by their namespace: the two places an owner looks at."""
    reference = controller_of(obj)
    return (reference.uid,) if reference is not None else (f"orphans/{obj.metadata.namespace}",)


def owned_and_orphans(reader: Any, owner: Any) -> list[Any]:
    """Return the objects that `owner` controls or might adopt; the reader has the index OWNED by `index_owned`."""
    return [
        *reader.indexed(OWNED, owner.metadata.uid),
        *reader.indexed(OWNED, f"orphans/{owner.metadata.namespace}"),
    ]


def fail_and_delete(pod: core.Pod, type: str, reason: str, message: str, now_seconds: float) -> Steps[None]:
    """Mark a Pod that nobody runs any more as Failed, with a condition unless `type` is "", and delete it at once."""
    resource = resource_of(core.Pod)
    if not is_finished(pod):
        status: dict[str, Any] = {"phase": "Failed", "observedGeneration": pod.metadata.generation}
        if type:
            status["conditions"] = [condition_tree(pod, type, reason, message, now_seconds)]
        body = {"metadata": {"uid": pod.metadata.uid}, "status": status}
        patch = Patch(PatchType.STRATEGIC, body)
        yield Change(resource, pod.metadata.namespace, pod.metadata.name, patch, "status")
    yield Delete(resource, pod.metadata.namespace, pod.metadata.name, grace_period_seconds=0)


def condition_tree(pod: core.Pod, type: str, reason: str, message: str, now_seconds: float) -> dict[str, Any]:
    """Return a true condition as a patch holds it; the transition time moves only with the status."""
    current = condition(pod, type)
    is_true = current is not None and current.status == "True" and current.last_transition_time
    since = current.last_transition_time if is_true and current is not None else times.format_time(now_seconds)
    return {
        "type": type,
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": since,
        "observedGeneration": pod.metadata.generation,
    }

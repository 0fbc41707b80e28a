"""What a node's conditions and lease say about its health, and the taints that follow. Pure.

A node lives as long as its heartbeat or its lease moves; times are those at which we saw them move, because clocks of
nodes differ. Source: https://kubernetes.io/docs/reference/node/node-status/#heartbeats and
https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/#taint-based-evictions
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from haven.api.coordination import v1 as coordination
from haven.api.core import v1 as core
from haven.apimachinery import serialization, times

__all__ = [
    "NOT_READY",
    "NO_EXECUTE",
    "UNREACHABLE",
    "Health",
    "condition",
    "condition_taints",
    "is_silent",
    "label_changes",
    "node_condition_taints",
    "observe",
    "swapped",
    "unknown_conditions",
    "zone_of",
]

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
NO_SCHEDULE, NO_EXECUTE = "NoSchedule", "NoExecute"

_TAINT_OF = {
    ("Ready", "False"): NOT_READY,
    ("Ready", "Unknown"): UNREACHABLE,
    ("MemoryPressure", "True"): "node.kubernetes.io/memory-pressure",
    ("DiskPressure", "True"): "node.kubernetes.io/disk-pressure",
    ("NetworkUnavailable", "True"): "node.kubernetes.io/network-unavailable",
    ("PIDPressure", "True"): "node.kubernetes.io/pid-pressure",
}
_OURS = frozenset((*_TAINT_OF.values(), UNSCHEDULABLE))
_KUBELETS_CONDITIONS = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
# Old names of labels that programs still select by; the stable ones win.
_OLD_LABELS = {
    "kubernetes.io/os": "beta.kubernetes.io/os",
    "kubernetes.io/arch": "beta.kubernetes.io/arch",
}


@dataclass(frozen=True, slots=True)
class Health:
    """The last signs of life of a node: when we saw one, and what it was."""

    seen_seconds: float
    ready: core.NodeCondition | None
    renew_time: str


def condition(conditions: Iterable[core.NodeCondition], type: str) -> core.NodeCondition | None:
    """Return the condition of a type."""
    for each in conditions:
        if each.type == type:
            return each
    return None


def observe(before: Health | None, node: core.Node, lease: coordination.Lease | None, now_seconds: float) -> Health:
    """Return the health of a node after another look at it."""
    ready = condition(node.status.conditions, "Ready")
    renew_time = (lease.spec.renew_time or "") if lease is not None else ""
    created = node.metadata.creation_timestamp
    if before is None:
        seen = times.parse(created) if created and ready is None else now_seconds
    elif _heartbeat(before.ready) != _heartbeat(ready):
        seen = now_seconds
    else:
        seen = before.seen_seconds
    renewed_before = before.renew_time if before is not None else ""
    if renew_time and (not renewed_before or times.parse(renew_time) > times.parse(renewed_before)):
        seen = now_seconds
    return Health(seen, ready, renew_time or renewed_before)


def _heartbeat(ready: core.NodeCondition | None) -> tuple[str | None] | None:
    return None if ready is None else (ready.last_heartbeat_time,)


def is_silent(health: Health, now_seconds: float, *, grace_seconds: float, startup_grace_seconds: float) -> bool:
    """Tell whether a node gave no sign of life for too long; one that never had a condition has longer to start."""
    grace = grace_seconds if health.ready is not None else startup_grace_seconds
    return now_seconds > health.seen_seconds + grace


def unknown_conditions(node: core.Node, now_seconds: float) -> list[core.NodeCondition]:
    """Return the conditions of a node that fell silent: what its kubelet reports becomes Unknown.

    NetworkUnavailable stays, because the control plane sets it.
    """
    now = times.format_time(now_seconds)
    conditions = [serialization.copy(each) for each in node.status.conditions]
    for type in _KUBELETS_CONDITIONS:
        current = condition(conditions, type)
        if current is None:
            conditions.append(
                core.NodeCondition(
                    type=type,
                    status="Unknown",
                    reason="NodeStatusNeverUpdated",
                    message="Kubelet never posted node status.",
                    last_heartbeat_time=node.metadata.creation_timestamp,
                    last_transition_time=now,
                )
            )
        elif current.status != "Unknown":
            current.status = "Unknown"
            current.reason = "NodeStatusUnknown"
            current.message = "Kubelet stopped posting node status."
            current.last_transition_time = now
    return conditions


def condition_taints(node: core.Node) -> list[str]:
    """Return the keys of the NoSchedule taints that a node's conditions and its spec.unschedulable ask for."""
    keys = [_TAINT_OF[pair] for each in node.status.conditions if (pair := (each.type, each.status)) in _TAINT_OF]
    if node.spec.unschedulable:
        keys.append(UNSCHEDULABLE)
    return list(dict.fromkeys(keys))


def node_condition_taints(node: core.Node, now_seconds: float) -> list[core.Taint] | None:
    """Return a node's taints with the NoSchedule ones as its conditions ask for; None if they are so already."""
    wanted = condition_taints(node)
    present = {each.key for each in node.spec.taints if _is_ours(each)}
    if present == set(wanted):
        return None
    kept = [each for each in node.spec.taints if not _is_ours(each) or each.key in wanted]
    now = times.format_time(now_seconds)
    added = [core.Taint(key=key, effect=NO_SCHEDULE, time_added=now) for key in wanted if key not in present]
    return [*kept, *added]


def _is_ours(taint: core.Taint) -> bool:
    return taint.effect == NO_SCHEDULE and taint.key in _OURS


def swapped(
    taints: Sequence[core.Taint], add: str, remove: Sequence[str], now_seconds: float
) -> list[core.Taint] | None:
    """Return taints with one NoExecute taint added and others gone; None if nothing changes. `add` may be ""."""
    kept = [each for each in taints if each.effect != NO_EXECUTE or each.key not in remove]
    if add and not any(each.effect == NO_EXECUTE and each.key == add for each in kept):
        kept.append(core.Taint(key=add, effect=NO_EXECUTE, time_added=times.format_time(now_seconds)))
    return kept if kept != list(taints) else None


def label_changes(node: core.Node) -> dict[str, str]:
    """Return the labels that a node lacks so that programs which know only the old names find it."""
    labels = node.metadata.labels
    return {old: labels[new] for new, old in _OLD_LABELS.items() if new in labels and labels.get(old) != labels[new]}


def zone_of(node: core.Node) -> str:
    """Return the zone of a node as an opaque key, "" if it is in none."""
    labels = node.metadata.labels
    zone = labels.get("failure-domain.beta.kubernetes.io/zone", labels.get("topology.kubernetes.io/zone", ""))
    region = labels.get("failure-domain.beta.kubernetes.io/region", labels.get("topology.kubernetes.io/region", ""))
    return f"{region}:\x00:{zone}" if region or zone else ""

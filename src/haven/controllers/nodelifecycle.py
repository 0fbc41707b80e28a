"""Watch over nodes: notice those that fell silent, taint them as their conditions ask, tell the Pods on them.

Taints that keep new Pods away follow the conditions at once; those that drive Pods out (NoExecute) come at a limited
rate per zone. Source: https://kubernetes.io/docs/concepts/architecture/nodes/#node-controller
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from haven.api.coordination import v1 as coordination
from haven.api.core import v1 as core
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, serialization, times
from haven.client.interface import Patch, PatchType
from haven.controllers import nodehealth, pods
from haven.controllers.actions import Change, Emit, Requeue, Steps, Wiring
from haven.controllers.counts import Counts
from haven.controllers.nodehealth import NOT_READY, UNREACHABLE, Health
from haven.controllers.zones import EvictionRates, Verdict, Zones

__all__ = ["ON_NODE", "NodeLifecycleController", "index_by_node", "reference"]

LEASES = "kube-node-lease"
ON_NODE = "spec.nodeName"
EXCLUDED = "node.kubernetes.io/exclude-disruption"
MONITOR_SECONDS = 5.0

_METRIC = "node_collector_"
_NODES, _PODS = resource_of(core.Node), resource_of(core.Pod)


@dataclass(frozen=True, slots=True)
class _Monitor:
    """Look at all nodes."""


@dataclass(frozen=True, slots=True)
class _NodeChanged:
    name: str


@dataclass(frozen=True, slots=True)
class _PodAssigned:
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class _Evict:
    """Taint nodes of a zone that wait for it, as fast as the zone may."""

    zone: str


_Key = _Monitor | _NodeChanged | _PodAssigned | _Evict


def reference(node: core.Node) -> core.ObjectReference:
    """Return what an Event about a Node is about: the Node as such, at no version of it."""
    return core.ObjectReference(kind="Node", api_version="v1", name=node.metadata.name, uid=node.metadata.uid)


def index_by_node(pod: core.Pod) -> Iterable[str]:
    """Index Pods by the node that they are assigned to."""
    return (pod.spec.node_name,) if pod.spec.node_name else ()


class NodeLifecycleController:
    """Keys: a node that changed, a Pod that got a node, the regular look at all nodes, a zone with nodes to taint."""

    workers = 8

    def __init__(
        self,
        wiring: Wiring,
        *,
        grace_seconds: float = 50.0,
        startup_grace_seconds: float = 60.0,
        rates: EvictionRates | None = None,
    ) -> None:
        self._wiring = wiring
        self._grace_seconds = grace_seconds
        self._startup_grace_seconds = startup_grace_seconds
        self._nodes = wiring.reader(core.Node)
        self._pods = wiring.reader(core.Pod)
        self._leases = wiring.reader(coordination.Lease)
        self._pods.add_index(ON_NODE, index_by_node)
        self._zones = Zones(rates or EvictionRates())
        self._known: dict[str, core.Node] = {}
        self._health: dict[str, Health] = {}
        self._unmarked: set[str] = set()  # Nodes some of whose Pods could not be marked.
        self._waiting: dict[str, dict[str, None]] = {}  # By zone, nodes to get a NoExecute taint, longest first.
        self.counts = Counts()
        self._ready_by_zone: dict[str, list[bool]] = {}
        for name, figure in (("zone_size", len), ("unhealthy_nodes_in_zone", _not_ready), ("zone_health", _percent)):
            self.counts.gauges[_METRIC + name] = partial(self._by_zone, figure)
        self._nodes.add_handler(self._node_changed)
        self._pods.add_handler(self._pod_changed)
        wiring.enqueue(_Monitor())

    def _by_zone(self, figure: Callable[[list[bool]], float]) -> dict[tuple[str, ...], float]:
        return {(zone,): figure(ready) for zone, ready in self._ready_by_zone.items()}

    def _node_changed(self, old: core.Node | None, new: core.Node | None) -> None:
        if new is not None:
            self._wiring.enqueue(_NodeChanged(new.metadata.name))
        elif old is not None:
            self._unmarked.discard(old.metadata.name)

    def _pod_changed(self, old: core.Pod | None, new: core.Pod | None) -> None:
        if new is None or not new.spec.node_name:
            return
        if old is None or old.spec.node_name != new.spec.node_name:
            self._wiring.enqueue(_PodAssigned(new.metadata.namespace, new.metadata.name))

    def sync(self, key: _Key) -> Steps[None]:
        match key:
            case _NodeChanged():
                yield from self._follow_conditions(key.name)
            case _PodAssigned():
                yield from self._mark_assigned(key)
            case _Evict():
                yield from self._taint_waiting(key.zone)
            case _Monitor():
                yield Requeue(MONITOR_SECONDS)
                with self.counts.timing(_METRIC + "update_all_nodes_health_duration_seconds"):
                    yield from self._look_at_all()

    # A node changed

    def _follow_conditions(self, name: str) -> Steps[None]:
        node = self._nodes.get("", name)
        if node is None:
            return
        taints = nodehealth.node_condition_taints(node, self._wiring.now_seconds())
        if taints is not None:
            node = yield from _set_taints(node, taints)
        labels = nodehealth.label_changes(node)
        if labels:
            yield Change(_NODES, "", name, Patch(PatchType.STRATEGIC, {"metadata": {"labels": labels}}))

    def _mark_assigned(self, key: _PodAssigned) -> Steps[None]:
        pod = self._pods.get(key.namespace, key.name)
        if pod is None or self._nodes.get("", pod.spec.node_name) is None:
            return
        health = self._health.get(pod.spec.node_name)
        if health is not None and health.ready is not None and health.ready.status != "True":
            yield from self._mark_not_ready(pod)

    # All nodes, from time to time

    def _look_at_all(self) -> Steps[None]:
        nodes = self._nodes.list()
        yield from self._note_coming_and_going(nodes)
        are_ready: dict[str, list[bool]] = {}
        for node in nodes:
            try:
                with self.counts.timing(_METRIC + "update_node_health_duration_seconds"):
                    ready = yield from self._look_at(node)
            except apierrors.ApiError:
                continue  # It changed under our hands or is gone: the next look, seconds from now, will tell.
            if EXCLUDED not in node.metadata.labels:
                are_ready.setdefault(nodehealth.zone_of(node), []).append(ready)
        self._ready_by_zone = are_ready
        yield from self._judge_zones(nodes, are_ready)

    def _note_coming_and_going(self, nodes: Sequence[core.Node]) -> Steps[None]:
        current = {node.metadata.name: node for node in nodes}
        for name, node in current.items():
            if name not in self._known:
                message = f"Node {name} event: Registered Node {name} in Controller"
                yield Emit(reference(node), "Normal", "RegisteredNode", message)
        for name, node in self._known.items():
            if name not in current:
                message = f"Node {name} event: Removing Node {name} from Controller"
                yield Emit(reference(node), "Normal", "RemovingNode", message)
                self._health.pop(name, None)
                for waiting in self._waiting.values():
                    waiting.pop(name, None)
        self._known = current

    def _look_at(self, node: core.Node) -> Steps[bool]:
        """Update what we know of a node, and its conditions if it fell silent; return whether it is ready."""
        name, now = node.metadata.name, self._wiring.now_seconds()
        health = nodehealth.observe(self._health.get(name), node, self._leases.get(LEASES, name), now)
        self._health[name] = health
        was_ready = health.ready is not None and health.ready.status == "True"
        if nodehealth.is_silent(
            health, now, grace_seconds=self._grace_seconds, startup_grace_seconds=self._startup_grace_seconds
        ):
            conditions = nodehealth.unknown_conditions(node, now)
            if conditions != node.status.conditions:
                node = yield from _set_conditions(node, conditions)
                health = self._health[name] = replace(
                    health, ready=nodehealth.condition(node.status.conditions, "Ready")
                )
        if health.ready is None:
            return False
        status = health.ready.status
        yield from self._taint_for_eviction(node, status)
        if status != "True" and was_ready:
            yield Emit(reference(node), "Normal", "NodeNotReady", f"Node {name} status is now: NodeNotReady")
            self._unmarked.add(name)
        if status != "True" and name in self._unmarked:
            yield from self._mark_all(name)
        self._unmarked.discard(name)
        return status == "True"

    def _taint_for_eviction(self, node: core.Node, status: str) -> Steps[None]:
        """Have NoExecute taints follow readiness: off at once, changed at once, on in turn."""
        waiting = self._waiting.setdefault(nodehealth.zone_of(node), {})
        name = node.metadata.name
        if status == "True":
            waiting.pop(name, None)
            yield from self._swap(node, "", (NOT_READY, UNREACHABLE))
            return
        add, remove = _eviction_taints(status)
        if _has(node, remove):
            yield from self._swap(node, add, (remove,))
        elif not _has(node, add):
            waiting[name] = None

    def _mark_all(self, node_name: str) -> Steps[None]:
        for pod in list(self._pods.indexed(ON_NODE, node_name)):
            yield from self._mark_not_ready(pod)

    def _mark_not_ready(self, pod: core.Pod) -> Steps[None]:
        ready = pods.condition(pod, "Ready")
        if ready is None or ready.status == "False":
            return
        now = times.format_time(self._wiring.now_seconds())
        change = {"type": "Ready", "status": "False", "lastTransitionTime": now}
        body = {"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [change]}}
        try:
            patch = Patch(PatchType.STRATEGIC, body)
            yield Change(_PODS, pod.metadata.namespace, pod.metadata.name, patch, "status")
        except (apierrors.NotFound, apierrors.Conflict):
            return  # Gone, perhaps with another of its name in its place.
        yield Emit(pod, "Warning", "NodeNotReady", "Node is not ready")

    # Zones

    def _judge_zones(self, nodes: Sequence[core.Node], are_ready: dict[str, list[bool]]) -> Steps[None]:
        verdict = self._zones.judge(are_ready)
        if verdict is Verdict.ALL_DOWN:
            self._waiting.clear()
            for node in nodes:
                yield from self._swap(node, "", (NOT_READY, UNREACHABLE))
        elif verdict is Verdict.BACK:
            now = self._wiring.now_seconds()
            self._health = {name: replace(health, seen_seconds=now) for name, health in self._health.items()}
        for zone, waiting in self._waiting.items():
            if waiting:
                self._wiring.enqueue(_Evict(zone))

    def _taint_waiting(self, zone: str) -> Steps[None]:
        waiting, limiter = self._waiting.get(zone, {}), self._zones.limiter(zone)
        while waiting:
            now = self._wiring.now_seconds()
            wait = limiter.wait_seconds(now)
            if wait is None:
                return
            if wait > 0:
                yield Requeue(wait)
                return
            name = next(iter(waiting))
            del waiting[name]
            node = self._nodes.get("", name)
            ready = nodehealth.condition(node.status.conditions, "Ready") if node is not None else None
            if node is None or ready is None or ready.status == "True":
                continue
            limiter.take(now)
            add, remove = _eviction_taints(ready.status)
            yield from self._swap(node, add, (remove,))
            self.counts.add(_METRIC + "evictions_total", zone)

    def _swap(self, node: core.Node, add: str, remove: Sequence[str]) -> Steps[None]:
        taints = nodehealth.swapped(node.spec.taints, add, remove, self._wiring.now_seconds())
        if taints is not None:
            try:
                yield from _set_taints(node, taints)
            except (apierrors.NotFound, apierrors.Conflict):
                return  # Something else changed the node: the next look at it is seconds away.


def _eviction_taints(status: str) -> tuple[str, str]:
    """Return the NoExecute taint for a readiness, and the one that it replaces."""
    return (UNREACHABLE, NOT_READY) if status == "Unknown" else (NOT_READY, UNREACHABLE)


def _not_ready(ready: list[bool]) -> float:
    return ready.count(False)


def _percent(ready: list[bool]) -> float:
    return 100.0 * ready.count(True) / len(ready)


def _has(node: core.Node, key: str) -> bool:
    return any(each.effect == nodehealth.NO_EXECUTE and each.key == key for each in node.spec.taints)


def _set_taints(node: core.Node, taints: list[core.Taint]) -> Steps[core.Node]:
    """Replace a node's taints, unless it changed meanwhile (Conflict): they are one list with several writers."""
    version = {"resourceVersion": node.metadata.resource_version}
    body = {"metadata": version, "spec": {"taints": serialization.to_tree(taints)}}
    changed: core.Node = yield Change(_NODES, "", node.metadata.name, Patch(PatchType.STRATEGIC, body))
    return changed


def _set_conditions(node: core.Node, conditions: list[core.NodeCondition]) -> Steps[core.Node]:
    version = {"resourceVersion": node.metadata.resource_version}
    body = {"metadata": version, "status": {"conditions": serialization.to_tree(conditions)}}
    patch = Patch(PatchType.STRATEGIC, body)
    changed: core.Node = yield Change(_NODES, "", node.metadata.name, patch, "status")
    return changed

"""Run one Pod on every node that a DaemonSet fits, and roll changes over them.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from haven.api.apps import v1 as apps
from haven.api.core import v1 as core
from haven.api.core.nodeselection import matches_required
from haven.api.core.taints import NO_EXECUTE, blocks_scheduling, untolerated
from haven.api.scheme import resource_of
from haven.apimachinery import meta, selectors, serialization
from haven.apimachinery.names import NamespacedName
from haven.client.owner import controller_of
from haven.controllers import pods, revisions
from haven.controllers.actions import Emit, Requeue, Retry, Steps, Update, Wiring, key_from
from haven.controllers.claiming import claimed, owner_by_reference, owners_of_orphan
from haven.controllers.intorpercent import scaled
from haven.controllers.replicaset import create_pods, delete_pods

__all__ = ["DaemonSetController", "Plan", "fits", "plan_placement", "plan_rollout", "pod_for_node", "status_of"]

REVISION = "controller-revision-hash"
TEMPLATE_GENERATION = "pod-template-generation"
TEMPLATE_GENERATION_ANNOTATION = "deprecated.daemonset.template.generation"
ACTIONS_PER_PASS_MAX = 250
BACKOFF_FIRST_SECONDS, BACKOFF_SECONDS_MAX = 1.0, 900.0

# A daemon stays on nodes that are in trouble: it may be what is to mend them.
_TOLERATED = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)
_NETWORK_UNAVAILABLE = ("node.kubernetes.io/network-unavailable", "NoSchedule")

ByNode = Mapping[str, Sequence[core.Pod]]


@dataclass(slots=True)
class Plan:
    """What to do on which node. Events tell of Pods that ended and are deleted for it."""

    create: list[str] = field(default_factory=list)
    delete: list[core.Pod] = field(default_factory=list)
    events: list[Emit] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)


def pod_for_node(owner: apps.DaemonSet, node_name: str, hash: str) -> core.Pod:
    """Return the Pod for a node: bound to it by affinity, tolerating its troubles."""
    pod = pods.from_template(owner.spec.template, owner, resource_of(apps.DaemonSet).gvk)
    labels = pod.metadata.labels
    generation = owner.metadata.annotations.get(TEMPLATE_GENERATION_ANNOTATION, "")
    if generation:
        labels[TEMPLATE_GENERATION] = generation
    if hash:
        labels[REVISION] = hash
    _pin(pod.spec, node_name)
    wanted = [*_TOLERATED, _NETWORK_UNAVAILABLE] if pod.spec.host_network else list(_TOLERATED)
    for key, effect in wanted:
        toleration = core.Toleration(key=key, operator="Exists", effect=effect)
        if toleration not in pod.spec.tolerations:
            pod.spec.tolerations.append(toleration)
    return pod


def _pin(spec: core.PodSpec, node_name: str) -> None:
    """Have the scheduler bind the Pod to this node and no other."""
    field_is = core.NodeSelectorRequirement(key="metadata.name", operator="In", values=[node_name])
    spec.affinity = spec.affinity or core.Affinity()
    node_affinity = spec.affinity.node_affinity = spec.affinity.node_affinity or core.NodeAffinity()
    required = node_affinity.required_during_scheduling_ignored_during_execution
    if required is None or not required.node_selector_terms:
        terms = [core.NodeSelectorTerm(match_fields=[field_is])]
    else:
        terms = required.node_selector_terms
        for term in terms:
            term.match_fields = [field_is]
    node_affinity.required_during_scheduling_ignored_during_execution = core.NodeSelector(node_selector_terms=terms)


def node_name_of(pod: core.Pod) -> str:
    """Return the node that a daemon Pod runs on or is meant for, "" if it tells none."""
    if pod.spec.node_name:
        return pod.spec.node_name
    affinity = pod.spec.affinity.node_affinity if pod.spec.affinity else None
    required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
    for term in required.node_selector_terms or () if required else ():
        for each in term.match_fields:
            if each.key == "metadata.name" and each.operator == "In" and len(each.values) == 1:
                return each.values[0]
    return ""


def fits(owner: apps.DaemonSet, node: core.Node) -> tuple[bool, bool]:
    """Return whether a daemon Pod should run on the node, and whether one that runs there may stay."""
    name = node.metadata.name
    template = owner.spec.template.spec
    if template.node_name not in ("", name) or not matches_required(template, name, node.metadata.labels):
        return False, False
    tolerations = pod_for_node(owner, name, "").spec.tolerations
    if untolerated(node.spec.taints, tolerations, blocks_scheduling) is None:
        return True, True
    return False, untolerated(node.spec.taints, tolerations, lambda taint: taint.effect == NO_EXECUTE) is None


def _is_updated(owner: apps.DaemonSet, pod: core.Pod, hash: str) -> bool:
    generation = owner.metadata.annotations.get(TEMPLATE_GENERATION_ANNOTATION, "")
    by_generation = bool(generation) and pod.metadata.labels.get(TEMPLATE_GENERATION) == generation
    return by_generation or (bool(hash) and pod.metadata.labels.get(REVISION) == hash)


def _counts(owner: apps.DaemonSet, desired: int) -> tuple[int, int]:
    """Return how many Pods there may be beyond one for each node, and how many nodes may be without."""
    rolling = owner.spec.update_strategy.rolling_update
    if owner.spec.update_strategy.type == "OnDelete" or rolling is None:
        return 0, 0
    surge = scaled(rolling.max_surge, desired, round_up=True)
    unavailable = scaled(rolling.max_unavailable, desired, round_up=True)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, unavailable


def allows_surge(owner: apps.DaemonSet) -> bool:
    """Tell whether a new Pod may start beside the old one on a node."""
    rolling = owner.spec.update_strategy.rolling_update
    is_rolling = owner.spec.update_strategy.type == "RollingUpdate" and rolling is not None
    return is_rolling and rolling is not None and scaled(rolling.max_surge, 100, round_up=True) > 0


class Backoffs:
    """How long to leave nodes alone whose daemon Pods keep failing."""

    def __init__(self) -> None:
        self._entries: dict[tuple[object, ...], tuple[float, float]] = {}

    def wait_seconds(self, key: tuple[object, ...], now_seconds: float) -> float:
        """Return how long to wait before the failed Pod is replaced; 0 notes that it is replaced now."""
        wait, since = self._entries.get(key, (0.0, 0.0))
        if now_seconds - since < wait:
            return wait - (now_seconds - since)
        if now_seconds - since > 2 * BACKOFF_SECONDS_MAX:
            wait = 0.0
        self._entries[key] = (min(wait * 2, BACKOFF_SECONDS_MAX) or BACKOFF_FIRST_SECONDS, now_seconds)
        if len(self._entries) > 10_000:
            self._entries = {k: v for k, v in self._entries.items() if now_seconds - v[1] < v[0]}
        return 0.0


def plan_placement(
    owner: apps.DaemonSet,
    nodes: Sequence[core.Node],
    by_node: ByNode,
    hash: str,
    backoffs: Backoffs,
    now_seconds: float,
) -> Plan:
    """Return what brings one Pod to each node that should have one, and takes away the others."""
    plan = Plan()
    for node in nodes:
        name = node.metadata.name
        found = by_node.get(name, ())
        should_run, may_stay = fits(owner, node)
        if should_run and not found:
            plan.create.append(name)
        elif may_stay:
            running: list[core.Pod] = []
            for pod in found:
                if pod.metadata.deletion_timestamp is not None:
                    continue
                if pods.is_finished(pod):
                    _replace_finished(owner, pod, name, backoffs, now_seconds, plan)
                else:
                    running.append(pod)
            plan.delete += _surplus(owner, running, hash, now_seconds)
        else:
            plan.delete += [pod for pod in found if pod.metadata.deletion_timestamp is None]
    known = {node.metadata.name for node in nodes}
    for name, stranded in by_node.items():
        if name not in known:  # Pod GC takes those that were bound; those that never will be are ours.
            plan.delete += [p for p in stranded if not p.spec.node_name and p.metadata.deletion_timestamp is None]
    return plan


def _replace_finished(
    owner: apps.DaemonSet, pod: core.Pod, node_name: str, backoffs: Backoffs, now_seconds: float, plan: Plan
) -> None:
    place = f"{pod.metadata.namespace}/{pod.metadata.name} on node {node_name}"
    if pod.status.phase == "Succeeded":
        message = f"Found succeeded daemon pod {place}, will try to delete it"
        plan.events.append(Emit(owner, "Normal", "SucceededDaemonPod", message))
        plan.delete.append(pod)
        return
    wait = backoffs.wait_seconds((owner.metadata.uid, owner.status.observed_generation, node_name), now_seconds)
    if wait > 0:
        plan.waits.append(wait)
        return
    message = f"Found failed daemon pod {place}, will try to kill it"
    plan.events.append(Emit(owner, "Warning", "FailedDaemonPod", message))
    plan.delete.append(pod)


def _age(pod: core.Pod) -> tuple[bool, str, str]:
    """Bound before waiting, then oldest first."""
    return (not pod.spec.node_name, pod.metadata.creation_timestamp or "", pod.metadata.name)


def _surplus(owner: apps.DaemonSet, running: Sequence[core.Pod], hash: str, now_seconds: float) -> list[core.Pod]:
    """Return the Pods that a node has too many."""
    if len(running) <= 1:
        return []
    ordered = sorted(running, key=_age)
    if not allows_surge(owner):
        return ordered[1:]
    new = next((pod for pod in ordered if _is_updated(owner, pod, hash)), None)
    old = next((pod for pod in ordered if not _is_updated(owner, pod, hash)), None)
    doomed = [pod for pod in ordered if pod is not new and pod is not old]
    if new is not None and old is not None:
        is_new_available = pods.is_available(new, owner.spec.min_ready_seconds, now_seconds)
        if not pods.is_ready(old) or is_new_available:
            doomed.append(old)
    return doomed


def plan_rollout(
    owner: apps.DaemonSet, nodes: Sequence[core.Node], by_node: ByNode, hash: str, now_seconds: float
) -> Plan:
    """Return the next step of a rolling update: old Pods to delete, or nodes that get a new one beside the old."""
    targets = {node.metadata.name for node in nodes if fits(owner, node)[0]}
    max_surge, max_unavailable = _counts(owner, len(targets))
    min_ready = owner.spec.min_ready_seconds
    plan = Plan()
    unavailable = surging = 0
    must: list[core.Pod] = []
    may: list[core.Pod] = []
    must_nodes: list[str] = []
    may_nodes: list[str] = []
    for name in sorted(by_node):
        pair = _old_and_new(owner, by_node[name], hash)
        if pair is None:  # Placement will put this node in order first.
            unavailable += 1
            surging += 1
            continue
        old, new = pair
        if max_surge:
            if old is None or name not in targets:
                continue
            if new is not None:
                surging += 1
            elif pods.is_available(old, min_ready, now_seconds):
                may_nodes.append(name)
            else:
                must_nodes.append(name)
        elif (old is None) == (new is None):
            unavailable += 1
        elif new is not None:
            unavailable += not pods.is_available(new, min_ready, now_seconds)
        elif old is not None and pods.is_available(old, min_ready, now_seconds):
            may.append(old)
        elif old is not None:
            unavailable += 1
            must.append(old)
    if max_surge:
        plan.create = must_nodes + may_nodes[: max(max_surge - surging, 0)]
    else:
        plan.delete = must + may[: max(max_unavailable - unavailable, 0)]
    return plan


def _old_and_new(
    owner: apps.DaemonSet, found: Iterable[core.Pod], hash: str
) -> tuple[core.Pod | None, core.Pod | None] | None:
    """Return the node's Pod of an old and of the new template; None if there are several of a kind."""
    old: core.Pod | None = None
    new: core.Pod | None = None
    for pod in found:
        if pod.metadata.deletion_timestamp is not None:
            continue
        if _is_updated(owner, pod, hash):
            if new is not None:
                return None
            new = pod
        else:
            if old is not None:
                return None
            old = pod
    return old, new


def status_of(
    owner: apps.DaemonSet, nodes: Sequence[core.Node], by_node: ByNode, hash: str, now_seconds: float
) -> apps.DaemonSetStatus:
    """Return the counts of nodes by how their daemon does."""
    status = apps.DaemonSetStatus(
        observed_generation=owner.metadata.generation,
        collision_count=owner.status.collision_count,
        conditions=owner.status.conditions,
    )
    for node in nodes:
        found = by_node.get(node.metadata.name, ())
        if not fits(owner, node)[0]:
            status.number_misscheduled += bool(found)
            continue
        status.desired_number_scheduled += 1
        if not found:
            continue
        status.current_number_scheduled += 1
        pod = min(found, key=lambda each: (each.metadata.creation_timestamp or "", each.metadata.name))
        if pods.is_ready(pod):
            status.number_ready += 1
            status.number_available += pods.is_available(pod, owner.spec.min_ready_seconds, now_seconds)
        status.updated_number_scheduled += _is_updated(owner, pod, hash)
    status.number_unavailable = status.desired_number_scheduled - status.number_available
    return status


class DaemonSetController:
    """The controller of apps/v1 DaemonSets."""

    workers = 2

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._sets = wiring.reader(apps.DaemonSet)
        self._pods = wiring.reader(core.Pod)
        self._nodes = wiring.reader(core.Node)
        self._revisions = wiring.reader(apps.ControllerRevision)
        self._backoffs = Backoffs()
        self._pods.add_index(pods.OWNED, pods.index_owned)
        self._revisions.add_index(pods.OWNED, pods.index_owned)
        self._sets.add_handler(self._set_changed)
        self._pods.add_handler(self._pod_changed)
        self._nodes.add_handler(self._node_changed)
        self._revisions.add_handler(self._revision_changed)

    def _set_changed(self, old: apps.DaemonSet | None, new: apps.DaemonSet | None) -> None:
        self._wiring.enqueue(key_from(old if new is None else new))

    def _pod_changed(self, old: core.Pod | None, new: core.Pod | None) -> None:
        for pod in (old, new):
            if pod is not None and (owner := owner_by_reference(self._sets, pod, "DaemonSet")) is not None:
                self._wiring.enqueue(key_from(owner))
        if new is not None and controller_of(new) is None:
            for owner in owners_of_orphan(self._sets, new, lambda each: _selects(each, new)):
                self._wiring.enqueue(key_from(owner))

    def _revision_changed(self, old: apps.ControllerRevision | None, new: apps.ControllerRevision | None) -> None:
        each = old if new is None else new
        if new is None and (owner := owner_by_reference(self._sets, each, "DaemonSet")) is not None:
            self._wiring.enqueue(key_from(owner))

    def _node_changed(self, old: core.Node | None, new: core.Node | None) -> None:
        """Wake the sets for which the node fits now and did not before, or the other way round."""
        if old is not None and new is not None and _placement_facts(old) == _placement_facts(new):
            return
        for owner in self._sets.list():
            before = fits(owner, old) if old is not None else (False, False)
            after = fits(owner, new) if new is not None else (False, False)
            if before != after:
                self._wiring.enqueue(key_from(owner))

    def sync(self, key: NamespacedName) -> Steps[None]:
        owner = self._sets.get(*key)
        if owner is None:
            return
        if owner.spec.selector == meta.LabelSelector():
            message = "This daemon set is selecting all pods. A non-empty selector is required."
            yield Emit(owner, "Warning", "SelectingAll", message)
            return
        if owner.metadata.deletion_timestamp is not None:
            return
        selector = selectors.from_label_selector(owner.spec.selector)
        history, hash, owner = yield from self._history(owner, selector)
        owned = yield from self._owned(owner, selector)
        nodes = sorted(self._nodes.list(), key=lambda node: node.metadata.name)
        by_node = _by_node(owned)
        now = self._wiring.now_seconds()
        plan = plan_placement(owner, nodes, by_node, hash, self._backoffs, now)
        failure = yield from self._perform(owner, plan, hash)
        is_rolling = owner.spec.update_strategy.type == "RollingUpdate"
        if failure is None and is_rolling and not plan.create and not plan.delete:
            step = plan_rollout(owner, nodes, by_node, hash, now)
            failure = yield from self._perform(owner, step, hash)
        fresh = _by_node((yield from self._owned(owner, selector)))
        status = status_of(owner, nodes, fresh, hash, now)
        if status != owner.status:
            changed = serialization.copy(owner)
            changed.status = status
            yield Update(changed, "status")
        if failure is not None:
            raise Retry(str(failure))
        live = {hash_of: True for pod in owned if (hash_of := pod.metadata.labels.get(REVISION))}
        unused_names = {each.metadata.name for each in history if each.metadata.labels.get(REVISION) in live}
        yield from revisions.trim(history, unused_names, owner.spec.revision_history_limit)
        waits = list(plan.waits)
        if owner.spec.min_ready_seconds > 0 and status.number_ready != status.number_available:
            wait = pods.next_availability_seconds(owned, owner.spec.min_ready_seconds, now)
            waits.append(owner.spec.min_ready_seconds if wait is None else wait)
        if waits:
            yield Requeue(min(waits))

    def _owned(self, owner: apps.DaemonSet, selector: selectors.LabelSelector) -> Steps[list[core.Pod]]:
        return (
            yield from claimed(
                owner,
                pods.owned_and_orphans(self._pods, owner),
                lambda pod: selector.matches(pod.metadata.labels),
            )
        )

    def _history(
        self, owner: apps.DaemonSet, selector: selectors.LabelSelector
    ) -> Steps[tuple[list[apps.ControllerRevision], str, apps.DaemonSet]]:
        """Return the old revisions, the hash of the current one, and the set (its collision count may have grown)."""
        found = yield from claimed(
            owner,
            pods.owned_and_orphans(self._revisions, owner),
            lambda each: selector.matches(each.metadata.labels),
        )
        history = revisions.by_revision(found)
        collisions = owner.status.collision_count or 0
        wanted = revisions.new_revision(owner, revisions.next_number(history), collisions)
        equal = revisions.equal_revisions(history, wanted)
        if not equal:
            current, count = yield from revisions.create_revision(owner, wanted.revision, collisions, REVISION)
            if count != collisions:
                changed = serialization.copy(owner)
                changed.status.collision_count = count
                owner = yield Update(changed, "status")
        else:
            current = equal[-1]
            if current is not history[-1]:
                current = yield from revisions.with_number(current, wanted.revision)
        old = [each for each in history if each.metadata.uid != current.metadata.uid]
        return old, current.metadata.labels.get(REVISION, ""), owner

    def _perform(self, owner: apps.DaemonSet, plan: Plan, hash: str) -> Steps[Exception | None]:
        yield from plan.events
        failure: Exception | None = None
        if plan.create:
            wanted = [pod_for_node(owner, name, hash) for name in plan.create[:ACTIONS_PER_PASS_MAX]]
            failure = yield from create_pods(owner, wanted)
        if plan.delete:
            doomed = plan.delete[:ACTIONS_PER_PASS_MAX]
            failure = (yield from delete_pods(owner, doomed)) or failure
        if failure is None and max(len(plan.create), len(plan.delete)) > ACTIONS_PER_PASS_MAX:
            yield Requeue(0)
        return failure


def _by_node(owned: Iterable[core.Pod]) -> dict[str, list[core.Pod]]:
    result: dict[str, list[core.Pod]] = {}
    for pod in owned:
        if pods.is_finished(pod) and pod.metadata.deletion_timestamp is not None:
            continue  # It ended and is on its way out: its place is free.
        name = node_name_of(pod)
        if name:
            result.setdefault(name, []).append(pod)
    return result


def _placement_facts(node: core.Node) -> tuple[object, ...]:
    return (node.metadata.labels, node.spec.taints)


def _selects(owner: apps.DaemonSet, pod: core.Pod) -> bool:
    try:
        selector = selectors.from_label_selector(owner.spec.selector)
    except selectors.SelectorError:
        return False
    return not selector.is_empty and selector.matches(pod.metadata.labels)

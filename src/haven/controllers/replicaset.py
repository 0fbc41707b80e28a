"""Keep as many active Pods as a ReplicaSet asks for. ReplicationControllers share the core.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from haven.api.apps import v1 as apps
from haven.api.core import v1 as core
from haven.api.scheme import Resource, resource_of
from haven.apimachinery import apierrors, selectors, serialization, times
from haven.apimachinery.names import NamespacedName
from haven.client.owner import controller_of
from haven.controllers import pods
from haven.controllers.actions import (
    Action,
    Create,
    Delete,
    Emit,
    Requeue,
    Retry,
    Steps,
    Together,
    Update,
    Wiring,
    key_from,
)
from haven.controllers.claiming import claimed, owner_by_reference, owners_of_orphan

__all__ = ["Plan", "ReplicaSetController", "ReplicasController", "namespace_is_terminating", "plan", "status_of"]

ACTIONS_PER_PASS_MAX = 500  # One huge ReplicaSet must not starve the others in the queue.


@dataclass(frozen=True, slots=True)
class Plan:
    """What leads to the desired number of active Pods; at most one of the two is not empty."""

    create: int
    delete: tuple[core.Pod, ...]


def plan(replicas: int, active: Sequence[core.Pod], related_on_node: dict[str, int], now_seconds: float) -> Plan:
    """Return how many Pods to create or which to delete; nothing when converged."""
    missing = replicas - len(active)
    if missing >= 0:
        return Plan(min(missing, ACTIONS_PER_PASS_MAX), ())
    surplus = min(-missing, ACTIONS_PER_PASS_MAX)
    if surplus == len(active):
        return Plan(0, tuple(active))
    return Plan(0, tuple(pods.deletion_order(active, related_on_node, now_seconds)[:surplus]))


def status_of(
    owner: Any, active: Sequence[core.Pod], terminating: Sequence[core.Pod] | None, error: Exception | None, now: float
) -> Any:
    """Return the status that the Pods amount to; conditions change only when their meaning does."""
    status = serialization.copy(owner.status)
    template_labels = (owner.spec.template.metadata.labels if owner.spec.template else {}).items()
    status.replicas = len(active)
    status.fully_labeled_replicas = sum(template_labels <= pod.metadata.labels.items() for pod in active)
    status.ready_replicas = sum(pods.is_ready(pod) for pod in active)
    status.available_replicas = sum(pods.is_available(pod, owner.spec.min_ready_seconds, now) for pod in active)
    if terminating is not None:
        status.terminating_replicas = len(terminating)
    status.observed_generation = owner.metadata.generation
    failures = [each for each in status.conditions if each.type == "ReplicaFailure"]
    if error is not None and not failures:
        wanted = _replicas(owner)
        reason = "FailedCreate" if len(active) < wanted else "FailedDelete"
        condition_type = apps.ReplicaSetCondition if isinstance(owner, apps.ReplicaSet) else None
        make: Any = condition_type or core.ReplicationControllerCondition
        status.conditions.append(
            make(
                type="ReplicaFailure",
                status="True",
                reason=reason,
                message=str(error),
                last_transition_time=times.format_time(now),
            )
        )
    elif error is None and failures:
        status.conditions = [each for each in status.conditions if each.type != "ReplicaFailure"]
    return status


def namespace_is_terminating(error: apierrors.ApiError) -> bool:
    """Tell whether a creation failed because its namespace is going away: then nobody needs to hear of it."""
    causes = error.details.causes if error.details else []
    return any(cause.reason == "NamespaceTerminating" for cause in causes)


class ReplicasController:
    """The loop around the core, for one kind of owner."""

    workers = 5

    def __init__(
        self,
        wiring: Wiring,
        resource: Resource[Any],
        selector_of: Callable[[Any], selectors.LabelSelector],
        *,
        counts_terminating: bool,
    ) -> None:
        self._wiring = wiring
        self._resource = resource
        self._selector_of = selector_of
        self._counts_terminating = counts_terminating
        self._owners = wiring.reader(resource)
        self._pods = wiring.reader(core.Pod)
        self._owners.add_index(pods.OWNED, pods.index_owned)
        self._pods.add_index(pods.OWNED, pods.index_owned)
        self._owners.add_handler(self._owner_changed)
        self._pods.add_handler(self._pod_changed)

    def _owner_changed(self, old: Any, new: Any) -> None:
        self._wiring.enqueue(key_from(old if new is None else new))

    def _pod_changed(self, old: core.Pod | None, new: core.Pod | None) -> None:
        for pod in (old, new):
            if pod is None or controller_of(pod) is None:
                continue
            owner = owner_by_reference(self._owners, pod, self._resource.kind)
            if owner is not None:
                self._wiring.enqueue(key_from(owner))
        newest = new if new is not None else old
        assert newest is not None
        if controller_of(newest) is None and new is not None:
            for owner in owners_of_orphan(self._owners, new, lambda each: self._matches(each, new)):
                self._wiring.enqueue(key_from(owner))

    def _matches(self, owner: Any, pod: core.Pod) -> bool:
        try:
            selector = self._selector_of(owner)
        except selectors.SelectorError:
            return False
        return not selector.is_empty and selector.matches(pod.metadata.labels)

    def sync(self, key: NamespacedName) -> Steps[None]:
        owner = self._owners.get(*key)
        if owner is None:
            return
        try:
            selector = self._selector_of(owner)
        except selectors.SelectorError:
            return  # Validation lets none through; an object that has one anyway cannot be helped.
        candidates = pods.owned_and_orphans(self._pods, owner)
        active = yield from claimed(
            owner,
            [pod for pod in candidates if pods.is_active(pod)],
            lambda pod: selector.matches(pod.metadata.labels),
        )
        error: Exception | None = None
        if owner.metadata.deletion_timestamp is None:
            error = yield from self._manage(owner, active)
        now = self._wiring.now_seconds()
        terminating = None
        if self._counts_terminating:
            terminating = [
                pod
                for pod in candidates
                if pods.is_terminating(pod)
                and (controller_of(pod) is not None)
                and selector.matches(pod.metadata.labels)
            ]
        status = status_of(owner, active, terminating, error, now)
        if status != owner.status:
            updated = serialization.copy(owner)
            updated.status = status
            try:
                yield Update(updated, "status")
            except apierrors.NotFound:
                return
        if error is not None:
            raise Retry(str(error))
        min_ready = owner.spec.min_ready_seconds
        if min_ready > 0 and status.ready_replicas != status.available_replicas:
            wait = pods.next_availability_seconds(active, min_ready, now)
            yield Requeue(min_ready if wait is None else wait)

    def _manage(self, owner: Any, active: list[core.Pod]) -> Steps[Exception | None]:
        related: dict[str, int] = {}
        if len(active) > _replicas(owner):
            related = self._related_on_node(owner)
        wanted = plan(_replicas(owner), active, related, self._wiring.now_seconds())
        if wanted.create:
            template, kind = owner.spec.template, self._resource.gvk
            wanted_pods = [pods.from_template(template, owner, kind) for _ in range(wanted.create)]
            return (yield from create_pods(owner, wanted_pods))
        if wanted.delete:
            return (yield from delete_pods(owner, wanted.delete))
        return None

    def _related_on_node(self, owner: Any) -> dict[str, int]:
        """Count, by node, the active Pods of every owner with the same controller: siblings of one Deployment."""
        reference = controller_of(owner)
        siblings = [owner] if reference is None else self._owners.indexed(pods.OWNED, reference.uid)
        counts: dict[str, int] = {}
        for sibling in siblings:
            for pod in self._pods.indexed(pods.OWNED, sibling.metadata.uid):
                if pods.is_active(pod):
                    counts[pod.spec.node_name] = counts.get(pod.spec.node_name, 0) + 1
        return counts


def create_pods(owner: Any, wanted: Sequence[core.Pod]) -> Steps[Exception | None]:
    """Create Pods with a slow start and tell of each in an Event; return the first error, None if all went well."""
    results = yield Together([Create(pod) for pod in wanted])
    failure: Exception | None = None
    for result in results:
        if isinstance(result, apierrors.ApiError):
            if namespace_is_terminating(result):
                continue
            failure = failure or result
            yield Emit(owner, "Warning", "FailedCreate", f"Error creating: {result}")
        else:
            yield Emit(owner, "Normal", "SuccessfulCreate", f"Created pod: {result.metadata.name}")
    return failure


def delete_pods(owner: Any, doomed: Sequence[core.Pod]) -> Steps[Exception | None]:
    """Delete Pods and tell of each in an Event; return the first error."""
    resource = resource_of(core.Pod)
    deletions: list[Action] = [
        Delete(resource, pod.metadata.namespace, pod.metadata.name, uid=pod.metadata.uid) for pod in doomed
    ]
    results = yield Together(deletions, first_batch=len(deletions))
    failure: Exception | None = None
    for pod, result in zip(doomed, results, strict=False):
        if isinstance(result, apierrors.ApiError):
            failure = failure or result
            yield Emit(owner, "Warning", "FailedDelete", f"Error deleting: {result}")
        else:
            yield Emit(owner, "Normal", "SuccessfulDelete", f"Deleted pod: {pod.metadata.name}")
    return failure


def _replicas(owner: Any) -> int:
    return 1 if owner.spec.replicas is None else int(owner.spec.replicas)


class ReplicaSetController(ReplicasController):
    """The controller of apps/v1 ReplicaSets."""

    def __init__(self, wiring: Wiring) -> None:
        super().__init__(
            wiring,
            resource_of(apps.ReplicaSet),
            lambda owner: selectors.from_label_selector(owner.spec.selector),
            counts_terminating=True,
        )

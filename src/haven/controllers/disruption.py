"""Tell how many Pods of a PodDisruptionBudget may be evicted now.

Source: https://kubernetes.io/docs/concepts/workloads/pods/disruptions/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from haven.api.apps import v1 as apps
from haven.api.autoscaling import v1 as autoscaling
from haven.api.core import v1 as core
from haven.api.policy import v1 as policy
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, meta, selectors, serialization, times
from haven.apimachinery.goformat import quote
from haven.apimachinery.names import NamespacedName
from haven.client.interface import Patch, PatchType
from haven.client.owner import controller_of
from haven.controllers import pods
from haven.controllers.actions import Change, Emit, Reader, Request, Requeue, Steps, Update, Wiring, key_from
from haven.controllers.discovery import Discovered, discover
from haven.controllers.intorpercent import scaled
from haven.controllers.selectortext import go_selector

__all__ = ["DisruptionController", "status_of"]

DELETION_SECONDS_MAX = 120.0  # An eviction that was granted is given so long to show.
STALE_TARGET_SECONDS = 120.0  # A disruption that was announced and did not come is taken back after so long.


def status_of(
    budget: policy.PodDisruptionBudget,
    selected: Sequence[core.Pod],
    expected: int,
    desired: int,
    disrupted: Mapping[str, str],
    now_seconds: float,
) -> policy.PodDisruptionBudgetStatus:
    """Return the counts and the DisruptionAllowed condition."""
    present = [pod for pod in selected if pod.metadata.deletion_timestamp is None]
    healthy = sum(pods.is_ready(pod) for pod in present if pod.metadata.name not in disrupted)
    allowed = max(healthy - desired, 0) if expected > 0 else 0
    status = policy.PodDisruptionBudgetStatus(
        observed_generation=budget.metadata.generation,
        disrupted_pods=dict(disrupted),
        disruptions_allowed=allowed,
        current_healthy=healthy,
        desired_healthy=desired,
        expected_pods=expected,
        conditions=serialization.copy(budget.status).conditions,
    )
    reason = "SufficientPods" if allowed > 0 else "InsufficientPods"
    _set_condition(status, budget, "True" if allowed > 0 else "False", reason, "", now_seconds)
    return status


def _set_condition(
    status: policy.PodDisruptionBudgetStatus,
    budget: policy.PodDisruptionBudget,
    value: str,
    reason: str,
    message: str,
    now_seconds: float,
) -> None:
    old = next((each for each in status.conditions if each.type == "DisruptionAllowed"), None)
    since = times.format_time(now_seconds)
    if old is not None and old.status == value and old.last_transition_time:
        since = old.last_transition_time
    wanted = meta.Condition(
        type="DisruptionAllowed",
        status=value,
        observed_generation=budget.metadata.generation,
        last_transition_time=since,
        reason=reason,
        message=message,
    )
    if old is None:
        status.conditions = [*status.conditions, wanted]
    else:
        status.conditions = [wanted if each is old else each for each in status.conditions]


class DisruptionController:
    """Keys are budgets, ("target", place) for Pods whose announced disruption may not come, ("several", place) for Pods
    that more than one budget selects.
    """

    workers = 1

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._budgets = wiring.reader(policy.PodDisruptionBudget)
        self._pods = wiring.reader(core.Pod)
        self._owners: dict[str, Reader[Any]] = {
            "ReplicaSet": wiring.reader(apps.ReplicaSet),
            "Deployment": wiring.reader(apps.Deployment),
            "StatefulSet": wiring.reader(apps.StatefulSet),
            "ReplicationController": wiring.reader(core.ReplicationController),
        }
        self._found: Discovered | None = None
        self._budgets.add_handler(self._budget_changed)
        self._pods.add_handler(self._pod_changed)
        for reader in self._owners.values():
            reader.add_handler(self._owner_changed)

    def _budget_changed(self, old: policy.PodDisruptionBudget | None, new: policy.PodDisruptionBudget | None) -> None:
        if new is not None:
            self._wiring.enqueue(key_from(new))

    def _pod_changed(self, old: core.Pod | None, new: core.Pod | None) -> None:
        if new is not None and _stale_in(new, self._wiring.now_seconds()) is not None:
            self._wiring.enqueue(("target", key_from(new)))
        if old is not None and new is not None and _facts(old) == _facts(new):
            return
        for pod in (old, new):
            if pod is not None:
                budgets = self._budgets_of(pod)
                for budget in budgets:
                    self._wiring.enqueue(key_from(budget))
                if len(budgets) > 1 and pod is new:
                    self._wiring.enqueue(("several", key_from(pod)))

    def _budgets_of(self, pod: core.Pod) -> list[policy.PodDisruptionBudget]:
        found = [
            each for each in self._budgets.list(pod.metadata.namespace) if _selector(each).matches(pod.metadata.labels)
        ]
        return sorted(found, key=lambda each: each.metadata.name)

    def _owner_changed(self, old: object, new: object) -> None:
        obj = old if new is None else new
        before = getattr(getattr(old, "spec", None), "replicas", None)
        after = getattr(getattr(new, "spec", None), "replicas", None)
        if before != after:
            for budget in self._budgets.list(key_from(obj).namespace):
                self._wiring.enqueue(key_from(budget))

    def sync(self, key: NamespacedName | tuple[str, NamespacedName]) -> Steps[None]:
        if not isinstance(key, NamespacedName):
            yield from self._clear_stale_target(key[1]) if key[0] == "target" else self._warn_of_several(key[1])
            return
        budget = self._budgets.get(*key)
        if budget is None:
            return
        selector = _selector(budget)
        selected = [pod for pod in self._pods.list(key.namespace) if selector.matches(pod.metadata.labels)]
        if not selected:
            yield Emit(budget, "Normal", "NoPods", "No matching pods found")
        now = self._wiring.now_seconds()
        try:
            yield from self._update(budget, selected, now)
        except apierrors.Conflict:
            raise  # The budget changed: an eviction was granted, or somebody edited it.
        except (_CannotCount, apierrors.ApiError) as error:
            yield from self._fail(budget, str(error), now)

    def _warn_of_several(self, key: NamespacedName) -> Steps[None]:
        """Tell of a Pod with several budgets: all of them are kept up to date, but none of its evictions is granted."""
        pod = self._pods.get(*key)
        budgets = self._budgets_of(pod) if pod is not None else []
        if pod is not None and len(budgets) > 1:
            several = f'Pod "{key.namespace}"/"{key.name}" matches multiple PodDisruptionBudgets.'
            chosen = budgets[0].metadata.name
            yield Emit(pod, "Warning", "MultiplePodDisruptionBudgets", f'{several}  Chose "{chosen}" arbitrarily.')

    def _update(self, budget: policy.PodDisruptionBudget, selected: Sequence[core.Pod], now: float) -> Steps[None]:
        try:
            expected, desired, unmanaged = yield from self._expected(budget, selected)
        except (_CannotCount, ValueError, apierrors.ApiError) as error:
            message = f"Failed to calculate the number of expected pods: {error}"
            yield Emit(budget, "Warning", "CalculateExpectedPodCountFailed", message)
            raise _CannotCount(str(error)) from error
        if unmanaged:
            selector = go_selector(budget.spec.selector)
            message = (
                f"Pods selected by this PodDisruptionBudget (selector: {selector}) were found "
                "to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result "
                'in undefined behavior. To account for these pods please set ".spec.minAvailable" field of the PDB to '
                "an integer value."
            )
            yield Emit(budget, "Warning", "UnmanagedPods", message)
        disrupted, wait = yield from self._disrupted(budget, selected, now)
        status = status_of(budget, selected, expected, desired, disrupted, now)
        if status != budget.status:
            changed = serialization.copy(budget)
            changed.status = status
            yield Update(changed, "status")
        if wait is not None:
            yield Requeue(wait)

    def _fail(self, budget: policy.PodDisruptionBudget, message: str, now: float) -> Steps[None]:
        """Nothing may be evicted while we cannot count."""
        changed = serialization.copy(budget)
        changed.status.disruptions_allowed = 0
        _set_condition(changed.status, budget, "False", "SyncFailed", message, now)
        if changed.status != budget.status:
            yield Update(changed, "status")

    def _expected(
        self, budget: policy.PodDisruptionBudget, selected: Sequence[core.Pod]
    ) -> Steps[tuple[int, int, bool]]:
        """Return how many Pods there should be, how many must be healthy, and whether some have no controller."""
        spec = budget.spec
        if spec.max_unavailable is not None:
            expected, unmanaged = yield from self._scale(selected)
            return expected, max(expected - scaled(spec.max_unavailable, expected, round_up=True), 0), unmanaged
        if isinstance(spec.min_available, str):
            expected, unmanaged = yield from self._scale(selected)
            return expected, scaled(spec.min_available, expected, round_up=True), unmanaged
        if spec.min_available is None:
            return 0, 0, False
        return len(selected), spec.min_available, False

    def _scale(self, selected: Sequence[core.Pod]) -> Steps[tuple[int, bool]]:
        """Return the sum of what the controllers of these Pods ask for, and whether some Pods have none."""
        sizes: dict[str, int] = {}
        has_unmanaged = False
        for pod in selected:
            reference = controller_of(pod)
            if reference is None:
                has_unmanaged = True
                continue
            if reference.uid in sizes:
                continue
            found = self._size_of(pod.metadata.namespace, reference)
            if found is None and reference.kind not in self._owners:
                found = yield from self._scale_subresource(pod.metadata.namespace, reference)
            if found is None:
                raise _CannotCount(f"found no controllers for pod {quote(pod.metadata.name)}")
            sizes[found[0]] = found[1]
            sizes.setdefault(reference.uid, 0)  # Counted with its Deployment.
        return sum(sizes.values()), has_unmanaged

    def _scale_subresource(self, namespace: str, reference: meta.OwnerReference) -> Steps[tuple[str, int] | None]:
        """Ask any other kind of controller for its scale; custom resources may have one."""
        place = (reference.api_version, reference.kind)
        if self._found is None or place not in self._found.by_kind:
            self._found = yield from discover()
        resource = self._found.by_kind.get(place)
        if resource is None:
            raise _CannotCount(f"no matches for kind {quote(place[1])} in version {quote(place[0])}")
        if not any(each.name == "scale" for each in resource.subresources):
            raise _CannotCount(f"{resource.group_resource} does not implement the scale subresource")
        try:
            body = yield Request("GET", resource.path(namespace, reference.name, "scale"))
        except apierrors.NotFound:
            return None
        scale = serialization.decode(body, autoscaling.Scale)
        return (scale.metadata.uid, scale.spec.replicas) if scale.metadata.uid == reference.uid else None

    def _size_of(self, namespace: str, reference: meta.OwnerReference) -> tuple[str, int] | None:
        reader = self._owners.get(reference.kind)
        owner = reader.get(namespace, reference.name) if reader is not None else None
        if owner is None or owner.metadata.uid != reference.uid:
            return None
        parent = controller_of(owner)
        if reference.kind == "ReplicaSet" and parent is not None and parent.kind == "Deployment":
            above = self._size_of(namespace, parent)
            if above is not None:
                return above
        replicas = owner.spec.replicas
        return owner.metadata.uid, 1 if replicas is None else replicas

    def _disrupted(
        self, budget: policy.PodDisruptionBudget, selected: Sequence[core.Pod], now: float
    ) -> Steps[tuple[dict[str, str], float | None]]:
        """Return the granted evictions that have not shown yet, and when the first of them lapses."""
        result: dict[str, str] = {}
        waits: list[float] = []
        for pod in selected:
            granted = budget.status.disrupted_pods.get(pod.metadata.name)
            if granted is None or pod.metadata.deletion_timestamp is not None:
                continue
            left = pods.seconds_of(granted) + DELETION_SECONDS_MAX - now
            if left <= 0:
                place = f"{budget.metadata.namespace}/{budget.metadata.name}"
                message = f"Pod was expected by PDB {place} to be deleted but it wasn't"
                yield Emit(pod, "Warning", "NotDeleted", message)
            else:
                result[pod.metadata.name] = granted
                waits.append(left)
        return result, min(waits) if waits else None

    def _clear_stale_target(self, key: NamespacedName) -> Steps[None]:
        pod = self._pods.get(*key)
        left = _stale_in(pod, self._wiring.now_seconds()) if pod is not None else None
        if pod is None or left is None:
            return
        if left > 0:
            yield Requeue(left)
            return
        condition = {
            "type": "DisruptionTarget",
            "status": "False",
            "lastTransitionTime": times.format_time(self._wiring.now_seconds()),
        }
        body = {"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}}
        try:
            yield Change(resource_of(core.Pod), *key, Patch(PatchType.STRATEGIC, body), "status")
        except apierrors.NotFound:
            return


class _CannotCount(Exception):
    """Nobody knows how many Pods there should be; says why, for the budget's condition."""


def _selector(budget: policy.PodDisruptionBudget) -> selectors.LabelSelector:
    try:
        return selectors.from_label_selector(budget.spec.selector)
    except selectors.SelectorError:
        return selectors.NOTHING


def _facts(pod: core.Pod) -> tuple[object, ...]:
    return (pod.metadata.labels, pod.metadata.deletion_timestamp, pod.status.phase, pods.is_ready(pod))


def _stale_in(pod: core.Pod, now_seconds: float) -> float | None:
    """Return when the Pod's announced disruption lapses; None if there is none or it came."""
    target = pods.condition(pod, "DisruptionTarget")
    if target is None or target.status != "True" or pod.metadata.deletion_timestamp is not None:
        return None
    if pods.is_finished(pod) or target.reason == "TerminationByKubelet":
        return None  # The kubelet may take its time.
    return pods.seconds_of(target.last_transition_time) + STALE_TARGET_SECONDS - now_seconds

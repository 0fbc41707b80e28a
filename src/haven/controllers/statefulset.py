"""Run Pods that have names, storage and an order: StatefulSets.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from haven.api.apps import v1 as apps
from haven.api.core import v1 as core
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, selectors, serialization
from haven.apimachinery.names import NamespacedName
from haven.client.owner import controller_of
from haven.controllers import pods, revisions, statefulclaims
from haven.controllers.actions import Create, Delete, Emit, Requeue, Retry, Steps, Update, Wiring, key_from
from haven.controllers.claiming import claimed, owner_by_reference, owners_of_orphan

__all__ = ["StatefulSetController", "new_pod", "ordinal_of", "status_of"]

REVISION = "controller-revision-hash"
POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"
_NAME = re.compile(r"(.*)-([0-9]+)", re.DOTALL)


def parent_and_ordinal(name: str) -> tuple[str, int]:
    """Return the set's name and the ordinal in a Pod's name; ordinal -1 if it is no such name."""
    match = _NAME.fullmatch(name)
    return (match.group(1), int(match.group(2))) if match else ("", -1)


def ordinal_of(pod: core.Pod) -> int:
    """Return the Pod's ordinal, -1 if it has none."""
    return parent_and_ordinal(pod.metadata.name)[1]


def ordinals(owner: apps.StatefulSet) -> range:
    """Return the ordinals that the set should have."""
    start = owner.spec.ordinals.start if owner.spec.ordinals else 0
    return range(start, start + _replicas(owner))


def _replicas(owner: apps.StatefulSet) -> int:
    return 1 if owner.spec.replicas is None else owner.spec.replicas


def _is_rolling(owner: apps.StatefulSet) -> bool:
    return owner.spec.update_strategy.type != "OnDelete"


def _partition(owner: apps.StatefulSet) -> int:
    rolling = owner.spec.update_strategy.rolling_update
    return (rolling.partition or 0) if rolling is not None else 0


def revision_of(pod: core.Pod) -> str:
    """Return the name of the revision that the Pod was made from."""
    return pod.metadata.labels.get(REVISION, "")


def is_created(pod: core.Pod) -> bool:
    """Tell whether the Pod exists: those that we are about to make have no phase."""
    return pod.status.phase != ""


def _is_running_and_ready(pod: core.Pod) -> bool:
    return pod.status.phase == "Running" and pods.is_ready(pod)


def new_pod(
    owner: apps.StatefulSet, current: apps.ControllerRevision, update: apps.ControllerRevision, ordinal: int
) -> core.Pod:
    """Return the Pod for an ordinal, of the current revision below the partition, else of the update revision."""
    rolling = owner.spec.update_strategy.rolling_update
    start = ordinals(owner).start
    if rolling is None:
        is_old = owner.spec.update_strategy.type == "RollingUpdate" and ordinal < start + owner.status.current_replicas
    else:
        is_old = ordinal < start + (rolling.partition or 0)
    revision = current if is_old else update
    pod = pods.from_template(revisions.template_of(revision), owner, resource_of(apps.StatefulSet).gvk)
    pod.metadata.name = f"{owner.metadata.name}-{ordinal}"
    pod.metadata.generate_name = f"{owner.metadata.name}-"
    _set_identity(pod, ordinal)
    pod.spec.hostname = pod.metadata.name
    pod.spec.subdomain = owner.spec.service_name
    pod.spec.volumes = statefulclaims.with_storage(owner, pod.spec.volumes, ordinal)
    pod.metadata.labels[REVISION] = revision.metadata.name
    return pod


def _set_identity(pod: core.Pod, ordinal: int) -> None:
    pod.metadata.labels[POD_NAME] = pod.metadata.name
    pod.metadata.labels[POD_INDEX] = str(ordinal)


def _has_identity(owner: apps.StatefulSet, pod: core.Pod) -> bool:
    parent, ordinal = parent_and_ordinal(pod.metadata.name)
    return ordinal >= 0 and parent == owner.metadata.name and pod.metadata.labels.get(POD_NAME) == pod.metadata.name


def _has_storage(owner: apps.StatefulSet, pod: core.Pod) -> bool:
    claims = {volume.name: volume.persistent_volume_claim for volume in pod.spec.volumes}
    ordinal = ordinal_of(pod)
    for template in owner.spec.volume_claim_templates:
        found = claims.get(template.metadata.name)
        if found is None or found.claim_name != statefulclaims.claim_name(owner, template.metadata.name, ordinal):
            return False
    return True


def status_of(
    owner: apps.StatefulSet,
    every: Sequence[core.Pod],
    current: str,
    update: str,
    collision_count: int,
    now_seconds: float,
) -> apps.StatefulSetStatus:
    """Return what these Pods amount to."""
    living = [pod for pod in every if is_created(pod) and pod.metadata.deletion_timestamp is None]
    ready = [pod for pod in every if _is_running_and_ready(pod)]
    min_ready = owner.spec.min_ready_seconds
    return apps.StatefulSetStatus(
        observed_generation=owner.metadata.generation,
        replicas=sum(is_created(pod) for pod in every),
        ready_replicas=len(ready),
        available_replicas=sum(pods.is_available(pod, min_ready, now_seconds) for pod in ready),
        current_replicas=sum(revision_of(pod) == current for pod in living),
        updated_replicas=sum(revision_of(pod) == update for pod in living),
        current_revision=current,
        update_revision=update,
        collision_count=collision_count,
        conditions=owner.status.conditions,
    )


def complete_rollout(owner: apps.StatefulSet, status: apps.StatefulSetStatus) -> None:
    """Make the update revision the current one when every Pod has it."""
    counts = {status.updated_replicas, status.ready_replicas, status.replicas}
    if owner.spec.update_strategy.type == "RollingUpdate" and counts == {_replicas(owner)}:
        status.current_replicas = status.updated_replicas
        status.current_revision = status.update_revision


@dataclass(slots=True)
class _Pass:
    """What one pass works on."""

    owner: apps.StatefulSet
    current: apps.ControllerRevision
    update: apps.ControllerRevision
    replicas: list[core.Pod]
    condemned: list[core.Pod]
    now: float

    @property
    def is_ordered(self) -> bool:
        return self.owner.spec.pod_management_policy != "Parallel"

    def is_available(self, pod: core.Pod) -> bool:
        return pods.is_available(pod, self.owner.spec.min_ready_seconds, self.now)

    def first_unavailable(self) -> core.Pod | None:
        for pod in (*self.replicas, *reversed(self.condemned)):
            if not self.is_available(pod) or pod.metadata.deletion_timestamp is not None:
                return pod
        return None


class StatefulSetController:
    """The controller of apps/v1 StatefulSets."""

    workers = 5

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._sets = wiring.reader(apps.StatefulSet)
        self._pods = wiring.reader(core.Pod)
        self._revisions = wiring.reader(apps.ControllerRevision)
        self._claims = wiring.reader(core.PersistentVolumeClaim)
        self._pods.add_index(pods.OWNED, pods.index_owned)
        self._revisions.add_index(pods.OWNED, pods.index_owned)
        self._sets.add_handler(self._set_changed)
        self._pods.add_handler(self._pod_changed)

    def _set_changed(self, old: apps.StatefulSet | None, new: apps.StatefulSet | None) -> None:
        self._wiring.enqueue(key_from(old if new is None else new))

    def _pod_changed(self, old: core.Pod | None, new: core.Pod | None) -> None:
        for pod in (old, new):
            if pod is not None and (owner := owner_by_reference(self._sets, pod, "StatefulSet")) is not None:
                self._wiring.enqueue(key_from(owner))
        if new is not None and controller_of(new) is None:
            for owner in owners_of_orphan(self._sets, new, lambda each: _selects(each, new)):
                self._wiring.enqueue(key_from(owner))

    def sync(self, key: NamespacedName) -> Steps[None]:
        owner = self._sets.get(*key)
        if owner is None:
            return
        selector = selectors.from_label_selector(owner.spec.selector)
        owned_revisions = yield from claimed(
            owner,
            pods.owned_and_orphans(self._revisions, owner),
            lambda each: selector.matches(each.metadata.labels),
        )
        owned = yield from claimed(
            owner,
            pods.owned_and_orphans(self._pods, owner),
            lambda pod: (
                selector.matches(pod.metadata.labels)
                and parent_and_ordinal(pod.metadata.name)[0] == owner.metadata.name
            ),
        )
        history = revisions.by_revision(owned_revisions)
        current, update, collisions = yield from self._revisions_of(owner, history)
        work = self._pass(owner, owned, current, update)
        names = (current.metadata.name, update.metadata.name)
        failure: apierrors.ApiError | Retry | None = None
        deleted_old = 0
        if owner.metadata.deletion_timestamp is None:
            try:
                deleted_old = yield from self._reconcile(work)
            except (apierrors.ApiError, Retry) as error:
                failure = error  # The status must tell how far we came all the same.
        status = status_of(owner, owned, *names, collisions, work.now)
        status.current_replicas -= deleted_old
        complete_rollout(owner, status)
        if status != owner.status:
            changed = serialization.copy(owner)
            changed.status = status
            yield Update(changed, "status")
        if failure is not None:
            raise failure
        live = {*names, *(revision_of(pod) for pod in owned)}
        yield from revisions.trim([*history], live, owner.spec.revision_history_limit)
        min_ready = owner.spec.min_ready_seconds
        if min_ready > 0 and status.ready_replicas != status.available_replicas:
            wait = pods.next_availability_seconds(owned, min_ready, work.now)
            yield Requeue(min_ready if wait is None else wait)

    def _pass(
        self,
        owner: apps.StatefulSet,
        owned: Sequence[core.Pod],
        current: apps.ControllerRevision,
        update: apps.ControllerRevision,
    ) -> _Pass:
        wanted = ordinals(owner)
        by_ordinal = {ordinal_of(pod): pod for pod in owned}
        replicas = [by_ordinal.get(each) or new_pod(owner, current, update, each) for each in wanted]
        condemned = [by_ordinal[each] for each in sorted(by_ordinal, reverse=True) if each >= 0 and each not in wanted]
        return _Pass(owner, current, update, replicas, condemned, self._wiring.now_seconds())

    def _revisions_of(
        self, owner: apps.StatefulSet, history: list[apps.ControllerRevision]
    ) -> Steps[tuple[apps.ControllerRevision, apps.ControllerRevision, int]]:
        collisions = owner.status.collision_count or 0
        wanted = revisions.new_revision(owner, revisions.next_number(history), collisions)
        equal = revisions.equal_revisions(history, wanted)
        if equal:
            update = equal[-1]
            if update is not history[-1]:
                # The template went back to an earlier one: that becomes the newest.
                update = yield from revisions.with_number(update, wanted.revision)
        else:
            update, collisions = yield from revisions.create_revision(owner, wanted.revision, collisions)
        current = next((each for each in history if each.metadata.name == owner.status.current_revision), update)
        return current, update, collisions

    # The Pods

    def _reconcile(self, work: _Pass) -> Steps[int]:
        """Do what may be done now; return how many Pods of an old revision were deleted for the update."""
        for pod in work.replicas:
            if (yield from self._process_replica(work, pod)) and work.is_ordered:
                return 0
        for pod in work.condemned:
            yield from self._apply_retention(work.owner, pod)
        first_unavailable = work.first_unavailable()
        for pod in work.condemned:
            if (yield from self._process_condemned(work, pod, first_unavailable)) and work.is_ordered:
                return 0
        if not _is_rolling(work.owner):
            return 0
        return (yield from self._roll(work))

    def _process_replica(self, work: _Pass, pod: core.Pod) -> Steps[bool]:
        """Create, replace or repair one Pod; return whether those after it must wait."""
        owner = work.owner
        if pods.is_finished(pod):
            if pod.metadata.deletion_timestamp is None:
                yield from self._delete(owner, pod)
            return True
        if not is_created(pod):
            if self._has_stale_claim(owner, pod):
                raise Retry(f"claims of {pod.metadata.name} belong to an earlier Pod and are about to be deleted")
            yield from self._create(owner, pod)
            return True
        if pod.status.phase == "Pending":
            yield from self._create_claims(owner, pod)
            yield from self._apply_retention(owner, pod)
        if work.is_ordered and (
            pod.metadata.deletion_timestamp is not None or not _is_running_and_ready(pod) or not work.is_available(pod)
        ):
            return True
        if not _has_identity(owner, pod) or not _has_storage(owner, pod):
            yield from self._repair(owner, pod)
        yield from self._apply_retention(owner, pod)
        return False

    def _process_condemned(self, work: _Pass, pod: core.Pod, first_unavailable: core.Pod | None) -> Steps[bool]:
        if pod.metadata.deletion_timestamp is not None:
            return True
        is_healthy = _is_running_and_ready(pod) and work.is_available(pod)
        if work.is_ordered and not is_healthy and pod is not first_unavailable:
            return True  # Another Pod is worse off: nothing goes before it is well or gone.
        yield from self._delete(work.owner, pod)
        return True

    def _roll(self, work: _Pass) -> Steps[int]:
        """Replace the Pod of the highest ordinal that is of an old revision, one at a time."""
        update = work.update.metadata.name
        for index in range(len(work.replicas) - 1, _partition(work.owner) - 1, -1):
            pod = work.replicas[index]
            terminating = pod.metadata.deletion_timestamp is not None
            if revision_of(pod) != update and not terminating:
                yield from self._delete(work.owner, pod)
                return int(revision_of(pod) == work.current.metadata.name)
            if terminating or not work.is_available(pod):
                return 0
        return 0

    def _create(self, owner: apps.StatefulSet, pod: core.Pod) -> Steps[None]:
        try:
            yield from self._create_claims(owner, pod)
            created = yield Create(pod)
            yield from self._apply_retention(owner, created)
        except apierrors.AlreadyExists:
            raise
        except apierrors.ApiError as error:
            yield _pod_event(owner, pod, "create", error)
            raise
        yield _pod_event(owner, pod, "create", None)

    def _repair(self, owner: apps.StatefulSet, pod: core.Pod) -> Steps[None]:
        changed = serialization.copy(pod)
        ordinal = ordinal_of(pod)
        _set_identity(changed, ordinal)
        if not _has_storage(owner, pod):
            changed.spec.volumes = statefulclaims.with_storage(owner, changed.spec.volumes, ordinal)
            yield from self._create_claims(owner, pod)
        try:
            yield Update(changed)
        except apierrors.Conflict:
            raise
        except apierrors.ApiError as error:
            yield _pod_event(owner, pod, "update", error)
            raise
        yield _pod_event(owner, pod, "update", None)

    def _delete(self, owner: apps.StatefulSet, pod: core.Pod) -> Steps[None]:
        try:
            yield Delete(resource_of(core.Pod), pod.metadata.namespace, pod.metadata.name, uid=pod.metadata.uid)
        except apierrors.ApiError as error:
            yield _pod_event(owner, pod, "delete", error)
            raise
        yield _pod_event(owner, pod, "delete", None)

    # The claims

    def _create_claims(self, owner: apps.StatefulSet, pod: core.Pod) -> Steps[None]:
        problems: list[str] = []
        for claim in statefulclaims.claims_of(owner, ordinal_of(pod)).values():
            name = claim.metadata.name
            found = self._claims.get(claim.metadata.namespace, name)
            if found is not None:
                if found.metadata.deletion_timestamp is not None:
                    problems.append(f"pvc {name} is being deleted")
                continue
            text = f"Pod {pod.metadata.name} in StatefulSet {owner.metadata.name}"
            try:
                yield Create(claim)
            except apierrors.AlreadyExists:
                continue
            except apierrors.ApiError as error:
                message = f"Create Claim {name} for {text} failed error: {error}"
                yield Emit(owner, "Warning", "FailedCreate", message)
                problems.append(f"failed to create PVC {name}: {error}")
            else:
                yield Emit(owner, "Normal", "SuccessfulCreate", f"Create Claim {name} {text} success")
        if problems:
            raise Retry("; ".join(problems))

    def _has_stale_claim(self, owner: apps.StatefulSet, pod: core.Pod) -> bool:
        policy = owner.spec.persistent_volume_claim_retention_policy
        if policy is None or policy.when_scaled != "Delete":
            return False
        for claim in statefulclaims.claims_of(owner, ordinal_of(pod)).values():
            found = self._claims.get(claim.metadata.namespace, claim.metadata.name)
            if found is not None and statefulclaims.has_stale_reference(found, pod):
                return True
        return False

    def _apply_retention(self, owner: apps.StatefulSet, pod: core.Pod) -> Steps[None]:
        in_range = ordinal_of(pod) in ordinals(owner)
        for claim in statefulclaims.claims_of(owner, ordinal_of(pod)).values():
            found = self._claims.get(claim.metadata.namespace, claim.metadata.name)
            if found is None or statefulclaims.is_owner_current(found, owner, pod, in_range=in_range):
                continue
            if statefulclaims.has_conflicting_controller(found, owner, pod):
                message = (
                    f"PersistentVolumeClaim {found.metadata.name} has a conflicting OwnerReference that acts as a "
                    "managing controller, the retention policy is ignored for this claim"
                )
                yield Emit(owner, "Warning", "ConflictingController", message)
            changed = serialization.copy(found)
            changed.metadata.owner_references = statefulclaims.owners_under_policy(found, owner, pod, in_range=in_range)
            yield Update(changed)


def _selects(owner: apps.StatefulSet, pod: core.Pod) -> bool:
    try:
        selector = selectors.from_label_selector(owner.spec.selector)
    except selectors.SelectorError:
        return False
    return not selector.is_empty and selector.matches(pod.metadata.labels)


def _pod_event(owner: apps.StatefulSet, pod: core.Pod, verb: str, error: Exception | None) -> Emit:
    word, subject = verb.title(), f"Pod {pod.metadata.name} in StatefulSet {owner.metadata.name}"
    if error is None:
        return Emit(owner, "Normal", f"Successful{word}", f"{word} {subject} successful")
    return Emit(owner, "Warning", f"Failed{word}", f"{word} {subject} failed error: {error}")

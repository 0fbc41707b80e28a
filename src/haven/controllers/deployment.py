"""Roll a Deployment out: ReplicaSets per template, scaled against each other, with history and rollback.

The numbers come from deploymentrollout; this file orders the steps.
Source: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from haven.api.apps import v1 as apps
from haven.api.core import v1 as core
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, meta, selectors, serialization
from haven.apimachinery.names import NamespacedName
from haven.client.owner import controller_of, controller_reference, is_controlled_by
from haven.controllers import deploymentrollout as rollout
from haven.controllers import pods
from haven.controllers.actions import Create, Delete, Emit, Fetch, Requeue, Steps, Update, Wiring, key_from
from haven.controllers.claiming import claimed, owner_by_reference, owners_of_orphan
from haven.controllers.podtemplates import HASH_LABEL, equal_ignoring_hash, template_hash
from haven.controllers.replicaset import namespace_is_terminating

__all__ = ["DeploymentController"]

NAME_CHARACTERS_MAX = 253


@dataclass(slots=True)
class _Rollout:
    """What one pass works on. `deployment` is our own copy and follows what the server answers."""

    deployment: apps.Deployment
    sets: list[apps.ReplicaSet]
    new: apps.ReplicaSet | None = None
    old: Sequence[apps.ReplicaSet] = ()

    @property
    def all(self) -> list[apps.ReplicaSet]:
        return [*self.old, self.new] if self.new is not None else list(self.old)

    def replace(self, changed: apps.ReplicaSet) -> None:
        """Take over what the server made of a set."""

        def newest(each: apps.ReplicaSet) -> apps.ReplicaSet:
            return changed if each.metadata.uid == changed.metadata.uid else each

        self.sets = [newest(each) for each in self.sets]
        self.old = [newest(each) for each in self.old]
        self.new = newest(self.new) if self.new is not None else None


class DeploymentController:
    """The controller of apps/v1 Deployments."""

    workers = 5

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._deployments = wiring.reader(apps.Deployment)
        self._sets = wiring.reader(apps.ReplicaSet)
        self._pods = wiring.reader(core.Pod)
        self._sets.add_index(pods.OWNED, pods.index_owned)
        self._pods.add_index(pods.OWNED, pods.index_owned)
        self._deployments.add_handler(self._deployment_changed)
        self._sets.add_handler(self._set_changed)
        self._pods.add_handler(self._pod_changed)

    # What wakes it

    def _deployment_changed(self, old: apps.Deployment | None, new: apps.Deployment | None) -> None:
        self._wiring.enqueue(key_from(old if new is None else new))

    def _set_changed(self, old: apps.ReplicaSet | None, new: apps.ReplicaSet | None) -> None:
        for each in (old, new):
            if each is not None and (owner := owner_by_reference(self._deployments, each, "Deployment")) is not None:
                self._wiring.enqueue(key_from(owner))
        if new is not None and controller_of(new) is None:
            for owner in owners_of_orphan(self._deployments, new, lambda each: _matches(each, new)):
                self._wiring.enqueue(key_from(owner))

    def _pod_changed(self, old: core.Pod | None, new: core.Pod | None) -> None:
        """Only Recreate waits for Pods themselves: for the last old one to go."""
        if old is None or (new is not None and pods.is_finished(new) == pods.is_finished(old)):
            return
        owner_set = owner_by_reference(self._sets, old, "ReplicaSet")
        owner = owner_by_reference(self._deployments, owner_set, "Deployment") if owner_set is not None else None
        if owner is not None and owner.spec.strategy.type == "Recreate":
            self._wiring.enqueue(key_from(owner))

    # One pass

    def sync(self, key: NamespacedName) -> Steps[None]:
        cached = self._deployments.get(*key)
        if cached is None:
            return
        deployment = serialization.copy(cached)
        if deployment.spec.selector == meta.LabelSelector():
            message = "This deployment is selecting all pods. A non-empty selector is required."
            yield Emit(deployment, "Warning", "SelectingAll", message)
            if deployment.status.observed_generation < deployment.metadata.generation:
                deployment.status.observed_generation = deployment.metadata.generation
                yield Update(deployment, "status")
            return
        selector = selectors.from_label_selector(deployment.spec.selector)
        sets = yield from claimed(
            deployment,
            pods.owned_and_orphans(self._sets, deployment),
            lambda each: selector.matches(each.metadata.labels),
        )
        work = _Rollout(deployment, sets)
        if deployment.metadata.deletion_timestamp is not None:
            yield from self._sync_revision(work, create=False)
            yield from self._write_status(work, rollout.status_of(deployment, work.all, work.new, self._now))
            return
        yield from self._check_paused(work)
        if deployment.spec.paused:
            yield from self._scale_only(work)
        elif _rollback_revision(deployment) is not None:
            yield from self._roll_back(work)
        else:
            yield from self._sync_revision(work, create=False)
            if _is_scaling(work):
                yield from self._scale_only(work)
            elif deployment.spec.strategy.type == "Recreate":
                yield from self._recreate(work)
            else:
                yield from self._roll(work)

    @property
    def _now(self) -> float:
        return self._wiring.now_seconds()

    def _check_paused(self, work: _Rollout) -> Steps[None]:
        deployment = work.deployment
        if not rollout.has_progress_deadline(deployment):
            return
        current = rollout.condition_of(deployment.status, "Progressing")
        if current is not None and current.reason == "ProgressDeadlineExceeded":
            return
        is_noted = current is not None and current.reason == "DeploymentPaused"
        if deployment.spec.paused and not is_noted:
            reason, message = "DeploymentPaused", "Deployment is paused"
        elif not deployment.spec.paused and is_noted:
            reason, message = "DeploymentResumed", "Deployment is resumed"
        else:
            return
        rollout.set_condition(deployment.status, "Progressing", "Unknown", reason, message, self._now)
        yield from self._put_status(work)

    def _put_status(self, work: _Rollout) -> Steps[None]:
        work.deployment = serialization.copy((yield Update(work.deployment, "status")))

    def _write_status(self, work: _Rollout, status: apps.DeploymentStatus) -> Steps[bool]:
        if status == work.deployment.status:
            return False
        work.deployment.status = status
        yield from self._put_status(work)
        return True

    # Which set is new

    def _sync_revision(self, work: _Rollout, *, create: bool) -> Steps[None]:
        deployment = work.deployment
        new = rollout.find_new(deployment, work.sets)
        work.old = [each for each in work.sets if new is None or each.metadata.uid != new.metadata.uid]
        revision = rollout.max_revision(work.old) + 1
        if new is not None:
            yield from self._adopt_new(work, serialization.copy(new), revision)
        elif create:
            yield from self._create_new(work, revision)
        else:
            work.new = None

    def _adopt_new(self, work: _Rollout, new: apps.ReplicaSet, revision: int) -> Steps[None]:
        deployment = work.deployment
        work.new = new
        changed = rollout.set_new_annotations(deployment, new, revision, exists=True)
        if changed or new.spec.min_ready_seconds != deployment.spec.min_ready_seconds:
            new.spec.min_ready_seconds = deployment.spec.min_ready_seconds
            work.replace((yield Update(new)))
            return
        needs_update = _set_revision(deployment, new.metadata.annotations.get(rollout.REVISION, ""))
        no_progress = rollout.condition_of(deployment.status, "Progressing") is None
        if rollout.has_progress_deadline(deployment) and no_progress:
            message = f'Found new replica set "{new.metadata.name}"'
            rollout.set_condition(deployment.status, "Progressing", "True", "FoundNewReplicaSet", message, self._now)
            needs_update = True
        if needs_update:
            yield from self._put_status(work)

    def _create_new(self, work: _Rollout, revision: int) -> Steps[None]:
        deployment = work.deployment
        wanted = _new_set(deployment, work.old, revision)
        existed = False
        try:
            created: apps.ReplicaSet = yield Create(wanted)
        except apierrors.AlreadyExists:
            found = yield Fetch(resource_of(apps.ReplicaSet), wanted.metadata.namespace, wanted.metadata.name)
            if (
                found is None
                or not is_controlled_by(found, deployment.metadata.uid)
                or not equal_ignoring_hash(found.spec.template, deployment.spec.template)
            ):
                # Another template has the same hash: count it in, and the next try has another name.
                deployment.status.collision_count = (deployment.status.collision_count or 0) + 1
                yield from self._put_status(work)
                raise
            created, existed = found, True
        except apierrors.ApiError as error:
            if namespace_is_terminating(error):
                raise
            message = f'Failed to create new replica set "{wanted.metadata.name}": {error}'
            if rollout.has_progress_deadline(deployment):
                rollout.set_condition(
                    deployment.status, "Progressing", "False", "ReplicaSetCreateError", message, self._now
                )
                yield from self._put_status(work)
            yield Emit(deployment, "Warning", "ReplicaSetCreateError", message)
            raise
        count = rollout.replicas_of(wanted)
        if not existed and count > 0:
            message = f"Scaled up replica set {created.metadata.name} from 0 to {count}"
            yield Emit(deployment, "Normal", "ScalingReplicaSet", message)
        work.new = created
        work.sets = [*work.sets, created]
        needs_update = _set_revision(deployment, str(revision))
        if not existed and rollout.has_progress_deadline(deployment):
            message = f'Created new replica set "{created.metadata.name}"'
            rollout.set_condition(deployment.status, "Progressing", "True", "NewReplicaSetCreated", message, self._now)
            needs_update = True
        if needs_update:
            yield from self._put_status(work)

    # Sizes

    def _scale(self, work: _Rollout, target: apps.ReplicaSet, size: int, *, force: bool = False) -> Steps[bool]:
        """Give a set a size, and tell of it; return whether the size changed."""
        before = rollout.replicas_of(target)
        if before == size and not force:
            return False
        wanted = rollout.replicas_of(work.deployment)
        changed = serialization.copy(target)
        changed.spec.replicas = size
        noted = rollout.set_replicas_annotations(changed, wanted, wanted + rollout.max_surge(work.deployment))
        if before == size and not noted:
            return False
        work.replace((yield Update(changed)))
        if before == size:
            return False
        direction = "up" if before < size else "down"
        message = f"Scaled {direction} replica set {target.metadata.name} from {before} to {size}"
        yield Emit(work.deployment, "Normal", "ScalingReplicaSet", message)
        return True

    def _scale_only(self, work: _Rollout) -> Steps[None]:
        yield from self._sync_revision(work, create=False)
        scalings, force = rollout.proportional_scaling(work.deployment, work.new, work.old)
        for target, size in scalings:
            yield from self._scale(work, target, size, force=force)
        if work.deployment.spec.paused and _rollback_revision(work.deployment) is None:
            yield from self._clean_up(work)
        yield from self._write_status(work, rollout.status_of(work.deployment, work.all, work.new, self._now))

    def _roll(self, work: _Rollout) -> Steps[None]:
        if work.new is None:
            yield from self._sync_revision(work, create=True)
        assert work.new is not None
        wanted = rollout.replicas_of(work.deployment)
        if rollout.replicas_of(work.new) != wanted:
            size = wanted
            if rollout.replicas_of(work.new) < wanted:
                size = rollout.new_replicas(work.deployment, work.all, work.new)
            if (yield from self._scale(work, work.new, size)):
                yield from self._write_rollout_status(work)
                return
        if (yield from self._shrink_old(work)):
            yield from self._write_rollout_status(work)
            return
        if rollout.is_complete(work.deployment, work.deployment.status):
            yield from self._clean_up(work)
        yield from self._write_rollout_status(work)

    def _shrink_old(self, work: _Rollout) -> Steps[bool]:
        assert work.new is not None
        deployment = work.deployment
        old = rollout.active_sets(work.old)
        if not old:
            return False
        minimum = rollout.replicas_of(deployment) - rollout.max_unavailable(deployment)
        new_unavailable = rollout.replicas_of(work.new) - work.new.status.available_replicas
        count_max = sum(rollout.replicas_of(each) for each in work.all) - minimum - new_unavailable
        if count_max <= 0:
            return False
        shrunk = False
        for target, size in rollout.unhealthy_scale_down(old, count_max):
            shrunk |= yield from self._scale(work, target, size)
        for target, size in rollout.rolling_scale_down(deployment, work.all, rollout.active_sets(work.old)):
            shrunk |= yield from self._scale(work, target, size)
        return shrunk

    def _recreate(self, work: _Rollout) -> Steps[None]:
        scaled_down = False
        for each in rollout.active_sets(work.old):
            scaled_down |= yield from self._scale(work, each, 0)
        if scaled_down or self._old_pods_run(work):
            yield from self._write_rollout_status(work)
            return
        if work.new is None:
            yield from self._sync_revision(work, create=True)
        assert work.new is not None
        yield from self._scale(work, work.new, rollout.replicas_of(work.deployment))
        if rollout.is_complete(work.deployment, work.deployment.status):
            yield from self._clean_up(work)
        yield from self._write_rollout_status(work)

    def _old_pods_run(self, work: _Rollout) -> bool:
        if any(each.status.replicas > 0 for each in work.old):
            return True
        return any(
            not pods.is_finished(pod) for each in work.old for pod in self._pods.indexed(pods.OWNED, each.metadata.uid)
        )

    def _write_rollout_status(self, work: _Rollout) -> Steps[None]:
        status = rollout.rollout_status(work.deployment, work.all, work.new, self._now)
        if (yield from self._write_status(work, status)):
            return
        deployment = work.deployment
        current = rollout.condition_of(status, "Progressing")
        if not rollout.has_progress_deadline(deployment) or current is None:
            return
        if rollout.is_complete(deployment, status) or current.reason == "ProgressDeadlineExceeded":
            return
        deadline = pods.seconds_of(current.last_update_time) + (deployment.spec.progress_deadline_seconds or 0)
        yield Requeue(max(deadline - self._now, 0.0) + 1.0)

    def _clean_up(self, work: _Rollout) -> Steps[None]:
        """Delete the oldest empty sets beyond the history limit."""
        limit = work.deployment.spec.revision_history_limit
        if limit is None or limit == rollout.NO_DEADLINE:
            return
        alive = [each for each in work.old if each.metadata.deletion_timestamp is None]
        for each in rollout.by_revision(alive)[: max(len(alive) - limit, 0)]:
            is_current = each.metadata.generation <= each.status.observed_generation
            if each.status.replicas == 0 and rollout.replicas_of(each) == 0 and is_current:
                yield Delete(resource_of(apps.ReplicaSet), each.metadata.namespace, each.metadata.name)

    # Rollback by annotation, which kubectl of old and API clients still ask for

    def _roll_back(self, work: _Rollout) -> Steps[None]:
        yield from self._sync_revision(work, create=True)
        deployment = work.deployment
        revision = _rollback_revision(deployment)
        if revision == 0:
            revision = rollout.last_revision(work.all)
            if revision == 0:
                message = "Unable to find last revision."
                yield Emit(deployment, "Warning", "DeploymentRollbackRevisionNotFound", message)
                yield from self._clear_rollback(work)
                return
        target = next((each for each in work.all if rollout.revision_of(each) == revision), None)
        if target is None:
            message = "Unable to find the revision to rollback to."
            yield Emit(deployment, "Warning", "DeploymentRollbackRevisionNotFound", message)
            yield from self._clear_rollback(work)
            return
        if equal_ignoring_hash(deployment.spec.template, target.spec.template):
            name = deployment.metadata.name
            message = f'The rollback revision contains the same template as current deployment "{name}"'
            yield Emit(deployment, "Warning", "DeploymentRollbackTemplateUnchanged", message)
            yield from self._clear_rollback(work)
            return
        deployment.spec.template = serialization.copy(target.spec.template)
        deployment.spec.template.metadata.labels.pop(HASH_LABEL, None)
        kept = {k: v for k, v in deployment.metadata.annotations.items() if k in rollout.NOT_COPIED}
        taken = {k: v for k, v in target.metadata.annotations.items() if k not in rollout.NOT_COPIED}
        deployment.metadata.annotations = kept | taken
        yield from self._clear_rollback(work)
        message = f'Rolled back deployment "{deployment.metadata.name}" to revision {revision}'
        yield Emit(deployment, "Normal", "DeploymentRollback", message)

    def _clear_rollback(self, work: _Rollout) -> Steps[None]:
        work.deployment.metadata.annotations.pop(rollout.ROLLBACK_TO, None)
        yield Update(work.deployment)


def _matches(deployment: apps.Deployment, each: apps.ReplicaSet) -> bool:
    try:
        selector = selectors.from_label_selector(deployment.spec.selector)
    except selectors.SelectorError:
        return False
    return not selector.is_empty and selector.matches(each.metadata.labels)


def _set_revision(deployment: apps.Deployment, revision: str) -> bool:
    if deployment.metadata.annotations.get(rollout.REVISION) == revision:
        return False
    deployment.metadata.annotations[rollout.REVISION] = revision
    return True


def _rollback_revision(deployment: apps.Deployment) -> int | None:
    text = deployment.metadata.annotations.get(rollout.ROLLBACK_TO, "")
    try:
        return int(text) if text else None
    except ValueError:
        return None


def _is_scaling(work: _Rollout) -> bool:
    """Tell whether the desired number changed since the sets were sized."""
    for each in rollout.active_sets(work.all):
        desired = each.metadata.annotations.get(rollout.DESIRED_REPLICAS, "")
        if desired.isdecimal() and int(desired) != rollout.replicas_of(work.deployment):
            return True
    return False


def _new_set(deployment: apps.Deployment, old: Sequence[apps.ReplicaSet], revision: int) -> apps.ReplicaSet:
    template = serialization.copy(deployment.spec.template)
    hash = template_hash(template, deployment.status.collision_count)
    template.metadata.labels[HASH_LABEL] = hash
    assert deployment.spec.selector is not None
    selector = serialization.copy(deployment.spec.selector)
    selector.match_labels[HASH_LABEL] = hash
    prefix = f"{deployment.metadata.name}-"[: NAME_CHARACTERS_MAX - len(hash)]
    result = apps.ReplicaSet(
        metadata=meta.ObjectMeta(
            name=prefix + hash,
            namespace=deployment.metadata.namespace,
            labels=dict(template.metadata.labels),
            owner_references=[controller_reference(deployment, resource_of(apps.Deployment).gvk)],
        ),
        spec=apps.ReplicaSetSpec(
            replicas=0,
            min_ready_seconds=deployment.spec.min_ready_seconds,
            selector=selector,
            template=template,
        ),
    )
    result.spec.replicas = rollout.new_replicas(deployment, [*old, result], result)
    rollout.set_new_annotations(deployment, result, revision, exists=False)
    return result

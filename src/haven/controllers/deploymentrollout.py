"""The arithmetic of rollouts: how many Pods which ReplicaSet may have, and what a Deployment's status says of it.

Pure. Source: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from haven.api.apps import v1 as apps
from haven.apimachinery import serialization, times
from haven.controllers.intorpercent import scaled
from haven.controllers.pods import seconds_of
from haven.controllers.podtemplates import equal_ignoring_hash

__all__ = [
    "DESIRED_REPLICAS",
    "MAX_REPLICAS",
    "REVISION",
    "REVISION_HISTORY",
    "ROLLBACK_TO",
    "Scaling",
    "active_sets",
    "by_creation",
    "by_revision",
    "condition_of",
    "find_new",
    "has_progress_deadline",
    "is_complete",
    "last_revision",
    "max_revision",
    "max_surge",
    "max_unavailable",
    "new_replicas",
    "proportional_scaling",
    "remove_condition",
    "replicas_of",
    "revision_of",
    "rolling_scale_down",
    "rollout_status",
    "set_condition",
    "set_new_annotations",
    "set_replicas_annotations",
    "status_of",
    "unhealthy_scale_down",
]

REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED_REPLICAS = "deployment.kubernetes.io/desired-replicas"
MAX_REPLICAS = "deployment.kubernetes.io/max-replicas"
ROLLBACK_TO = "deprecated.deployment.rollback.to"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
NOT_COPIED = frozenset({LAST_APPLIED, REVISION, REVISION_HISTORY, DESIRED_REPLICAS, MAX_REPLICAS, ROLLBACK_TO})
REVISION_HISTORY_CHARACTERS_MAX = 2000
NO_DEADLINE = 2**31 - 1  # How upstream's v1beta1 wrote "never"; still honoured.

Scaling = tuple[apps.ReplicaSet, int]
"""A ReplicaSet and how many Pods it should have."""


# Numbers


def replicas_of(owner: apps.Deployment | apps.ReplicaSet) -> int:
    """Return how many Pods are asked for."""
    return 1 if owner.spec.replicas is None else owner.spec.replicas


def _sum(sets: Iterable[apps.ReplicaSet]) -> int:
    return sum(replicas_of(each) for each in sets)


def _is_rolling(deployment: apps.Deployment) -> bool:
    return deployment.spec.strategy.type == "RollingUpdate"


def _fenceposts(deployment: apps.Deployment) -> tuple[int, int]:
    rolling = deployment.spec.strategy.rolling_update or apps.RollingUpdateDeployment()
    surge = scaled(rolling.max_surge, replicas_of(deployment), round_up=True)
    unavailable = scaled(rolling.max_unavailable, replicas_of(deployment), round_up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1  # Rounding must not stop the rollout.
    return surge, unavailable


def max_surge(deployment: apps.Deployment) -> int:
    """Return how many Pods there may be beyond the desired number."""
    return _fenceposts(deployment)[0] if _is_rolling(deployment) else 0


def max_unavailable(deployment: apps.Deployment) -> int:
    """Return how many Pods may be missing."""
    if not _is_rolling(deployment) or replicas_of(deployment) == 0:
        return 0
    return min(_fenceposts(deployment)[1], replicas_of(deployment))


def has_progress_deadline(deployment: apps.Deployment) -> bool:
    """Tell whether the rollout may time out."""
    return deployment.spec.progress_deadline_seconds not in (None, NO_DEADLINE)


# Picking ReplicaSets


def by_creation(sets: Iterable[apps.ReplicaSet]) -> list[apps.ReplicaSet]:
    """Return the sets, oldest first."""
    return sorted(sets, key=lambda each: (each.metadata.creation_timestamp or "", each.metadata.name))


def active_sets(sets: Iterable[apps.ReplicaSet | None]) -> list[apps.ReplicaSet]:
    """Return the sets that should have Pods."""
    return [each for each in sets if each is not None and replicas_of(each) > 0]


def find_new(deployment: apps.Deployment, sets: Iterable[apps.ReplicaSet]) -> apps.ReplicaSet | None:
    """Return the oldest set with the Deployment's template."""
    for each in by_creation(sets):
        if equal_ignoring_hash(each.spec.template, deployment.spec.template):
            return each
    return None


def revision_of(obj: apps.Deployment | apps.ReplicaSet) -> int | None:
    """Return the revision that annotations tell: 0 without one, None if it is no number."""
    text = obj.metadata.annotations.get(REVISION)
    if text is None:
        return 0
    try:
        return int(text)
    except ValueError:
        return None


def max_revision(sets: Iterable[apps.ReplicaSet]) -> int:
    """Return the highest revision."""
    return max((revision_of(each) or 0 for each in sets), default=0)


def last_revision(sets: Iterable[apps.ReplicaSet]) -> int:
    """Return the second highest revision, 0 if there is none."""
    revisions = sorted((revision or 0 for each in sets if (revision := revision_of(each)) is not None), reverse=True)
    return revisions[1] if len(revisions) > 1 else 0


def by_revision(sets: Iterable[apps.ReplicaSet]) -> list[apps.ReplicaSet]:
    """Return the sets, lowest revision first."""
    return sorted(
        sets,
        key=lambda each: (revision_of(each) or 0, each.metadata.creation_timestamp or "", each.metadata.name),
    )


# Deciding sizes


def new_replicas(deployment: apps.Deployment, sets: Sequence[apps.ReplicaSet], new: apps.ReplicaSet) -> int:
    """Return how many Pods the new set may have now."""
    wanted = replicas_of(deployment)
    if not _is_rolling(deployment):
        return wanted
    rolling = deployment.spec.strategy.rolling_update or apps.RollingUpdateDeployment()
    total_max = wanted + scaled(rolling.max_surge, wanted, round_up=True)
    room = total_max - _sum(sets)
    if room <= 0:
        return replicas_of(new)
    return replicas_of(new) + min(room, wanted - replicas_of(new))


def unhealthy_scale_down(old: Sequence[apps.ReplicaSet], count_max: int) -> list[Scaling]:
    """Return the sets that should lose Pods which are not available anyway, at most `count_max` Pods in all."""
    result: list[Scaling] = []
    left = count_max
    for each in by_creation(old):
        unavailable = replicas_of(each) - each.status.available_replicas
        if left <= 0:
            break
        if replicas_of(each) == 0 or unavailable == 0:
            continue
        count = min(left, unavailable)
        if count > 0:
            result.append((each, replicas_of(each) - count))
            left -= count
    return result


def rolling_scale_down(
    deployment: apps.Deployment, sets: Sequence[apps.ReplicaSet], old: Sequence[apps.ReplicaSet]
) -> list[Scaling]:
    """Return the old sets that should shrink so that just enough Pods stay available."""
    minimum = replicas_of(deployment) - max_unavailable(deployment)
    # A set that was just shrunk may still report Pods that it is about to delete: they count no more.
    left = sum(min(each.status.available_replicas, replicas_of(each)) for each in sets) - minimum
    result: list[Scaling] = []
    for each in by_creation(old):
        if left <= 0:
            break
        count = min(replicas_of(each), left)
        if count > 0:
            result.append((each, replicas_of(each) - count))
            left -= count
    return result


def is_saturated(deployment: apps.Deployment, new: apps.ReplicaSet | None) -> bool:
    """Tell whether the new set has, and knows that it should have, all the Pods."""
    if new is None or new.metadata.annotations.get(DESIRED_REPLICAS) != str(replicas_of(deployment)):
        return False
    return replicas_of(new) == replicas_of(deployment) == new.status.available_replicas


def proportional_scaling(
    deployment: apps.Deployment, new: apps.ReplicaSet | None, old: Sequence[apps.ReplicaSet]
) -> tuple[list[Scaling], bool]:
    """Return sizes for a change of the desired number in the middle of a rollout, and whether to write them anyhow.

    One active set gets everything; a finished rollout drops the rest; otherwise all sets share in proportion to their
    sizes, leftovers going to the largest.
    """
    wanted = replicas_of(deployment)
    if (single := _active_or_latest(new, old)) is not None:
        return ([] if replicas_of(single) == wanted else [(single, wanted)]), False
    if is_saturated(deployment, new):
        return [(each, 0) for each in active_sets(old)], False
    if not _is_rolling(deployment):
        return [], False
    sets = active_sets([*old, new])
    to_add = (wanted + max_surge(deployment) if wanted > 0 else 0) - _sum(sets)
    newest_first = list(reversed(by_creation(sets)))
    if to_add > 0:
        sets = sorted(newest_first, key=lambda each: -replicas_of(each))
    elif to_add < 0:
        sets = sorted(by_creation(sets), key=lambda each: -replicas_of(each))
    added = 0
    sizes: dict[str, int] = {}
    for each in sets:
        share = _proportion(deployment, each, to_add, added) if to_add else 0
        sizes[each.metadata.name] = replicas_of(each) + share
        added += share
    if to_add and sets:
        first = sets[0].metadata.name
        sizes[first] = max(sizes[first] + to_add - added, 0)
    return [(each, sizes[each.metadata.name]) for each in sets], True


def _active_or_latest(new: apps.ReplicaSet | None, old: Sequence[apps.ReplicaSet]) -> apps.ReplicaSet | None:
    if new is None and not old:
        return None
    active = active_sets([*old, new])
    if not active:
        return new if new is not None else by_creation(old)[-1]
    return active[0] if len(active) == 1 else None


def _proportion(deployment: apps.Deployment, each: apps.ReplicaSet, to_add: int, added: int) -> int:
    if replicas_of(each) == 0 or to_add in (0, added):
        return 0
    fraction = _fraction(deployment, each)
    allowed = to_add - added
    return min(fraction, allowed) if to_add > 0 else max(fraction, allowed)


def _fraction(deployment: apps.Deployment, each: apps.ReplicaSet) -> int:
    wanted = replicas_of(deployment)
    if wanted == 0:
        return -replicas_of(each)
    text = each.metadata.annotations.get(MAX_REPLICAS, "")
    before = int(text) if text.isdecimal() else 0
    before = before or deployment.status.replicas
    if before == 0:
        return 0
    size = replicas_of(each) * (wanted + max_surge(deployment)) / before
    return math.floor(size + 0.5) - replicas_of(each)


# Annotations


def set_replicas_annotations(target: apps.ReplicaSet, desired: int, maximum: int) -> bool:
    """Note the desired numbers on a set; return whether anything changed."""
    wanted = {DESIRED_REPLICAS: str(desired), MAX_REPLICAS: str(maximum)}
    if wanted.items() <= target.metadata.annotations.items():
        return False
    target.metadata.annotations.update(wanted)
    return True


def set_new_annotations(deployment: apps.Deployment, target: apps.ReplicaSet, revision: int, *, exists: bool) -> bool:
    """Bring the annotations of the new set up to date; return whether anything changed."""
    annotations = target.metadata.annotations
    changed = False
    for name, value in deployment.metadata.annotations.items():
        if name not in NOT_COPIED and annotations.get(name) != value:
            annotations[name] = value
            changed = True
    old_text = annotations.get(REVISION, "")
    try:
        old = int(old_text) if old_text else 0
    except ValueError:
        return False
    if old < revision:
        annotations[REVISION] = str(revision)
        changed = True
        if old_text:
            _note_history(annotations, old_text)
    if not exists:
        wanted = replicas_of(deployment)
        changed |= set_replicas_annotations(target, wanted, wanted + max_surge(deployment))
    return changed


def _note_history(annotations: dict[str, str], old: str) -> None:
    history = [each for each in annotations.get(REVISION_HISTORY, "").split(",") if each]
    history.append(old)
    while len(history) > 1 and len(",".join(history)) > REVISION_HISTORY_CHARACTERS_MAX:
        history.pop(0)
    annotations[REVISION_HISTORY] = ",".join(history)


# Status


def condition_of(status: apps.DeploymentStatus, type: str) -> apps.DeploymentCondition | None:
    """Return a condition."""
    for each in status.conditions:
        if each.type == type:
            return each
    return None


def remove_condition(status: apps.DeploymentStatus, type: str) -> None:
    """Drop a condition."""
    status.conditions = [each for each in status.conditions if each.type != type]


def set_condition(
    status: apps.DeploymentStatus, type: str, value: str, reason: str, message: str, now_seconds: float
) -> None:
    """Set a condition, unless it has this value and reason; the transition time moves with the value only."""
    now = times.format_time(now_seconds)
    _put_condition(
        status,
        apps.DeploymentCondition(
            type=type, status=value, reason=reason, message=message, last_update_time=now, last_transition_time=now
        ),
    )


def _put_condition(status: apps.DeploymentStatus, wanted: apps.DeploymentCondition) -> None:
    current = condition_of(status, wanted.type)
    if current is not None and (current.status, current.reason) == (wanted.status, wanted.reason):
        return
    if current is not None and current.status == wanted.status:
        wanted.last_transition_time = current.last_transition_time
    remove_condition(status, wanted.type)
    status.conditions.append(wanted)


def status_of(
    deployment: apps.Deployment, sets: Sequence[apps.ReplicaSet], new: apps.ReplicaSet | None, now_seconds: float
) -> apps.DeploymentStatus:
    """Return the counts and the Available condition."""
    available = sum(each.status.available_replicas for each in sets)
    terminating = [each.status.terminating_replicas for each in sets]
    status = apps.DeploymentStatus(
        observed_generation=deployment.metadata.generation,
        replicas=sum(each.status.replicas for each in sets),
        updated_replicas=new.status.replicas if new is not None else 0,
        ready_replicas=sum(each.status.ready_replicas for each in sets),
        available_replicas=available,
        unavailable_replicas=max(_sum(sets) - available, 0),
        terminating_replicas=None if None in terminating else sum(each or 0 for each in terminating),
        collision_count=deployment.status.collision_count,
        conditions=serialization.copy(deployment.status).conditions,
    )
    if available >= replicas_of(deployment) - max_unavailable(deployment):
        reason, message = "MinimumReplicasAvailable", "Deployment has minimum availability."
        set_condition(status, "Available", "True", reason, message, now_seconds)
    else:
        reason, message = "MinimumReplicasUnavailable", "Deployment does not have minimum availability."
        set_condition(status, "Available", "False", reason, message, now_seconds)
    return status


def is_complete(deployment: apps.Deployment, status: apps.DeploymentStatus) -> bool:
    """Tell whether every Pod is new and available, and none is old."""
    wanted = replicas_of(deployment)
    return (
        status.updated_replicas == status.replicas == status.available_replicas == wanted
        and status.observed_generation >= deployment.metadata.generation
    )


def _is_progressing(old: apps.DeploymentStatus, new: apps.DeploymentStatus) -> bool:
    return (
        new.updated_replicas > old.updated_replicas
        or new.replicas - new.updated_replicas < old.replicas - old.updated_replicas
        or new.ready_replicas > old.ready_replicas
        or new.available_replicas > old.available_replicas
    )


def _is_timed_out(deployment: apps.Deployment, status: apps.DeploymentStatus, now_seconds: float) -> bool:
    progressing = condition_of(status, "Progressing")
    if progressing is None or progressing.reason == "NewReplicaSetAvailable":
        return False
    if progressing.reason == "ProgressDeadlineExceeded":
        return True
    deadline = deployment.spec.progress_deadline_seconds or 0
    return seconds_of(progressing.last_update_time) + deadline < now_seconds


def rollout_status(
    deployment: apps.Deployment, sets: Sequence[apps.ReplicaSet], new: apps.ReplicaSet | None, now_seconds: float
) -> apps.DeploymentStatus:
    """Return the whole status of a rollout: counts, Available, Progressing, ReplicaFailure."""
    status = status_of(deployment, sets, new, now_seconds)
    current = condition_of(deployment.status, "Progressing")
    if not has_progress_deadline(deployment):
        remove_condition(status, "Progressing")
    else:
        was_complete = (
            status.replicas == status.updated_replicas
            and current is not None
            and current.reason == "NewReplicaSetAvailable"
        )
        if not was_complete:
            _set_progress(deployment, status, current, new, now_seconds)
    failures = [each for each in ([new] if new is not None else []) if _failure(each) is not None]
    failures = failures or [each for each in sets if _failure(each) is not None]
    if failures:
        failure = _failure(failures[0])
        assert failure is not None
        _put_condition(
            status,
            apps.DeploymentCondition(
                type=failure.type,
                status=failure.status,
                reason=failure.reason,
                message=failure.message,
                last_update_time=failure.last_transition_time,
                last_transition_time=failure.last_transition_time,
            ),
        )
    else:
        remove_condition(status, "ReplicaFailure")
    return status


def _failure(each: apps.ReplicaSet) -> apps.ReplicaSetCondition | None:
    return next((condition for condition in each.status.conditions if condition.type == "ReplicaFailure"), None)


def _set_progress(
    deployment: apps.Deployment,
    status: apps.DeploymentStatus,
    current: apps.DeploymentCondition | None,
    new: apps.ReplicaSet | None,
    now_seconds: float,
) -> None:
    subject = f'ReplicaSet "{new.metadata.name}"' if new is not None else f'Deployment "{deployment.metadata.name}"'
    if is_complete(deployment, status):
        message = f"{subject} has successfully progressed."
        set_condition(status, "Progressing", "True", "NewReplicaSetAvailable", message, now_seconds)
    elif _is_progressing(deployment.status, status):
        # Put anew even if only the update time differs: it is what the deadline is counted from.
        remove_condition(status, "Progressing")
        set_condition(status, "Progressing", "True", "ReplicaSetUpdated", f"{subject} is progressing.", now_seconds)
        if current is not None and current.status == "True":
            status.conditions[-1].last_transition_time = current.last_transition_time
    elif _is_timed_out(deployment, status, now_seconds):
        message = f"{subject} has timed out progressing."
        set_condition(status, "Progressing", "False", "ProgressDeadlineExceeded", message, now_seconds)

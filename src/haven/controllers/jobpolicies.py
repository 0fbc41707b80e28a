"""What a Job makes of its Pods' ends: failure policy, success policy, backoff. Pure.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy, #success-policy,
#pod-backoff-failure-policy
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from haven.api.batch import v1 as batch
from haven.api.core import v1 as core
from haven.controllers import pods
from haven.controllers.jobindexes import parse_indexes

__all__ = [
    "BackoffRecord",
    "Verdict",
    "deadline_left",
    "finished_seconds",
    "is_failed",
    "judge_failure",
    "next_record",
    "only_replaces_failed",
    "restarts_exceed",
    "success_policy_message",
    "wait_seconds",
]

BACKOFF_FIRST_SECONDS, BACKOFF_SECONDS_MAX = 10.0, 600.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the failure policy says of a failed Pod. `action` is "" when no rule matched."""

    action: str
    counts: bool
    message: str = ""  # Why the whole Job fails, with FailJob.


def judge_failure(policy: batch.PodFailurePolicy | None, pod: core.Pod) -> Verdict:
    """Return the verdict of the first rule that matches; without one the failure counts."""
    for index, rule in enumerate((policy.rules if policy else None) or ()):
        match = _exit_code_match(rule, pod) if rule.on_exit_codes is not None else _condition_match(rule, pod)
        if not match:
            continue
        if rule.action == "Ignore":
            return Verdict("Ignore", counts=False)
        message = f"{match} matching {rule.action} rule at index {index}" if rule.action == "FailJob" else ""
        return Verdict(rule.action, counts=True, message=message)
    return Verdict("", counts=True)


def _exit_code_match(rule: batch.PodFailurePolicyRule, pod: core.Pod) -> str:
    wanted = rule.on_exit_codes
    assert wanted is not None
    for status in (*pod.status.container_statuses, *pod.status.init_container_statuses):
        ended = status.state.terminated
        if ended is None or ended.exit_code == 0:
            continue
        if wanted.container_name is not None and wanted.container_name != status.name:
            continue
        if (ended.exit_code in (wanted.values or ())) == (wanted.operator == "In"):
            place = f"{pod.metadata.namespace}/{pod.metadata.name}"
            return f"Container {status.name} for pod {place} failed with exit code {ended.exit_code}"
    return ""


def _condition_match(rule: batch.PodFailurePolicyRule, pod: core.Pod) -> str:
    for each in pod.status.conditions:
        for pattern in rule.on_pod_conditions:
            if each.type == pattern.type and each.status == pattern.status:
                return f"Pod {pod.metadata.namespace}/{pod.metadata.name} has condition {each.type}"
    return ""


def only_replaces_failed(job: batch.Job) -> bool:
    """Tell whether a Pod that is being deleted is replaced only when it has really ended."""
    return job.spec.pod_replacement_policy == "Failed" or job.spec.pod_failure_policy is not None


def is_failed(job: batch.Job, pod: core.Pod) -> bool:
    """Tell whether a Pod counts as failed: it ended so, or it is going and will be replaced at once."""
    if pod.status.phase == "Failed":
        return True
    if only_replaces_failed(job):
        return False
    return pod.metadata.deletion_timestamp is not None and pod.status.phase != "Succeeded"


def success_policy_message(job: batch.Job, succeeded: Collection[int]) -> str:
    """Return which rule of the success policy is met, "" if none is."""
    if job.spec.success_policy is None or not succeeded:
        return ""
    for index, rule in enumerate(job.spec.success_policy.rules or ()):
        if rule.succeeded_indexes is not None:
            required = parse_indexes(rule.succeeded_indexes, job.spec.completions or 0)
            met = required & set(succeeded)
            if not required or not (
                met == required or (rule.succeeded_count is not None and len(met) >= rule.succeeded_count)
            ):
                continue
        elif rule.succeeded_count is None or len(succeeded) < rule.succeeded_count:
            continue
        return f"Matched rules at index {index}"
    return ""


# Backoff


@dataclass(frozen=True, slots=True)
class BackoffRecord:
    """How often in a row Pods of a Job failed, and when last."""

    failures: int = 0
    last_seconds: float = 0.0


def finished_seconds(pod: core.Pod) -> float:
    """Return when a Pod ended, as well as can be told."""
    sidecars = {each.name for each in pod.spec.init_containers if each.restart_policy == "Always"}
    statuses = [
        *pod.status.container_statuses,
        *(each for each in pod.status.init_container_statuses if each.name in sidecars),
    ]
    ends = [each.state.terminated.finished_at if each.state.terminated else None for each in statuses]
    if ends and all(ends):
        return max(pods.seconds_of(end) for end in ends)
    ready = pods.condition(pod, "Ready")
    if ready is not None and ready.status == "False" and ready.last_transition_time:
        return pods.seconds_of(ready.last_transition_time)
    if pod.metadata.deletion_timestamp:
        return pods.seconds_of(pod.metadata.deletion_timestamp) - (pod.metadata.deletion_grace_period_seconds or 0)
    return pods.seconds_of(pod.metadata.creation_timestamp)


def next_record(record: BackoffRecord, succeeded: Sequence[core.Pod], failed: Iterable[core.Pod]) -> BackoffRecord:
    """Return the record after Pods ended: a success makes failures before it forgotten."""
    times = sorted(finished_seconds(pod) for pod in failed)
    if succeeded:
        last_success = max(finished_seconds(pod) for pod in succeeded)
        later = [each for each in times if each > last_success]
        return BackoffRecord(len(later), later[-1]) if later else BackoffRecord()
    return BackoffRecord(record.failures + len(times), times[-1]) if times else record


def wait_seconds(failures: int, last_seconds: float, now_seconds: float) -> float:
    """Return how long to wait before the next Pod."""
    if failures == 0:
        return 0.0
    backoff = min(BACKOFF_FIRST_SECONDS * 2.0 ** min(failures - 1, 16), BACKOFF_SECONDS_MAX)
    return max(backoff - (now_seconds - last_seconds), 0.0)


def restarts_exceed(job: batch.Job, owned: Sequence[core.Pod]) -> bool:
    """Tell whether containers that restart in place did so too often."""
    spec = job.spec
    if spec.template.spec.restart_policy != "OnFailure":
        return False
    count = sum(
        status.restart_count
        for pod in owned
        if pod.status.phase in ("Running", "Pending")
        for status in (*pod.status.init_container_statuses, *pod.status.container_statuses)
    )
    limit = 6 if spec.backoff_limit is None else spec.backoff_limit
    return count > 0 if limit == 0 else count >= limit


def deadline_left(job: batch.Job, now_seconds: float) -> float | None:
    """Return for how many seconds a Job may go on; None if there is no deadline, or it does not run."""
    if job.spec.active_deadline_seconds is None or job.status.start_time is None or job.spec.suspend:
        return None
    return pods.seconds_of(job.status.start_time) + job.spec.active_deadline_seconds - now_seconds

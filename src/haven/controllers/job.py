"""Run Pods to completion: Jobs.

Each Pod carries a finalizer until its end is counted: first its UID goes into status.uncountedTerminatedPods, then the
finalizer comes off, then the UID moves into the counters. So a crash between any two steps loses or doubles nothing.
Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

from haven.api.batch import v1 as batch
from haven.api.core import v1 as core
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, selectors, serialization, times
from haven.apimachinery.names import UID, NamespacedName
from haven.client.interface import Patch, PatchType
from haven.client.owner import controller_of
from haven.controllers import pods
from haven.controllers.actions import (
    Action,
    Change,
    Emit,
    Fetch,
    Requeue,
    Retry,
    Steps,
    Together,
    Update,
    Wiring,
    key_from,
)
from haven.controllers.claiming import claimed, owner_by_reference, owners_of_orphan
from haven.controllers.jobcounts import JobCounts, Stand
from haven.controllers.jobindexes import (
    INDEX,
    format_indexes,
    index_of,
    parse_indexes,
    pending_indexes,
    split_duplicates,
)
from haven.controllers.jobpolicies import (
    BackoffRecord,
    deadline_left,
    finished_seconds,
    is_failed,
    judge_failure,
    next_record,
    only_replaces_failed,
    restarts_exceed,
    success_policy_message,
    wait_seconds,
)
from haven.controllers.jobretries import absolute_failures, is_index_failed, note_failures
from haven.controllers.replicaset import create_pods, delete_pods

__all__ = ["JobController", "condition_of", "is_finished"]

FINALIZER = "batch.kubernetes.io/job-tracking"
MANAGER = "kubernetes.io/job-controller"
UNCOUNTED_PODS_MAX = 500
PODS_PER_PASS_MAX = 500


def condition_of(job: batch.Job, type: str) -> batch.JobCondition | None:
    """Return a condition that holds."""
    return next((each for each in job.status.conditions if each.type == type and each.status == "True"), None)


def is_finished(job: batch.Job) -> bool:
    """Tell whether the Job is complete or failed."""
    return condition_of(job, "Complete") is not None or condition_of(job, "Failed") is not None


def is_indexed(job: batch.Job) -> bool:
    """Tell whether each completion has an index."""
    return job.spec.completion_mode == "Indexed"


def _is_suspended(job: batch.Job) -> bool:
    return bool(job.spec.suspend)


def _is_tracked(pod: core.Pod) -> bool:
    return FINALIZER in pod.metadata.finalizers


@dataclass(slots=True)
class _Pass:
    """What one pass works on; `job` is our copy."""

    job: batch.Job
    pods: list[core.Pod]
    now: float
    stand: Stand
    active: list[core.Pod] = field(default_factory=list)
    succeeded: int = 0
    failed: int = 0
    ready: int = 0
    terminating: int = 0
    previous_indexes: set[int] = field(default_factory=set)
    succeeded_indexes: set[int] = field(default_factory=set)
    failed_indexes: set[int] | None = None
    delayed: dict[int, core.Pod] = field(default_factory=dict)  # The last failed Pod of each index that goes on.
    finish: batch.JobCondition | None = None
    record: BackoffRecord = field(default_factory=BackoffRecord)
    judged: dict[str, int] = field(default_factory=dict)
    """How many failed Pods the failure policy had something to say of, by what that is."""

    def condition(self, type: str, reason: str, message: str) -> batch.JobCondition:
        now = times.format_time(self.now)
        return batch.JobCondition(
            type=type, status="True", reason=reason, message=message, last_probe_time=now, last_transition_time=now
        )

    def has_index(self, pod: core.Pod) -> bool:
        if not is_indexed(self.job):
            return True
        index = index_of(pod)
        return index is not None and index < (self.job.spec.completions or 0)


class JobController:
    """Keys are places of Jobs, and ("orphan", place) for Pods whose finalizer nobody else will remove."""

    workers = 5

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._jobs = wiring.reader(batch.Job)
        self._pods = wiring.reader(core.Pod)
        self._records: dict[UID, BackoffRecord] = {}
        self.counts = JobCounts()
        self._pods.add_index(pods.OWNED, pods.index_owned)
        self._jobs.add_handler(self._job_changed)
        self._pods.add_handler(self._pod_changed)

    # What wakes it

    def _job_changed(self, old: batch.Job | None, new: batch.Job | None) -> None:
        job = old if new is None else new
        assert job is not None
        if old is None and job.spec.managed_by not in (None, MANAGER):
            self.counts.left_to_others(job)
        self._wiring.enqueue(key_from(job))
        if new is None or is_finished(new):
            for pod in self._pods.indexed(pods.OWNED, job.metadata.uid):
                if _is_tracked(pod):
                    self._wiring.enqueue(("orphan", key_from(pod)))

    def _pod_changed(self, old: core.Pod | None, new: core.Pod | None) -> None:
        was, is_now = (pod is not None and pods.is_finished(pod) and _is_tracked(pod) for pod in (old, new))
        if was != is_now:
            self.counts.tracked(ended=is_now)
        for pod in (old, new):
            if pod is not None and (job := owner_by_reference(self._jobs, pod, "Job")) is not None:
                self._wiring.enqueue(key_from(job))
        if new is None:
            return
        reference = controller_of(new)
        if _is_tracked(new) and (reference is None or reference.kind == "Job"):
            job = owner_by_reference(self._jobs, new, "Job")
            if job is None or is_finished(job):
                # Long enough for a Job that was just made to show up in the cache.
                self._wiring.enqueue_after(("orphan", key_from(new)), 1.0)
        if reference is None:
            for job in owners_of_orphan(self._jobs, new, lambda each: _selects(each, new)):
                self._wiring.enqueue(key_from(job))

    def sync(self, key: NamespacedName | tuple[str, NamespacedName]) -> Steps[None]:
        if isinstance(key, NamespacedName):
            yield from self._sync_job(key)
        else:
            yield from self._sync_orphan(key[1])

    def _sync_orphan(self, key: NamespacedName) -> Steps[None]:
        pod = self._pods.get(*key)
        if pod is None or not _is_tracked(pod):
            return
        reference = controller_of(pod)
        if reference is not None:
            if reference.kind != "Job":
                return
            job = self._jobs.get(key.namespace, reference.name)
            if job is None:
                job = yield Fetch(resource_of(batch.Job), key.namespace, reference.name)
            if job is not None and job.metadata.uid == reference.uid and not is_finished(job):
                return
        try:
            yield _untrack(pod)
        except apierrors.NotFound:
            return

    # One Job

    def _sync_job(self, key: NamespacedName) -> Steps[None]:
        cached = self._jobs.get(*key)
        if cached is None:
            return
        if cached.spec.managed_by not in (None, MANAGER):
            return
        if is_finished(cached):
            self._records.pop(cached.metadata.uid, None)
            return
        if cached.spec.completion_mode not in (None, "NonIndexed", "Indexed"):
            message = "Skipped Job sync because completion mode is unknown"
            yield Emit(cached, "Warning", "UnknownCompletionMode", message)
            return
        began, stand = perf_counter(), Stand()
        try:
            yield from self._work_on(cached, stand)
        except Exception:
            stand.result = "error"
            raise
        finally:
            self.counts.passed(cached, stand, perf_counter() - began)

    def _work_on(self, cached: batch.Job, stand: Stand) -> Steps[None]:
        selector = selectors.from_label_selector(cached.spec.selector)
        owned = yield from claimed(
            cached,
            pods.owned_and_orphans(self._pods, cached),
            lambda pod: selector.matches(pod.metadata.labels),
            finalizers=[FINALIZER],
        )
        work = _Pass(serialization.copy(cached), owned, self._wiring.now_seconds(), stand)
        before = cached.status
        job = work.job
        job.status.uncounted_terminated_pods = job.status.uncounted_terminated_pods or batch.UncountedTerminatedPods()
        if job.status.start_time is None and not _is_suspended(job):
            job.status.start_time = times.format_time(work.now)
        self._take_stock(work)
        yield from self._decide(work)
        failure = yield from self._act(work)
        yield from self._track(work, before)
        if failure is not None:
            raise Retry(str(failure))

    def _take_stock(self, work: _Pass) -> None:
        job = work.job
        uncounted = job.status.uncounted_terminated_pods
        assert uncounted is not None
        work.active = [pod for pod in work.pods if pods.is_active(pod)]
        work.ready = sum(pods.is_ready(pod) for pod in work.active)
        work.terminating = sum(pods.is_terminating(pod) for pod in work.pods)
        new = [pod for pod in work.pods if _is_tracked(pod) and work.has_index(pod)]
        succeeded = [p for p in new if p.status.phase == "Succeeded" and p.metadata.uid not in uncounted.succeeded]
        failed = [p for p in new if is_failed(job, p) and p.metadata.uid not in uncounted.failed]
        counted = [pod for pod in failed if judge_failure(job.spec.pod_failure_policy, pod).counts]
        work.succeeded = job.status.succeeded + len(succeeded) + len(uncounted.succeeded)
        work.failed = job.status.failed + len(counted) + len(uncounted.failed)
        work.record = next_record(self._records.get(job.metadata.uid, BackoffRecord()), succeeded, failed)

    # Is it over?

    def _decide(self, work: _Pass) -> Steps[None]:
        job = work.job
        work.finish = condition_of(job, "SuccessCriteriaMet")
        if work.finish is None:
            work.finish = self._failure_target(work)
        if work.finish is None:
            if work.failed > (6 if job.spec.backoff_limit is None else job.spec.backoff_limit) or restarts_exceed(
                job, work.pods
            ):
                message = "Job has reached the specified backoff limit"
                work.finish = work.condition("FailureTarget", "BackoffLimitExceeded", message)
            elif (left := deadline_left(job, work.now)) is not None:
                if left <= 0:
                    message = "Job was active longer than specified deadline"
                    work.finish = work.condition("FailureTarget", "DeadlineExceeded", message)
                else:
                    yield Requeue(left)
        if is_indexed(job):
            self._decide_by_index(work)

    def _failure_target(self, work: _Pass) -> batch.JobCondition | None:
        target = condition_of(work.job, "FailureTarget")
        if target is not None:
            return work.condition("Failed", target.reason, target.message)
        policy = work.job.spec.pod_failure_policy
        for pod in work.pods if policy is not None else ():
            if is_failed(work.job, pod) and (message := judge_failure(policy, pod).message):
                return work.condition("FailureTarget", "PodFailurePolicy", message)
        return None

    def _decide_by_index(self, work: _Pass) -> None:
        job, completions = work.job, work.job.spec.completions or 0
        work.previous_indexes = parse_indexes(job.status.completed_indexes, completions)
        tracked = [pod for pod in work.pods if _is_tracked(pod) and work.has_index(pod)]
        work.succeeded_indexes = work.previous_indexes | {
            index for pod in tracked if pod.status.phase == "Succeeded" and (index := index_of(pod)) is not None
        }
        work.succeeded = len(work.succeeded_indexes)
        if job.spec.backoff_limit_per_index is not None:
            work.failed_indexes = parse_indexes(job.status.failed_indexes, completions) | {
                index for pod in tracked if is_index_failed(job, pod) and (index := index_of(pod)) is not None
            }
            count = len(work.failed_indexes)
            if work.finish is None:
                maximum = job.spec.max_failed_indexes
                if maximum is not None and count > maximum:
                    message = "Job has exceeded the specified maximal number of failed indexes"
                    work.finish = work.condition("FailureTarget", "MaxFailedIndexesExceeded", message)
                elif count and count + work.succeeded >= completions:
                    work.finish = work.condition("FailureTarget", "FailedIndexes", "Job has failed indexes")
            work.delayed = _delayed_pods(work, tracked)
        if work.finish is None and (message := success_policy_message(job, work.succeeded_indexes)):
            work.finish = work.condition("SuccessCriteriaMet", "SuccessPolicy", message)

    # Pods

    def _act(self, work: _Pass) -> Steps[Exception | None]:
        job = work.job
        failure: Exception | None = None
        active = len(work.active)
        if work.finish is not None:
            failure = yield from self._delete_active(work, work.active)
            active -= len(work.active)
            if failure is not None:
                work.finish = None
        else:
            managed = job.metadata.deletion_timestamp is None
            if managed:
                active, failure = yield from self._manage(work)
            enough = work.succeeded > 0 if job.spec.completions is None else work.succeeded >= job.spec.completions
            if enough and active == 0:
                message = "Reached expected number of succeeded pods"
                work.finish = work.condition("SuccessCriteriaMet", "CompletionsReached", message)
            elif managed:
                yield from self._note_suspension(work)
        job.status.active = max(active, 0)
        job.status.ready = max(work.ready, 0)
        job.status.terminating = work.terminating
        return failure

    def _delete_active(self, work: _Pass, doomed: Sequence[core.Pod]) -> Steps[Exception | None]:
        if not doomed:
            return None
        work.terminating += len(doomed)
        work.ready -= sum(pods.is_ready(pod) for pod in doomed)
        return (yield from delete_pods(work.job, doomed))

    def _manage(self, work: _Pass) -> Steps[tuple[int, Exception | None]]:
        """Create or delete Pods towards the wanted number; return how many are active then."""
        job, active = work.job, len(work.active)
        parallelism = 1 if job.spec.parallelism is None else job.spec.parallelism
        if _is_suspended(job):
            wanted = 0
        elif job.spec.completions is None:
            wanted = active if work.succeeded > 0 else parallelism
        else:
            wanted = max(min(job.spec.completions - work.succeeded, parallelism), 0)
        doomed = self._doomed(work, max(active - wanted, 0))[:PODS_PER_PASS_MAX]
        work.stand.action = "pods_deleted" if doomed else "tracking"
        if doomed:
            # They are gone for good, so they need not be counted.
            yield Together([_untrack(pod) for pod in doomed if _is_tracked(pod)], first_batch=PODS_PER_PASS_MAX)
            failure = yield from self._delete_active(work, doomed)
            return active - len(doomed), failure
        missing = wanted - active - (work.terminating if only_replaces_failed(job) else 0)
        if missing <= 0 or _is_suspended(job):
            return active, None
        work.stand.action = "pods_created"
        created, failure = yield from self._create(work, min(missing, PODS_PER_PASS_MAX))
        return active + created, failure

    def _doomed(self, work: _Pass, at_least: int) -> list[core.Pod]:
        ordered = pods.deletion_order(work.active, {}, work.now)
        if not is_indexed(work.job):
            return ordered[:at_least]
        useless, kept = split_duplicates(ordered, work.job.spec.completions or 0)
        order = {pod.metadata.uid: position for position, pod in enumerate(ordered)}
        kept.sort(key=lambda pod: order[pod.metadata.uid])
        return useless + kept[: max(at_least - len(useless), 0)]

    def _create(self, work: _Pass, count: int) -> Steps[tuple[int, Exception | None]]:
        job = work.job
        indexes: list[int] = []
        if job.spec.backoff_limit_per_index is None:
            wait = wait_seconds(work.record.failures, work.record.last_seconds, work.now)
            if wait > 0:
                yield Requeue(wait)
                return 0, None
        if is_indexed(job):
            indexes = self._next_indexes(work, count)
            if job.spec.backoff_limit_per_index is not None and indexes:
                waits = {index: _index_wait(work, index) for index in indexes}
                indexes = [index for index, wait in waits.items() if wait <= 0]
                if not indexes:
                    yield Requeue(min(waits.values()))
                    return 0, None
            wanted = [self._new_pod(work, index) for index in indexes]
        else:
            wanted = [self._new_pod(work, None) for _ in range(count)]
        before = len(wanted)
        failure = yield from create_pods(job, wanted)
        self.counts.created(job, before, failed=failure is not None, ends=work.failed, terminating=work.terminating)
        return (0 if failure is not None else before), failure

    def _next_indexes(self, work: _Pass, count: int) -> list[int]:
        taken = set(work.succeeded_indexes) | (work.failed_indexes or set())
        busy = list(work.active)
        if only_replaces_failed(work.job):
            busy += [pod for pod in work.pods if pods.is_terminating(pod)]
        taken |= {index for pod in busy if (index := index_of(pod)) is not None}
        return pending_indexes(taken, count, work.job.spec.completions or 0)

    def _new_pod(self, work: _Pass, index: int | None) -> core.Pod:
        job = work.job
        pod = pods.from_template(job.spec.template, job, resource_of(batch.Job).gvk)
        if FINALIZER not in pod.metadata.finalizers:
            pod.metadata.finalizers.append(FINALIZER)
        if index is None:
            return pod
        name = job.metadata.name
        pod.metadata.annotations[INDEX] = str(index)
        pod.metadata.labels[INDEX] = str(index)
        pod.metadata.generate_name = f"{name[: 253 - 5 - len(str(index)) - 2]}-{index}-"
        pod.spec.hostname = f"{name}-{index}"
        source = core.EnvVarSource(field_ref=core.ObjectFieldSelector(field_path=f"metadata.labels['{INDEX}']"))
        for container in (*pod.spec.init_containers, *pod.spec.containers):
            if not any(each.name == "JOB_COMPLETION_INDEX" for each in container.env):
                container.env = [*container.env, core.EnvVar(name="JOB_COMPLETION_INDEX", value_from=source)]
        if job.spec.backoff_limit_per_index is not None:
            note_failures(job, pod, work.delayed.get(index))
        return pod

    def _note_suspension(self, work: _Pass) -> Steps[None]:
        job = work.job
        current = next((each for each in job.status.conditions if each.type == "Suspended"), None)
        if _is_suspended(job):
            if current is not None and current.status == "True":
                return
            _put_condition(job, work.condition("Suspended", "JobSuspended", "Job suspended"))
            job.status.start_time = None
            yield Emit(job, "Normal", "Suspended", "Job suspended")
        elif current is not None and current.status == "True":
            resumed = work.condition("Suspended", "JobResumed", "Job resumed")
            resumed.status = "False"
            _put_condition(job, resumed)
            job.status.start_time = times.format_time(work.now)
            yield Emit(job, "Normal", "Resumed", "Job resumed")

    # Counting

    def _track(self, work: _Pass, before: batch.JobStatus) -> Steps[None]:
        job = work.job
        tracked = {pod.metadata.uid for pod in work.pods if _is_tracked(pod)}
        _count_untracked(job.status, tracked)
        freed, reached_max = self._collect_ended(work)
        if is_indexed(job):
            job.status.succeeded = len(work.succeeded_indexes)
            job.status.completed_indexes = format_indexes(work.succeeded_indexes)
            job.status.failed_indexes = format_indexes(work.failed_indexes) if work.failed_indexes is not None else None
        if work.finish is not None and work.finish.type in ("FailureTarget", "SuccessCriteriaMet"):
            if condition_of(job, work.finish.type) is None:
                job.status.conditions.append(work.finish)
            final = "Failed" if work.finish.type == "FailureTarget" else "Complete"
            work.finish = work.condition(final, work.finish.reason, work.finish.message)
        if job.status != before:
            job = work.job = serialization.copy((yield Update(job, "status")))
            self._records[job.metadata.uid] = work.record
            self.counts.ended(job, before)
            self.counts.judged(work.judged)
        results = yield Together([_untrack(pod) for pod in freed], first_batch=PODS_PER_PASS_MAX)
        failure: Exception | None = None
        for pod, result in zip(freed, results, strict=False):
            if not isinstance(result, apierrors.ApiError) or isinstance(result, apierrors.NotFound):
                tracked.discard(pod.metadata.uid)
            else:
                failure = failure or result
        written = serialization.copy(job.status)
        job.status.uncounted_terminated_pods = job.status.uncounted_terminated_pods or batch.UncountedTerminatedPods()
        _count_untracked(job.status, tracked)
        finished = failure is None and not reached_max and self._enact_finish(work)
        if job.status != written:
            yield Update(job, "status")
            self.counts.ended(job, written)
        if finished and work.finish is not None:
            self.counts.finished(job, work.finish)
            yield from _finish_events(job, work.finish)
        if failure is not None:
            raise Retry(str(failure))

    def _collect_ended(self, work: _Pass) -> tuple[list[core.Pod], bool]:
        """Note new ends in the status; return the Pods whose finalizer may come off then."""
        job = work.job
        uncounted = job.status.uncounted_terminated_pods
        assert uncounted is not None
        freed: list[core.Pod] = []
        noted = 0
        is_failing = work.finish is not None and work.finish.type != "SuccessCriteriaMet"
        for pod in sorted(work.pods, key=lambda each: (index_of(each) or 0, each.metadata.name)):
            uid, failed = pod.metadata.uid, is_failed(job, pod)
            if not _is_tracked(pod) or not self._may_free(work, pod, failed=failed):
                continue
            freed.append(pod)
            if pod.status.phase == "Succeeded" and uid not in uncounted.failed:
                if is_indexed(job):
                    noted += work.has_index(pod) and index_of(pod) not in work.previous_indexes
                elif uid not in uncounted.succeeded:
                    uncounted.succeeded = [*uncounted.succeeded, uid]
            elif (failed or is_failing) and uid not in uncounted.failed and work.has_index(pod):
                verdict = judge_failure(job.spec.pod_failure_policy, pod)
                if verdict.action:
                    work.judged[verdict.action] = work.judged.get(verdict.action, 0) + 1
                if verdict.counts:
                    uncounted.failed = [*uncounted.failed, uid]
            if noted + len(uncounted.succeeded) + len(uncounted.failed) >= UNCOUNTED_PODS_MAX:
                return freed, True
        return freed, False

    def _may_free(self, work: _Pass, pod: core.Pod, *, failed: bool) -> bool:
        is_over = work.job.metadata.deletion_timestamp is not None or work.finish is not None
        if is_over or pod.status.phase == "Succeeded":
            return True
        if not failed:
            return False
        index = index_of(pod)
        kept = work.delayed.get(index) if index is not None else None
        # The last failed Pod of an index stays until it is replaced: it remembers how often the index failed.
        return kept is None or kept.metadata.uid != pod.metadata.uid

    def _enact_finish(self, work: _Pass) -> bool:
        job, finish = work.job, work.finish
        uncounted = job.status.uncounted_terminated_pods
        if finish is None or work.terminating > 0:
            return False
        if uncounted is not None and (uncounted.succeeded or uncounted.failed):
            return False
        _put_condition(job, finish)
        if finish.type == "Complete":
            job.status.completion_time = finish.last_transition_time
        return True


def _untrack(pod: core.Pod) -> Action:
    patch = Patch(PatchType.STRATEGIC, {"metadata": {"$deleteFromPrimitiveList/finalizers": [FINALIZER]}})
    return Change(resource_of(core.Pod), pod.metadata.namespace, pod.metadata.name, patch)


def _selects(job: batch.Job, pod: core.Pod) -> bool:
    try:
        selector = selectors.from_label_selector(job.spec.selector)
    except selectors.SelectorError:
        return False
    return not selector.is_empty and selector.matches(pod.metadata.labels)


def _put_condition(job: batch.Job, wanted: batch.JobCondition) -> None:
    conditions = [wanted if each.type == wanted.type else each for each in job.status.conditions]
    if not any(each.type == wanted.type for each in conditions):
        conditions.append(wanted)
    job.status.conditions = conditions


def _count_untracked(status: batch.JobStatus, tracked: set[UID]) -> None:
    """Move the UIDs whose Pods lost their finalizer into the counters."""
    uncounted = status.uncounted_terminated_pods
    assert uncounted is not None
    succeeded = [uid for uid in uncounted.succeeded if uid in tracked]
    failed = [uid for uid in uncounted.failed if uid in tracked]
    status.succeeded += len(uncounted.succeeded) - len(succeeded)
    status.failed += len(uncounted.failed) - len(failed)
    uncounted.succeeded, uncounted.failed = succeeded, failed


def _delayed_pods(work: _Pass, tracked: Sequence[core.Pod]) -> dict[int, core.Pod]:
    """Return the last failed Pod of each index that is neither done, nor given up, nor active."""
    active = {index_of(pod) for pod in work.active}
    result: dict[int, core.Pod] = {}
    for pod in tracked:
        index = index_of(pod)
        if index is None or not is_failed(work.job, pod) or index in active:
            continue
        if index in work.succeeded_indexes or index in (work.failed_indexes or ()):
            continue
        known = result.get(index)
        order = (absolute_failures(pod), finished_seconds(pod))
        if known is None or (absolute_failures(known), finished_seconds(known)) <= order:
            result[index] = pod
    return result


def _index_wait(work: _Pass, index: int) -> float:
    last = work.delayed.get(index)
    return 0.0 if last is None else wait_seconds(absolute_failures(last) + 1, finished_seconds(last), work.now)


def _finish_events(job: batch.Job, finish: batch.JobCondition) -> Steps[None]:
    if finish.type == "Complete":
        if job.spec.completions is not None and job.status.succeeded > job.spec.completions:
            message = "Too many succeeded pods running after completion count reached"
            yield Emit(job, "Warning", "TooManySucceededPods", message)
        yield Emit(job, "Normal", "Completed", "Job completed")
    else:
        yield Emit(job, "Warning", finish.reason, finish.message)

"""Which statuses of a Job are wrong.

Only what a change touches is checked, so that an odd status of the past can still be repaired.
Source: the behaviour of pkg/apis/batch/validation and pkg/registry/batch/job.
"""

from __future__ import annotations

from haven.api.batch import v1
from haven.api.batch.indexes import MalformedIndexes, count_indexes, overlap_complaint
from haven.api.batch.validation import is_condition_true
from haven.api.core.validation.metadata import validate_meta_update
from haven.api.internalform import internal_form
from haven.apimachinery import times
from haven.apimachinery.fielderrors import OMIT, ErrorList, Path, duplicate, invalid, required
from haven.apimachinery.validation.objectmeta import validate_not_negative

__all__ = ["validate_job_status_update"]

_STATUS = Path("status")
_CONDITIONS = Path("status", "conditions")


def validate_job_status_update(new: v1.Job, old: v1.Job) -> ErrorList:
    """Check a changed status."""
    errors = validate_meta_update(new.metadata, old.metadata)
    errors += _counters(new)
    errors += _conditions(new, old)
    errors += _indexes(new, old)
    errors += _finish(new, old)
    return errors + _transitions(new, old)


def _is_finished(job: v1.Job) -> bool:
    return is_condition_true(job, "Complete") or is_condition_true(job, "Failed")


def _changed(new: v1.Job, old: v1.Job, *kinds: str) -> bool:
    return any(is_condition_true(new, kind) != is_condition_true(old, kind) for kind in kinds)


def _counters(job: v1.Job) -> ErrorList:
    status = job.status
    errors: ErrorList = []
    for name, value in (
        ("active", status.active),
        ("succeeded", status.succeeded),
        ("failed", status.failed),
        ("ready", status.ready),
        ("terminating", status.terminating),
    ):
        if value is not None:
            errors += validate_not_negative(value, _STATUS.child(name))
    uncounted = status.uncounted_terminated_pods
    if uncounted is not None:
        seen: set[str] = set()
        for name, uids in (("succeeded", uncounted.succeeded), ("failed", uncounted.failed)):
            for index, uid in enumerate(uids):
                place = _STATUS.child("uncountedTerminatedPods").child(name).index(index)
                if not uid:
                    errors.append(invalid(place, uid, "must not be empty"))
                elif uid in seen:
                    errors.append(duplicate(place, uid))
                seen.add(uid)
    return errors


def _conditions(new: v1.Job, old: v1.Job) -> ErrorList:
    """Check what conditions exclude, or need, and the times that go with them."""
    errors: ErrorList = []
    status = new.status
    complete, failed = is_condition_true(new, "Complete"), is_condition_true(new, "Failed")
    target = is_condition_true(new, "FailureTarget")
    started, ended = status.start_time, status.completion_time
    time_changed = ended != old.status.completion_time
    complete_changed = _changed(new, old, "Complete")
    if _changed(new, old, "Complete", "Failed") and complete and failed:
        errors.append(invalid(_CONDITIONS, OMIT, "cannot set Complete=True and Failed=true conditions"))
    if _changed(new, old, "Complete", "FailureTarget") and complete and target:
        errors.append(invalid(_CONDITIONS, OMIT, "cannot set Complete=True and FailureTarget=true conditions"))
    if (complete_changed or time_changed) and ended is not None and not complete:
        words = "cannot set completionTime when there is no Complete=True condition"
        errors.append(invalid(_STATUS.child("completionTime"), ended, words))
    if (complete_changed or time_changed) and ended is None and complete:
        words = "completionTime is required for Complete jobs"
        errors.append(required(_STATUS.child("completionTime"), words))
    if (time_changed or started != old.status.start_time) and started and ended:
        if times.parse(ended) < times.parse(started):
            words = "must be equal to or after `startTime`"
            errors.append(invalid(_STATUS.child("completionTime"), ended, words))
    if (_changed(new, old, "Failed") or status.failed_indexes != old.status.failed_indexes) and failed and not target:
        words = "cannot set Failed=True condition without the FailureTarget=true condition"
        errors.append(invalid(_CONDITIONS, OMIT, words))
    met = is_condition_true(new, "SuccessCriteriaMet")
    if _changed(new, old, "Complete", "SuccessCriteriaMet") and complete and not met:
        words = "cannot set Complete=True condition without the SuccessCriteriaMet=true condition"
        errors.append(invalid(_CONDITIONS, OMIT, words))
    finished, finish_changed = _is_finished(new), _is_finished(new) != _is_finished(old)
    if (finish_changed or status.active != old.status.active) and status.active > 0 and finished:
        errors.append(invalid(_STATUS.child("active"), status.active, "active>0 is invalid for finished job"))
    never_ran = bool(new.spec.suspend) and new.spec.completions == 0
    if (finish_changed or started != old.status.start_time) and not never_ran and started is None and finished:
        errors.append(required(_STATUS.child("startTime"), "startTime is required for finished job"))
    uncounted = status.uncounted_terminated_pods
    if (finish_changed or uncounted != old.status.uncounted_terminated_pods) and finished and uncounted is not None:
        if uncounted.failed or uncounted.succeeded:
            shown = internal_form(uncounted)
            words = "must be empty for finished job"
            errors.append(invalid(_STATUS.child("uncountedTerminatedPods"), shown, words))
    return errors


def _indexes(new: v1.Job, old: v1.Job) -> ErrorList:
    errors: ErrorList = []
    spec, status = new.spec, new.status
    completed, failed = status.completed_indexes, status.failed_indexes
    completed_changed = completed != old.status.completed_indexes
    failed_changed = failed != old.status.failed_indexes
    completions = spec.completions
    if completed_changed and completions is not None:
        try:
            count_indexes(completed, completions)
        except MalformedIndexes as error:
            words = f"error parsing completedIndexes: {error}"
            errors.append(invalid(_STATUS.child("completedIndexes"), completed, words))
    if failed_changed and completions is not None and spec.backoff_limit_per_index is not None and failed is not None:
        try:
            count_indexes(failed, completions)
        except MalformedIndexes as error:
            words = f"error parsing failedIndexes: {error}"
            errors.append(invalid(_STATUS.child("failedIndexes"), failed, words))
    if completed_changed and completed and spec.completion_mode != "Indexed":
        words = "cannot set non-empty completedIndexes when non-indexed completion mode"
        errors.append(invalid(_STATUS.child("completedIndexes"), completed, words))
    if failed_changed and spec.backoff_limit_per_index is None and failed is not None:
        words = "cannot set non-null failedIndexes when backoffLimitPerIndex is null"
        errors.append(invalid(_STATUS.child("failedIndexes"), failed, words))
    if (failed_changed or completed_changed) and completions is not None and failed is not None:
        if complaint := overlap_complaint(completed, failed, completions):
            errors.append(invalid(_STATUS.child("failedIndexes"), failed, complaint))
    return errors


def _finish(new: v1.Job, old: v1.Job) -> ErrorList:
    errors: ErrorList = []
    status, finished = new.status, _is_finished(new)
    finish_changed = finished != _is_finished(old)
    if (finish_changed or status.terminating != old.status.terminating) and finished and (status.terminating or 0) > 0:
        words = "terminating>0 is invalid for finished job"
        errors.append(invalid(_STATUS.child("terminating"), status.terminating, words))
    ready_changed = status.ready != old.status.ready or status.active != old.status.active
    if ready_changed and status.ready is not None and status.ready > status.active:
        words = "cannot set more ready pods than active"
        errors.append(invalid(_STATUS.child("ready"), status.ready, words))
    met = is_condition_true(new, "SuccessCriteriaMet")
    if met and is_condition_true(new, "Failed"):
        words = "cannot set SuccessCriteriaMet=True and Failed=true conditions"
        errors.append(invalid(_CONDITIONS, OMIT, words))
    if met and is_condition_true(new, "FailureTarget"):
        words = "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"
        errors.append(invalid(_CONDITIONS, OMIT, words))
    if new.spec.success_policy is not None and not met and is_condition_true(new, "Complete"):
        words = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True"
        errors.append(invalid(_CONDITIONS, OMIT, words))
    return errors


def _transitions(new: v1.Job, old: v1.Job) -> ErrorList:
    errors: ErrorList = []
    status, before = new.status, old.status
    for kind in ("Failed", "Complete", "FailureTarget"):
        if is_condition_true(old, kind) and not is_condition_true(new, kind):
            errors.append(invalid(_CONDITIONS, OMIT, f"cannot disable the terminal {kind}=True condition"))
    if status.failed < before.failed:
        errors.append(invalid(_STATUS.child("failed"), status.failed, "cannot decrease the failed counter"))
    elastic = new.spec.completion_mode == "Indexed" and new.spec.completions == new.spec.parallelism
    if not elastic and status.succeeded < before.succeeded:
        words = "cannot decrease the succeeded counter"
        errors.append(invalid(_STATUS.child("succeeded"), status.succeeded, words))
    if status.completion_time and before.completion_time and status.completion_time != before.completion_time:
        place = _STATUS.child("completionTime")
        errors.append(invalid(place, status.completion_time, "field is immutable"))
    resumes = is_condition_true(old, "Suspended") and any(
        condition.type == "Suspended" and condition.status == "False" for condition in status.conditions
    )
    if before.start_time and status.start_time != before.start_time and not resumes and not new.spec.suspend:
        words = "field is immutable for unsuspended job once set"
        errors.append(invalid(_STATUS.child("startTime"), status.start_time, words))
    met, was_met = is_condition_true(new, "SuccessCriteriaMet"), is_condition_true(old, "SuccessCriteriaMet")
    if was_met and not met:
        errors.append(invalid(_CONDITIONS, OMIT, "cannot disable the SuccessCriteriaMet=True condition"))
    if is_condition_true(old, "Complete") and not was_met and met:
        words = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions"
        errors.append(invalid(_CONDITIONS, OMIT, words))
    return errors

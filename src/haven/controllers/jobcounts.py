"""What the Job controller counts, under upstream's metric names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from haven.api.batch import v1 as batch
from haven.controllers.counts import Counts
from haven.controllers.jobindexes import parse_indexes
from haven.controllers.jobpolicies import only_replaces_failed

__all__ = ["JobCounts", "Stand"]

_METRIC = "job_controller_"


@dataclass(slots=True)
class Stand:
    """What a pass did and came to."""

    action: str = "reconciling"
    result: str = "success"


class JobCounts(Counts):
    """Numbers of the Job controller."""

    def passed(self, job: batch.Job, stand: Stand, seconds: float) -> None:
        """Count a pass over a Job."""
        labels = (stand.action, _mode(job), stand.result)
        self.observe(_METRIC + "job_sync_duration_seconds", *labels, value=seconds)
        self.add(_METRIC + "job_syncs_total", *labels)

    def created(self, job: batch.Job, number: int, *, failed: bool, ends: int, terminating: int) -> None:
        """Count Pods that were made, of a Job of which so many Pods failed and are being deleted."""
        if not number:
            return
        reason = "new"
        if only_replaces_failed(job) and ends > 0:
            reason = "recreate_failed"
        elif ends > 0 or terminating > 0:
            reason = "recreate_terminating_or_failed"
        self.add(_METRIC + "job_pods_creation_total", reason, "failed" if failed else "succeeded", number=number)

    def ended(self, job: batch.Job, before: batch.JobStatus) -> None:
        """Count Pods and indexes that a status tells to have ended since another."""
        succeeded = job.status.succeeded - before.succeeded
        if _mode(job) == "Indexed":
            completions = job.spec.completions or 0
            limit = "global" if job.spec.backoff_limit_per_index is None else "perIndex"
            done, done_before = (parse_indexes(one.completed_indexes, completions) for one in (job.status, before))
            succeeded = len(done) - len(done_before)
            failed, failed_before = (parse_indexes(one.failed_indexes, completions) for one in (job.status, before))
            for status, number in (("succeeded", succeeded), ("failed", len(failed) - len(failed_before))):
                if number > 0:
                    self.add(_METRIC + "job_finished_indexes_total", limit, status, number=number)
        for result, number in (("succeeded", succeeded), ("failed", job.status.failed - before.failed)):
            if number > 0:
                self.add(_METRIC + "job_pods_finished_total", _mode(job), result, number=number)

    def judged(self, actions: Mapping[str, int]) -> None:
        """Count failed Pods that a failure policy had a rule for."""
        for action, number in actions.items():
            self.add(_METRIC + "pod_failures_handled_by_failure_policy_total", action, number=number)

    def finished(self, job: batch.Job, finish: batch.JobCondition) -> None:
        """Count a Job that is over."""
        result = "succeeded" if finish.type == "Complete" else "failed"
        self.add(_METRIC + "jobs_finished_total", _mode(job), finish.reason, result)

    def left_to_others(self, job: batch.Job) -> None:
        """Count a Job that another controller looks after."""
        self.add(_METRIC + "jobs_by_external_controller_total", job.spec.managed_by or "")

    def tracked(self, *, ended: bool) -> None:
        """Count a Pod that ended and is yet to be taken note of; or one that no longer is."""
        self.add(_METRIC + "terminated_pods_tracking_finalizer_total", "add" if ended else "delete")


def _mode(job: batch.Job) -> str:
    return "Indexed" if job.spec.completion_mode == "Indexed" else "NonIndexed"

"""What the API server fills into Jobs and CronJobs.

Source: the behaviour of pkg/apis/batch/v1.
"""

from __future__ import annotations

from haven.api.batch import v1
from haven.api.core.pod_defaults import default_pod_template

__all__ = ["default_cron_job", "default_job"]

_BACKOFF_LIMIT = 6
_INT32_MAX = 2**31 - 1


def default_job(job: v1.Job) -> None:
    """Fill in a Job."""
    spec = job.spec
    if spec.completions is None and spec.parallelism is None:
        spec.completions = 1
    if spec.parallelism is None:
        spec.parallelism = 1
    if spec.backoff_limit is None:
        spec.backoff_limit = _BACKOFF_LIMIT if spec.backoff_limit_per_index is None else _INT32_MAX
    if spec.template.metadata.labels and not job.metadata.labels:
        job.metadata.labels = spec.template.metadata.labels  # One map, as upstream has it.
    if spec.completion_mode is None:
        spec.completion_mode = "NonIndexed"
    if spec.suspend is None:
        spec.suspend = False
    if spec.pod_replacement_policy is None:
        spec.pod_replacement_policy = "TerminatingOrFailed" if spec.pod_failure_policy is None else "Failed"
    if spec.manual_selector is None:
        spec.manual_selector = False
    _default_job_spec(spec)


def _default_job_spec(spec: v1.JobSpec) -> None:
    if spec.pod_failure_policy is not None:
        for rule in spec.pod_failure_policy.rules or ():
            for pattern in rule.on_pod_conditions:
                pattern.status = pattern.status or "True"
    default_pod_template(spec.template)


def default_cron_job(cron_job: v1.CronJob) -> None:
    """Fill in a CronJob; its template of Jobs gets only what every template of Pods gets."""
    spec = cron_job.spec
    spec.concurrency_policy = spec.concurrency_policy or "Allow"
    if spec.suspend is None:
        spec.suspend = False
    if spec.successful_jobs_history_limit is None:
        spec.successful_jobs_history_limit = 3
    if spec.failed_jobs_history_limit is None:
        spec.failed_jobs_history_limit = 1
    _default_job_spec(spec.job_template.spec)

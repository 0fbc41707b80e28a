"""How Jobs and CronJobs are written.

Source: the behaviour of pkg/registry/batch and pkg/api/job.
"""

from __future__ import annotations

from typing import Any

from haven.api.batch import v1
from haven.api.batch.defaults import default_cron_job, default_job
from haven.api.batch.status import validate_job_status_update
from haven.api.batch.validation import (
    CONTROLLER_UID,
    JOB_NAME,
    LEGACY_CONTROLLER_UID,
    LEGACY_JOB_NAME,
    validate_cron_job,
    validate_cron_job_update,
    validate_job,
    validate_job_update,
)
from haven.api.core.podwarnings import name_warnings, template_warnings
from haven.api.strategy import Strategy
from haven.apimachinery import meta
from haven.apimachinery.fielderrors import Path
from haven.apimachinery.validation.names import dns1123_subdomain_errors

__all__ = ["STRATEGIES"]


def _create_job(job: v1.Job) -> None:
    if not job.spec.manual_selector:
        _generate_selector(job)
    job.status = v1.JobStatus()
    job.metadata.generation = 1


def _label_like_pods(job: v1.Job) -> None:
    """A stored Job without labels has those of its Pods: upstream fills them in when it reads."""
    if not job.metadata.labels:
        job.metadata.labels = dict(job.spec.template.metadata.labels)


def _generate_selector(job: v1.Job) -> None:
    """Label the Pods of a Job with its name and uid, and select them by the uid."""
    uid, name = str(job.metadata.uid), job.metadata.name
    labels = {LEGACY_JOB_NAME: name, JOB_NAME: name, LEGACY_CONTROLLER_UID: uid, CONTROLLER_UID: uid}
    template = job.spec.template.metadata
    is_shared = bool(template.labels) and job.metadata.labels is template.labels
    template.labels = labels | template.labels
    if is_shared:  # A new Job without labels of its own has those of its Pods, these included.
        job.metadata.labels = dict(template.labels)
    if job.spec.selector is None:
        job.spec.selector = meta.LabelSelector()
    job.spec.selector.match_labels = {CONTROLLER_UID: uid} | job.spec.selector.match_labels


def _update_job(new: v1.Job, old: v1.Job) -> None:
    new.status = old.status
    if new.spec != old.spec:
        new.metadata.generation = old.metadata.generation + 1


def _create_cron_job(cron_job: v1.CronJob) -> None:
    cron_job.status = v1.CronJobStatus()
    cron_job.metadata.generation = 1


def _update_cron_job(new: v1.CronJob, old: v1.CronJob) -> None:
    new.status = old.status
    if new.spec != old.spec:
        new.metadata.generation = old.metadata.generation + 1


def _keep_spec(new: Any, old: Any) -> None:
    new.spec = old.spec


def _update_job_status(new: v1.Job, old: v1.Job) -> None:
    new.spec = old.spec
    _label_like_pods(new)


def _job_spec_warnings(spec: v1.JobSpec, path: Path) -> list[str]:
    warnings = []
    if spec.completion_mode == "Indexed" and (spec.completions or 0) > 100_000 and (spec.parallelism or 0) > 10_000:
        said = (
            "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, "
            "Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        )
        warnings.append(f"{path}: {said}")
    return warnings + template_warnings(spec.template, path.child("template"))


def _job_warnings(new: v1.Job, old: v1.Job | None) -> list[str]:
    if old is not None and new.metadata.generation == old.metadata.generation:
        return []
    named = name_warnings(new.metadata.name) if old is None else []
    return named + _job_spec_warnings(new.spec, Path("spec"))


def _cron_job_warnings(new: v1.CronJob, old: v1.CronJob | None) -> list[str]:
    warnings = name_warnings(new.metadata.name) if old is None else []
    if old is None or new.metadata.generation != old.metadata.generation:
        warnings += _job_spec_warnings(new.spec.job_template.spec, Path("spec", "jobTemplate", "spec"))
    if old is not None and "TZ" in new.spec.schedule:
        link = "https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/"
        said = f"cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see {link} for more details"
        warnings.append(said)
    return warnings


def _subdomain(name: str) -> list[str]:
    return list(dns1123_subdomain_errors(name))


STRATEGIES: dict[str, Strategy[Any]] = {
    "jobs": Strategy(
        default=default_job,
        prepare_for_create=_create_job,
        validate=validate_job,
        prepare_for_update=_update_job,
        validate_update=validate_job_update,
        canonicalize=_label_like_pods,
        warnings=_job_warnings,
        name_errors=_subdomain,
        has_generation=True,
        selectable_fields={"status.successful": lambda job: str(job.status.succeeded)},
        subresources={
            "status": Strategy(
                default=default_job, prepare_for_update=_update_job_status, validate_update=validate_job_status_update
            )
        },
    ),
    "cronjobs": Strategy(
        default=default_cron_job,
        prepare_for_create=_create_cron_job,
        validate=validate_cron_job,
        prepare_for_update=_update_cron_job,
        validate_update=validate_cron_job_update,
        warnings=_cron_job_warnings,
        name_errors=_subdomain,
        has_generation=True,
        subresources={"status": Strategy(default=default_cron_job, prepare_for_update=_keep_spec)},
    ),
}

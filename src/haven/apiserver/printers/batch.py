"""Rows of the group batch."""

from __future__ import annotations

from typing import Any

from haven.api.batch import v1 as batch_v1
from haven.apimachinery import times
from haven.apimachinery.selectors import format_label_selector
from haven.apiserver.printers.format import NONE, age, bool_text, containers, human_duration, is_true

__all__ = ["ROWS"]

# The first of these conditions that is true names the status; deletion comes after the final ones.
_FINAL = {"Complete": "Complete", "Failed": "Failed"}
_PASSING = {"Suspended": "Suspended", "FailureTarget": "FailureTarget", "SuccessCriteriaMet": "SuccessCriteriaMet"}


def _job(item: batch_v1.Job, now: float) -> list[Any]:
    return [
        item.metadata.name,
        _status(item),
        _completions(item),
        _duration(item.status, now),
        age(item.metadata.creation_timestamp, now),
        *containers(item.spec.template.spec.containers),
        format_label_selector(item.spec.selector),
    ]


def _status(item: batch_v1.Job) -> str:
    conditions = item.status.conditions
    for kind, text in _FINAL.items():
        if is_true(conditions, kind):
            return text
    if item.metadata.deletion_timestamp:
        return "Terminating"
    return next((text for kind, text in _PASSING.items() if is_true(conditions, kind)), "Running")


def _completions(item: batch_v1.Job) -> str:
    if item.spec.completions is not None:
        return f"{item.status.succeeded}/{item.spec.completions}"
    parallelism = item.spec.parallelism or 0
    return f"{item.status.succeeded}/1 of {parallelism}" if parallelism > 1 else f"{item.status.succeeded}/1"


def _duration(status: batch_v1.JobStatus, now: float) -> str:
    if not status.start_time:
        return ""
    end = times.parse(status.completion_time) if status.completion_time else now
    return human_duration(end - times.parse(status.start_time))


def _cron_job(item: batch_v1.CronJob, now: float) -> list[Any]:
    template = item.spec.job_template.spec
    return [
        item.metadata.name,
        item.spec.schedule,
        NONE if item.spec.time_zone is None else item.spec.time_zone,
        bool_text(item.spec.suspend),
        len(item.status.active),
        age(item.status.last_schedule_time, now) if item.status.last_schedule_time else NONE,
        age(item.metadata.creation_timestamp, now),
        *containers(template.template.spec.containers),
        format_label_selector(template.selector),
    ]


ROWS = {"CronJob": _cron_job, "Job": _job}

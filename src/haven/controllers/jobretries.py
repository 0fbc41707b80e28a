"""How often an index of a Job failed: counted on its Pods, each of which tells the failures before it. Pure.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/#backoff-limit-per-index
"""

from __future__ import annotations

from haven.api.batch import v1 as batch
from haven.api.core import v1 as core
from haven.controllers.jobpolicies import is_failed, judge_failure

__all__ = ["absolute_failures", "is_index_failed", "note_failures"]

FAILURE_COUNT = "batch.kubernetes.io/job-index-failure-count"
IGNORED_FAILURE_COUNT = "batch.kubernetes.io/job-index-ignored-failure-count"


def _count(pod: core.Pod, annotation: str) -> int:
    text = pod.metadata.annotations.get(annotation, "")
    return int(text) if text.isdecimal() else 0


def is_index_failed(job: batch.Job, pod: core.Pod) -> bool:
    """Tell whether a failed Pod was its index's last try."""
    if not is_failed(job, pod):
        return False
    verdict = judge_failure(job.spec.pod_failure_policy, pod)
    if verdict.action == "FailIndex":
        return True
    return verdict.counts and _count(pod, FAILURE_COUNT) >= (job.spec.backoff_limit_per_index or 0)


def absolute_failures(pod: core.Pod) -> int:
    """Return how often the Pod's index failed before it, ignored failures included."""
    return _count(pod, FAILURE_COUNT) + _count(pod, IGNORED_FAILURE_COUNT)


def note_failures(job: batch.Job, pod: core.Pod, replaced: core.Pod | None) -> None:
    """Note on a new Pod how often its index failed, from the Pod that it replaces."""
    failures = ignored = 0
    if replaced is not None:
        failures, ignored = _count(replaced, FAILURE_COUNT), _count(replaced, IGNORED_FAILURE_COUNT)
        if judge_failure(job.spec.pod_failure_policy, replaced).counts:
            failures += 1
        else:
            ignored += 1
    pod.metadata.annotations[FAILURE_COUNT] = str(failures)
    if ignored:
        pod.metadata.annotations[IGNORED_FAILURE_COUNT] = str(ignored)

"""Delete Jobs some time after they ended, if they ask for it.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/ttlafterfinished/
"""

from __future__ import annotations

from haven.api.batch import v1 as batch
from haven.api.scheme import resource_of
from haven.apimachinery import times
from haven.apimachinery.names import NamespacedName
from haven.controllers.actions import Delete, Fetch, Requeue, Steps, Wiring, key_from
from haven.controllers.counts import Counts

__all__ = ["TTLAfterFinishedController", "expiry_seconds"]

_JOBS = resource_of(batch.Job)


def expiry_seconds(job: batch.Job) -> float | None:
    """Return when a Job may go, in seconds since 1970; None if it has not ended or wants to stay."""
    ttl = job.spec.ttl_seconds_after_finished
    if ttl is None or job.metadata.deletion_timestamp is not None:
        return None
    for each in job.status.conditions:
        if each.type in ("Complete", "Failed") and each.status == "True" and each.last_transition_time:
            return times.parse(each.last_transition_time) + ttl
    return None


class TTLAfterFinishedController:
    """Keys are places of Jobs."""

    workers = 5

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self.counts = Counts()
        self._jobs = wiring.reader(batch.Job)
        self._jobs.add_handler(self._job_changed)

    def _job_changed(self, old: batch.Job | None, new: batch.Job | None) -> None:
        if new is not None and expiry_seconds(new) is not None:
            self._wiring.enqueue(key_from(new))

    def sync(self, key: NamespacedName) -> Steps[None]:
        job: batch.Job | None = self._jobs.get(key.namespace, key.name)
        for is_fresh in (False, True):
            expiry = expiry_seconds(job) if job is not None else None
            if job is None or expiry is None:
                return
            wait = expiry - self._wiring.now_seconds()
            if wait > 0:
                yield Requeue(wait)
                return
            if not is_fresh:  # Somebody may have given it longer a moment ago.
                job = yield Fetch(_JOBS, key.namespace, key.name)
        assert job is not None
        assert expiry is not None
        yield Delete(_JOBS, key.namespace, key.name, uid=job.metadata.uid, propagation_policy="Foreground")
        late = max(0.0, self._wiring.now_seconds() - expiry)
        self.counts.observe("ttl_after_finished_controller_job_deletion_duration_seconds", value=late)

"""Make a Job at each time of a CronJob's schedule.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from email.utils import format_datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from haven.api.batch import v1 as batch
from haven.api.core import v1 as core
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, meta, serialization, times
from haven.apimachinery.goformat import quote
from haven.apimachinery.names import NamespacedName
from haven.client.owner import controller_reference, is_controlled_by
from haven.controllers import pods
from haven.controllers.actions import Create, Delete, Emit, Fetch, Requeue, Steps, Update, Wiring, key_from
from haven.controllers.claiming import owner_by_reference
from haven.controllers.counts import Counts
from haven.controllers.cronschedule import InvalidSchedule, Schedule, parse
from haven.controllers.job import condition_of, is_finished
from haven.controllers.replicaset import namespace_is_terminating

__all__ = ["CronJobController", "Due", "due", "surplus_jobs"]

SCHEDULED_AT = "batch.kubernetes.io/cronjob-scheduled-timestamp"
MISSED_MAX = 100
NEXT_DELAY_SECONDS = 0.1  # Wake just after the minute began, by any clock that is roughly right.


@dataclass(frozen=True, slots=True)
class Due:
    """The latest time that should have started a Job and has not; and how many times were missed before it."""

    seconds: float | None
    missed_too_many: bool
    next_seconds: float | None


def due(cron: batch.CronJob, schedule: Schedule, zone: tzinfo, now_seconds: float) -> Due:
    """Return what the schedule asks for now, counted from the last start (or the creation) within the deadline."""
    earliest = pods.seconds_of(cron.metadata.creation_timestamp)
    if cron.status.last_schedule_time:
        earliest = pods.seconds_of(cron.status.last_schedule_time)
    if cron.spec.starting_deadline_seconds is not None:
        earliest = max(earliest, now_seconds - cron.spec.starting_deadline_seconds)
    latest: float | None = None
    count = 0
    upcoming = schedule.next_after(earliest, zone)
    while upcoming is not None and upcoming <= now_seconds:
        latest = upcoming
        count += 1
        if count > MISSED_MAX:
            # Walking a year of minutes takes long; begin again shortly before now, the count is high enough to tell.
            following = schedule.next_after(upcoming, zone)
            step = (following - upcoming) if following is not None else 0.0
            upcoming = schedule.next_after(max(upcoming, now_seconds - 2 * step - 60), zone)
            while upcoming is not None and upcoming <= now_seconds:
                latest = upcoming
                upcoming = schedule.next_after(upcoming, zone)
            break
        upcoming = schedule.next_after(upcoming, zone)
    has_deadline = cron.spec.starting_deadline_seconds is not None
    return Due(latest, count > MISSED_MAX and not has_deadline, upcoming)


def surplus_jobs(jobs: Sequence[batch.Job], limit: int | None) -> list[batch.Job]:
    """Return the oldest Jobs beyond a history limit; none without a limit."""
    if limit is None:
        return []

    def order(job: batch.Job) -> tuple[bool, str, str]:
        return (job.status.start_time is None, job.status.start_time or "", job.metadata.name)

    return sorted(jobs, key=order)[: max(len(jobs) - limit, 0)]


class CronJobController:
    """The controller of batch/v1 CronJobs."""

    workers = 5

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self.counts = Counts()
        self._crons = wiring.reader(batch.CronJob)
        self._jobs = wiring.reader(batch.Job)
        self._jobs.add_index(pods.OWNED, pods.index_owned)
        self._crons.add_handler(self._cron_changed)
        self._jobs.add_handler(self._job_changed)

    def _cron_changed(self, old: batch.CronJob | None, new: batch.CronJob | None) -> None:
        self._wiring.enqueue(key_from(old if new is None else new))

    def _job_changed(self, old: batch.Job | None, new: batch.Job | None) -> None:
        for job in (old, new):
            if job is not None and (cron := owner_by_reference(self._crons, job, "CronJob")) is not None:
                self._wiring.enqueue(key_from(cron))

    def sync(self, key: NamespacedName) -> Steps[None]:
        cached = self._crons.get(*key)
        if cached is None:
            return
        cron = serialization.copy(cached)
        jobs = list(self._jobs.indexed(pods.OWNED, cron.metadata.uid))
        yield from self._take_stock(cron, jobs)
        yield from self._clean_up(cron, jobs)
        yield from self._start(cron)
        if cron.status != cached.status:
            yield Update(cron, "status")

    def _take_stock(self, cron: batch.CronJob, jobs: Sequence[batch.Job]) -> Steps[None]:
        """Bring the list of active Jobs up to date with what became of them."""
        active = {reference.uid: reference for reference in cron.status.active}
        for job in jobs:
            uid = job.metadata.uid
            if not is_finished(job):
                if uid not in active:
                    fresh = yield Fetch(resource_of(batch.CronJob), cron.metadata.namespace, cron.metadata.name)
                    if fresh is not None and any(each.uid == uid for each in fresh.status.active):
                        continue
                    message = f"Saw a job that the controller did not create or forgot: {job.metadata.name}"
                    yield Emit(cron, "Warning", "UnexpectedJob", message)
                continue
            complete = condition_of(job, "Complete")
            if uid in active:
                state = "Complete" if complete is not None else "Failed"
                del active[uid]
                message = f"Saw completed job: {job.metadata.name}, condition: {state}"
                yield Emit(cron, "Normal", "SawCompletedJob", message)
            ended = job.status.completion_time
            if complete is not None and ended and ended > (cron.status.last_successful_time or ""):
                cron.status.last_successful_time = ended
        known = {job.metadata.uid for job in jobs}
        for uid, reference in list(active.items()):
            if uid in known:
                continue
            found = yield Fetch(resource_of(batch.Job), reference.namespace, reference.name)
            if found is None or found.metadata.uid != uid:
                del active[uid]
                yield Emit(cron, "Normal", "MissingJob", f"Active job went missing: {reference.name}")
        cron.status.active = list(active.values())

    def _clean_up(self, cron: batch.CronJob, jobs: Sequence[batch.Job]) -> Steps[None]:
        complete = [job for job in jobs if condition_of(job, "Complete") is not None]
        failed = [job for job in jobs if condition_of(job, "Failed") is not None]
        doomed = surplus_jobs(complete, cron.spec.successful_jobs_history_limit)
        doomed += surplus_jobs(failed, cron.spec.failed_jobs_history_limit)
        for job in doomed:
            yield from self._delete(cron, job.metadata.namespace, job.metadata.name)

    def _delete(self, cron: batch.CronJob, namespace: str, name: str) -> Steps[None]:
        try:
            yield Delete(resource_of(batch.Job), namespace, name, propagation_policy="Background")
        except apierrors.ApiError as error:
            yield Emit(cron, "Warning", "FailedDelete", f"Deleted job: {error}")
            raise
        yield Emit(cron, "Normal", "SuccessfulDelete", f"Deleted job {name}")

    def _start(self, cron: batch.CronJob) -> Steps[None]:
        if cron.metadata.deletion_timestamp is not None:
            return
        zone: tzinfo = UTC
        try:
            if cron.spec.time_zone is not None:
                zone = ZoneInfo(cron.spec.time_zone)
        except (ZoneInfoNotFoundError, ValueError):
            name = cron.spec.time_zone or ""
            message = f"invalid timeZone: {quote(name)}: unknown time zone {name}"
            yield Emit(cron, "Warning", "UnknownTimeZone", message)
            return
        if cron.spec.suspend:
            return
        try:
            schedule = parse(cron.spec.schedule)
        except InvalidSchedule as error:
            message = f"unparseable schedule: {quote(cron.spec.schedule)} : {error}"
            yield Emit(cron, "Warning", "UnparseableSchedule", message)
            return
        now = self._wiring.now_seconds()
        found = due(cron, schedule, zone, now)
        if found.seconds is None and found.next_seconds is None:
            # The 31st of February. Upstream words it by what its reckoning comes to.
            why = "time difference between two schedules is less than 1 second"
            yield Emit(cron, "Warning", "InvalidSchedule", f"invalid schedule: {cron.spec.schedule} : {why}")
            return
        if found.missed_too_many:
            message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
            yield Emit(cron, "Warning", "TooManyMissedTimes", message)
        if found.seconds is not None:
            yield from self._start_at(cron, found.seconds, zone, now)
        if found.next_seconds is not None:
            yield Requeue(max(found.next_seconds - now, 0.0) + NEXT_DELAY_SECONDS)

    def _start_at(self, cron: batch.CronJob, at: float, zone: tzinfo, now: float) -> Steps[None]:
        deadline = cron.spec.starting_deadline_seconds
        if deadline is not None and at + deadline < now:
            text = format_datetime(datetime.fromtimestamp(at, UTC))
            yield Emit(cron, "Warning", "MissSchedule", f"Missed scheduled time to start a job: {text}")
            return
        wanted = _new_job(cron, at, zone)
        if any(each.name == wanted.metadata.name for each in cron.status.active):
            return
        if cron.spec.concurrency_policy == "Forbid" and cron.status.active:
            message = "Not starting job because prior execution is running and concurrency policy is Forbid"
            yield Emit(cron, "Normal", "JobAlreadyActive", message)
            return
        if cron.spec.concurrency_policy == "Replace":
            for reference in cron.status.active:
                yield from self._delete(cron, reference.namespace, reference.name)
            cron.status.active = []
        try:
            job: batch.Job | None = yield Create(wanted)
            made = job.metadata.creation_timestamp if job is not None else None
            if made:
                skew = times.parse(made) - at
                self.counts.observe("cronjob_controller_job_creation_skew_duration_seconds", value=skew)
            yield Emit(cron, "Normal", "SuccessfulCreate", f"Created job {wanted.metadata.name}")
        except apierrors.AlreadyExists:
            job = yield Fetch(resource_of(batch.Job), wanted.metadata.namespace, wanted.metadata.name)
            if job is None or not is_controlled_by(job, cron.metadata.uid):
                raise
            if is_finished(job):
                cron.status.last_schedule_time = times.format_time(at)
                return
        except apierrors.ApiError as error:
            if namespace_is_terminating(error):
                return
            yield Emit(cron, "Warning", "FailedCreate", f"Error creating job: {error}")
            raise
        assert job is not None
        cron.status.active = [
            *cron.status.active,
            core.ObjectReference(
                kind="Job",
                namespace=job.metadata.namespace,
                name=job.metadata.name,
                uid=job.metadata.uid,
                api_version="batch/v1",
                resource_version=job.metadata.resource_version,
            ),
        ]
        cron.status.last_schedule_time = times.format_time(at)


def _new_job(cron: batch.CronJob, at: float, zone: tzinfo) -> batch.Job:
    """Return the Job of one time of the schedule; its name tells the minute, so that it is made only once."""
    template = serialization.copy(cron.spec.job_template)
    local = datetime.fromtimestamp(at, zone).isoformat().replace("+00:00", "Z")
    return batch.Job(
        metadata=meta.ObjectMeta(
            name=f"{cron.metadata.name}-{int(at) // 60}",
            namespace=cron.metadata.namespace,
            labels=template.metadata.labels,
            annotations=template.metadata.annotations | {SCHEDULED_AT: local},
            owner_references=[controller_reference(cron, resource_of(batch.CronJob).gvk)],
        ),
        spec=template.spec,
    )

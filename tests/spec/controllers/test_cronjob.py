from __future__ import annotations

from datetime import UTC

from tests.spec.controllers.workloads import Workloads, a_template

from haven.api.batch import v1 as batch
from haven.apimachinery import meta, times
from haven.controllers.cronjob import CronJobController, due
from haven.controllers.cronschedule import parse


def a_cron(schedule: str = "* * * * *", **spec: object) -> batch.CronJob:
    template = batch.JobTemplateSpec(spec=batch.JobSpec(template=a_template()))
    settings: dict[str, object] = {
        "concurrency_policy": "Allow",
        "successful_jobs_history_limit": 1,
        "failed_jobs_history_limit": 1,
        **spec,
    }
    return batch.CronJob(
        metadata=meta.ObjectMeta(name="tick", namespace="default"),
        spec=batch.CronJobSpec(schedule=schedule, job_template=template, **settings),  # type: ignore[arg-type]
    )


def a_world(cron: batch.CronJob) -> Workloads:
    world = Workloads()
    world.put(cron)
    world.start(CronJobController)
    return world


def finish(world: Workloads, name: str, type: str = "Complete") -> None:
    def change(job: batch.Job) -> None:
        now = times.format_time(world.now)
        job.status.conditions = [batch.JobCondition(type=type, status="True", last_transition_time=now)]
        job.status.start_time = now
        job.status.completion_time = now if type == "Complete" else None

    world.change(batch.Job, "default", name, change)
    world.settle()


def names(world: Workloads) -> list[str]:
    return sorted(job.metadata.name for job in world.all(batch.Job))


def test_each_minute_makes_a_job_named_after_it() -> None:
    world = a_world(a_cron())
    assert names(world) == []

    world.wait(120.5)

    first = int(times.parse("2026-01-01T00:01:00Z")) // 60
    assert names(world) == [f"tick-{first}", f"tick-{first + 1}"]
    status = world.get(batch.CronJob, "default", "tick").status
    assert status.last_schedule_time == "2026-01-01T00:02:00Z"
    assert [each.name for each in status.active] == names(world)


def test_a_running_job_keeps_the_next_from_starting_under_forbid() -> None:
    world = a_world(a_cron(concurrency_policy="Forbid"))

    world.wait(180.5)

    assert len(names(world)) == 1
    assert "JobAlreadyActive" in world.reasons()


def test_a_running_job_makes_room_for_the_next_under_replace() -> None:
    world = a_world(a_cron(concurrency_policy="Replace"))

    world.wait(120.5)

    assert names(world) == [f"tick-{int(times.parse('2026-01-01T00:02:00Z')) // 60}"]


def test_a_suspended_cron_job_makes_nothing() -> None:
    world = a_world(a_cron(suspend=True))

    world.wait(300)

    assert names(world) == []


def test_finished_jobs_beyond_the_limit_go_the_oldest_first() -> None:
    world = a_world(a_cron())
    for _ in range(3):
        world.wait(60.5)
        for name in names(world):
            if not world.get(batch.Job, "default", name).status.conditions:
                finish(world, name)

    assert len(names(world)) == 1
    assert world.get(batch.CronJob, "default", "tick").status.last_successful_time is not None


def test_a_start_that_was_missed_by_more_than_the_deadline_is_dropped() -> None:
    cron = a_cron("0 0 * * *", starting_deadline_seconds=100)
    cron.metadata.creation_timestamp = "2025-12-31T00:00:00Z"

    found = due(cron, parse("0 0 * * *"), UTC, times.parse("2026-01-01T00:05:00Z"))

    assert found.seconds is None


def test_only_the_latest_of_many_missed_starts_is_made_up_for() -> None:
    cron = a_cron()
    cron.metadata.creation_timestamp = "2025-01-01T00:00:00Z"

    found = due(cron, parse("* * * * *"), UTC, times.parse("2026-01-01T00:05:30Z"))

    assert found.seconds == times.parse("2026-01-01T00:05:00Z")
    assert found.missed_too_many


def test_an_unknown_time_zone_is_told() -> None:
    world = a_world(a_cron(time_zone="Nowhere/Land"))

    assert world.reasons() == ["UnknownTimeZone"]


def test_a_schedule_that_never_comes_is_told_and_starts_nothing() -> None:
    world = a_world(a_cron("59 23 31 2 *"))

    world.wait(120)

    assert names(world) == []
    assert ("Warning", "InvalidSchedule") in {(event.type, event.reason) for event in world.events}

from __future__ import annotations

from tests.spec.controllers.world import START, World

from haven.api.batch import v1 as batch
from haven.apimachinery import meta, times
from haven.controllers.ttlafterfinished import TTLAfterFinishedController


def a_job(ttl: int | None, *, condition: str = "") -> batch.Job:
    ended = batch.JobCondition(type=condition, status="True", last_transition_time=times.format_time(START))
    return batch.Job(
        metadata=meta.ObjectMeta(name="j", namespace="default"),
        spec=batch.JobSpec(ttl_seconds_after_finished=ttl),
        status=batch.JobStatus(conditions=[ended] if condition else []),
    )


def a_world(job: batch.Job) -> World:
    world = World()
    world.put(job)
    world.start(TTLAfterFinishedController)
    return world


def test_an_ended_job_goes_when_its_time_is_up_and_its_pods_before_it() -> None:
    world = a_world(a_job(10, condition="Failed"))

    world.wait(9)
    assert world.deleted == []
    world.wait(1)

    assert [each.propagation_policy for each in world.deleted] == ["Foreground"]


def test_a_job_without_a_limit_and_one_that_runs_stay() -> None:
    for job in (a_job(None, condition="Complete"), a_job(0)):
        world = a_world(job)
        world.wait(1000)
        assert world.deleted == []


def test_a_job_given_more_time_gets_it() -> None:
    world = a_world(a_job(10, condition="Complete"))

    world.change(batch.Job, "default", "j", lambda job: setattr(job.spec, "ttl_seconds_after_finished", 100))
    world.wait(99)
    assert world.deleted == []
    world.wait(1)

    assert len(world.deleted) == 1

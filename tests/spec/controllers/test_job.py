from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis.strategies import data, integers, sampled_from
from tests.spec.controllers.workloads import Workloads, a_template, run_pods, set_phase

from haven.api.batch import v1 as batch
from haven.api.core import v1 as core
from haven.apimachinery import meta
from haven.controllers.job import FINALIZER, JobController
from haven.controllers.jobindexes import INDEX
from haven.controllers.jobpolicies import BackoffRecord, judge_failure, next_record, wait_seconds

LABELS = {"job": "sum"}


def a_job(**spec: object) -> batch.Job:
    fields: dict[str, object] = {"completions": 1, "parallelism": 1, "backoff_limit": 6, **spec}
    template = a_template(labels=LABELS)
    template.spec.restart_policy = "Never"
    return batch.Job(
        metadata=meta.ObjectMeta(name="sum", namespace="default"),
        spec=batch.JobSpec(
            selector=meta.LabelSelector(match_labels=LABELS),
            template=template,
            **fields,  # type: ignore[arg-type]
        ),
    )


class Jobs(Workloads):
    """A world with one Job, whose Pods end when told."""

    def __init__(self, job: batch.Job) -> None:
        super().__init__()
        self.put(job)
        self.start(JobController)

    @property
    def job(self) -> batch.Job:
        found: batch.Job = self.get(batch.Job, "default", "sum")
        return found

    @property
    def living(self) -> list[core.Pod]:
        every = self.all(core.Pod)
        return [pod for pod in every if pod.status.phase in ("Pending", "Running") and not _is_going(pod)]

    def end(self, pod: core.Pod, phase: str = "Succeeded", code: int = 1) -> None:
        set_phase(self, pod, phase)

        def exit_with(target: core.Pod) -> None:
            ended = core.ContainerStateTerminated(exit_code=0 if phase == "Succeeded" else code)
            state = core.ContainerState(terminated=ended)
            target.status.container_statuses = [core.ContainerStatus(name="main", state=state)]

        if self.get(core.Pod, "default", pod.metadata.name) is not None:
            self.change(core.Pod, "default", pod.metadata.name, exit_with)
        self.settle()

    def conditions(self) -> list[tuple[str, str]]:
        return [(each.type, each.reason) for each in self.job.status.conditions if each.status == "True"]


def _is_going(pod: core.Pod) -> bool:
    return pod.metadata.deletion_timestamp is not None


def test_a_job_is_complete_when_enough_pods_succeeded() -> None:
    world = Jobs(a_job(completions=3, parallelism=2))
    assert len(world.living) == 2
    assert all(FINALIZER in pod.metadata.finalizers for pod in world.living)

    while world.living:
        world.end(world.living[0])

    assert world.job.status.succeeded == 3
    assert world.conditions() == [("SuccessCriteriaMet", "CompletionsReached"), ("Complete", "CompletionsReached")]
    assert not any(pod.metadata.finalizers for pod in world.all(core.Pod))
    assert world.reasons()[-1] == "Completed"


def test_a_failed_pod_is_replaced_only_after_a_while() -> None:
    world = Jobs(a_job())
    world.end(world.living[0], "Failed")
    assert world.living == []

    world.wait(11)

    assert len(world.living) == 1
    assert world.job.status.failed == 1


def test_too_many_failures_fail_the_job_and_its_running_pods_go() -> None:
    world = Jobs(a_job(completions=2, parallelism=2, backoff_limit=0))

    world.end(world.living[0], "Failed")
    world.wait(1)

    assert world.conditions() == [("FailureTarget", "BackoffLimitExceeded"), ("Failed", "BackoffLimitExceeded")]
    assert world.living == []


def test_a_job_that_takes_too_long_fails() -> None:
    world = Jobs(a_job(active_deadline_seconds=30))
    run_pods(world)

    world.wait(31)

    assert world.conditions()[0] == ("FailureTarget", "DeadlineExceeded")
    assert world.living == []


def test_a_suspended_job_has_no_pods_and_says_so_and_resumes() -> None:
    world = Jobs(a_job(suspend=True))
    assert world.living == []
    assert world.conditions() == [("Suspended", "JobSuspended")]
    assert world.job.status.start_time is None

    def resume(job: batch.Job) -> None:
        job.spec.suspend = False

    world.edit(batch.Job, "sum", resume)

    assert len(world.living) == 1
    assert world.conditions() == []
    assert world.job.status.start_time is not None


def test_every_index_runs_once_and_knows_its_number() -> None:
    world = Jobs(a_job(completions=3, parallelism=3, completion_mode="Indexed"))

    assert sorted(pod.metadata.annotations[INDEX] for pod in world.living) == ["0", "1", "2"]
    assert sorted(pod.spec.hostname for pod in world.living) == ["sum-0", "sum-1", "sum-2"]
    env = world.living[0].spec.containers[0].env
    assert [each.name for each in env] == ["JOB_COMPLETION_INDEX"]
    for pod in world.living:
        world.end(pod)
    assert world.job.status.completed_indexes == "0-2"


def test_a_failing_index_does_not_hold_up_the_others() -> None:
    world = Jobs(a_job(completions=2, parallelism=2, completion_mode="Indexed", backoff_limit_per_index=0))
    first, second = sorted(world.living, key=lambda pod: pod.metadata.annotations[INDEX])

    world.end(first, "Failed")
    world.end(second)
    world.wait(1)

    status = world.job.status
    assert (status.failed_indexes, status.completed_indexes) == ("0", "1")
    assert world.conditions()[-1] == ("Failed", "FailedIndexes")


def test_an_index_is_tried_again_as_often_as_it_may() -> None:
    world = Jobs(a_job(completions=1, parallelism=1, completion_mode="Indexed", backoff_limit_per_index=1))

    world.end(world.living[0], "Failed")
    world.wait(11)
    (again,) = world.living
    assert again.metadata.annotations["batch.kubernetes.io/job-index-failure-count"] == "1"
    world.end(again, "Failed")
    world.wait(1)

    assert world.job.status.failed_indexes == "0"


def test_a_success_policy_ends_the_job_before_all_indexes_are_done() -> None:
    rule = batch.SuccessPolicyRule(succeeded_indexes="0")
    policy = batch.SuccessPolicy(rules=[rule])
    world = Jobs(a_job(completions=3, parallelism=3, completion_mode="Indexed", success_policy=policy))
    leader = next(pod for pod in world.living if pod.metadata.annotations[INDEX] == "0")

    world.end(leader)
    world.wait(1)

    assert world.conditions() == [("SuccessCriteriaMet", "SuccessPolicy"), ("Complete", "SuccessPolicy")]
    assert world.living == []


def an_exit_code_policy(action: str) -> batch.PodFailurePolicy:
    wanted = batch.PodFailurePolicyOnExitCodesRequirement(operator="In", values=[42])
    return batch.PodFailurePolicy(rules=[batch.PodFailurePolicyRule(action=action, on_exit_codes=wanted)])


def test_a_failure_that_is_ignored_does_not_count() -> None:
    world = Jobs(a_job(backoff_limit=0, pod_failure_policy=an_exit_code_policy("Ignore")))

    world.end(world.living[0], "Failed", code=42)
    world.wait(11)

    assert world.job.status.failed == 0
    assert len(world.living) == 1


def test_a_failure_that_fails_the_job_tells_which_rule_it_was() -> None:
    world = Jobs(a_job(pod_failure_policy=an_exit_code_policy("FailJob")))
    name = world.living[0].metadata.name

    world.end(world.living[0], "Failed", code=42)
    world.wait(1)

    final = next(each for each in world.job.status.conditions if each.type == "Failed")
    assert final.reason == "PodFailurePolicy"
    assert final.message == (
        f"Container main for pod default/{name} failed with exit code 42 matching FailJob rule at index 0"
    )


def test_without_a_matching_rule_a_failure_counts() -> None:
    pod = core.Pod(status=core.PodStatus(phase="Failed"))

    assert judge_failure(an_exit_code_policy("Ignore"), pod).counts


def test_a_job_that_somebody_else_manages_is_left_alone() -> None:
    assert Jobs(a_job(managed_by="example.com/mine")).all(core.Pod) == []


def test_the_finalizer_comes_off_pods_whose_job_is_gone() -> None:
    world = Jobs(a_job())
    run_pods(world)

    world.remove(batch.Job, "default", "sum")
    world.wait(2)

    assert [pod.metadata.finalizers for pod in world.all(core.Pod)] == [[]]


@pytest.mark.parametrize(("failures", "seconds"), [(0, 0), (1, 10), (2, 20), (5, 160), (20, 600)])
def test_waits_double_up_to_ten_minutes(failures: int, seconds: float) -> None:
    assert wait_seconds(failures, 0.0, 0.0) == seconds


def test_a_success_makes_earlier_failures_forgotten() -> None:
    early = core.Pod(metadata=meta.ObjectMeta(creation_timestamp="2026-01-01T00:00:00Z"))
    late = core.Pod(metadata=meta.ObjectMeta(creation_timestamp="2026-01-01T01:00:00Z"))

    assert next_record(BackoffRecord(3, 1.0), [late], [early]) == BackoffRecord()
    assert next_record(BackoffRecord(3, 1.0), [early], [late]).failures == 1


@settings(max_examples=40, deadline=None)
@given(
    completions=integers(1, 5), parallelism=integers(1, 4), mode=sampled_from(["NonIndexed", "Indexed"]), ends=data()
)
def test_a_job_ends_with_exact_counts_whatever_its_pods_do(
    completions: int, parallelism: int, mode: str, ends: object
) -> None:
    world = Jobs(a_job(completions=completions, parallelism=parallelism, completion_mode=mode, backoff_limit=3))
    failures = 0

    for _ in range(60):
        if not world.living:
            world.wait(700)
        if world.job.status.completion_time or ("Failed", "BackoffLimitExceeded") in world.conditions():
            break
        assert len(world.living) <= parallelism
        phase = ends.draw(sampled_from(["Succeeded", "Failed"]))  # type: ignore[attr-defined]
        failures += phase == "Failed"
        world.end(world.living[0], phase)
    world.wait(5)

    status = world.job.status
    if failures > 3:
        assert world.conditions()[-1] == ("Failed", "BackoffLimitExceeded")
        assert status.failed >= failures
    else:
        assert status.succeeded == completions
        assert status.failed == failures
    assert status.uncounted_terminated_pods in (None, batch.UncountedTerminatedPods())
    assert not any(FINALIZER in pod.metadata.finalizers for pod in world.all(core.Pod))

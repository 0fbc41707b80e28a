from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import booleans, builds, integers, lists, sampled_from
from tests.spec.controllers.workloads import LABELS, SELECTOR, Workloads, a_pod, a_template, run_pods, set_phase

from haven.api.apps import v1 as apps
from haven.api.core import v1 as core
from haven.apimachinery import apierrors, meta, times
from haven.controllers import pods
from haven.controllers.replicaset import ACTIONS_PER_PASS_MAX, ReplicaSetController, plan

NOW = times.parse("2026-01-01T01:00:00Z")


def a_set(replicas: int = 2, min_ready_seconds: int = 0) -> apps.ReplicaSet:
    return apps.ReplicaSet(
        metadata=meta.ObjectMeta(name="web", namespace="default"),
        spec=apps.ReplicaSetSpec(
            replicas=replicas, selector=SELECTOR, template=a_template(), min_ready_seconds=min_ready_seconds
        ),
    )


def test_an_unready_pod_is_deleted_before_a_ready_one() -> None:
    sick, healthy = a_pod("sick", ready=False), a_pod("healthy")

    assert plan(1, [healthy, sick], {}, NOW).delete == (sick,)


def test_a_pod_without_a_node_is_deleted_first() -> None:
    waiting, sick = a_pod("waiting", node="", phase="Pending", ready=False), a_pod("sick", ready=False)

    assert plan(1, [sick, waiting], {}, NOW).delete == (waiting,)


def test_a_pod_of_lower_deletion_cost_is_deleted_before_an_older_one() -> None:
    cheap, dear = a_pod("cheap", created="2025-01-01T00:00:00Z"), a_pod("dear")
    cheap.metadata.annotations["controller.kubernetes.io/pod-deletion-cost"] = "-5"

    assert plan(1, [dear, cheap], {}, NOW).delete == (cheap,)


def test_a_pod_on_a_crowded_node_is_deleted_before_one_that_is_alone() -> None:
    crowded, alone = a_pod("crowded", node="full"), a_pod("alone", node="empty")

    assert plan(1, [alone, crowded], {"full": 2, "empty": 1}, NOW).delete == (crowded,)


def test_one_pass_does_not_starve_other_sets() -> None:
    assert plan(10_000, [], {}, NOW).create == ACTIONS_PER_PASS_MAX


some_pods = lists(
    builds(
        lambda number, ready, phase: a_pod(f"p{number}", ready=ready, phase=phase),
        integers(0, 999),
        booleans(),
        sampled_from(["Pending", "Running"]),
    ),
    max_size=12,
    unique_by=lambda pod: pod.metadata.name,
)


@given(replicas=integers(0, 9), observed=some_pods)
def test_the_plan_leads_to_the_desired_number_and_then_to_nothing(replicas: int, observed: list[core.Pod]) -> None:
    wanted = plan(replicas, observed, {}, NOW)

    left = [pod for pod in observed if pod not in wanted.delete]
    assert len(left) + wanted.create == replicas
    everyone = left + [a_pod(f"new{number}") for number in range(wanted.create)]
    again = plan(replicas, everyone, {}, NOW)
    assert (again.create, again.delete) == (0, ())


@given(observed=some_pods)
def test_the_order_of_deletion_does_not_depend_on_the_order_of_observation(observed: list[core.Pod]) -> None:
    forward = pods.deletion_order(observed, {}, NOW)

    assert pods.deletion_order(list(reversed(observed)), {}, NOW) == forward


def test_a_set_gets_its_pods_tells_of_each_and_counts_them() -> None:
    world = Workloads()
    world.put(a_set(2))
    world.start(ReplicaSetController)

    run_pods(world)

    assert world.reasons() == ["SuccessfulCreate", "SuccessfulCreate"]
    status = world.get(apps.ReplicaSet, "default", "web").status
    assert (status.replicas, status.fully_labeled_replicas, status.ready_replicas, status.available_replicas) == (
        2,
    ) * 4


def test_a_finished_pod_is_replaced() -> None:
    world = Workloads()
    world.put(a_set(1))
    world.start(ReplicaSetController)

    set_phase(world, world.all(core.Pod)[0], "Failed")
    world.settle()

    assert sorted(pod.status.phase for pod in world.all(core.Pod)) == ["Failed", "Pending"]


def test_a_set_adopts_a_matching_orphan_instead_of_making_a_pod() -> None:
    world = Workloads()
    world.put(a_pod("orphan"), a_set(1))
    world.start(ReplicaSetController)

    assert [pod.metadata.name for pod in world.all(core.Pod)] == ["orphan"]
    assert world.all(core.Pod)[0].metadata.owner_references[0].kind == "ReplicaSet"


def test_a_set_lets_a_pod_go_that_no_longer_matches_and_makes_another() -> None:
    world = Workloads()
    world.put(a_set(1))
    world.start(ReplicaSetController)
    name = world.all(core.Pod)[0].metadata.name

    world.change(core.Pod, "default", name, lambda pod: pod.metadata.labels.update(app="other"))
    world.settle()

    assert world.get(core.Pod, "default", name).metadata.owner_references == []
    assert sum(pod.metadata.labels == LABELS for pod in world.all(core.Pod)) == 1


def test_a_refused_pod_shows_as_a_condition_until_one_is_accepted() -> None:
    world = Workloads()

    def refuse(action: object) -> None:
        if isinstance(getattr(action, "obj", None), core.Pod):
            raise apierrors.Forbidden("no room")

    world.refuse = refuse
    world.put(a_set(1))
    world.start(ReplicaSetController)
    conditions = world.get(apps.ReplicaSet, "default", "web").status.conditions
    assert [(each.type, each.reason, each.message) for each in conditions] == [
        ("ReplicaFailure", "FailedCreate", "no room")
    ]
    assert world.events[0].message == "Error creating: no room"

    world.refuse = lambda _action: None
    world.wait(2)

    assert world.get(apps.ReplicaSet, "default", "web").status.conditions == []


def test_a_ready_pod_is_available_only_after_min_ready_seconds() -> None:
    world = Workloads()
    world.put(a_set(1, min_ready_seconds=10))
    world.start(ReplicaSetController)
    run_pods(world)
    assert world.get(apps.ReplicaSet, "default", "web").status.available_replicas == 0

    world.wait(10)

    assert world.get(apps.ReplicaSet, "default", "web").status.available_replicas == 1

from __future__ import annotations

from typing import Any

import pytest
from tests.spec.controllers.world import START, World

from haven.api.apps import v1 as apps
from haven.api.core import v1 as core
from haven.api.policy import v1 as policy
from haven.apimachinery import apierrors, meta, times
from haven.controllers.actions import Request, Update
from haven.controllers.disruption import DisruptionController

LABELS = {"app": "a"}


def a_budget(**spec: Any) -> policy.PodDisruptionBudget:
    return policy.PodDisruptionBudget(
        metadata=meta.ObjectMeta(name="b", namespace="default", generation=1),
        spec=policy.PodDisruptionBudgetSpec(selector=meta.LabelSelector(match_labels=LABELS), **spec),
    )


def a_set(replicas: int) -> apps.ReplicaSet:
    metadata = meta.ObjectMeta(name="rs", namespace="default", uid="rs")  # type: ignore[arg-type]
    return apps.ReplicaSet(metadata=metadata, spec=apps.ReplicaSetSpec(replicas=replicas))


def a_pod(name: str, *, ready: bool = True, kind: str = "ReplicaSet") -> core.Pod:
    owner = meta.OwnerReference(
        api_version="apps/v1" if kind == "ReplicaSet" else "example.com/v1",
        kind=kind,
        name="rs",
        uid="rs",  # type: ignore[arg-type]
        controller=True,
    )
    return core.Pod(
        metadata=meta.ObjectMeta(
            name=name, namespace="default", labels=LABELS, owner_references=[owner] if kind else []
        ),
        status=core.PodStatus(conditions=[core.PodCondition(type="Ready", status="True" if ready else "False")]),
    )


def a_world(*objects: Any) -> World:
    world = World()
    world.put(*objects)
    world.start(DisruptionController)
    return world


def status(world: World) -> policy.PodDisruptionBudgetStatus:
    return world.get(policy.PodDisruptionBudget, "default", "b").status  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("spec", "expected", "desired", "allowed"),
    [
        ({"min_available": 2}, 3, 2, 1),
        ({"min_available": 5}, 3, 5, 0),
        ({"min_available": "50%"}, 10, 5, 0),
        ({"min_available": "20%"}, 10, 2, 1),
        ({"max_unavailable": 8}, 10, 2, 1),
        ({"max_unavailable": "75%"}, 10, 2, 1),
    ],
)
def test_disruptions_are_allowed_as_far_as_healthy_pods_exceed_what_is_asked(
    spec: dict[str, Any], expected: int, desired: int, allowed: int
) -> None:
    world = a_world(a_budget(**spec), a_set(10), *(a_pod(f"p{i}") for i in range(3)))

    result = status(world)

    assert (result.expected_pods, result.desired_healthy, result.current_healthy) == (expected, desired, 3)
    assert result.disruptions_allowed == allowed
    assert result.observed_generation == 1
    condition = result.conditions[0]
    expected_condition = ("True", "SufficientPods") if allowed else ("False", "InsufficientPods")
    assert (condition.type, condition.status, condition.reason) == ("DisruptionAllowed", *expected_condition)


def test_pods_of_a_deployment_count_with_the_deployment() -> None:
    owner = meta.OwnerReference(api_version="apps/v1", kind="Deployment", name="d", uid="d", controller=True)  # type: ignore[arg-type]
    old, new = a_set(1), a_set(2)
    for each, name in ((old, "old"), (new, "rs")):
        each.metadata.name = each.metadata.uid = name  # type: ignore[assignment]
        each.metadata.owner_references = [owner]
    deployment = apps.Deployment(
        metadata=meta.ObjectMeta(name="d", namespace="default", uid="d"),  # type: ignore[arg-type]
        spec=apps.DeploymentSpec(replicas=4),
    )
    straggler = a_pod("p2")
    straggler.metadata.owner_references[0].name = straggler.metadata.owner_references[0].uid = "old"  # type: ignore[assignment]

    world = a_world(a_budget(max_unavailable=1), deployment, old, new, a_pod("p1"), straggler)

    assert status(world).expected_pods == 4


def test_a_pod_without_a_controller_is_reported_and_does_not_stop_the_count() -> None:
    world = a_world(a_budget(max_unavailable=1), a_set(2), a_pod("p"), a_pod("naked", kind=""))

    assert status(world).expected_pods == 2
    assert "UnmanagedPods" in world.reasons()


def test_nothing_is_allowed_while_nobody_knows_how_many_pods_there_should_be() -> None:
    world = a_world(a_budget(max_unavailable=1), a_pod("p"))

    result = status(world)
    assert result.disruptions_allowed == 0
    assert (result.conditions[0].reason, result.conditions[0].message) == (
        "SyncFailed",
        'found no controllers for pod "p"',
    )
    assert set(world.reasons()) == {"CalculateExpectedPodCountFailed"}


def test_pods_becoming_unready_or_deleted_lower_what_is_allowed() -> None:
    world = a_world(a_budget(min_available=1), a_set(3), *(a_pod(f"p{i}") for i in range(3)))
    assert status(world).disruptions_allowed == 2

    world.remove(core.Pod, "default", "p0")
    world.change(core.Pod, "default", "p1", lambda pod: setattr(pod.status.conditions[0], "status", "False"))
    world.settle()

    assert status(world).disruptions_allowed == 0


def test_a_granted_eviction_counts_until_it_lapses() -> None:
    budget = a_budget(min_available=1)
    budget.status.disrupted_pods = {"p0": times.format_time(START), "gone": times.format_time(START)}
    world = a_world(budget, a_set(2), a_pod("p0"), a_pod("p1"))
    assert (status(world).current_healthy, set(status(world).disrupted_pods)) == (1, {"p0"})

    world.wait(122)

    assert (status(world).current_healthy, status(world).disrupted_pods) == (2, {})
    assert "NotDeleted" in world.reasons()


def test_the_scale_of_a_custom_controller_is_asked_for() -> None:
    world = World()
    discovered = b"""{"items": [{"metadata": {"name": "example.com"}, "versions": [{"version": "v1", "resources": [
      {"resource": "gangs", "scope": "Namespaced", "singularResource": "gang", "verbs": ["get"],
       "responseKind": {"group": "example.com", "version": "v1", "kind": "Gang"},
       "subresources": [{"subresource": "scale", "verbs": ["get"]}]}]}]}]}"""

    def answer(request: Request) -> bytes:
        if request.path == "/apis/example.com/v1/namespaces/default/gangs/rs/scale":
            return b'{"metadata": {"uid": "rs"}, "spec": {"replicas": 7}}'
        return discovered if request.path == "/apis" else b'{"items": []}'

    world.answer = answer
    world.put(a_budget(max_unavailable="50%"), a_pod("p", kind="Gang"))

    world.start(DisruptionController)

    assert (status(world).expected_pods, status(world).desired_healthy) == (7, 3)


def test_an_announced_disruption_that_does_not_come_is_taken_back() -> None:
    pod = a_pod("p")
    pod.status.conditions.append(
        core.PodCondition(
            type="DisruptionTarget",
            status="True",
            reason="EvictionByEvictionAPI",
            last_transition_time=times.format_time(START),
        )
    )
    world = a_world(pod)

    world.wait(121)

    assert world.get(core.Pod, "default", "p").status.conditions[1].status == "False"


def test_a_conflict_is_no_failure() -> None:
    world = World()
    tries: list[Update] = []

    def refuse(action: object) -> None:
        if isinstance(action, Update) and not tries:
            tries.append(action)
            raise apierrors.Conflict("it changed")

    world.refuse = refuse
    world.put(a_budget(min_available=1), a_set(2), a_pod("p0"), a_pod("p1"))
    world.start(DisruptionController)

    world.wait(2)

    assert status(world).conditions[0].reason == "SufficientPods"


def test_a_pod_of_several_budgets_is_told_of_it() -> None:
    world = World()
    second = a_budget(min_available=1)
    second.metadata.name = "c"
    world.put(a_set(1), a_budget(min_available=1), second, a_pod("p"))

    world.start(DisruptionController)

    told = [(event.name, event.message) for event in world.events if event.reason == "MultiplePodDisruptionBudgets"]
    assert told == [("p", 'Pod "default"/"p" matches multiple PodDisruptionBudgets.  Chose "b" arbitrarily.')]

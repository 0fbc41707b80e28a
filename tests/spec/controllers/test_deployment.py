from __future__ import annotations

from hypothesis import given, settings
from hypothesis.strategies import booleans, data, integers, one_of, sampled_from
from tests.spec.controllers.workloads import SELECTOR, Workloads, a_template

from haven.api.apps import v1 as apps
from haven.api.core import v1 as core
from haven.apimachinery import meta
from haven.controllers import deploymentrollout as rollout
from haven.controllers.deployment import DeploymentController
from haven.controllers.podtemplates import template_hash


def a_deployment(
    replicas: int = 3, *, surge: int | str = "25%", unavailable: int | str = "25%", type: str = "RollingUpdate"
) -> apps.Deployment:
    rolling = apps.RollingUpdateDeployment(max_surge=surge, max_unavailable=unavailable)
    strategy = apps.DeploymentStrategy(type=type, rolling_update=rolling if type == "RollingUpdate" else None)
    return apps.Deployment(
        metadata=meta.ObjectMeta(name="web", namespace="default"),
        spec=apps.DeploymentSpec(
            replicas=replicas,
            selector=SELECTOR,
            template=a_template(),
            strategy=strategy,
            progress_deadline_seconds=600,
            revision_history_limit=2,
        ),
    )


class Rollout(Workloads):
    """A world with a Deployment, in which ReplicaSets get their Pods when told."""

    def __init__(self, deployment: apps.Deployment) -> None:
        super().__init__()
        self.put(deployment)
        self.start(DeploymentController)

    @property
    def deployment(self) -> apps.Deployment:
        found: apps.Deployment = self.get(apps.Deployment, "default", "web")
        return found

    @property
    def sets(self) -> list[apps.ReplicaSet]:
        return rollout.by_creation(self.all(apps.ReplicaSet))

    def sizes(self) -> list[int]:
        return [each.spec.replicas or 0 for each in self.sets]

    def set_image(self, image: str) -> None:
        def change(deployment: apps.Deployment) -> None:
            deployment.spec.template.spec.containers[0].image = image

        self.now += 1
        self.edit(apps.Deployment, "web", change)

    def scale(self, replicas: int) -> None:
        def change(deployment: apps.Deployment) -> None:
            deployment.spec.replicas = replicas

        self.edit(apps.Deployment, "web", change)

    def fill(self, name: str, available: int | None = None) -> None:
        """Have a set's Pods exist and, as many as said (all by default), be available."""

        def change(each: apps.ReplicaSet) -> None:
            size = each.spec.replicas or 0
            status = each.status
            status.replicas = size
            status.available_replicas = status.ready_replicas = size if available is None else min(available, size)
            status.observed_generation = each.metadata.generation

        self.change(apps.ReplicaSet, "default", name, change)
        self.settle()

    def fill_all(self) -> None:
        for each in self.sets:
            self.fill(each.metadata.name)

    def reason(self, type: str) -> str:
        found = rollout.condition_of(self.deployment.status, type)
        return found.reason if found is not None else ""


def test_the_first_set_gets_all_replicas_and_the_rollout_completes() -> None:
    world = Rollout(a_deployment())
    assert world.sizes() == [3]
    assert world.reason("Progressing") == "NewReplicaSetCreated"

    world.fill_all()

    assert world.reason("Progressing") == "NewReplicaSetAvailable"
    assert world.reason("Available") == "MinimumReplicasAvailable"
    assert world.deployment.metadata.annotations[rollout.REVISION] == "1"


def test_the_hash_of_a_template_names_its_set_and_marks_its_pods() -> None:
    world = Rollout(a_deployment())

    (only,) = world.sets
    hash = only.metadata.labels["pod-template-hash"]
    assert only.metadata.name == f"web-{hash}"
    assert only.spec.template.metadata.labels["pod-template-hash"] == hash
    assert set(hash) <= set("bcdfghjklmnpqrstvwxz2456789")


def test_a_rolling_update_goes_forward_only_as_new_pods_become_available() -> None:
    world = Rollout(a_deployment(4, surge=1, unavailable=1))
    world.fill_all()

    world.set_image("two")

    assert world.sizes() == [3, 2]
    world.fill(world.sets[0].metadata.name)
    assert world.sizes() == [3, 2]
    world.fill(world.sets[1].metadata.name, available=1)
    assert world.sizes() == [2, 3]
    for _ in range(8):
        world.fill_all()
    assert world.sizes() == [0, 4]
    assert world.reason("Progressing") == "NewReplicaSetAvailable"


@settings(max_examples=40, deadline=None)
@given(
    replicas=integers(1, 8),
    surge=one_of(integers(0, 3), sampled_from(["0%", "25%", "100%"])),
    unavailable=one_of(integers(0, 3), sampled_from(["0%", "30%"])),
    choices=data(),
)
def test_a_rollout_ends_and_never_leaves_its_bounds(
    replicas: int, surge: int | str, unavailable: int | str, choices: object
) -> None:
    world = Rollout(a_deployment(replicas, surge=surge, unavailable=unavailable))
    world.fill_all()
    world.set_image("two")
    deployment = world.deployment
    most = replicas + rollout.max_surge(deployment)
    least = replicas - rollout.max_unavailable(deployment)

    for _ in range(60):
        if world.sizes() == [0, replicas]:
            break
        for each in world.sets:
            if choices.draw(booleans()):  # type: ignore[attr-defined]
                world.fill(each.metadata.name)
            assert sum(world.sizes()) <= most
            available = sum(min(s.status.available_replicas, s.spec.replicas or 0) for s in world.sets)
            assert available >= least
    else:
        world.fill_all()
    for _ in range(2 * replicas + 4):
        world.fill_all()
    assert world.sizes() == [0, replicas]


def test_recreate_starts_the_new_pods_after_the_last_old_one_is_gone() -> None:
    world = Rollout(a_deployment(2, type="Recreate"))
    world.fill_all()

    world.set_image("two")

    assert world.sizes() == [0]
    world.fill_all()
    assert world.sizes() == [0, 2]


def test_a_paused_deployment_scales_but_does_not_roll() -> None:
    world = Rollout(a_deployment(2))
    world.fill_all()

    def pause(deployment: apps.Deployment) -> None:
        deployment.spec.paused = True
        deployment.spec.template.spec.containers[0].image = "two"
        deployment.spec.replicas = 5

    world.edit(apps.Deployment, "web", pause)

    assert world.sizes() == [5]
    assert world.reason("Progressing") == "DeploymentPaused"


def test_scaling_in_the_middle_of_a_rollout_is_shared_in_proportion() -> None:
    world = Rollout(a_deployment(10, surge=3, unavailable=2))
    world.fill_all()
    world.set_image("two")
    world.fill(world.sets[0].metadata.name)
    assert world.sizes() == [8, 5]

    world.scale(15)

    assert world.sizes() == [11, 7]


def test_going_back_to_an_old_template_reuses_its_set_under_a_new_revision() -> None:
    world = Rollout(a_deployment(1))
    world.fill_all()
    world.set_image("two")
    for _ in range(4):
        world.fill_all()

    world.set_image("one")
    for _ in range(4):
        world.fill_all()

    assert world.sizes() == [1, 0]
    first = world.sets[0].metadata.annotations
    assert (first[rollout.REVISION], first[rollout.REVISION_HISTORY]) == ("3", "1")


def test_old_sets_beyond_the_history_limit_are_deleted() -> None:
    world = Rollout(a_deployment(1))
    for image in ("two", "three", "four", "five"):
        for _ in range(4):
            world.fill_all()
        world.set_image(image)
    for _ in range(6):
        world.fill_all()

    assert sorted(each.metadata.annotations[rollout.REVISION] for each in world.sets) == ["3", "4", "5"]


def test_a_rollout_that_makes_no_progress_times_out() -> None:
    world = Rollout(a_deployment(1))

    world.wait(700)

    progressing = rollout.condition_of(world.deployment.status, "Progressing")
    assert progressing is not None
    assert (progressing.status, progressing.reason) == ("False", "ProgressDeadlineExceeded")


def test_another_template_with_the_same_hash_gets_another_name() -> None:
    world = Workloads()
    deployment = a_deployment(1)
    taken = f"web-{template_hash(deployment.spec.template, None)}"
    foreign = apps.ReplicaSet(metadata=meta.ObjectMeta(name=taken, namespace="default"))
    world.put(foreign, deployment)

    world.start(DeploymentController)
    world.wait(5)

    names = {each.metadata.name for each in world.all(apps.ReplicaSet)}
    assert len(names) == 2
    assert world.get(apps.Deployment, "default", "web").status.collision_count == 1


def test_a_rollback_annotation_brings_the_old_template_back_and_goes() -> None:
    world = Rollout(a_deployment(1))
    world.fill_all()
    world.set_image("two")
    for _ in range(4):
        world.fill_all()

    world.change(apps.Deployment, "default", "web", lambda d: d.metadata.annotations.update({rollout.ROLLBACK_TO: "1"}))
    world.settle()

    assert world.deployment.spec.template.spec.containers[0].image == "one"
    assert rollout.ROLLBACK_TO not in world.deployment.metadata.annotations
    assert "DeploymentRollback" in world.reasons()


def test_scalings_are_told_with_their_numbers() -> None:
    world = Rollout(a_deployment(2))
    world.fill_all()

    world.scale(4)

    name = world.sets[0].metadata.name
    messages = [event.message for event in world.events if event.reason == "ScalingReplicaSet"]
    assert messages == [
        f"Scaled up replica set {name} from 0 to 2",
        f"Scaled up replica set {name} from 2 to 4",
    ]


def test_pods_are_no_business_of_the_deployment_controller() -> None:
    world = Rollout(a_deployment(2))

    assert world.all(core.Pod) == []

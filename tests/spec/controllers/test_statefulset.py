from __future__ import annotations

from hypothesis import given, settings
from hypothesis.strategies import booleans, data, integers, sampled_from
from tests.spec.controllers.workloads import SELECTOR, Workloads, a_template, run_pods, set_phase

from haven.api.apps import v1 as apps
from haven.api.core import v1 as core
from haven.apimachinery import meta
from haven.controllers.statefulset import StatefulSetController, ordinal_of


def a_set(replicas: int = 3, *, policy: str = "OrderedReady", partition: int = 0, **spec: object) -> apps.StatefulSet:
    return apps.StatefulSet(
        metadata=meta.ObjectMeta(name="db", namespace="default"),
        spec=apps.StatefulSetSpec(
            replicas=replicas,
            selector=SELECTOR,
            template=a_template(),
            service_name="db",
            pod_management_policy=policy,
            update_strategy=apps.StatefulSetUpdateStrategy(
                type="RollingUpdate", rolling_update=apps.RollingUpdateStatefulSetStrategy(partition=partition)
            ),
            revision_history_limit=10,
            **spec,  # type: ignore[arg-type]
        ),
    )


class Sets(Workloads):
    def __init__(self, owner: apps.StatefulSet) -> None:
        super().__init__()
        self.put(owner)
        self.start(StatefulSetController)

    @property
    def status(self) -> apps.StatefulSetStatus:
        found: apps.StatefulSetStatus = self.get(apps.StatefulSet, "default", "db").status
        return found

    def names(self) -> list[str]:
        return sorted(pod.metadata.name for pod in self.all(core.Pod))

    def images(self) -> list[str]:
        every = sorted(self.all(core.Pod), key=ordinal_of)
        return [pod.spec.containers[0].image for pod in every]

    def run_all(self, rounds: int = 12) -> None:
        for _ in range(rounds):
            run_pods(self)

    def set_image(self, image: str) -> None:
        def change(owner: apps.StatefulSet) -> None:
            owner.spec.template.spec.containers[0].image = image

        self.edit(apps.StatefulSet, "db", change)

    def scale(self, replicas: int) -> None:
        def change(owner: apps.StatefulSet) -> None:
            owner.spec.replicas = replicas

        self.edit(apps.StatefulSet, "db", change)


def test_each_pod_waits_for_the_one_before_it() -> None:
    world = Sets(a_set())
    assert world.names() == ["db-0"]

    run_pods(world)
    assert world.names() == ["db-0", "db-1"]

    world.run_all()
    assert world.names() == ["db-0", "db-1", "db-2"]
    assert (world.status.ready_replicas, world.status.current_revision) == (3, world.status.update_revision)


def test_parallel_pods_do_not_wait() -> None:
    assert Sets(a_set(policy="Parallel")).names() == ["db-0", "db-1", "db-2"]


def test_a_pod_knows_its_name_and_place() -> None:
    pod = Sets(a_set(1)).all(core.Pod)[0]

    assert (pod.spec.hostname, pod.spec.subdomain) == ("db-0", "db")
    assert pod.metadata.labels["statefulset.kubernetes.io/pod-name"] == "db-0"
    assert pod.metadata.labels["apps.kubernetes.io/pod-index"] == "0"


def test_shrinking_takes_the_highest_ordinal_first_one_at_a_time() -> None:
    world = Sets(a_set())
    world.run_all()

    world.scale(1)
    world.run_all()

    assert [each.name for each in world.deleted] == ["db-2", "db-1"]
    assert world.names() == ["db-0"]


def test_an_update_replaces_pods_from_the_last_and_waits_for_each() -> None:
    world = Sets(a_set())
    world.run_all()

    world.set_image("two")
    assert world.images() == ["one", "one", "two"]

    world.run_all()
    assert world.images() == ["two", "two", "two"]
    assert [each.name for each in world.deleted] == ["db-2", "db-1", "db-0"]


def test_pods_below_the_partition_keep_the_old_revision_even_when_made_anew() -> None:
    world = Sets(a_set(partition=2))
    world.run_all()
    world.set_image("two")
    world.run_all()
    assert world.images() == ["one", "one", "two"]

    world.remove(core.Pod, "default", "db-0")
    world.settle()

    assert world.images() == ["one", "one", "two"]


def test_a_failed_pod_is_replaced_by_one_of_the_same_name() -> None:
    world = Sets(a_set(1))
    run_pods(world)
    before = world.all(core.Pod)[0].metadata.uid

    set_phase(world, world.all(core.Pod)[0], "Failed")
    world.settle()

    (pod,) = world.all(core.Pod)
    assert pod.metadata.name == "db-0"
    assert pod.metadata.uid != before


def test_ordinals_may_start_anywhere() -> None:
    assert Sets(a_set(2, policy="Parallel", ordinals=apps.StatefulSetOrdinals(start=5))).names() == ["db-5", "db-6"]


def a_claim() -> core.PersistentVolumeClaim:
    return core.PersistentVolumeClaim(metadata=meta.ObjectMeta(name="data"))


def test_every_pod_gets_a_claim_that_outlives_it() -> None:
    world = Sets(a_set(2, volume_claim_templates=[a_claim()]))
    world.run_all()
    assert sorted(each.metadata.name for each in world.all(core.PersistentVolumeClaim)) == ["data-db-0", "data-db-1"]
    volumes = world.get(core.Pod, "default", "db-1").spec.volumes
    assert volumes[0].persistent_volume_claim.claim_name == "data-db-1"

    world.scale(0)
    world.run_all()

    claims = world.all(core.PersistentVolumeClaim)
    assert [each.metadata.owner_references for each in claims] == [[], []]


def test_under_the_policy_delete_a_claim_belongs_to_the_set_and_a_surplus_one_to_its_pod() -> None:
    policy = apps.StatefulSetPersistentVolumeClaimRetentionPolicy(when_deleted="Delete", when_scaled="Delete")
    world = Sets(a_set(2, volume_claim_templates=[a_claim()], persistent_volume_claim_retention_policy=policy))
    world.run_all()
    claim = world.get(core.PersistentVolumeClaim, "default", "data-db-1")
    assert [each.kind for each in claim.metadata.owner_references] == ["StatefulSet"]

    world.scale(1)

    claim = world.get(core.PersistentVolumeClaim, "default", "data-db-1")
    assert [each.kind for each in claim.metadata.owner_references] == ["Pod"]


@settings(max_examples=30, deadline=None)
@given(
    replicas=integers(0, 4),
    policy=sampled_from(["OrderedReady", "Parallel"]),
    partition=integers(0, 5),
    choices=data(),
)
def test_a_set_converges_and_in_order_never_has_two_pods_on_their_way(
    replicas: int, policy: str, partition: int, choices: object
) -> None:
    world = Sets(a_set(replicas, policy=policy, partition=partition))
    world.set_image("two")

    for _ in range(12):
        run_pods(world, lambda _pod: choices.draw(booleans()))  # type: ignore[attr-defined]
        if policy == "OrderedReady":
            assert sum(pod.status.phase != "Running" for pod in world.all(core.Pod)) <= 1
    world.run_all(20)

    assert world.names() == [f"db-{number}" for number in range(replicas)]
    assert world.images()[partition:] == ["two"] * max(replicas - partition, 0)

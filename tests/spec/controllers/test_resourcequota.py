from __future__ import annotations

from tests.spec.controllers.world import World

from haven.api.core import v1 as core
from haven.apimachinery import meta
from haven.apimachinery.quantity import Quantity
from haven.controllers.resourcequota import ResourceQuotaController


def a_quota(**hard: str) -> core.ResourceQuota:
    limits = {name.replace("__", "/").replace("_", "."): Quantity.parse(amount) for name, amount in hard.items()}
    return core.ResourceQuota(
        metadata=meta.ObjectMeta(name="q", namespace="default"), spec=core.ResourceQuotaSpec(hard=limits)
    )


def a_pod(name: str, *, cpu: str = "500m", namespace: str = "default") -> core.Pod:
    resources = core.ResourceRequirements(requests={"cpu": Quantity.parse(cpu)})
    return core.Pod(
        metadata=meta.ObjectMeta(name=name, namespace=namespace),
        spec=core.PodSpec(containers=[core.Container(name="c", resources=resources)]),
        status=core.PodStatus(phase="Running"),
    )


def used(world: World) -> dict[str, str]:
    quota: core.ResourceQuota = world.get(core.ResourceQuota, "default", "q")
    return {name: str(amount) for name, amount in quota.status.used.items()}


def test_a_new_quota_learns_what_is_there_in_its_namespace() -> None:
    world = World()
    world.put(a_quota(pods="5", requests_cpu="2", secrets="3"), a_pod("a"), a_pod("b"), a_pod("c", namespace="other"))
    world.put(core.Secret(metadata=meta.ObjectMeta(name="s", namespace="default")))

    world.start(ResourceQuotaController)

    assert used(world) == {"pods": "2", "requests.cpu": "1", "secrets": "1"}
    quota = world.get(core.ResourceQuota, "default", "q")
    assert quota.status.hard == quota.spec.hard


def test_what_is_deleted_or_ends_is_given_back() -> None:
    world = World()
    world.put(a_quota(pods="5", requests_cpu="2"), a_pod("a"), a_pod("b"), a_pod("c"))
    world.start(ResourceQuotaController)

    world.remove(core.Pod, "default", "a")
    world.change(core.Pod, "default", "b", lambda pod: setattr(pod.status, "phase", "Succeeded"))
    world.wait(1)

    assert used(world) == {"pods": "1", "requests.cpu": "500m"}


def test_an_object_that_the_cache_saw_late_is_counted_in_the_end() -> None:
    world = World()
    world.put(a_quota(pods="5"))
    world.start(ResourceQuotaController)
    assert used(world) == {"pods": "0"}

    world.put(a_pod("late"))
    world.wait(1)

    assert used(world) == {"pods": "1"}


def test_a_limit_that_goes_takes_its_count_along() -> None:
    world = World()
    world.put(a_quota(pods="5", services="1"))
    world.start(ResourceQuotaController)

    world.change(core.ResourceQuota, "default", "q", lambda quota: quota.spec.hard.pop("services"))
    world.settle()

    assert used(world) == {"pods": "0"}


def test_a_quota_of_a_scope_counts_only_what_is_in_it() -> None:
    quota = a_quota(pods="5")
    quota.spec.scopes = ["BestEffort"]
    idle = a_pod("idle")
    idle.spec.containers = [core.Container(name="c")]
    world = World()
    world.put(quota, a_pod("busy"), idle)

    world.start(ResourceQuotaController)

    assert used(world) == {"pods": "1"}


def test_what_admission_counted_is_not_written_again() -> None:
    world = World()
    world.put(a_quota(count__configmaps="5"))
    world.start(ResourceQuotaController)
    before = world.get(core.ResourceQuota, "default", "q").metadata.resource_version

    world.wait(1000)

    assert world.get(core.ResourceQuota, "default", "q").metadata.resource_version == before


def test_a_limit_on_what_no_quota_counts_has_no_count() -> None:
    world = World()
    world.put(a_quota(count__events="5", count__secrets="5"))

    world.start(ResourceQuotaController)

    assert used(world) == {"count/secrets": "0"}

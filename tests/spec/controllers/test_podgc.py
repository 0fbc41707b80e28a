from __future__ import annotations

from tests.spec.controllers.workloads import a_pod
from tests.spec.controllers.world import World

from haven.api.core import v1 as core
from haven.apimachinery import meta
from haven.controllers.podgc import PodGarbageCollector, surplus


def a_world(*objects: object) -> World:
    world = World()
    world.put(*objects)
    world.start(PodGarbageCollector)
    return world


def test_a_pod_whose_node_is_gone_for_long_is_marked_and_deleted() -> None:
    world = a_world(a_pod("lost", node="gone"))
    seen: list[core.Pod] = []
    world.reader(core.Pod).add_handler(lambda old, new: seen.append(new) if new is not None else None)

    world.wait(30)
    assert world.get(core.Pod, "default", "lost") is not None
    world.wait(60)

    assert world.get(core.Pod, "default", "lost") is None
    target = next(each for each in seen[-1].status.conditions if each.type == "DisruptionTarget")
    assert (seen[-1].status.phase, target.reason) == ("Failed", "DeletionByPodGC")


def test_a_pod_whose_node_comes_back_in_time_is_left_alone() -> None:
    world = a_world(a_pod("lucky", node="late"))

    world.wait(30)
    world.put(core.Node(metadata=meta.ObjectMeta(name="late")))
    world.wait(200)

    assert world.get(core.Pod, "default", "lucky") is not None


def test_a_pod_that_is_deleted_before_it_got_a_node_goes_at_once() -> None:
    pod = a_pod("early", node="", phase="Pending")
    pod.metadata.deletion_timestamp = "2026-01-01T00:00:00Z"

    assert a_world(pod).get(core.Pod, "default", "early") is None


def test_of_too_many_finished_pods_the_evicted_go_first_and_then_the_oldest() -> None:
    old, young = a_pod("old", created="2026-01-01T00:00:00Z"), a_pod("young", created="2026-01-02T00:00:00Z")
    evicted = a_pod("evicted", phase="Failed", created="2026-01-03T00:00:00Z")
    evicted.status.reason = "Evicted"

    assert [pod.metadata.name for pod in surplus([young, old, evicted], 1)] == ["evicted", "old"]
    assert surplus([young, old, evicted], 3) == []

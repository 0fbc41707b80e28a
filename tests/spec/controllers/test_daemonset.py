from __future__ import annotations

from hypothesis import given, settings
from hypothesis.strategies import booleans, data, integers
from tests.spec.controllers.workloads import SELECTOR, Workloads, a_template, run_pods, set_phase

from haven.api.apps import v1 as apps
from haven.api.core import v1 as core
from haven.apimachinery import meta, serialization
from haven.controllers.daemonset import DaemonSetController, fits, node_name_of
from haven.controllers.podtemplates import sorted_tree


def a_set(*, surge: int = 0, unavailable: int = 1, selector: dict[str, str] | None = None) -> apps.DaemonSet:
    template = a_template()
    template.spec.node_selector = dict(selector or {})
    rolling = apps.RollingUpdateDaemonSet(max_surge=surge, max_unavailable=unavailable)
    return apps.DaemonSet(
        metadata=meta.ObjectMeta(name="agent", namespace="default"),
        spec=apps.DaemonSetSpec(
            selector=SELECTOR,
            template=template,
            update_strategy=apps.DaemonSetUpdateStrategy(type="RollingUpdate", rolling_update=rolling),
            revision_history_limit=10,
        ),
    )


def a_node(name: str, *, labels: dict[str, str] | None = None, taint: core.Taint | None = None) -> core.Node:
    return core.Node(
        metadata=meta.ObjectMeta(name=name, labels=dict(labels or {})),
        spec=core.NodeSpec(taints=[taint] if taint else []),
    )


class Daemons(Workloads):
    def __init__(self, owner: apps.DaemonSet, *nodes: core.Node) -> None:
        super().__init__()
        self.put(*nodes, owner)
        self.start(DaemonSetController)

    def places(self) -> list[tuple[str, str]]:
        return sorted((node_name_of(pod), pod.spec.containers[0].image) for pod in self.all(core.Pod))

    @property
    def status(self) -> apps.DaemonSetStatus:
        found: apps.DaemonSetStatus = self.get(apps.DaemonSet, "default", "agent").status
        return found

    def set_image(self, image: str) -> None:
        def change(owner: apps.DaemonSet) -> None:
            owner.spec.template.spec.containers[0].image = image

        self.edit(apps.DaemonSet, "agent", change)


def test_each_node_gets_one_pod_bound_to_it_by_affinity() -> None:
    world = Daemons(a_set(), a_node("a"), a_node("b"))

    assert world.places() == [("a", "one"), ("b", "one")]
    run_pods(world)
    status = world.status
    assert (status.desired_number_scheduled, status.number_available, status.number_unavailable) == (2, 2, 0)


def test_a_node_that_joins_gets_its_pod() -> None:
    world = Daemons(a_set(), a_node("a"))

    world.put(a_node("b"))
    world.settle()

    assert [place for place, _ in world.places()] == ["a", "b"]


def test_a_node_whose_labels_no_longer_fit_loses_its_pod() -> None:
    world = Daemons(a_set(selector={"disk": "ssd"}), a_node("a", labels={"disk": "ssd"}), a_node("b"))
    assert [place for place, _ in world.places()] == ["a"]

    world.change(core.Node, "", "a", lambda node: node.metadata.labels.update(disk="hdd"))
    world.settle()

    assert world.places() == []


def test_a_daemon_stays_on_a_node_that_is_unreachable_and_avoids_one_that_is_reserved() -> None:
    unreachable = core.Taint(key="node.kubernetes.io/unreachable", effect="NoExecute")
    reserved = core.Taint(key="reserved", effect="NoSchedule")
    evicting = core.Taint(key="reserved", effect="NoExecute")

    assert fits(a_set(), a_node("a", taint=unreachable)) == (True, True)
    assert fits(a_set(), a_node("a", taint=reserved)) == (False, True)
    assert fits(a_set(), a_node("a", taint=evicting)) == (False, False)


def test_an_update_goes_node_by_node() -> None:
    world = Daemons(a_set(), a_node("a"), a_node("b"))
    run_pods(world)

    world.set_image("two")

    assert sorted(image for _, image in world.places()) == ["one", "two"]
    run_pods(world)
    run_pods(world)
    assert world.places() == [("a", "two"), ("b", "two")]


def test_with_surge_the_old_pod_goes_only_when_the_new_one_is_available() -> None:
    world = Daemons(a_set(surge=1, unavailable=0), a_node("a"))
    run_pods(world)

    world.set_image("two")
    assert world.places() == [("a", "one"), ("a", "two")]

    run_pods(world)
    assert world.places() == [("a", "two")]


def test_a_failed_daemon_is_replaced_at_first_at_once_and_then_later() -> None:
    world = Daemons(a_set(), a_node("a"))
    run_pods(world)

    set_phase(world, world.all(core.Pod)[0], "Failed")
    world.settle()
    assert [pod.status.phase for pod in world.all(core.Pod)] == ["Pending"]
    assert "FailedDaemonPod" in world.reasons()

    set_phase(world, world.all(core.Pod)[0], "Failed")
    world.settle()
    assert [pod.status.phase for pod in world.all(core.Pod)] == ["Failed"]
    world.wait(2)
    assert [pod.status.phase for pod in world.all(core.Pod)] == ["Pending"]


@settings(max_examples=30, deadline=None)
@given(nodes=integers(0, 5), unavailable=integers(1, 3), choices=data())
def test_an_update_ends_with_new_pods_everywhere_and_never_takes_too_many_at_once(
    nodes: int, unavailable: int, choices: object
) -> None:
    world = Daemons(a_set(unavailable=unavailable), *[a_node(f"n{number}") for number in range(nodes)])
    run_pods(world)
    world.set_image("two")

    for _ in range(20):
        running = sum(pod.status.phase == "Running" for pod in world.all(core.Pod))
        assert running >= nodes - unavailable
        run_pods(world, lambda _pod: choices.draw(booleans()))  # type: ignore[attr-defined]
    for _ in range(nodes + 1):
        run_pods(world)

    assert [image for _, image in world.places()] == ["two"] * nodes


def test_a_revision_holds_the_template_as_go_would_write_it() -> None:
    world = Daemons(a_set(), a_node("a"))

    (revision,) = world.all(apps.ControllerRevision)

    text = serialization.encode(revision.data)
    assert text == serialization.encode(sorted_tree(revision.data))
    assert text.startswith(b'{"spec":{"template":{"$patch":"replace","metadata":{')


def test_a_revision_is_labelled_with_its_hash_once() -> None:
    world = Daemons(a_set(), a_node("a"))

    (revision,) = world.all(apps.ControllerRevision)

    assert revision.metadata.labels["controller-revision-hash"] == revision.metadata.name.rpartition("-")[2]
    assert "controller.kubernetes.io/hash" not in revision.metadata.labels

from __future__ import annotations

from tests.spec.controllers.test_namespace import discovery_of
from tests.spec.controllers.world import World

from haven.api.apidiscovery import v2 as apidiscovery
from haven.api.core import v1 as core
from haven.api.scheme import Resource, resource_of
from haven.apimachinery import meta, serialization
from haven.apimachinery.names import UID
from haven.client.metadata import metadata_only
from haven.controllers.garbagecollector import GarbageCollector
from haven.controllers.gcgraph import FOREGROUND, ORPHAN


class Garbage(World):
    """A world of ConfigMaps that own each other; metadata of objects is read from the objects."""

    def __init__(self) -> None:
        super().__init__()
        nothing = serialization.encode(apidiscovery.APIGroupDiscoveryList())
        self.answer = lambda request: discovery_of("configmaps") if request.path == "/api" else nothing

    def reader(self, kind: object, *, field_selector: str = "") -> object:
        maps = metadata_only(_maps())
        return super().reader(_maps() if kind == maps else kind, field_selector=field_selector)

    def names(self) -> list[str]:
        return sorted(each.metadata.name for each in self.all(core.ConfigMap))

    def go(self, name: str, finalizer: str) -> None:
        """Delete with a propagation policy, as the API server notes it."""

        def mark(each: core.ConfigMap) -> None:
            each.metadata.deletion_timestamp = "2026-01-01T00:00:00Z"
            each.metadata.finalizers = [finalizer]

        self.change(core.ConfigMap, "default", name, mark)
        self.settle()


def _maps() -> Resource[core.ConfigMap]:
    return resource_of(core.ConfigMap)


def a_map(name: str, *owners: str, blocks: bool = True, kind: str = "ConfigMap", namespace: str = "default") -> object:
    return core.ConfigMap(
        metadata=meta.ObjectMeta(
            name=name,
            namespace=namespace,
            uid=UID(f"uid-{name}"),
            owner_references=[
                meta.OwnerReference(
                    api_version="v1", kind=kind, name=owner, uid=UID(f"uid-{owner}"), block_owner_deletion=blocks
                )
                for owner in owners
            ],
        )
    )


def a_world(*objects: object) -> Garbage:
    world = Garbage()
    world.put(*objects)
    world.start(GarbageCollector)
    world.wait(1)
    return world


def test_what_never_had_its_owner_is_deleted() -> None:
    assert a_world(a_map("child", "ghost")).names() == []


def test_a_chain_goes_from_its_head() -> None:
    world = a_world(a_map("a"), a_map("b", "a"), a_map("c", "b"))
    assert world.names() == ["a", "b", "c"]

    world.remove(core.ConfigMap, "default", "a")
    world.wait(1)

    assert world.names() == []


def test_one_living_owner_is_enough_and_the_dead_one_is_forgotten() -> None:
    world = a_world(a_map("alive"), a_map("child", "alive", "ghost"))

    child = world.get(core.ConfigMap, "default", "child")
    assert [each.name for each in child.metadata.owner_references] == ["alive"]


def test_in_the_foreground_the_owner_goes_last() -> None:
    world = a_world(a_map("owner"), a_map("child", "owner"))
    order: list[str] = []
    world.reader(core.ConfigMap).add_handler(  # type: ignore[attr-defined]
        lambda old, new: order.append(old.metadata.name) if new is None else None
    )

    world.go("owner", FOREGROUND)
    world.wait(1)

    assert order == ["child", "owner"]


def test_in_the_foreground_a_dependent_that_does_not_block_is_not_waited_for() -> None:
    world = a_world(a_map("owner"), a_map("child", "owner", blocks=False))
    world.change(core.ConfigMap, "default", "child", lambda each: setattr(each.metadata, "finalizers", ["slow"]))

    world.go("owner", FOREGROUND)
    world.wait(1)

    assert world.names() == ["child"]


def test_orphans_lose_the_reference_and_live_on() -> None:
    world = a_world(a_map("owner"), a_map("child", "owner"))

    world.go("owner", ORPHAN)
    world.wait(1)

    assert world.names() == ["child"]
    assert world.get(core.ConfigMap, "default", "child").metadata.owner_references == []


def test_a_cycle_in_the_foreground_ends() -> None:
    world = a_world(a_map("a", "c"), a_map("b", "a"), a_map("c", "b"))

    world.go("a", FOREGROUND)
    world.wait(30)

    assert world.names() == []


def test_an_owner_of_an_unknown_kind_keeps_its_dependents() -> None:
    assert a_world(a_map("child", "widget", kind="Widget")).names() == ["child"]


def test_an_owner_in_another_namespace_is_told_and_does_not_count() -> None:
    world = a_world(a_map("owner", namespace="elsewhere"), a_map("child", "owner"))

    assert world.names() == ["owner"]
    (event,) = world.events
    assert event.reason == "OwnerRefInvalidNamespace"
    assert event.message == (
        'ownerRef [v1/ConfigMap, namespace: default, name: owner, uid: uid-owner] does not exist in namespace "default"'
    )


def test_a_later_object_with_the_owner_s_name_is_not_the_owner() -> None:
    impostor = a_map("owner")
    impostor.metadata.uid = UID("another")  # type: ignore[attr-defined]

    assert a_world(impostor, a_map("child", "owner")).names() == ["owner"]

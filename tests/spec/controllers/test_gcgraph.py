from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import booleans, integers, lists, sampled_from, tuples

from haven.api.core import v1 as core
from haven.api.scheme import resource_of
from haven.apimachinery import meta
from haven.apimachinery.names import UID
from haven.controllers.gcgraph import FOREGROUND, ORPHAN, Graph, GraphKey

MAPS = resource_of(core.ConfigMap)


def some_metadata(
    name: str,
    *owners: str,
    namespace: str = "default",
    finalizers: tuple[str, ...] = (),
    going: bool = False,
    blocks: bool = False,
) -> meta.ObjectMeta:
    return meta.ObjectMeta(
        name=name,
        namespace=namespace,
        uid=UID(f"uid-{name}"),
        finalizers=list(finalizers),
        deletion_timestamp="2026-01-01T00:00:00Z" if going else None,
        owner_references=[
            meta.OwnerReference(
                api_version="v1", kind="ConfigMap", name=owner, uid=UID(f"uid-{owner}"), block_owner_deletion=blocks
            )
            for owner in owners
        ],
    )


def collect(name: str) -> GraphKey:
    return GraphKey("collect", UID(f"uid-{name}"))


def test_an_object_whose_owner_was_never_seen_is_looked_at() -> None:
    assert Graph().put(MAPS, some_metadata("child", "parent")) == [collect("child")]


def test_an_object_whose_owner_is_known_is_left_alone() -> None:
    graph = Graph()
    graph.put(MAPS, some_metadata("parent"))

    assert graph.put(MAPS, some_metadata("child", "parent")) == []


def test_an_owner_in_another_namespace_is_no_owner() -> None:
    graph = Graph()
    graph.put(MAPS, some_metadata("parent", namespace="elsewhere"))

    assert graph.put(MAPS, some_metadata("child", "parent")) == [collect("child")]


def test_the_dependents_of_a_vanished_owner_are_looked_at() -> None:
    graph = Graph()
    graph.put(MAPS, some_metadata("parent"))
    graph.put(MAPS, some_metadata("child", "parent"))

    assert graph.remove(UID("uid-parent")) == [collect("child")]


def test_a_foreground_deletion_looks_at_the_dependents_and_at_the_owner_again_when_one_is_gone() -> None:
    graph = Graph()
    graph.put(MAPS, some_metadata("parent"))
    graph.put(MAPS, some_metadata("child", "parent", blocks=True))

    keys = graph.put(MAPS, some_metadata("parent", finalizers=(FOREGROUND,), going=True))
    assert keys == [collect("child"), collect("parent")]
    assert [node.name for node in graph.blocking_dependents(UID("uid-parent"))] == ["child"]

    assert graph.remove(UID("uid-child")) == [collect("parent")]


def test_a_dependent_that_stops_blocking_wakes_its_waiting_owner() -> None:
    graph = Graph()
    graph.put(MAPS, some_metadata("parent", finalizers=(FOREGROUND,), going=True))
    graph.put(MAPS, some_metadata("child", "parent", blocks=True))

    assert collect("parent") in graph.put(MAPS, some_metadata("child", "parent", blocks=False))


def test_orphaning_is_asked_for_once() -> None:
    graph = Graph()
    graph.put(MAPS, some_metadata("parent"))
    going = some_metadata("parent", finalizers=(ORPHAN,), going=True)

    assert graph.put(MAPS, going) == [GraphKey("orphan", UID("uid-parent"))]
    assert graph.put(MAPS, going) == []


NAMES = sampled_from(["a", "b", "c", "d"])


@given(lists(tuples(booleans(), NAMES, lists(NAMES, max_size=3, unique=True), integers(0, 3))))
def test_edges_are_those_of_the_references_whatever_comes(
    changes: list[tuple[bool, str, list[str], int]],
) -> None:
    graph = Graph()

    for is_put, name, owners, kind in changes:
        if is_put:
            finalizers = ((), (FOREGROUND,), (ORPHAN,), (FOREGROUND, "other"))[kind]
            graph.put(MAPS, some_metadata(name, *owners, finalizers=finalizers, going=bool(finalizers)))
        else:
            graph.remove(UID(f"uid-{name}"))
        graph.check()

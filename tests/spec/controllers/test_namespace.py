from __future__ import annotations

from typing import Any

from tests.spec.controllers.world import START, World

from haven.api.apidiscovery import v2 as apidiscovery
from haven.api.core import v1 as core
from haven.api.scheme import resource_of
from haven.apimachinery import meta, serialization, times
from haven.client.metadata import metadata_only
from haven.controllers.actions import DeleteCollection, Request, Update
from haven.controllers.namespace import NamespaceController, Remaining, conditions_of

VERBS = ["create", "delete", "deletecollection", "get", "list", "watch"]


def discovery_of(*plurals: str, freshness: str = "Current") -> bytes:
    kinds = {"pods": "Pod", "configmaps": "ConfigMap"}
    resources = [
        apidiscovery.APIResourceDiscovery(
            resource=plural,
            response_kind=meta.GroupVersionKind(version="v1", kind=kinds[plural]),
            scope="Namespaced",
            verbs=VERBS,
        )
        for plural in plurals
    ]
    version = apidiscovery.APIVersionDiscovery(version="v1", resources=resources, freshness=freshness)
    group = apidiscovery.APIGroupDiscovery(versions=[version])
    return serialization.encode(apidiscovery.APIGroupDiscoveryList(items=[group]))


class Namespaces(World):
    """A world that serves Pods and ConfigMaps, and answers deletecollection and finalize as a server does."""

    def __init__(self) -> None:
        super().__init__()
        self.emptied: list[str] = []
        nothing = serialization.encode(apidiscovery.APIGroupDiscoveryList())
        self.answer = lambda request: discovery_of("pods", "configmaps") if request.path == "/api" else nothing

    def reader(self, kind: Any, *, field_selector: str = "") -> Any:
        maps = resource_of(core.ConfigMap)
        return super().reader(maps if kind == metadata_only(maps) else kind, field_selector=field_selector)

    def _perform(self, action: object, key: object) -> object:
        if isinstance(action, DeleteCollection):
            return self._empty(action.path)
        if isinstance(action, Update) and action.subresource == "finalize":
            if not action.obj.spec.finalizers:
                self.remove(core.Namespace, "", action.obj.metadata.name)
            return action.obj
        return super()._perform(action, key)  # type: ignore[arg-type]

    def _empty(self, path: str) -> None:
        kind: type = core.Pod if "/pods" in path else core.ConfigMap
        self.emptied.append(kind.__name__)
        for obj in self.all(kind):
            if obj.metadata.finalizers:
                self.change(
                    kind, "shop", obj.metadata.name, lambda each: setattr(each.metadata, "deletion_timestamp", NOW)
                )
            else:
                self.remove(kind, "shop", obj.metadata.name)


NOW = times.format_time(START)


def a_namespace() -> core.Namespace:
    return core.Namespace(
        metadata=meta.ObjectMeta(name="shop", deletion_timestamp=NOW, finalizers=["keep"]),
        spec=core.NamespaceSpec(finalizers=["kubernetes"]),
        status=core.NamespaceStatus(phase="Active"),
    )


def an_object(kind: type, name: str, *finalizers: str) -> object:
    return kind(metadata=meta.ObjectMeta(name=name, namespace="shop", finalizers=list(finalizers)))


def a_world(*objects: object) -> Namespaces:
    world = Namespaces()
    world.put(a_namespace(), *objects)
    world.start(NamespaceController)
    return world


def test_everything_goes_and_then_the_namespace() -> None:
    world = a_world(an_object(core.Pod, "p"), an_object(core.ConfigMap, "c"))

    assert world.emptied == ["Pod", "ConfigMap"]
    assert world.get(core.Namespace, "", "shop") is None


def test_other_content_waits_for_the_last_pod() -> None:
    world = a_world(an_object(core.Pod, "p", "slow"), an_object(core.ConfigMap, "c"))

    assert set(world.emptied) == {"Pod"}
    assert world.get(core.Namespace, "", "shop").status.phase == "Terminating"

    world.remove(core.Pod, "shop", "p")
    world.settle()

    assert world.get(core.Namespace, "", "shop") is None


def test_what_holds_a_namespace_up_is_told_in_its_conditions() -> None:
    world = a_world(an_object(core.ConfigMap, "c", "example.com/hold"))

    found = {each.type: each for each in world.get(core.Namespace, "", "shop").status.conditions}
    assert {type for type, each in found.items() if each.status == "True"} == {
        "NamespaceContentRemaining",
        "NamespaceFinalizersRemaining",
    }
    assert found["NamespaceContentRemaining"].message == (
        "Some resources are remaining: configmaps. has 1 resource instances"
    )
    assert found["NamespaceFinalizersRemaining"].message == (
        "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
    )


def test_a_namespace_is_kept_while_an_api_group_does_not_answer() -> None:
    world = Namespaces()
    nothing = serialization.encode(apidiscovery.APIGroupDiscoveryList())
    world.answer = lambda request: discovery_of("pods", freshness="Stale") if request.path == "/api" else nothing
    world.put(a_namespace())

    world.start(NamespaceController)

    conditions = world.get(core.Namespace, "", "shop").status.conditions
    assert [each.reason for each in conditions if each.status == "True"] == ["DiscoveryFailed"]


def test_each_group_that_does_not_answer_is_named_with_its_fault() -> None:
    told = {each.type: each for each in conditions_of([], Remaining(), ["b.io/v1", "a.io/v1"], START, totals=True)}

    assert told["NamespaceDeletionDiscoveryFailure"].message == (
        "Discovery failed for some groups, 2 failing: unable to retrieve the complete list of server APIs: "
        "a.io/v1: stale GroupVersion discovery: a.io/v1, b.io/v1: stale GroupVersion discovery: b.io/v1"
    )


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    before = conditions_of([], Remaining(), [], START, totals=True)

    after = conditions_of(before, Remaining(), [], START + 60, totals=True)

    assert after == before


def test_requests_ask_for_aggregated_discovery() -> None:
    world = a_world()

    assert [request.path for request in world.requests if isinstance(request, Request)] == ["/api", "/apis"]

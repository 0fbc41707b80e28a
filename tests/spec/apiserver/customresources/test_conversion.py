from __future__ import annotations

from typing import Any

import pytest
from tests.spec.apiserver.customresources.definitions import a_definition, a_version

from haven.api.apiextensions import v1
from haven.apimachinery import serialization
from haven.apimachinery.names import Revision
from haven.apiserver.customresources.conversion import ConversionFailed, WebhookConverter, WebhookFailure
from haven.apiserver.customresources.definition import compile_definition, kube_rank
from haven.apiserver.customresources.view import VersionView, decode_entry
from haven.apiserver.watchcache import Entry, Kind

Tree = dict[str, Any]
HOOK = {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": {"url": "https://x"}}}


class Hook:
    """Answers reviews: v2 calls `a` `b`."""

    def __init__(self, **faults: Any) -> None:
        self.faults = faults
        self.reviews: list[Tree] = []

    async def send(self, name: str, client: v1.WebhookClientConfig, review: Tree) -> Tree:
        self.reviews.append(review)
        if "fails" in self.faults:
            raise WebhookFailure(self.faults["fails"])
        wanted = review["request"]["desiredAPIVersion"]
        objects = [self._convert(one, wanted) for one in review["request"]["objects"]]
        if "is_reversed" in self.faults:
            objects.reverse()
        response = {"uid": review["request"]["uid"], "convertedObjects": objects, "result": {"status": "Success"}}
        return {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "ConversionReview",
            "response": {**response, **self.faults.get("response", {})},
        }

    def _convert(self, tree: Tree, wanted: str) -> Tree:
        old, new = ("a", "b") if wanted.endswith("v2") else ("b", "a")
        spec = {new if name == old else name: value for name, value in tree["spec"].items()}
        metadata = {**tree["metadata"], **self.faults.get("metadata", {})}
        return {**tree, "apiVersion": wanted, "spec": spec, "metadata": metadata}


def a_crd(**conversion: Any) -> v1.CustomResourceDefinition:
    tree = a_definition(a_version(), a_version("v2"), conversion=conversion or HOOK)
    crd = serialization.convert(tree, v1.CustomResourceDefinition)
    crd.status.accepted_names = crd.spec.names
    return crd


def an_entry(name: str, **spec: Any) -> Entry:
    uid = "0" * 35 + name
    tree = {
        "kind": "Thing", "apiVersion": "example.com/v1",
        "metadata": {"name": name, "namespace": "default", "uid": uid, "generation": 1}, "spec": spec,
    }  # fmt: skip
    return Entry.parsed(Kind(decode_entry, {}), serialization.encode_tree(tree), Revision(5), Revision(5))


def a_view(hook: Hook, version: str = "v2") -> VersionView:
    definition = compile_definition(a_crd())
    return VersionView(definition, definition.versions[version], WebhookConverter(a_crd(), hook), {})


async def test_a_list_is_converted_with_one_review_and_only_once() -> None:
    hook = Hook()
    view, entries = a_view(hook), [an_entry("1", a=1), an_entry("2", a=2)]

    shown = await view.show(entries)
    again = await view.show(entries)

    assert [one.object.content["spec"] for one in shown] == [{"b": 1}, {"b": 2}]
    assert [one.object.metadata.resource_version for one in shown] == ["5", "5"]
    assert len(hook.reviews) == 1
    assert again == shown


async def test_a_list_that_comes_back_in_disorder_is_converted_one_by_one() -> None:
    hook = Hook(is_reversed=True)

    shown = await a_view(hook).show([an_entry("1", a=1), an_entry("2", a=2)])

    assert [one.name for one in shown] == ["1", "2"]
    assert [len(one["request"]["objects"]) for one in hook.reviews] == [2, 1, 1]


async def test_a_webhook_that_is_not_reached_is_not_asked_again() -> None:
    hook = Hook(fails="no route")

    with pytest.raises(ConversionFailed):
        await a_view(hook).show([an_entry("1", a=1), an_entry("2", a=2)])

    assert len(hook.reviews) == 1


async def test_a_rehearsal_converts_there_and_back() -> None:
    hook = Hook()
    obj = decode_entry(an_entry("1", a=1).data)
    obj.api_version, obj.content = "example.com/v2", {"spec": {"b": 3}}

    rehearsed = await a_view(hook).rehearsed(obj)

    assert (rehearsed.api_version, rehearsed.content) == ("example.com/v2", {"spec": {"b": 3}})
    asked = [one["request"]["desiredAPIVersion"] for one in hook.reviews]
    assert asked == ["example.com/v1", "example.com/v2"]


async def test_objects_of_the_version_asked_for_are_not_sent_anywhere() -> None:
    hook = Hook()
    entry = an_entry("1", a=1)

    assert await a_view(hook, "v1").show([entry]) == [entry]
    assert hook.reviews == []


async def test_objects_are_stored_in_the_storage_version() -> None:
    obj = decode_entry(an_entry("1", a=1).data)
    obj.api_version, obj.content = "example.com/v2", {"spec": {"b": 3}}

    stored = await a_view(Hook()).stored(obj)

    assert (stored.api_version, stored.content) == ("example.com/v1", {"spec": {"a": 3}})


async def test_labels_may_be_converted_but_nothing_else_of_the_metadata() -> None:
    view = a_view(Hook(metadata={"labels": {"l": "v"}, "generation": 99}))

    shown = (await view.show([an_entry("1", a=1)]))[0]

    assert shown.labels == {"l": "v"}
    assert shown.object.metadata.generation == 1


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        ({"fails": "no route"}, "conversion webhook for example.com/v1, Kind=Thing failed: no route"),
        ({"response": {"uid": "x"}}, "failed: expected response.uid="),
        ({"response": {"result": {"status": "Failure", "message": "nope"}}}, "failed: nope"),
        ({"response": {"convertedObjects": []}}, "returned 0 objects, expected 1"),
        ({"metadata": {"name": "other"}}, "returned invalid object: must have the same name: 1 != other"),
        ({"metadata": {"name": 5}}, "returned invalid object: must have the same name: 1 != "),
        ({"metadata": {"labels": [1]}}, "invalid metadata.labels of type []interface {} in converted object"),
        ({"metadata": {"labels": {"a": 1}}}, "metadata.labels[a] must be a string, but is int64 in converted object"),
        ({"response": {"convertedObjects": [None]}}, "unexpected end of JSON input"),
        ({"response": {"convertedObjects": ["x"]}}, "cannot unmarshal string into Go value of type map[string]interf"),
        ({"response": {"convertedObjects": [{"a": 1}]}}, """Object 'Kind' is missing in '{"a":1}'"""),
        (
            {"response": {"convertedObjects": [{"kind": "Thing", "apiVersion": "a/v9"}]}},
            "returned invalid object at index 0: invalid groupVersion (expected example.com/v2, received a/v9)",
        ),
        (
            {"response": {"convertedObjects": [{"kind": "Else", "apiVersion": "example.com/v2"}]}},
            "returned invalid object at index 0: invalid kind (expected Thing, received Else)",
        ),
        ({"metadata": {"labels": {"-": "x"}}}, "returned invalid metadata: metadata.labels: Invalid value"),
    ],
)
async def test_bad_answers_are_told(faults: Tree, said: str) -> None:
    with pytest.raises(ConversionFailed) as caught:
        await a_view(Hook(**faults)).show([an_entry("1", a=1)])

    assert said in caught.value.message


def test_versions_are_ranked_as_kubernetes_prefers_them() -> None:
    versions = ["foo10", "v1", "v10beta3", "v10", "v3alpha1", "foo1", "v11beta2", "v2"]

    ranked = sorted(versions, key=kube_rank, reverse=True)

    assert ranked == ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3alpha1", "foo1", "foo10"]

"""The kinds of dynamic resource allocation: what is wrong with claims, templates and slices, and how they change."""

from __future__ import annotations

from typing import Any

from haven.api import scheme
from haven.api.strategies import create_errors, strategy_for, update_errors
from haven.apimachinery import serialization
from haven.apimachinery.apply.created import created_fields
from haven.apimachinery.schema.model import schema_named

Tree = dict[str, Any]
META: Tree = {"name": "a", "resourceVersion": "1"}


def read(version: str, plural: str, tree: Tree) -> Any:
    resource = scheme.find("resource.k8s.io", version, plural)
    assert resource is not None
    obj = serialization.convert({"kind": resource.kind, "metadata": META, **tree}, resource.type)
    strategy = strategy_for(resource)
    strategy.default(obj)
    return resource, strategy, obj


def create(version: str, plural: str, tree: Tree) -> list[str]:
    resource, strategy, new = read(version, plural, tree)
    strategy.prepare_for_create(new)
    return [str(error) for error in create_errors(strategy, new, namespaced=resource.namespaced)]


def update(version: str, plural: str, old: Tree, new: Tree, part: str = "") -> tuple[Any, list[str]]:
    resource, strategy, before = read(version, plural, old)
    after = read(version, plural, new)[2]
    used = strategy.subresources[part] if part else strategy
    used.prepare_for_update(after, before)
    return after, [str(error) for error in update_errors(used, after, before, namespaced=resource.namespaced)]


def test_a_claim_keeps_its_labels_when_its_status_changes_and_names_devices_once() -> None:
    claim: Tree = {"metadata": {**META, "namespace": "n"}, "spec": {}}
    device = {"driver": "d", "pool": "p", "device": "d"}
    new = {"metadata": {**META, "namespace": "n", "labels": {"a": "b"}}, "status": {"devices": [device, device]}}

    changed, complaints = update("v1", "resourceclaims", claim, new, "status")

    assert changed.metadata.labels == {}
    assert any(line.startswith('status.devices[1]: Duplicate value: {"Driver":"d",') for line in complaints)


def test_a_template_is_checked_as_a_whole_when_it_changes() -> None:
    template: Tree = {"metadata": {**META, "namespace": "n"}, "spec": {"spec": {}}}
    bad = {**template, "spec": {"metadata": {"annotations": {"a b": "c"}}, "spec": {}}}

    found = update("v1", "resourceclaimtemplates", template, bad)[1]

    assert [line.partition(": ")[0] for line in found] == ["spec.metadata.annotations", "spec"]


def test_an_attribute_is_shown_with_its_values() -> None:
    device = {"name": "d", "attributes": {"a": {"int": 1, "bool": True}}}
    spec = {"driver": "d", "pool": {"name": "p", "resourceSliceCount": 1}, "allNodes": True, "devices": [device]}

    found = create("v1", "resourceslices", {"spec": spec})

    assert '{"IntValue":1,"BoolValue":true,"StringValue":null,' in found[0]


def test_data_of_any_shape_is_owned_as_one() -> None:
    schema = schema_named("io.k8s.api.apps.v1.ControllerRevision")

    owned = created_fields({"data": {"a": {"b": 1}}, "revision": 1}, schema)

    assert owned == {"f:data": {}, "f:revision": {}}

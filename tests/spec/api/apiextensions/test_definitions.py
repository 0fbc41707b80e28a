"""What is wrong with definitions of custom resources, beyond their rules."""

from __future__ import annotations

import re
from typing import Any

import pytest

from haven.api import scheme
from haven.api.strategies import create_errors, strategy_for, update_errors
from haven.apimachinery import serialization

Tree = dict[str, Any]
OBJECT: Tree = {"type": "object"}
PRESERVES = "spec.preserveUnknownFields"


def a_version(name: str = "v1", **more: Any) -> Tree:
    return {"name": name, "served": True, "storage": name == "v1", "schema": {"openAPIV3Schema": OBJECT}, **more}


def a_schema(**root: Any) -> Tree:
    return {"openAPIV3Schema": {**OBJECT, **root}}


def a_definition(*versions: Tree, **spec: Any) -> Any:
    names = {"plural": "things", "kind": "Thing"}
    tree = {"group": "example.com", "scope": "Cluster", "names": names, "versions": list(versions), **spec}
    resource = scheme.find("apiextensions.k8s.io", "v1", "customresourcedefinitions")
    assert resource is not None
    obj = serialization.convert({"metadata": {"name": "things.example.com"}, "spec": tree}, resource.type)
    strategy_for(resource).default(obj)
    return resource, obj


def complaints(*versions: Tree, **spec: Any) -> list[str]:
    resource, new = a_definition(*versions, **spec)
    strategy = strategy_for(resource)
    strategy.prepare_for_create(new)
    return [str(error) for error in create_errors(strategy, new, namespaced=False)]


STATUS: Tree = {"status": {}}


def test_the_root_beside_a_status_has_only_what_a_status_alone_can_be_checked_against() -> None:
    found = complaints(a_version(subresources=STATUS, schema=a_schema(nullable=True)))

    assert found[0].startswith('spec.validation.openAPIV3Schema: Invalid value: {"ID":"","Schema":"","Ref":null,')
    assert found[0].endswith(
        "XPreserveUnknownFields XValidations] fields are allowed at the root of the schema if the status subresource "
        "is enabled"
    )
    assert complaints(a_version(schema=a_schema(title="x"), subresources=STATUS)) == []


def test_versions_that_share_their_status_are_checked_beside_it() -> None:
    other = a_version("v2", subresources=STATUS, schema=a_schema(maxProperties=1))

    found = complaints(a_version(subresources=STATUS), other)

    assert [line.partition(": ")[0] for line in found] == ["spec.versions[1].schema.openAPIV3Schema"]


def test_a_root_of_another_type_is_told_once_beside_a_status() -> None:
    found = complaints(a_version(subresources=STATUS, schema={"openAPIV3Schema": {"type": "string"}}))

    assert next(line.partition(": ")[0] for line in found) == "spec.validation.openAPIV3Schema.type"
    assert complaints(a_version(subresources=STATUS, schema={"openAPIV3Schema": {}})) == [
        "spec.validation.openAPIV3Schema.type: Required value: must not be empty at the root"
    ]


def test_unknown_fields_cannot_be_kept_where_there_are_defaults_or_webhooks() -> None:
    schema = a_schema(properties={"a": {"type": "string", "default": "x"}})
    client = {"url": "https://example.com"}
    conversion = {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": client}}

    found = complaints(a_version(schema=schema), conversion=conversion, preserveUnknownFields=True)

    assert [line.partition(": ")[0] for line in found] == [PRESERVES, "spec.conversion.strategy", PRESERVES]


def test_a_first_version_without_a_name_is_told_once() -> None:
    found = complaints(a_version("", storage=True))

    assert [line.partition(": ")[0] for line in found] == ["spec.versions[0].name"]


def test_a_schema_of_another_draft_is_not_supported() -> None:
    schema = a_schema(**{"$schema": "x"})

    assert complaints(a_version(schema=schema)) == [
        "spec.validation.openAPIV3Schema: Invalid value: \"\": OpenAPIV3Schema 'schema' is not supported"
    ]


def test_a_warning_with_a_letter_that_is_not_printable_names_its_byte() -> None:
    found = complaints(a_version(deprecated=True, deprecationWarning="é\n"))

    assert found[0].endswith("non-printable character found at index 2")


@pytest.mark.parametrize(
    ("schema", "shown"),
    [
        ({"x-kubernetes-preserve-unknown-fields": True}, '"XPreserveUnknownFields":true'),
        ({"default": {}}, '"Default":{}'),
        ({"items": {"type": "string"}}, '"Items":{"Schema":{"ID":""'),
        ({"additionalProperties": True}, '"AdditionalProperties":{"Allows":true,"Schema":null}'),
    ],
)
def test_versions_are_shown_with_their_whole_schemas(schema: Tree, shown: str) -> None:
    found = complaints(a_version(storage=False, schema=a_schema(**schema)), a_version("v2"))

    assert any(shown in line for line in found if line.startswith("spec.versions: ")), found


def test_authorities_have_to_be_readable_once_the_definition_is_established() -> None:
    def converted(bundle: bytes) -> Tree:
        client = {"url": "https://example.com", "caBundle": bundle}
        return {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": client}}

    resource, old = a_definition(a_version())
    _, new = a_definition(a_version(), conversion=converted(b"eA=="))
    for one in (old, new):
        one.metadata.resource_version = "1"
    strategy = strategy_for(resource)

    assert [str(error) for error in update_errors(strategy, new, old, namespaced=False)] == []
    established = {"type": "Established", "status": "True"}
    old.status = serialization.convert({"conditions": [established], "storedVersions": ["v1"]}, type(old.status))
    found = [str(error) for error in update_errors(strategy, new, old, namespaced=False)]
    assert [line.partition(": ")[0] for line in found] == ["spec.conversion.webhookClientConfig.caBundle"]


def fields_of(schema: Tree) -> list[str]:
    found = complaints(a_version(schema={"openAPIV3Schema": schema}))
    return [text.removeprefix("spec.validation.openAPIV3Schema.") for text in found]


RULE: Tree = {"rule": "self == 'a'"}
COMPLAINT = "compilation failed: ERROR: <input>:1:6: found no matching overload for '_==_' applied to"


def test_a_bad_field_keeps_only_rules_at_it_and_above_from_being_looked_at() -> None:
    number: Tree = {"type": "integer", "x-kubernetes-validations": [RULE]}
    schema = a_schema(
        properties={"a": number, "b": {**number, "uniqueItems": True}}, **{"x-kubernetes-validations": [RULE]}
    )

    found = complaints(a_version(schema=schema))

    assert len(found) == 2
    assert COMPLAINT in found[1]
    assert "properties[a].x-kubernetes-validations[0].rule" in found[1]


def test_the_types_of_rules_are_named_after_their_own_place() -> None:
    inner: Tree = {"type": "object", "properties": {"x": OBJECT}, "x-kubernetes-validations": [RULE]}

    found = fields_of({"type": "object", "properties": {"spec": inner}, "x-kubernetes-validations": [RULE]})

    assert all(re.search(r"applied to '\(selfType\d+, string\)'", text) for text in found)


def test_rules_on_metadata_see_it_as_it_is_below_rules_of_the_root() -> None:
    name: Tree = {"x-kubernetes-int-or-string": True, "x-kubernetes-validations": [{"rule": "self / 2 == 1"}]}
    metadata: Tree = {"type": "object", "properties": {"name": name}}

    below = fields_of(
        {"type": "object", "properties": {"metadata": metadata}, "x-kubernetes-validations": [{"rule": "true"}]}
    )
    alone = fields_of({"type": "object", "properties": {"metadata": metadata}})

    assert [("'(string, int)'" in text) for text in below] == [True]
    assert alone == []


def test_a_default_of_the_root_is_a_whole_object() -> None:
    assert fields_of({**OBJECT, "default": {}}) == [
        "default.apiVersion: Required value",
        "default.kind: Required value",
    ]


def test_a_default_within_metadata_names_the_metadata_that_it_makes() -> None:
    metadata: Tree = {"type": "object", "properties": {"name": {"type": "integer", "default": 1}}}

    assert fields_of(a_schema(properties={"metadata": metadata})["openAPIV3Schema"])[0] == (
        "properties[metadata].properties[name].default: Invalid value: 1: must result in valid metadata: metadata: "
        'Invalid value: {"name":1}: json: cannot unmarshal number into Go struct field ObjectMeta.name of type string'
    )


def test_a_default_with_unknown_fields_is_checked_like_any_other() -> None:
    found = fields_of(a_schema(properties={"a": {"type": "number", "default": {"x": 1}}})["openAPIV3Schema"])

    assert found == [
        'properties[a].default: Invalid value: {"x":1}: must not have unknown fields',
        'properties[a].default: Invalid value: "object":  in body must be of type number: "object"',
    ]


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        (
            {"type": "integer", "format": "float", "default": True},
            'Invalid value: "":  in body must be of type float: ""',
        ),
        ({"type": "boolean", "format": "zip", "default": "a"}, None),
        ({"x-kubernetes-int-or-string": True, "default": [1]}, None),
    ],
)
def test_defaults_are_checked_by_the_schema_as_it_is_written(schema: Tree, complaint: str | None) -> None:
    found = fields_of(a_schema(properties={"a": schema})["openAPIV3Schema"])

    assert found == ([f"properties[a].default: {complaint}"] if complaint is not None else [])


def test_schemas_of_dependencies_are_complained_of_too() -> None:
    assert fields_of({**OBJECT, "dependencies": {"a": {"uniqueItems": True}}}) == [
        "dependencies: Forbidden: dependencies is not supported",
        "dependencies[a].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity "
        "becomes quadratic",
    ]


@pytest.mark.parametrize(
    ("path", "fits"),
    [
        (".a", True), ("['x-y']", True), (".m.k", True), (".m['k']", True), (".a.b", False), (".", False),
        (".[a]", False), ("a", False), ("['a", False), ("['a'", False), (".['a']", False), (".x-y", True),
    ],
)  # fmt: skip
def test_field_paths_lead_to_fields(path: str, fits: bool) -> None:
    text: Tree = {"type": "string"}
    fields = {"a": text, "x-y": text, "m": {"type": "object", "additionalProperties": text}}
    rule = {"rule": "true", "fieldPath": path}

    found = fields_of({"type": "object", "properties": fields, "x-kubernetes-validations": [rule]})

    assert bool(found) is not fits


def test_a_warning_of_deprecation_is_shown_as_json() -> None:
    found = complaints(a_version(deprecationWarning="a\u200bb\u0007"))

    assert found == [
        'spec.versions[0].deprecationWarning: Invalid value: "a\u200bb\\u0007": can only be set for deprecated versions'
    ]


def test_selectable_fields_need_a_schema_that_may_be_empty() -> None:
    found = complaints(a_version(schema={}, selectableFields=[{"jsonPath": ""}]))

    assert found[1:] == ["spec.selectableFields[0].jsonPath: Required value"]

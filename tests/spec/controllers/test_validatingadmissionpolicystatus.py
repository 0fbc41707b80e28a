"""Expressions of policies are checked against the schemas of the kinds that a policy names."""

from __future__ import annotations

from typing import Any

from haven.api.admissionregistration import v1
from haven.api.apiextensions import v1 as apiextensions
from haven.apimachinery import serialization
from haven.controllers.validatingadmissionpolicystatus import expression_warnings


def a_policy(*expressions: str, resources: list[str], group: str = "apps", **spec: Any) -> v1.ValidatingAdmissionPolicy:
    rule = {"apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": resources}
    tree = {
        "metadata": {"name": "p"},
        "spec": {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": text} for text in expressions],
            **spec,
        },
    }
    return serialization.convert(tree, v1.ValidatingAdmissionPolicy)


def warned(policy: v1.ValidatingAdmissionPolicy, *definitions: Any) -> dict[str, str]:
    return {warning.field_ref: warning.warning for warning in expression_warnings(policy, definitions)}


def test_a_field_that_a_kind_does_not_have_is_warned_of() -> None:
    policy = a_policy("object.spec.replicas > 1", "object.spec.replicaz > 1", resources=["deployments"])

    assert warned(policy) == {
        "spec.validations[1].expression": (
            "apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'replicaz'\n"
            " | object.spec.replicaz > 1\n | ...........^\n"
        )
    }


def test_each_kind_speaks_for_itself_and_wildcards_are_not_looked_at() -> None:
    policy = a_policy(
        "object.spec.updateStrategy.type == 'OnDelete'", resources=["deployments", "daemonsets", "*/scale", "nosuch"]
    )

    found = warned(policy)["spec.validations[0].expression"]

    assert "Kind=Deployment: ERROR: <input>:1:12: undefined field 'updateStrategy'" in found
    assert "DaemonSet" not in found


def test_variables_carry_their_types_on() -> None:
    policy = a_policy(
        "variables.count == 'a'",
        resources=["deployments"],
        variables=[{"name": "count", "expression": "object.spec.replicas"}],
    )

    assert "applied to '(int, string)'" in warned(policy)["spec.validations[0].expression"]


def test_custom_resources_are_checked_by_their_definitions() -> None:
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}
    definition = serialization.convert(
        {
            "metadata": {"name": "widgets.example.com"},
            "spec": {
                "group": "example.com",
                "scope": "Namespaced",
                "names": {"plural": "widgets", "kind": "Widget"},
                "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
            },
        },
        apiextensions.CustomResourceDefinition,
    )
    policy = a_policy("object.spec.size > 1", "object.spec.sice > 1", resources=["widgets"], group="example.com")

    found = warned(policy, definition)

    assert list(found) == ["spec.validations[1].expression"]
    assert found["spec.validations[1].expression"].startswith(
        "example.com/v1, Kind=Widget: ERROR: <input>:1:12: undefined"
    )

"""Every request falls under a flow schema, and every schema tells whether its priority level exists."""

from __future__ import annotations

from typing import Any

import pytest

from haven.api.flowcontrol import v1 as flowcontrol
from haven.api.scheme import resource_of
from haven.apimachinery import meta
from haven.apimachinery.names import UID
from haven.apiserver.flowcontrol.runner import FlowControl
from haven.apiserver.request import UserInfo
from haven.apiserver.requestinfo import resolve
from haven.clock import FakeClock

SCHEMAS = resource_of(flowcontrol.FlowSchema)
LEVELS = resource_of(flowcontrol.PriorityLevelConfiguration)


def a_schema(name: str, precedence: int, group: str, *, level: str = "low", resources: str = "*") -> Any:
    rule = flowcontrol.ResourcePolicyRule(
        verbs=["*"], api_groups=["*"], resources=[resources], namespaces=["*"], cluster_scope=True
    )
    subjects = [flowcontrol.Subject(kind="Group", group=flowcontrol.GroupSubject(name=group))]
    return flowcontrol.FlowSchema(
        metadata=meta.ObjectMeta(name=name, uid=UID(name)),
        spec=flowcontrol.FlowSchemaSpec(
            priority_level_configuration=flowcontrol.PriorityLevelConfigurationReference(name=level),
            matching_precedence=precedence,
            rules=[flowcontrol.PolicyRulesWithSubjects(subjects=subjects, resource_rules=[rule])],
        ),
    )


@pytest.fixture
def flows() -> FlowControl:
    found = FlowControl(FakeClock())
    level = flowcontrol.PriorityLevelConfiguration(metadata=meta.ObjectMeta(name="low", uid=UID("low")))
    found.changed(LEVELS, None, level)
    found.changed(SCHEMAS, None, a_schema("all", 9000, "everybody"))
    found.changed(SCHEMAS, None, a_schema("pods", 100, "everybody", resources="pods"))
    return found


@pytest.mark.parametrize(("path", "schema"), [("/api/v1/pods", "pods"), ("/api/v1/nodes", "all")])
def test_the_first_schema_that_matches_takes_the_request(flows: FlowControl, path: str, schema: str) -> None:
    user = UserInfo("jane", groups=("everybody",))

    assert flows.classify(user, resolve("GET", path, {})) == (schema, "low")


def test_a_schema_without_its_level_takes_nothing(flows: FlowControl) -> None:
    user = UserInfo("jane", groups=("everybody",))
    flows.changed(SCHEMAS, None, a_schema("first", 1, "everybody", level="gone"))

    assert flows.classify(user, resolve("GET", "/api/v1/nodes", {})) == ("all", "low")


def test_an_answer_is_forgotten_when_the_schemas_change(flows: FlowControl) -> None:
    user, info = UserInfo("jane", groups=("everybody",)), resolve("GET", "/api/v1/nodes", {})
    flows.classify(user, info)

    flows.changed(SCHEMAS, a_schema("all", 9000, "everybody"), None)

    assert flows.classify(user, info) == ("", "")


@pytest.mark.parametrize(
    ("rule", "path", "is_meant"),
    [
        ("/livez", "/livez", True),
        ("/livez", "/livez/ping", True),
        ("/livez", "/livezx", False),
        ("/livez/*", "/livez/ping", True),
        ("/livez/*", "/livez", False),
        ("*", "/anything", True),
    ],
)
def test_a_rule_about_a_path_means_what_is_below_it(
    flows: FlowControl, rule: str, path: str, *, is_meant: bool
) -> None:
    schema = a_schema("paths", 1, "everybody")
    urls = flowcontrol.NonResourcePolicyRule(verbs=["get"], non_resource_urls=[rule])
    schema.spec.rules[0].non_resource_rules = [urls]
    flows.changed(SCHEMAS, None, schema)

    found, _ = flows.classify(UserInfo("jane", groups=("everybody",)), resolve("GET", path, {}))

    assert (found == "paths") is is_meant

"""What is decided about extension servers, without any."""

from __future__ import annotations

import json
from typing import Any

from haven.api.apiextensions import v1 as apiextensions
from haven.api.apiregistration import v1
from haven.api.core import v1 as core
from haven.api.discovery import v1 as discovery
from haven.apimachinery import meta, serialization
from haven.apiserver.aggregation import documents, registration
from haven.apiserver.aggregation.availability import PASSED, Finding, service_problem, with_condition
from haven.apiserver.aggregation.remote import Remote, identity_headers
from haven.apiserver.aggregation.specs import merged, part_of
from haven.apiserver.passing import is_identity_header
from haven.apiserver.request import UserInfo


def an_api_service(**spec: Any) -> v1.APIService:
    spec = {
        "group": "wardle.example.com",
        "version": "v1alpha1",
        "service": {"namespace": "shop", "name": "wardle", "port": 7443},
        "groupPriorityMinimum": 2000,
        "versionPriority": 200,
        **spec,
    }
    return serialization.convert({"metadata": {"name": "v1alpha1.wardle.example.com"}, "spec": spec}, v1.APIService)


def a_remote(**spec: Any) -> Remote:
    remote = Remote.of(an_api_service(**spec))
    assert remote is not None
    return remote


def a_service(**spec: Any) -> core.Service:
    tree = {"metadata": {"name": "wardle"}, "spec": {"type": "ClusterIP", "ports": [{"port": 7443}], **spec}}
    return serialization.convert(tree, core.Service)


def a_slice(*, ready: bool = True, port_name: str = "") -> discovery.EndpointSlice:
    tree = {
        "addressType": "IPv4",
        "ports": [{"name": port_name, "port": 443}],
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}],
    }
    return serialization.convert(tree, discovery.EndpointSlice)


def test_the_users_identity_is_told_in_headers() -> None:
    extra = {"authentication.kubernetes.io/node": ("a", "b"), "100%": ("c",)}
    user = UserInfo("jane", uid="7", groups=("g1", "g2"), extra=extra)

    assert identity_headers(user) == [
        ("X-Remote-User", "jane"),
        ("X-Remote-Uid", "7"),
        ("X-Remote-Group", "g1"),
        ("X-Remote-Group", "g2"),
        ("X-Remote-Extra-Authentication.kubernetes.io%2fnode", "a"),
        ("X-Remote-Extra-Authentication.kubernetes.io%2fnode", "b"),
        ("X-Remote-Extra-100%25", "c"),
    ]


def test_clients_do_not_say_themselves_who_they_are() -> None:
    names = ["authorization", "x-remote-user", "x-remote-extra-scopes", "impersonate-user", "accept"]

    assert [name for name in names if not is_identity_header(name)] == ["accept"]


def test_a_service_that_cannot_be_asked_is_told_why() -> None:
    remote = a_remote()

    def found(service: core.Service | None, *slices: discovery.EndpointSlice) -> tuple[str, str] | None:
        problem = service_problem(remote, service, slices)
        return None if problem is None else (problem.reason, problem.message)

    where = 'service/wardle in "shop"'
    assert found(None) == ("ServiceNotFound", f"{where} is not present")
    assert found(a_service(ports=[{"port": 1}])) == ("ServicePortError", f"{where} is not listening on port 7443")
    assert found(a_service()) == ("EndpointsNotFound", f"cannot find endpointslices for {where}")
    assert found(a_service(), a_slice(ready=False)) == (
        "MissingEndpoints",
        f'endpointslices for {where} have no addresses with port name ""',
    )
    assert found(a_service(), a_slice()) is None
    assert found(a_service(type="ExternalName")) is None


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    service = an_api_service()
    service.status = with_condition(service, Finding("False", "A", "a"), "2026-01-01T00:00:00Z") or service.status

    assert with_condition(service, Finding("False", "A", "a"), "2026-01-01T00:00:05Z") is None
    other = with_condition(service, Finding("False", "B", "b"), "2026-01-01T00:00:09Z")
    assert other is not None
    assert (other.conditions[0].reason, other.conditions[0].last_transition_time) == ("B", "2026-01-01T00:00:00Z")
    passed = with_condition(service, PASSED, "2026-01-01T00:00:09Z")
    assert passed is not None
    assert passed.conditions[0].last_transition_time == "2026-01-01T00:00:09Z"


def test_discovery_is_read_from_the_aggregated_document() -> None:
    document = {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "items": [
            {"metadata": {"name": "other"}, "versions": [{"version": "v1alpha1", "resources": [{"resource": "no"}]}]},
            {
                "metadata": {"name": "wardle.example.com"},
                "versions": [
                    {
                        "version": "v1alpha1",
                        "resources": [
                            {"resource": "flunders", "scope": "Namespaced", "verbs": ["get"],
                             "subresources": [{"subresource": "status", "verbs": ["get"]}]}
                        ],
                    }
                ],
            },
        ],
    }  # fmt: skip
    found = documents.from_aggregated(json.dumps(document).encode(), a_remote())

    assert [one.resource for one in found] == ["flunders"]
    assert found[0].response_kind == meta.GroupVersionKind()
    assert found[0].subresources[0].response_kind == meta.GroupVersionKind()


def test_discovery_is_read_from_the_old_document_too() -> None:
    resources = [
        {"name": "flunders", "singularName": "flunder", "namespaced": True, "kind": "Flunder", "verbs": ["get"]},
        {"name": "flunders/status", "singularName": "", "namespaced": True, "kind": "Flunder", "verbs": ["get"]},
    ]
    body = {"kind": "APIResourceList", "groupVersion": "wardle.example.com/v1alpha1", "resources": resources}
    found = documents.from_resource_list(json.dumps(body).encode())

    assert [(one.resource, [sub.subresource for sub in one.subresources]) for one in found] == [
        ("flunders", ["status"])
    ]
    assert found[0].response_kind == meta.GroupVersionKind(kind="Flunder")


def test_only_the_aggregated_document_counts_as_such() -> None:
    assert documents.is_aggregated("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList")
    assert not documents.is_aggregated("application/json")


def test_a_foreign_document_is_cut_to_what_belongs_to_the_api_service() -> None:
    operation = {"parameters": [{"$ref": "#/parameters/pretty"}], "responses": {"200": {"schema": _ref("F")}}}
    other = {"responses": {"200": {"schema": _ref("Other")}}}
    document = {
        "paths": {"/apis/w/v1/flunders": {"get": operation}, "/apis/w/v1beta1/x": {"get": other}, "/version/": {}},
        "parameters": {"pretty": {"in": "query", "name": "pretty", "type": "string"}},
        "definitions": {
            "F": {"type": "object", "properties": {"m": _ref("Meta")}, "nullable": True},
            "Meta": {"type": "object"},
            "Unused": {"type": "object"},
            "Other": {"type": "object"},
        },
    }
    part = part_of(document, "/apis/w/v1")

    assert list(part.paths) == ["/apis/w/v1/flunders"]
    assert part.paths["/apis/w/v1/flunders"]["get"]["parameters"] == [{"$ref": "#/parameters/pretty"}]
    assert part.parameters["pretty"]["name"] == "pretty"
    assert part.definitions == {
        "F": {"type": "object", "properties": {"m": _ref("Meta")}},
        "Meta": {"type": "object"},
        "Unused": {"type": "object"},
    }


def test_definitions_of_the_same_name_but_other_contents_are_renamed() -> None:
    document = {
        "paths": {"/apis/w/v1/flunders": {"get": {"responses": {"200": {"schema": _ref("F")}}}}},
        "definitions": {"F": {"properties": {"m": _ref("Meta")}}, "Meta": {"type": "object", "title": "other"}},
    }
    part = part_of(document, "/apis/w/v1")
    own = {"Meta": {"type": "object", "title": "ours"}, "F": {"properties": {"m": _ref("Meta")}}}

    result = merged(own, [part])

    assert set(result.definitions) == {"Meta_v2"}
    assert "F" not in result.definitions, "alike as far as its own fields go"


def test_parameters_of_the_same_name_but_other_contents_are_renamed() -> None:
    operation = {"parameters": [{"$ref": "#/parameters/pretty"}], "responses": {}}
    document = {
        "paths": {"/apis/w/v1/flunders": {"get": operation}},
        "parameters": {"pretty": {"in": "query", "name": "pretty", "type": "boolean"}},
    }
    own = {"pretty": {"in": "query", "name": "pretty", "type": "string"}}

    result = merged({}, [part_of(document, "/apis/w/v1")], own)

    assert result.parameters == {"pretty_v2": document["parameters"]["pretty"]}
    assert result.paths["/apis/w/v1/flunders"]["get"]["parameters"] == [{"$ref": "#/parameters/pretty_v2"}]


def test_resources_of_the_old_document_keep_their_places() -> None:
    names = ["things", "others", "things/status", "lost/scale"]
    resources = [{"name": name, "kind": "K", "namespaced": True, "verbs": ["get"]} for name in names]

    found = documents.from_resource_list(json.dumps({"resources": resources}).encode())

    assert [one.resource for one in found] == ["things", "others", "lost"]
    assert [one.subresource for one in found[0].subresources] == ["status"]


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/definitions/{name}"}


def a_definition(*versions: tuple[str, bool], group: str = "stable.example.com") -> Any:
    listed = [{"name": name, "served": served, "storage": True} for name, served in versions]
    tree = {"metadata": {"name": f"things.{group}"}, "spec": {"group": group, "versions": listed}}
    return serialization.convert(tree, apiextensions.CustomResourceDefinition)


def test_every_served_version_of_a_definition_gets_an_api_service() -> None:
    specs = registration.wanted([a_definition(("v1", True), ("v0", False))])

    (step,) = registration.plan(specs, [])

    assert isinstance(step, registration.Create)
    assert step.service.metadata.name == "v1.stable.example.com"
    assert step.service.metadata.labels == {"kube-aggregator.kubernetes.io/automanaged": "true"}
    assert (step.service.spec.group_priority_minimum, step.service.spec.version_priority) == (1000, 100)


def test_an_api_service_whose_definition_is_gone_goes_too() -> None:
    (created,) = registration.plan(registration.wanted([a_definition(("v1", True))]), [])
    assert isinstance(created, registration.Create)

    assert list(registration.plan({}, [created.service])) == [
        registration.Delete("v1.stable.example.com", created.service.metadata.uid)
    ]


def test_api_services_of_others_are_left_alone() -> None:
    assert list(registration.plan({}, [an_api_service()])) == []

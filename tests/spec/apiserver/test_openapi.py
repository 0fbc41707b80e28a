"""The OpenAPI documents describe every operation, whole and in the forms that clients ask for."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from haven.api import scheme
from haven.api.scheme import Resource
from haven.apimachinery.codecs.wire import read_fields
from haven.apiserver.discovery import is_stable
from haven.apiserver.openapi.operations import resource_paths
from haven.apiserver.openapi.schemas import CustomKind, references
from haven.apiserver.openapi.server import OpenAPI
from haven.apiserver.request import Request

from .conftest import Api

PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
STABLE = [resource for resource in scheme.table().values() if is_stable(resource.version)]


def thing() -> CustomKind:
    resource: Resource[Any] = Resource(
        group="example.com", version="v1", plural="things", singular="thing", kind="Thing", namespaced=True,
        short_names=(), categories=(), subresources=(),
        verbs=("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"),
    )  # fmt: skip
    schema = {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "size": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
                    "note": {"type": "string", "nullable": True},
                },
            }
        },
    }
    return CustomKind(resource, schema)


async def v2(api: OpenAPI, accept: str = "application/json", **headers: str) -> Any:
    return await api.handle_v2(Request("GET", "/openapi/v2", {}, {"accept": accept, **headers}))


async def v3(
    api: OpenAPI, name: str = "", query: dict[str, list[str]] | None = None, accept: str = "application/json"
) -> Any:
    return await api.handle_v3(Request("GET", f"/openapi/v3{name}", query or {}, {"accept": accept}))


def test_a_pod_has_the_operations_that_upstream_names() -> None:
    names = {
        (path.path, operation.method): operation.id
        for path in resource_paths(scheme.find("", "v1", "pods"))
        for operation in path.operations
    }

    assert names[("/api/v1/pods", "get")] == "listCoreV1PodForAllNamespaces"
    assert names[("/api/v1/namespaces/{namespace}/pods", "delete")] == "deleteCoreV1CollectionNamespacedPod"
    assert names[("/api/v1/namespaces/{namespace}/pods/{name}", "put")] == "replaceCoreV1NamespacedPod"
    assert names[("/api/v1/namespaces/{namespace}/pods/{name}/log", "get")] == "readCoreV1NamespacedPodLog"
    assert names[("/api/v1/namespaces/{namespace}/pods/{name}/exec", "post")] == "connectCoreV1PostNamespacedPodExec"
    assert names[("/api/v1/watch/pods", "get")] == "watchCoreV1PodListForAllNamespaces"


async def test_the_version_2_document_refers_to_nothing_that_it_lacks() -> None:
    document = json.loads((await v2(OpenAPI(STABLE))).body)

    used = set(references(document["paths"])) | set(references(document["definitions"]))
    assert used <= set(document["definitions"]) | set(document["parameters"])
    names = [
        operation["operationId"]
        for item in document["paths"].values()
        for method, operation in item.items()
        if method != "parameters"
    ]
    assert len(names) == len(set(names))
    assert document["swagger"] == "2.0"


async def test_clients_find_field_validation_among_the_parameters_of_a_patch() -> None:
    api = OpenAPI(STABLE)
    paths = json.loads((await v2(api)).body)["paths"]
    patch = paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]

    assert "fieldValidation" in [parameter.get("name") for parameter in patch["parameters"]]
    document = json.loads((await v3(api, "/apis/apps/v1")).body)
    patch = document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert {"dryRun", "fieldValidation", "force"} <= {parameter["name"] for parameter in patch["parameters"]}
    assert patch["x-kubernetes-group-version-kind"] == {"group": "apps", "version": "v1", "kind": "Deployment"}


async def test_the_protobuf_form_holds_the_same_paths_and_definitions() -> None:
    api = OpenAPI(STABLE)
    document = json.loads((await v2(api)).body)

    response = await v2(api, PROTOBUF)

    fields = read_fields(response.body, {1: "swagger", 8: "paths", 9: "definitions", 10: "parameters"})
    assert fields["swagger"] == [b"2.0"]
    for field, number in (("paths", 2), ("definitions", 1), ("parameters", 1)):
        entries = read_fields(fields[field][0], {number: "entries"})["entries"]
        assert [read_fields(entry, {1: "name"})["name"][0].decode() for entry in entries] == list(document[field])
    assert response.headers["Content-Type"] == "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"


async def test_what_did_not_change_is_not_sent_again_and_gzip_is_sent_to_those_who_take_it() -> None:
    api = OpenAPI(STABLE)
    first = await v2(api)

    assert (await v2(api, **{"if-none-match": first.headers["Etag"]})).status == 304
    packed = await v2(api, **{"accept-encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.body) == first.body
    assert (await v2(api, "text/html")).status == 406


async def test_the_version_3_documents_are_listed_with_a_hash_that_names_their_content() -> None:
    api = OpenAPI(STABLE)
    listed = json.loads((await v3(api)).body)["paths"]
    address = listed["apis/apps/v1"]["serverRelativeURL"]
    value = address.partition("hash=")[2]

    assert address == f"/openapi/v3/apis/apps/v1?hash={value}"
    assert {"api", "api/v1", "apis", "apis/apps", "version"} <= set(listed)
    right = await v3(api, "/apis/apps/v1", {"hash": [value]})
    assert right.headers["Cache-Control"] == "public, immutable"
    wrong = await v3(api, "/apis/apps/v1", {"hash": ["OLD"]})
    assert (wrong.status, wrong.headers["Location"]) == (301, address)
    missing = await v3(api, "/apis/nosuch/v1")
    assert (missing.status, missing.body) == (404, b"")


async def test_every_version_3_document_is_complete_in_itself() -> None:
    api = OpenAPI(STABLE)
    for name in json.loads((await v3(api)).body)["paths"]:
        document = json.loads((await v3(api, f"/{name}")).body)
        schemas = document["components"].get("schemas", {})
        assert set(references(document)) <= set(schemas), name


async def test_custom_kinds_are_described_as_long_as_they_are_served() -> None:
    api = OpenAPI(STABLE)
    before = json.loads((await v3(api)).body)["paths"]

    api.replace([thing()])

    after = json.loads((await v3(api)).body)["paths"]
    assert set(after) - set(before) == {"apis/example.com/v1"}
    assert after["apis/apps/v1"] == before["apis/apps/v1"]
    document = json.loads((await v3(api, "/apis/example.com/v1")).body)
    schema = document["components"]["schemas"]["com.example.v1.Thing"]
    assert schema["properties"]["spec"]["properties"]["note"]["nullable"] is True
    assert schema["x-kubernetes-group-version-kind"] == [{"group": "example.com", "version": "v1", "kind": "Thing"}]
    old = json.loads((await v2(api)).body)["definitions"]["com.example.v1.Thing"]
    assert old["properties"]["spec"]["properties"] == {"size": {"x-kubernetes-int-or-string": True}, "note": {}}
    api.replace([])
    assert json.loads((await v3(api)).body)["paths"] == before


async def test_operations_on_custom_kinds_are_told_as_upstream_does() -> None:
    api = OpenAPI(STABLE)
    api.replace([thing()])

    document = json.loads((await v3(api, "/apis/example.com/v1")).body)

    assert "/apis/example.com/v1/" not in document["paths"]
    collection = next(item for path, item in document["paths"].items() if "post" in item)
    single = next(item for path, item in document["paths"].items() if "patch" in item)
    assert set(collection["post"]["requestBody"]["content"]) == {"application/json", "application/yaml"}
    assert "requestBody" not in collection["delete"]
    assert set(single["patch"]["responses"]) == {"200", "401"}
    assert [one["name"] for one in single["get"]["parameters"]] == ["resourceVersion"]
    options = document["components"]["schemas"]["io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"]
    groups = {one["group"] for one in options["x-kubernetes-group-version-kind"]}
    assert "apps" in groups
    assert "apiextensions.k8s.io" not in groups


async def test_closed_sets_of_values_are_listed() -> None:
    document = json.loads((await v3(OpenAPI(STABLE), "/apis/apps/v1")).body)
    schemas = document["components"]["schemas"]

    strategy = schemas["io.k8s.api.apps.v1.DeploymentStrategy"]["properties"]["type"]
    modes = schemas["io.k8s.api.core.v1.PersistentVolumeClaimSpec"]["properties"]["accessModes"]["items"]
    assert strategy["enum"] == ["Recreate", "RollingUpdate"]
    assert "ReadWriteOncePod" in modes["enum"]


V3_PROTOBUF = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"


async def test_a_version_3_document_in_protobuf_says_what_it_says_in_json() -> None:
    api = OpenAPI(STABLE)
    document = json.loads((await v3(api, "/apis/apps/v1")).body)

    response = await v3(api, "/apis/apps/v1", accept=V3_PROTOBUF)

    assert response.headers["Content-Type"] == V3_PROTOBUF
    fields = read_fields(response.body, {1: "openapi", 2: "info", 4: "paths", 5: "components"})
    assert fields["openapi"] == [b"3.0.0"]
    paths = read_fields(fields["paths"][0], {1: "path"})["path"]
    assert [read_fields(path, {1: "name"})["name"][0].decode() for path in paths] == list(document["paths"])
    schemas = read_fields(read_fields(fields["components"][0], {1: "schemas"})["schemas"][0], {1: "schema"})["schema"]
    names = [read_fields(schema, {1: "name"})["name"][0].decode() for schema in schemas]
    assert names == list(document["components"]["schemas"])


async def test_a_patch_s_parameters_are_found_in_the_protobuf_form() -> None:
    body = (await v3(OpenAPI(STABLE), "/apis/apps/v1", accept=V3_PROTOBUF)).body
    paths = read_fields(read_fields(body, {4: "paths"})["paths"][0], {1: "path"})["path"]
    named = {
        entry["name"][0]: entry["value"][0] for entry in (read_fields(path, {1: "name", 2: "value"}) for path in paths)
    }
    item = named[b"/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]

    [patch] = read_fields(item, {10: "patch"})["patch"]

    found = read_fields(patch, {6: "parameters", 13: "extensions"})
    parameters = [read_fields(read_fields(one, {1: "it"})["it"][0], {1: "name"}) for one in found["parameters"]]
    assert b"fieldValidation" in [parameter["name"][0] for parameter in parameters]
    extension = read_fields(found["extensions"][-1], {1: "name", 2: "value"})
    assert extension["name"] == [b"x-kubernetes-group-version-kind"]


@pytest.mark.parametrize(
    ("accept", "status"),
    [("*", 200), ("application/*", 200), ("text/html", 406), ("application/yaml;q=1,*/*;q=0.1", 200), (";;", 200)],
)
async def test_a_version_3_document_is_negotiated_as_everything_else(accept: str, status: int) -> None:
    assert (await v3(OpenAPI(STABLE), "/apis/apps/v1", accept=accept)).status == status


async def test_a_part_of_a_document_can_be_asked_for() -> None:
    api = OpenAPI(STABLE)
    whole = (await v2(api)).body

    part = await v2(api, range="bytes=2-8")

    assert (part.status, part.body) == (206, whole[2:9])
    assert part.headers["Content-Range"] == f"bytes 2-8/{len(whole)}"
    assert (await v2(api, range="bytes=-3")).body == whole[-3:]
    assert (await v2(api, range=f"bytes={len(whole)}-")).status == 416


async def test_a_document_that_is_no_newer_is_not_sent_again() -> None:
    api = OpenAPI(STABLE)
    first = await v2(api)

    assert (await v2(api, **{"if-modified-since": first.headers["Last-Modified"]})).status == 304
    assert (await v2(api, **{"if-modified-since": "Thu, 01 Jan 2015 00:00:00 GMT"})).status == 200


async def test_the_list_of_documents_is_always_sent_as_it_may_have_grown_within_the_second() -> None:
    api = OpenAPI(STABLE)
    first = await v3(api)
    asked = Request("GET", "/openapi/v3", {}, {"if-modified-since": first.headers["Last-Modified"]})

    again = await api.handle_v3(asked)

    assert (again.status, again.body) == (200, first.body)


async def test_parameters_are_described_with_the_words_that_upstreams_own_suite_looks_for(api: Api) -> None:
    answer = await api.raw("GET", "/openapi/v2")

    for words in (b"list of returned", b"List of services", b"Watch for changes to the described resources"):
        assert words in answer.body


async def test_what_operations_share_is_listed_by_name_in_both_versions() -> None:
    api = OpenAPI(STABLE)
    path = "/api/v1/namespaces/{namespace}/pods/{name}/attach"
    second = json.loads((await v2(api)).body)["paths"][path]["parameters"]
    third = json.loads((await v3(api, "/api/v1")).body)["paths"][path]["parameters"]

    names = [one["$ref"].rpartition("/")[2] if "$ref" in one else one["name"] for one in second]

    assert names == [one["name"] for one in third] == sorted(names)
    assert {"name", "namespace", "container"} <= set(names)


async def test_a_document_of_custom_kinds_says_so_and_asks_for_no_credentials() -> None:
    api = OpenAPI(STABLE)
    api.replace([thing()])
    resource = thing().resource

    document = json.loads((await v3(api, f"/apis/{resource.group}/{resource.version}")).body)

    assert document["info"] == {"title": "Kubernetes CRD Swagger", "version": "v0.1.0"}
    assert set(document["components"]) == {"schemas"}
    built_in = json.loads((await v3(api, "/apis/apps/v1")).body)
    assert set(built_in["components"]) == {"schemas", "securitySchemes"}

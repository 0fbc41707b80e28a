"""Discovery documents are those that upstream was recorded to answer."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
import yaml

from haven.api import scheme
from haven.apimachinery import apierrors, meta
from haven.apimachinery.codecs import protobuf
from haven.apimachinery.codecs.wire import read_varint
from haven.apiserver.discovery import Discovery, ServedVersion, built_in, is_stable
from haven.apiserver.request import Request, Response

GOLDEN = pathlib.Path(__file__).resolve().parents[4] / "shared" / "golden"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def discovery() -> Discovery:
    stable = [resource for resource in scheme.table().values() if is_stable(resource.version)]
    return Discovery(built_in(stable), server_address="127.0.0.1:6443")


async def get(served: Discovery, path: str, accept: str = "application/json", **headers: str) -> Response:
    return await served.handle(Request("GET", path, {}, {"accept": accept, **headers}))


def recorded() -> list[Any]:
    if not GOLDEN.exists():
        return [pytest.param({}, {}, marks=pytest.mark.skip(reason="the recorded conversations are not here"))]
    scenarios = yaml.safe_load((GOLDEN / "scenarios" / "discovery.yaml").read_text())
    expected = json.loads((GOLDEN / "expected" / "discovery.json").read_text())
    return [
        pytest.param(step, answer, id=f"{step['do']} {step.get('accept', '')[:40]}".strip())
        for scenario in scenarios
        for step, answer in zip(scenario["steps"], expected[scenario["name"]], strict=True)
        if step["do"].startswith(("GET /api", "GET /version")) or step["do"] == "GET /"
        if "{ns}" not in step["do"] and "nosuch" not in step["do"] and "as" not in step
    ]


def look(value: Any, path: str) -> Any:
    for part in path.split("."):
        if isinstance(value, list):
            value = value[int(part)] if int(part) < len(value) else None
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value


@pytest.mark.parametrize(("step", "answer"), recorded())
async def test_a_document_is_the_recorded_one(step: dict[str, Any], answer: dict[str, Any]) -> None:
    path = step["do"].split(" ")[1]
    try:
        response = await get(discovery(), path, step.get("accept", "application/json"))
        status, body = response.status, json.loads(response.body)
    except apierrors.ApiError as error:
        status, body = error.code, None

    assert status == answer["status"]
    if step.get("volatile") or status != 200:
        return
    if "keep" in step:
        body = {where: look(body, where) for where in step["keep"]}
    for name in step.get("drop", ()):
        body.pop(name, None)
    assert body == answer["body"]


async def test_an_aggregated_document_that_did_not_change_is_not_sent_again() -> None:
    served = discovery()
    first = await get(served, "/apis", AGGREGATED)

    again = await get(served, "/apis", AGGREGATED, **{"if-none-match": first.headers["Etag"]})

    assert first.headers["Content-Type"] == AGGREGATED
    assert again.status == 304
    assert not again.body


async def test_custom_resources_come_after_those_built_in_in_the_order_of_their_versions() -> None:
    served = discovery()
    before = (await get(served, "/apis", AGGREGATED)).headers["Etag"]
    things = meta.APIResource(name="things", singular_name="thing", namespaced=True, kind="Thing", verbs=["get"])
    status = meta.APIResource(name="things/status", namespaced=True, kind="Thing", verbs=["get"])

    served.replace(
        [ServedVersion("example.com", version, (things, status)) for version in ("v1beta1", "v1", "v2", "x")]
    )

    response = await get(served, "/apis", AGGREGATED)
    groups = json.loads(response.body)["items"]
    assert [version["version"] for version in groups[-1]["versions"]] == ["v2", "v1", "v1beta1", "x"]
    assert [item["subresource"] for item in groups[-1]["versions"][0]["resources"][0]["subresources"]] == ["status"]
    assert response.headers["Etag"] != before
    group = json.loads((await get(served, "/apis/example.com")).body)
    assert group["preferredVersion"] == {"groupVersion": "example.com/v2", "version": "v2"}


async def test_lists_of_resources_come_as_yaml_and_protobuf_too() -> None:
    assert b"groupVersion: apps/v1" in (await get(discovery(), "/apis/apps/v1", "application/yaml")).body
    assert (await get(discovery(), "/apis", "application/vnd.kubernetes.protobuf")).body.startswith(b"k8s\x00")


async def test_a_version_names_the_release_and_the_build() -> None:
    info = json.loads((await get(discovery(), "/version", "*/*")).body)

    assert info["gitVersion"].startswith("v1.36.2+haven.")


async def test_a_version_that_a_group_lacks_is_not_found() -> None:
    with pytest.raises(apierrors.NotFound, match="the server could not find the requested resource"):
        await get(discovery(), "/apis/apps/v9")
    assert (await get(discovery(), "/apis/nosuch.example.com/v1")).body == b"404 page not found\n"


async def test_whole_discovery_in_protobuf_says_what_it_says_in_json() -> None:
    served = discovery()
    served.replace([ServedVersion("example.com", "v1", (_a_resource(),), names_kinds_fully=True)])
    wanted = json.loads((await get(served, "/apis", AGGREGATED)).body)

    response = await get(served, "/apis", AGGREGATED.replace("json", "vnd.kubernetes.protobuf"))

    frame = protobuf.unframe(response.body)
    assert (frame.api_version, frame.kind) == ("apidiscovery.k8s.io/v2", "APIGroupDiscoveryList")
    groups = [read(item) for item in read(frame.raw)[2]]
    assert [text(read(group[1][0])[1][0]) for group in groups] == [one["metadata"]["name"] for one in wanted["items"]]
    resource = read(read(groups[-1][2][0])[2][0])
    kind = read(resource[2][0])
    assert {name: [text(value) for value in resource[number]] for name, number in _FIELDS.items()} == {
        "resource": ["foos"],
        "scope": ["Namespaced"],
        "singularResource": ["foo"],
        "verbs": ["get", "list"],
        "shortNames": ["fo"],
        "categories": ["all"],
    }
    assert [text(kind[number][0]) for number in (1, 2, 3)] == ["example.com", "v1", "Foo"]
    assert response.headers["Content-Type"] == AGGREGATED.replace("json", "vnd.kubernetes.protobuf")


async def test_the_entity_tag_of_whole_discovery_does_not_depend_on_its_form() -> None:
    served = discovery()
    forms = [AGGREGATED, AGGREGATED.replace("json", "yaml"), AGGREGATED.replace("json", "vnd.kubernetes.protobuf")]

    assert len({(await get(served, "/api", form)).headers["Etag"] for form in forms}) == 1


async def test_the_protobuf_frame_of_a_core_list_names_no_version_as_its_json_does() -> None:
    response = await get(discovery(), "/api/v1", "application/vnd.kubernetes.protobuf")

    assert protobuf.unframe(response.body)[:2] == ("", "APIResourceList")


async def test_the_list_of_paths_is_readable_json_whatever_is_accepted() -> None:
    served = discovery()
    served.list_paths(["/statusz"])

    response = await get(served, "/", "application/vnd.kubernetes.protobuf")

    assert response.headers["Content-Type"] == "application/json"
    assert b'{\n  "paths": [\n    "/.well-known/' in response.body
    assert "/statusz" in json.loads(response.body)["paths"]


_FIELDS = {"resource": 1, "scope": 3, "singularResource": 4, "verbs": 5, "shortNames": 6, "categories": 7}


def _a_resource() -> meta.APIResource:
    return meta.APIResource(
        name="foos", singular_name="foo", namespaced=True, kind="Foo", verbs=["get", "list"],
        short_names=["fo"], categories=["all"],
    )  # fmt: skip


def text(data: bytes) -> str:
    return data.decode()


def read(message: bytes) -> dict[int, list[bytes]]:
    """Return the fields of a message of which every field is bytes."""
    result: dict[int, list[bytes]] = {}
    place = 0
    while place < len(message):
        tag, place = read_varint(message, place)
        size, place = read_varint(message, place)
        result.setdefault(tag >> 3, []).append(message[place : place + size])
        place += size
    return result


async def test_groups_preferred_alike_are_ordered_by_their_api_services() -> None:
    served = discovery()
    added = [("a.example.com", "v2"), ("b.example.com", "v1"), ("b.example.com", "v3")]
    served.replace([ServedVersion(group, version, ()) for group, version in added])

    plain = json.loads((await get(served, "/apis")).body)
    aggregated = json.loads((await get(served, "/apis", AGGREGATED)).body)

    assert [one["name"] for one in plain["groups"] if "example" in one["name"]] == ["b.example.com", "a.example.com"]
    names = [one["metadata"]["name"] for one in aggregated["items"]]
    assert [name for name in names if "example" in name] == ["a.example.com", "b.example.com"]

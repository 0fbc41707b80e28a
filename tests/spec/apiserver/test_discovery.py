"""Discovery documents are those that upstream was recorded to answer."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
import yaml

from haven.api import scheme
from haven.apimachinery import apierrors, meta
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

    again = await get(served, "/apis", AGGREGATED, **{"if-none-match": first.headers["ETag"]})

    assert first.headers["Content-Type"] == AGGREGATED
    assert again.status == 304
    assert not again.body


async def test_custom_resources_come_after_those_built_in_in_the_order_of_their_versions() -> None:
    served = discovery()
    before = (await get(served, "/apis", AGGREGATED)).headers["ETag"]
    things = meta.APIResource(name="things", singular_name="thing", namespaced=True, kind="Thing", verbs=["get"])
    status = meta.APIResource(name="things/status", namespaced=True, kind="Thing", verbs=["get"])

    served.replace(
        [ServedVersion("example.com", version, (things, status)) for version in ("v1beta1", "v1", "v2", "x")]
    )

    response = await get(served, "/apis", AGGREGATED)
    groups = json.loads(response.body)["items"]
    assert [version["version"] for version in groups[-1]["versions"]] == ["v2", "v1", "v1beta1", "x"]
    assert [item["subresource"] for item in groups[-1]["versions"][0]["resources"][0]["subresources"]] == ["status"]
    assert response.headers["ETag"] != before
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

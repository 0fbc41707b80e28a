"""A refusal is written in the form that the client wants."""

from __future__ import annotations

import json
from typing import Any

import pytest

from haven.apimachinery import apierrors
from haven.apiserver.registry.output import refusal_response
from haven.apiserver.request import Request, Response


def refused(accept: str, **headers: str) -> Response:
    error = apierrors.NotFound("nothing here")
    return refusal_response(Request("GET", "/", {}, {"accept": accept, **headers}), error.status(), error.code)


def test_plain_json_ends_its_line() -> None:
    body = refused("application/json").body

    assert body.count(b"\n") == 1
    assert body.endswith(b"}\n")


@pytest.mark.parametrize("accept", ["text/html", "application/json;as=Table;g=meta.k8s.io;v=v1"])
def test_who_accepts_no_form_of_it_gets_readable_json_without_a_last_line_break(accept: str) -> None:
    response = refused(accept)

    assert response.headers["Content-Type"] == "application/json"
    assert response.body.startswith(b'{\n  "kind": "Status",\n')
    assert response.body.endswith(b"\n}")
    assert json.loads(response.body)["message"] == "nothing here"


def test_people_get_it_readable() -> None:
    assert refused("*/*", **{"user-agent": "curl/8"}).body.endswith(b"\n}")


def test_protobuf_stays_protobuf() -> None:
    assert refused("application/vnd.kubernetes.protobuf").body.startswith(b"k8s\0")


async def test_the_head_of_a_resource_is_refused(api: Any) -> None:
    await api.config_map("it")

    assert (await api.raw("HEAD", "/api/v1/namespaces/default/configmaps/it")).status == 405
    assert (await api.raw("HEAD", "/api/v1/namespaces/default/configmaps")).status == 405


async def test_bytes_that_are_no_text_become_the_replacement_character(api: Any) -> None:
    body = b'{"metadata":{"name":"odd"},"data":{"k":"\xff\\ud800"}}'

    status, answer = await api.send("POST", "/api/v1/namespaces/default/configmaps", body)

    assert (status, answer["data"]) == (201, {"k": "\ufffd\ufffd"})
    patch = b'{"data":{"k":"\xfe"}}'
    path, patch_type = "/api/v1/namespaces/default/configmaps/odd", "application/merge-patch+json"
    assert (await api.send("PATCH", path, patch, content_type=patch_type))[1]["data"] == {"k": "\ufffd"}


async def test_a_scale_cannot_be_applied_from_what_is_no_object(api: Any) -> None:
    pods = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    deployment = {"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": pods}}
    assert (await api.send("POST", "/apis/apps/v1/namespaces/default/deployments", deployment))[0] == 201
    path = "/apis/apps/v1/namespaces/default/deployments/d/scale?fieldManager=m"

    status, answer = await api.send("PATCH", path, b"[1]", content_type="application/apply-patch+yaml")

    assert (status, answer["reason"]) == (400, "BadRequest")
    assert "cannot unmarshal array" in answer["message"]


async def test_partial_metadata_of_nothing_is_null(api: Any) -> None:
    accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

    assert (await api.send("GET", "/api/v1/namespaces/none/configmaps", accept=accept))[1]["items"] is None


async def test_a_lone_sign_selects_every_object(api: Any) -> None:
    await api.config_map("some")

    answer = (await api.send("GET", "/api/v1/namespaces/default/configmaps?fieldSelector=%3D"))[1]

    assert "some" in [item["metadata"]["name"] for item in answer["items"]]

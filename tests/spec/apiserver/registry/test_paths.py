"""Paths that are nearly right, and documents that are asked for in odd ways, are answered as upstream's router does."""

from __future__ import annotations

from typing import Any

import pytest

FLAGZ = "application/json;as=Flagz;g=config.k8s.io;v=v1beta1"
OLD_FLAGZ = FLAGZ.replace("beta1", "alpha1")


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/namespaces/default/namespaces",
        "/api/v1/namespaces/../namespaces/default",
        "/api/v1/namespaces/default/configmaps/it//status",
        "/apis//v1/pods",
        "/apis//v1",
        "/apis//",
        "/version/x",
        "/openapi/v2/",
        "/openapi/v3/",
        "/openapi/v3/apis/",
        "/flagz/",
    ],
)
async def test_a_path_with_too_much_in_it_is_nothing(api: Any, path: str) -> None:
    await api.config_map("it")

    assert (await api.raw("GET", path)).status == 404


async def test_an_empty_namespace_is_named_as_what_is_missing(api: Any) -> None:
    status, answer = await api.send("DELETE", "/api/v1/namespaces//configmaps")

    assert (status, answer["message"]) == (400, "Namespace parameter required.")


@pytest.mark.parametrize("path", ["/version", "/api", "/api/v1", "/apis/apps/v1"])
async def test_a_document_s_route_looks_at_the_type_of_a_body_too(api: Any, path: str) -> None:
    assert (await api.raw("GET", path, content_type="text/plain")).status == 415
    assert (await api.raw("GET", path, content_type="application/json; charset=utf-8")).status == 200


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; charset=utf-8"),
        ("*/*", "text/plain; charset=utf-8"),
        ("text/plain," + FLAGZ, "text/plain; charset=utf-8"),
        (FLAGZ + ",text/plain", "application/json;g=config.k8s.io;v=v1beta1;as=Flagz"),
        (FLAGZ.replace("json", "yaml"), "application/yaml;g=config.k8s.io;v=v1beta1;as=Flagz"),
        (FLAGZ.replace("Flagz", "Statusz") + ",*/*", "text/plain; charset=utf-8"),
    ],
)
async def test_flags_are_shown_in_the_form_that_is_wanted(api: Any, accept: str, content_type: str) -> None:
    answer = await api.raw("GET", "/flagz", accept=accept)

    assert (answer.status, answer.headers["Content-Type"]) == (200, content_type)


@pytest.mark.parametrize("accept", ["application/json", "text/html", FLAGZ.replace("Flagz", "Statusz")])
async def test_flags_have_no_form_of_their_own_in_json(api: Any, accept: str) -> None:
    assert (await api.raw("GET", "/flagz", accept=accept)).status == 406


async def test_an_old_version_of_the_flags_warns(api: Any) -> None:
    answer = await api.raw("GET", "/flagz", accept=OLD_FLAGZ)

    assert "deprecated" in answer.headers["Warning"]
    assert b'"apiVersion":"config.k8s.io/v1alpha1"' in answer.body


async def test_the_head_of_a_subresource_that_there_is_not_is_not_found(api: Any) -> None:
    await api.config_map("it")

    assert (await api.raw("HEAD", "/api/v1/namespaces/default/configmaps/it/foo")).status == 404
    assert (await api.raw("HEAD", "/api/v1/namespaces/default/pods/it/status")).status == 405
    answer = await api.raw("HEAD", "/api/v1/componentstatuses")
    assert (answer.status, "Warning" in answer.headers) == (405, False)


async def test_a_token_that_is_no_json_is_refused_in_the_words_of_a_parser(api: Any) -> None:
    status, answer = await api.send("GET", "/api/v1/namespaces/default/configmaps?continue=abc")

    text = "continue key is not valid: invalid character 'i' looking for beginning of value"
    assert (status, answer["message"]) == (400, f"invalid continue token: {text}")


async def test_a_status_is_no_options(api: Any) -> None:
    body = {"kind": "Status", "apiVersion": "v1"}

    status, answer = await api.send("DELETE", "/api/v1/namespaces/default/configmaps/none", body)

    assert (status, answer["message"]) == (400, "converting (v1.Status) to (v1.DeleteOptions): unknown conversion")


async def test_only_the_route_of_lists_offers_streams(api: Any) -> None:
    path = "/api/v1/namespaces/default/configmaps"

    listed = (await api.send("GET", path, accept="text/html"))[1]["message"]
    deleted = (await api.send("DELETE", path, accept="text/html"))[1]["message"]

    assert ";stream=watch" in listed
    assert ";stream=watch" not in deleted


async def test_a_status_is_never_shown_as_partial_metadata(api: Any) -> None:
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    account = {"metadata": {"name": "default"}}
    await api.send("POST", "/api/v1/namespaces/default/serviceaccounts", account)
    assert (await api.send("POST", "/api/v1/namespaces/default/pods", pod))[0] == 201
    accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

    path = "/api/v1/namespaces/default/pods/p/eviction?dryRun=All"
    status, answer = await api.send("POST", path, {"metadata": {"name": "p"}}, accept=accept)

    assert (status, answer["kind"]) == (201, "Status")

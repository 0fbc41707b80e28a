"""Answers come in the form that a client prefers among those the server has."""

from __future__ import annotations

import pytest

from haven.apimachinery.apierrors import NotAcceptable, UnsupportedMediaType
from haven.apimachinery.codecs.negotiate import (
    JSON,
    PROTOBUF,
    RESOURCES_UNSTRUCTURED,
    YAML,
    Answer,
    body_media_type,
    check_route,
    is_pretty,
    negotiate,
    negotiate_stream,
)

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


@pytest.mark.parametrize(
    ("accept", "answer"),
    [
        ("", Answer(JSON)),
        ("*/*", Answer(JSON)),
        ("application/yaml", Answer(YAML)),
        ("application/vnd.kubernetes.protobuf,application/json", Answer(PROTOBUF)),
        ("application/json;q=0.5, application/yaml", Answer(YAML)),
        ("text/plain, application/json;q=0.5", Answer(JSON)),
        (f"{TABLE},application/json", Answer(JSON, "Table", "meta.k8s.io/v1")),
        ("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json", Answer(JSON)),
        (
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
            Answer(PROTOBUF, "PartialObjectMetadata", "meta.k8s.io/v1"),
        ),
        ("application/json;as=Table;v=v9;g=meta.k8s.io,application/json", Answer(JSON)),
        ("application/json; pretty=1", Answer(JSON, pretty=True)),
    ],
)
def test_the_preferred_form_that_the_server_has_is_chosen(accept: str, answer: Answer) -> None:
    assert negotiate(accept) == answer


@pytest.mark.parametrize("accept", ["application/json;as=Nosuch;v=v1;g=meta.k8s.io", "text/html"])
def test_a_form_that_nobody_has_is_refused_with_the_forms_there_are(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="only the following media types are accepted: application/json, app"):
        negotiate(accept)


def test_custom_resources_have_no_protobuf_form_but_their_metadata_has() -> None:
    protobuf_first = f"{PROTOBUF},{JSON}"
    partial = f"{PROTOBUF};as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"

    assert negotiate(protobuf_first, RESOURCES_UNSTRUCTURED).media_type == JSON
    assert negotiate(partial, RESOURCES_UNSTRUCTURED).media_type == PROTOBUF


def test_watches_come_as_json_or_protobuf_only() -> None:
    assert negotiate_stream("application/vnd.kubernetes.protobuf;stream=watch").media_type == PROTOBUF
    assert negotiate_stream("*/*").media_type == JSON
    with pytest.raises(NotAcceptable, match=r"application/json;stream=watch, application/vnd\.kubernetes"):
        negotiate_stream("application/yaml")


def test_a_route_knows_no_wildcard_but_the_full_one() -> None:
    check_route("*/*")
    check_route("text/html, application/json;q=0.1")
    check_route(TABLE)
    with pytest.raises(NotAcceptable) as caught:
        check_route("application/*")
    assert caught.value.message == (
        "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, "
        "application/vnd.kubernetes.protobuf"
    )


def test_a_body_without_a_type_is_json_and_an_unknown_type_is_refused() -> None:
    assert body_media_type("") == JSON
    assert body_media_type("Application/JSON; charset=utf-8") == JSON
    with pytest.raises(
        UnsupportedMediaType, match="in an unknown format - accepted media types include: application/j"
    ):
        body_media_type("application/merge-patch+json")


def test_json_is_pretty_for_humans_and_on_request() -> None:
    assert is_pretty("", "curl/8.0")
    assert is_pretty("true", "kubectl")
    assert not is_pretty("0", "curl/8.0")
    assert not is_pretty("", "kubectl/v1.36")


@pytest.mark.parametrize(
    "header", ["application/json", "application/json; charset=utf-8", 'application/json;a="b;c";', "APPLICATION/JSON"]
)
def test_parameters_of_a_body_s_type_that_are_well_formed_mean_nothing(header: str) -> None:
    assert body_media_type(header) == JSON


@pytest.mark.parametrize("header", ["application/json;;", "application/json; a", "application/json;=b", "application/"])
def test_parameters_of_a_body_s_type_that_are_malformed_refuse_it(header: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        body_media_type(header)


def test_a_resource_can_be_asked_for_at_the_server_version_that_there_is() -> None:
    assert negotiate("application/json;sv=v1").media_type == JSON
    with pytest.raises(NotAcceptable):
        negotiate("application/json;sv=v2")

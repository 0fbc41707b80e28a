"""A refusal is written in the form that the client wants."""

from __future__ import annotations

import json

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
    assert refused("*/*", **{"user-agent": "curl/8"}).body.endswith(b"\n}\n")


def test_protobuf_stays_protobuf() -> None:
    assert refused("application/vnd.kubernetes.protobuf").body.startswith(b"k8s\0")

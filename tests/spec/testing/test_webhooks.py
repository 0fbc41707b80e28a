"""Webhooks that are functions of the test, called by the API server over TLS."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from haven.testing import Admission, ApiError, Cluster, Denied, Forbidden

WIDGETS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.shop.example"},
    "spec": {
        "group": "shop.example",
        "names": {"kind": "Widget", "plural": "widgets", "singular": "widget"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": name,
                "served": True,
                "storage": name == "v1",
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "properties": {field: {"type": "integer"}}},
                        },
                    }
                },
            }
            for name, field in (("v1", "size"), ("v2", "width"))
        ],
    },
}


def a_configmap(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def test_a_function_refuses_what_it_does_not_like(haven_cluster: Cluster) -> None:
    @haven_cluster.validating_webhook("configmaps")
    def no_secrets(admission: Admission) -> str | None:
        return "no passwords here" if "password" in admission.object.get("data", {}) else None

    haven_cluster.create(a_configmap("good", color="red"))
    with pytest.raises(Forbidden, match="no passwords here"):
        haven_cluster.create(a_configmap("bad", password="x"))


def test_a_function_may_ask_the_cluster_before_it_answers(haven_cluster: Cluster) -> None:
    @haven_cluster.validating_webhook("configmaps", ["CREATE"])
    def at_most_one(admission: Admission) -> None:
        if len(haven_cluster.list("configmaps", admission.namespace)) >= 2:  # One is kube-root-ca.crt.
            raise Denied("one is enough", code=422)

    haven_cluster.create(a_configmap("first"))
    with pytest.raises(ApiError, match="one is enough") as caught:
        haven_cluster.create(a_configmap("second"))
    assert caught.value.code == 422


def test_a_function_changes_what_is_stored(haven_cluster: Cluster) -> None:
    @haven_cluster.mutating_webhook("pods", ["CREATE"])
    async def label(admission: Admission) -> None:
        admission.object["metadata"].setdefault("labels", {})["team/owner"] = admission.user

    pod = {"containers": [{"name": "main", "image": "web"}]}
    haven_cluster.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": pod})

    assert haven_cluster.get("pod", "web")["metadata"]["labels"] == {"team/owner": "haven-testing"}


def test_a_function_that_fails_lets_the_failure_policy_decide(haven_cluster: Cluster) -> None:
    @haven_cluster.validating_webhook("configmaps", failure_policy="Ignore")
    def broken(admission: Admission) -> None:
        raise RuntimeError("a bug")

    haven_cluster.create(a_configmap("passes"))

    @haven_cluster.validating_webhook("secrets")
    def strict(admission: Admission) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(ApiError, match="failed calling webhook"):
        haven_cluster.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}})


def test_a_server_of_ones_own_is_reached_by_its_service(haven_cluster: Cluster) -> None:
    certificate, key = haven_cluster.certificate("hook.default.svc")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = HTTPServer(("127.0.0.1", 0), _Refusing)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    haven_cluster.route_service("hook", server.server_port)
    bundle = base64.b64encode(haven_cluster.ca_file.read_bytes()).decode()
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"]}
    haven_cluster.apply(
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "own"},
            "webhooks": [
                {
                    "name": "own.testing.example",
                    "clientConfig": {"service": {"namespace": "default", "name": "hook"}, "caBundle": bundle},
                    "rules": [rule],
                    "admissionReviewVersions": ["v1"],
                    "sideEffects": "None",
                }
            ],
        }
    )
    try:
        with pytest.raises(Forbidden, match="asked over TLS"):
            haven_cluster.create(a_configmap("one"))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Refusing(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = {"message": "asked over TLS", "code": 403}
        response = {"uid": review["request"]["uid"], "allowed": False, "status": status}
        body = json.dumps({**review, "response": response}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def test_custom_objects_are_served_as_soon_as_their_definition_is_applied(haven_cluster: Cluster) -> None:
    haven_cluster.apply(WIDGETS)

    widget = {"apiVersion": "shop.example/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 3}}
    haven_cluster.create(widget)

    assert [item["spec"] for item in haven_cluster.list("widgets")] == [{"size": 3}]


def test_defaults_and_choices_of_a_definition_may_be_of_any_type(haven_cluster: Cluster) -> None:
    size = {"type": "integer", "default": 1, "enum": [1, 2]}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"size": size}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    haven_cluster.apply({**WIDGETS, "spec": {**WIDGETS["spec"], "versions": [version]}})

    widget = {"apiVersion": "shop.example/v1", "kind": "Widget", "metadata": {"name": "w"}}

    assert haven_cluster.apply(widget)[0]["size"] == 1


def test_a_function_converts_between_versions(haven_cluster: Cluster) -> None:
    haven_cluster.apply(WIDGETS)

    @haven_cluster.conversion_webhook("widgets.shop.example")
    def convert(obj: dict[str, Any], wanted: str) -> None:
        here, there = ("size", "width") if wanted.endswith("/v2") else ("width", "size")
        obj["spec"][there] = obj["spec"].pop(here)

    widget = {"apiVersion": "shop.example/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 3}}
    haven_cluster.create(widget)

    assert haven_cluster.get("shop.example/v2/Widget", "w")["spec"] == {"width": 3}


def test_definitions_go_back_with_a_snapshot(haven_cluster: Cluster) -> None:
    empty = haven_cluster.snapshot()
    haven_cluster.apply(WIDGETS)
    widget = {"apiVersion": "shop.example/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 3}}
    haven_cluster.create(widget)
    full = haven_cluster.snapshot()

    haven_cluster.restore(empty)
    with pytest.raises(LookupError):
        haven_cluster.list("widgets")
    haven_cluster.restore(full)

    haven_cluster.wait_until(lambda: [item["metadata"]["name"] for item in haven_cluster.list("Widget")] == ["w"])

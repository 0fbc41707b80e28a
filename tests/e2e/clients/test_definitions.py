"""Definitions of custom resources, as kubectl, helm and an operator use them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.clients.conftest import Cluster

pytestmark = pytest.mark.e2e

DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: %(plural)s.%(group)s}
spec:
  group: %(group)s
  scope: Namespaced
  names: {plural: %(plural)s, kind: %(kind)s}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.size}
    additionalPrinterColumns:
    - {name: Size, type: integer, jsonPath: .spec.size}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    selectableFields: [{jsonPath: .spec.color}]
    schema:
      openAPIV3Schema:
        description: One of the things.
        type: object
        properties:
          spec:
            type: object
            x-kubernetes-validations: [{rule: "self.size < 5 || self.color == 'red'", message: large ones are red}]
            properties:
              size: {type: integer, minimum: 0, default: 1, description: How large it is.}
              color: {type: string, enum: [red, blue], default: blue}
          status: {type: object, properties: {size: {type: integer}, config: {type: string}}}
"""
OPERATOR = """
import kopf
from kubernetes import client, config

@kopf.on.startup()
def connect(**_):
    config.load_kube_config()

@kopf.on.create("ops.example.com", "v1", "makers")
@kopf.on.update("ops.example.com", "v1", "makers", field="spec.size")
def make(name, namespace, spec, patch, **_):
    body = {"metadata": {"name": name}, "data": {"size": str(spec["size"])}}
    kopf.adopt(body)
    client.CoreV1Api().delete_collection_namespaced_config_map(namespace, field_selector=f"metadata.name={name}")
    client.CoreV1Api().create_namespaced_config_map(namespace, body)
    patch.status["config"] = name
    patch.status["size"] = spec["size"]

@kopf.on.delete("ops.example.com", "v1", "makers")
def unmake(name, namespace, **_):
    body = {"metadata": {"name": f"{name}-gone"}}
    client.CoreV1Api().create_namespaced_config_map(namespace, body)
"""


def a_definition(group: str, plural: str, kind: str) -> str:
    return DEFINITION % {"group": group, "plural": plural, "kind": kind}


def an_object(group: str, kind: str, spec: str) -> str:
    return f"apiVersion: {group}/v1\nkind: {kind}\nmetadata: {{name: one}}\nspec: {spec}\n"


@pytest.fixture
def things(client: Cluster) -> Iterator[Cluster]:
    client.kubectl("apply", "-f", "-", stdin=a_definition("kubectl.example.com", "things", "Thing"))
    client.kubectl("wait", "--for=condition=Established", "crd/things.kubectl.example.com", "--timeout=240s")
    yield client
    client.kubectl("delete", "crd", "things.kubectl.example.com", "--timeout=240s")


def test_kubectl_explains_applies_shows_and_scales(things: Cluster, namespace: str) -> None:
    kubectl = things.kubectl
    explained = kubectl("explain", "thing.spec.size")
    made = kubectl("apply", "-n", namespace, "-f", "-", stdin=an_object("kubectl.example.com", "Thing", "{size: 2}"))
    changed = kubectl("apply", "-n", namespace, "-f", "-", stdin=an_object("kubectl.example.com", "Thing", "{size: 3}"))
    table = kubectl("get", "things", "-n", namespace, "--field-selector", "spec.color=blue")
    kubectl("scale", "-n", namespace, "thing/one", "--replicas=4")
    scaled = json.loads(kubectl("get", "-n", namespace, "thing/one", "-o", "json"))

    assert "How large it is." in explained
    assert ("created" in made, "configured" in changed) == (True, True)
    assert table.split()[:6] == ["NAME", "SIZE", "AGE", "one", "3", table.split()[5]]
    assert scaled["spec"] == {"size": 4, "color": "blue"}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("{size: 9}", "spec: Invalid value: large ones are red"),
        ("{color: green}", 'spec.color: Unsupported value: "green": supported values: "red", "blue"'),
        ("{weight: 1}", 'unknown field "spec.weight"'),
    ],
)
def test_kubectl_is_told_what_is_wrong(things: Cluster, namespace: str, spec: str, words: str) -> None:
    body = an_object("kubectl.example.com", "Thing", spec)

    refused = things.run("kubectl", "apply", "-n", namespace, "-f", "-", stdin=body, ok=False)

    assert refused.returncode != 0
    assert words in refused.stderr


def test_a_chart_brings_its_definitions(client: Cluster, namespace: str, tmp_path: Path) -> None:
    chart = tmp_path / "chart"
    (chart / "crds").mkdir(parents=True)
    (chart / "templates").mkdir()
    (chart / "Chart.yaml").write_text("{apiVersion: v2, name: chart, version: 0.1.0}")
    (chart / "crds" / "parts.yaml").write_text(a_definition("helm.example.com", "parts", "Part"))
    (chart / "templates" / "one.yaml").write_text(an_object("helm.example.com", "Part", "{size: {{ .Values.size }}}"))

    try:
        client.helm("install", "-n", namespace, "one", str(chart), "--set", "size=1", "--wait", "--timeout", "240s")
        client.helm("upgrade", "-n", namespace, "one", str(chart), "--set", "size=2", "--wait", "--timeout", "240s")
        size = client.kubectl("get", "-n", namespace, "part/one", "-o", "jsonpath={.spec.size}")
        client.helm("uninstall", "-n", namespace, "one", "--wait", "--timeout", "240s")
        left = client.kubectl("get", "-n", namespace, "parts", "-o", "name")
        kept = client.kubectl("get", "crd", "parts.helm.example.com", "-o", "name")
    finally:
        client.kubectl("delete", "crd", "parts.helm.example.com", "--ignore-not-found")

    assert size == "2"
    assert (left, kept.strip()) == ("", "customresourcedefinition.apiextensions.k8s.io/parts.helm.example.com")


@pytest.fixture
def operator(cluster: Cluster, tmp_path: Path) -> Iterator[Path]:
    """A kopf operator at work, and its log."""
    cluster.kubectl("apply", "-f", "-", stdin=a_definition("ops.example.com", "makers", "Maker"))
    cluster.kubectl("wait", "--for=condition=Established", "crd/makers.ops.example.com", "--timeout=240s")
    source, log = tmp_path / "operator.py", tmp_path / "operator.log"
    source.write_text(OPERATOR)
    command = [sys.executable, "-m", "kopf", "run", "--all-namespaces", source]
    with log.open("wb") as file, cluster.spawn(*command, stderr=file) as process:
        yield log
        process.terminate()
    cluster.kubectl("delete", "crd", "makers.ops.example.com")


def test_an_operator_reconciles_its_objects(cluster: Cluster, namespace: str, operator: Path) -> None:
    def told(size: str) -> str:
        path = f"--for=jsonpath={{.data.size}}={size}"
        cluster.kubectl("wait", "-n", namespace, "--for=jsonpath={.status.size}=" + size, "maker/one", "--timeout=240s")
        cluster.kubectl("wait", "-n", namespace, path, "configmap/one", "--timeout=240s")
        return cluster.kubectl("get", "-n", namespace, "maker/one", "-o", "jsonpath={.status.config}")

    made = an_object("ops.example.com", "Maker", "{size: 2}")
    cluster.kubectl("create", "-n", namespace, "-f", "-", stdin=made)
    first = told("2")
    cluster.kubectl("patch", "-n", namespace, "maker/one", "--type=merge", "-p", '{"spec": {"size": 3}}')
    second = told("3")
    cluster.kubectl("delete", "-n", namespace, "maker/one", "--timeout=240s")

    assert (first, second) == ("one", "one")
    assert cluster.kubectl("get", "-n", namespace, "configmap/one-gone", "-o", "name") == "configmap/one-gone\n"
    cluster.kubectl("wait", "-n", namespace, "--for=delete", "configmap/one", "--timeout=240s")  # What it owned.

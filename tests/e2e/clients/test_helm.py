"""The chart that `helm create` makes: install, upgrade, roll back, uninstall."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.e2e.clients.conftest import Cluster

pytestmark = pytest.mark.e2e


# A busy machine may need longer than a second for a page; the chart's own limit is upstream's default.
PATIENT = ("--set", "livenessProbe.timeoutSeconds=60", "--set", "readinessProbe.timeoutSeconds=60")


@pytest.fixture
def chart(client: Cluster, tmp_path: Path) -> Path:
    path = tmp_path / "web"
    client.helm("create", str(path))
    template = path / "templates" / "deployment.yaml"
    # The chart's nginx image needs a registry; busybox serves as well.
    serve = "mkdir /w; echo hi > /w/index.html; httpd -f -p 80 -h /w"
    ports = "          ports:\n"
    text = template.read_text().replace(ports, f'          command: [sh, -c, "{serve}"]\n{ports}', 1)
    template.write_text(text)
    return path


def test_a_release_lives_its_life(client: Cluster, namespace: str, chart: Path) -> None:
    image = ("--set", "image.repository=busybox", "--set", "image.tag=stable", *PATIENT)
    helm = client.helm
    helm("install", "-n", namespace, "one", str(chart), *image, "--wait", "--timeout", "240s")
    helm(
        "upgrade", "-n", namespace, "one", str(chart), *image, "--set", "replicaCount=2", "--wait", "--timeout", "240s"
    )
    upgraded = json.loads(client.kubectl("get", "-n", namespace, "deploy/one-web", "-o", "json"))
    helm("rollback", "-n", namespace, "one", "1", "--wait", "--timeout", "240s")
    rolled_back = json.loads(client.kubectl("get", "-n", namespace, "deploy/one-web", "-o", "json"))
    history = json.loads(helm("history", "-n", namespace, "one", "-o", "json"))
    helm("uninstall", "-n", namespace, "one", "--wait", "--timeout", "240s")

    assert (upgraded["spec"]["replicas"], rolled_back["spec"]["replicas"]) == (2, 1)
    assert [item["status"] for item in history] == ["superseded", "superseded", "deployed"]
    left = client.kubectl("get", "-n", namespace, "deploy,svc,serviceaccount", "-o", "name")
    assert left == "serviceaccount/default\n"

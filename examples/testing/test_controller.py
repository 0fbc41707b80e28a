"""A controller with the official client, tested where it usually breaks: rollouts, restarts, expired watches."""

import threading
from collections.abc import Iterator

import controller
import pytest

from haven.testing import Cluster

MANIFEST = """
apiVersion: v1
kind: ConfigMap
metadata: {name: web, labels: {restart: "true"}}
data: {color: red}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: example.org/web}]}
"""


@pytest.fixture
def running(haven_cluster: Cluster) -> Iterator[None]:
    haven_cluster.apply(MANIFEST)
    stop = threading.Event()
    thread = threading.Thread(target=controller.run, args=(haven_cluster.client(), stop))
    thread.start()
    yield
    stop.set()
    thread.join()


def color_is(color: str):  # type: ignore[no-untyped-def]
    return lambda deployment: color in str(deployment["spec"]["template"]["metadata"].get("annotations"))


@pytest.mark.usefixtures("running")
def test_a_changed_configmap_rolls_the_pods(haven_cluster: Cluster) -> None:
    haven_cluster.wait_for("deployment/web", color_is("red"))
    haven_cluster.wait_for("deployment/web", {"status": {"updatedReplicas": 2, "readyReplicas": 2}})
    before = {pod.name for pod in haven_cluster.pods("app=web")}

    haven_cluster.patch("configmap", "web", {"data": {"color": "blue"}})

    haven_cluster.wait_for("deployment/web", color_is("blue"))
    haven_cluster.wait_until(
        lambda: len(now := {pod.name for pod in haven_cluster.pods("app=web")}) == 2 and not now & before
    )


@pytest.mark.usefixtures("running")
def test_nothing_is_missed_when_a_watch_expires(haven_cluster: Cluster) -> None:
    haven_cluster.wait_for("deployment/web", color_is("red"))
    haven_cluster.faults.add(verb="watch", resource="configmaps", status=410, times=3)

    haven_cluster.patch("configmap", "web", {"data": {"color": "green"}})

    haven_cluster.wait_for("deployment/web", color_is("green"))

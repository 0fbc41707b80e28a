"""The clients and frameworks that Python operators are written with, on a cluster of a test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import kopf
import kr8s
import pytest
from kubernetes import client, watch

from haven.testing import Cluster, WaitTimeout

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
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
            }
        ],
    },
}


def a_pod(name: str) -> dict[str, Any]:
    containers = [{"name": "main", "image": "web"}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers}}


def test_the_official_client_reads_writes_and_watches(haven_cluster: Cluster) -> None:
    api = client.CoreV1Api(haven_cluster.client("kubernetes"))
    api.create_namespaced_pod("default", a_pod("web"))

    phases = []
    for event in watch.Watch().stream(api.list_namespaced_pod, "default", timeout_seconds=120):
        phases.append(event["object"].status.phase)
        if phases[-1] == "Running":
            break

    assert phases[-1] == "Running"


def test_the_dynamic_client_finds_kinds(haven_cluster: Cluster) -> None:
    haven_cluster.apply(WIDGETS)
    widgets = haven_cluster.client("kubernetes.dynamic").resources.get(api_version="shop.example/v1", kind="Widget")

    widgets.create(
        body={"apiVersion": "shop.example/v1", "kind": "Widget", "metadata": {"name": "w"}}, namespace="default"
    )

    assert [item.metadata.name for item in widgets.get(namespace="default").items] == ["w"]


def test_lightkube_works(haven_cluster: Cluster) -> None:
    from lightkube.resources.core_v1 import Pod

    lightkube = haven_cluster.client("lightkube")
    lightkube.create(Pod.from_dict(a_pod("web")))

    lightkube.wait(Pod, "web", for_conditions=["Ready"])

    assert lightkube.get(Pod, "web").status.phase == "Running"


async def test_lightkube_works_asynchronously(haven_cluster: Cluster) -> None:
    from lightkube.resources.core_v1 import ConfigMap

    lightkube = haven_cluster.client("lightkube.async")

    names = [item.metadata.name async for item in lightkube.list(ConfigMap, namespace="default")]

    assert names == ["kube-root-ca.crt"]
    await lightkube.close()


async def test_kr8s_works(haven_cluster: Cluster) -> None:
    from kr8s.asyncio.objects import Pod

    api = await haven_cluster.aio.client("kr8s.asyncio")
    pod = await Pod(a_pod("web"), api=api)
    await pod.create()

    await pod.wait("condition=Ready", timeout=120)

    await haven_cluster.aio.call(haven_cluster.pod("web").log, "hello")
    assert [line async for line in pod.logs()] == ["hello"]


@pytest.mark.parametrize("name", ["first", "second"])
def test_kr8s_finds_the_cluster_of_each_test_by_itself(haven_cluster: Cluster, name: str) -> None:
    haven_cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})

    found = {item.name for item in kr8s.get("configmaps", namespace="default")}

    assert found & {"first", "second"} == {name}


async def test_asynchronous_tests_have_asynchronous_calls(haven_cluster: Cluster) -> None:
    aio = haven_cluster.aio
    await aio.create(a_pod("web"))

    await aio.wait_for("pod/web", "Ready")
    await aio.advance(minutes=1)
    await aio.delete("pod", "web")

    await aio.wait_for("pod/web", "deleted")
    assert await aio.list("pods") == []


async def test_asynchronous_tests_go_back_and_wait_for_functions(haven_cluster: Cluster) -> None:
    aio = haven_cluster.aio
    before = await aio.snapshot()
    await aio.create(a_pod("web"))

    async def is_there() -> bool:
        return (await aio.get("pod", "web"))["status"]["phase"] == "Running"

    await aio.wait_until(is_there, timeout=60)
    await aio.restore(before)

    assert (await aio.request("GET", "/api/v1/namespaces/default/pods"))["items"] == []
    with pytest.raises(WaitTimeout, match='pods "web" not found'):
        await aio.wait_until(is_there, timeout=0.05)


@pytest.fixture
def operator(haven_cluster: Cluster) -> Iterator[None]:
    """A kopf operator in a thread, as kopf's own documentation embeds one."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**rest: Any) -> Any:
        return kopf.login_with_kubeconfig(**rest)

    @kopf.on.create("shop.example", "v1", "widgets", registry=registry, id="make_configmap")
    def make_configmap(name: str, namespace: str, spec: Any, **_: Any) -> dict[str, str]:
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name},
            "data": {"size": str(spec["size"])},
        }
        kopf.adopt(body)
        client.CoreV1Api(haven_cluster.client()).create_namespaced_config_map(namespace, body)
        return {"made": name}

    haven_cluster.apply(WIDGETS)
    ready, stop = threading.Event(), threading.Event()
    thread = threading.Thread(
        target=lambda: kopf.run(
            registry=registry, namespaces=["default"], ready_flag=ready, stop_flag=stop, standalone=True
        )
    )
    thread.start()
    assert ready.wait(240)
    yield
    stop.set()
    thread.join(240)


@pytest.mark.usefixtures("operator")
def test_a_kopf_operator_reacts_and_its_children_go_with_their_parent(haven_cluster: Cluster) -> None:
    haven_cluster.create(
        {"apiVersion": "shop.example/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 3}}
    )

    configmap = haven_cluster.wait_for("configmap/w", timeout=120)
    assert configmap["data"] == {"size": "3"}
    haven_cluster.wait_for("widget/w", {"status": {"make_configmap": {"made": "w"}}}, timeout=120)

    haven_cluster.delete("widget", "w")
    haven_cluster.wait_for("configmap/w", "deleted", timeout=120)

"""Logs, commands, ports and figures of simulated Pods, as real clients ask for them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import portforward, stream

from haven.testing import Cluster, Exec, ExecResult, Usage


def a_pod(name: str = "web") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "web"}]},
    }


def test_a_pods_log_is_what_the_test_wrote(haven_cluster: Cluster) -> None:
    haven_cluster.behave(log="starting\n")
    haven_cluster.create(a_pod())
    haven_cluster.pod("web").log("one\ntwo")
    api = client.CoreV1Api(haven_cluster.client())

    assert api.read_namespaced_pod_log("web", "default") == "starting\none\ntwo\n"
    assert api.read_namespaced_pod_log("web", "default", tail_lines=1) == "two\n"


def test_a_followed_log_ends_with_its_container(haven_cluster: Cluster) -> None:
    haven_cluster.create(a_pod())
    haven_cluster.pod("web").log("before")
    api = client.CoreV1Api(haven_cluster.client())
    answer = api.read_namespaced_pod_log("web", "default", follow=True, _preload_content=False)
    lines = iter(answer)
    assert next(lines) == b"before\n"

    haven_cluster.pod("web").log("after")
    assert next(lines) == b"after\n"
    haven_cluster.pod("web").fail()

    assert list(lines) == []


def test_the_log_of_the_run_before_can_be_read(haven_cluster: Cluster) -> None:
    haven_cluster.create(a_pod())
    haven_cluster.pod("web").log("first run")
    haven_cluster.pod("web").crash()
    haven_cluster.wait_for("pod/web", lambda pod: pod["status"]["containerStatuses"][0]["restartCount"] == 1)
    api = client.CoreV1Api(haven_cluster.client())

    assert api.read_namespaced_pod_log("web", "default", previous=True) == "first run\n"
    assert api.read_namespaced_pod_log("web", "default") == ""


def test_commands_are_answered_by_the_test(haven_cluster: Cluster) -> None:
    def run(asked: Exec) -> ExecResult:
        if asked.command[0] == "cat":
            return ExecResult(stdout=asked.stdin.upper())
        return ExecResult(stdout=" ".join(asked.command), stderr="oh\n", exit_code=3)

    haven_cluster.behave(name="web", run=run)
    haven_cluster.create(a_pod())
    haven_cluster.wait_for("pod/web", "Ready")
    api = client.CoreV1Api(haven_cluster.client())

    session = stream(
        api.connect_get_namespaced_pod_exec, "web", "default", command=["echo", "hi"],
        stderr=True, stdin=False, stdout=True, tty=False, _preload_content=False,
    )  # fmt: skip
    session.run_forever(timeout=60)

    assert session.read_stdout() == "echo hi"
    assert session.read_stderr() == "oh\n"
    assert session.returncode == 3


def test_a_command_of_a_pod_without_behaviour_says_so(haven_cluster: Cluster) -> None:
    haven_cluster.create(a_pod())
    haven_cluster.wait_for("pod/web", "Ready")
    api = client.CoreV1Api(haven_cluster.client())

    said = stream(
        api.connect_get_namespaced_pod_exec, "web", "default", command=["ls"],
        stderr=True, stdin=False, stdout=True, tty=False,
    )  # fmt: skip

    assert "has not said run=" in said


def test_a_port_is_served_by_the_test(haven_cluster: Cluster) -> None:
    async def shout(pod: Any, port: int, reader: asyncio.StreamReader, writer: Any) -> None:
        line = await reader.readline()
        writer.write(f"{pod.metadata.name}:{port} {line.decode().upper()}".encode())
        await writer.drain()

    haven_cluster.behave(port=shout)
    haven_cluster.create(a_pod())
    haven_cluster.wait_for("pod/web", "Ready")
    api = client.CoreV1Api(haven_cluster.client())

    forward = portforward(api.connect_get_namespaced_pod_portforward, "web", "default", ports="8080")
    connection = forward.socket(8080)
    connection.setblocking(True)
    connection.sendall(b"hello\n")

    assert connection.recv(100) == b"web:8080 HELLO\n"
    connection.close()


def test_a_pod_that_does_not_run_has_no_log(haven_cluster: Cluster) -> None:
    haven_cluster.behave(start_error="ImagePullBackOff")
    haven_cluster.create(a_pod())
    haven_cluster.wait_for("pod/web", lambda pod: pod["status"].get("containerStatuses"))
    api = client.CoreV1Api(haven_cluster.client())

    with pytest.raises(ApiException) as caught:
        api.read_namespaced_pod_log("web", "default")

    assert "waiting to start" in str(caught.value.body)


def test_what_pods_use_scales_them(haven_cluster: Cluster) -> None:
    haven_cluster.behave(image="web", usage=Usage(cpu_cores=0.9, memory_bytes=50 * 2**20))
    container = {"name": "main", "image": "web", "resources": {"requests": {"cpu": "1"}}}
    spec = {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}},
    }
    haven_cluster.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
    haven_cluster.wait_for("deployment/web", "Available")
    target = {"type": "Utilization", "averageUtilization": 45}
    haven_cluster.apply(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "web"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                "minReplicas": 1,
                "maxReplicas": 10,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
            },
        }
    )

    haven_cluster.clock.advance(minutes=1)

    assert haven_cluster.get("deployment", "web")["spec"]["replicas"] >= 4

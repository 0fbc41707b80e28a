"""kubectl on a cluster of a test: what a user sees of simulated Pods."""

from __future__ import annotations

import os
import shutil
import subprocess
import urllib.request
from typing import Any

import pytest

from haven.testing import Cluster, Exec, ExecResult

KUBECTL = shutil.which("kubectl")
pytestmark = pytest.mark.skipif(KUBECTL is None, reason="there is no kubectl")
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web"},
    "spec": {"containers": [{"name": "main", "image": "web"}]},
}


def kubectl(cluster: Cluster, *arguments: str, stdin: str = "") -> str:
    done = subprocess.run(
        ["kubectl", *arguments],
        env={**os.environ, **cluster.env},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_pods_nodes_and_rollouts_look_like_real_ones(haven_cluster: Cluster) -> None:
    assert "deployment.apps/web created" in kubectl(
        haven_cluster, "create", "deployment", "web", "--image=nginx", "--replicas=2"
    )

    kubectl(haven_cluster, "rollout", "status", "deployment/web", "--timeout=240s")
    kubectl(haven_cluster, "wait", "--for=condition=Ready", "pod", "-l", "app=web", "--timeout=240s")

    lines = kubectl(haven_cluster, "get", "pods", "--no-headers").splitlines()
    assert [line.split()[1:4] for line in lines] == [["1/1", "Running", "0"]] * 2
    assert "node-0   Ready" in kubectl(haven_cluster, "get", "nodes")
    name = haven_cluster.pods("app=web")[0].name
    haven_cluster.settle()  # Events are written after what they tell of.
    described = kubectl(haven_cluster, "describe", "pod", name)
    assert "Successfully assigned default/web-" in described
    assert "Container started" in described


def test_logs_commands_and_copies_go_through(haven_cluster: Cluster) -> None:
    def run(asked: Exec) -> ExecResult:
        return ExecResult(stdout=f"{' '.join(asked.command)}: {asked.stdin.decode()}")

    haven_cluster.behave(run=run, log="hello\n")
    haven_cluster.create(POD)
    haven_cluster.wait_for("pod/web", "Ready")

    assert kubectl(haven_cluster, "logs", "web") == "hello\n"
    assert kubectl(haven_cluster, "exec", "web", "--", "ls", "-l") == "ls -l: "
    assert kubectl(haven_cluster, "exec", "-i", "web", "--", "cat", stdin="some text") == "cat: some text"


def test_a_forwarded_port_is_served_by_the_test(haven_cluster: Cluster) -> None:
    async def serve(pod: Any, port: int, reader: Any, writer: Any) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = f"{pod.metadata.name} at {port}".encode()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()

    haven_cluster.behave(port=serve)
    haven_cluster.create(POD)
    haven_cluster.wait_for("pod/web", "Ready")
    process = subprocess.Popen(
        ["kubectl", "port-forward", "pod/web", ":8080"],
        env={**os.environ, **haven_cluster.env}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        local = process.stdout.readline().split("127.0.0.1:")[1].split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{local}/", timeout=120) as answer:
            assert answer.read() == b"web at 8080"
    finally:
        process.terminate()
        process.communicate()


def test_what_pods_use_is_on_top(haven_cluster: Cluster) -> None:
    haven_cluster.create(POD)
    haven_cluster.wait_for("pod/web", "Ready")

    assert "node-0" in kubectl(haven_cluster, "top", "nodes")
    assert "web" in kubectl(haven_cluster, "top", "pods")


def test_what_kubectl_sends_in_protobuf_can_be_asserted_on(haven_cluster: Cluster) -> None:
    kubectl(haven_cluster, "create", "configmap", "settings", "--from-literal=size=3")

    haven_cluster.audit.assert_requested(
        verb="create", resource="configmaps", user_agent="kubectl/*", body={"data": {"size": "3"}}, times=1
    )

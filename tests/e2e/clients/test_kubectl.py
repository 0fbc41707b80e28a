"""kubectl, unmodified, of two releases."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from pathlib import Path

import pytest
from tests.e2e.clients.conftest import Cluster
from tests.e2e.machine import wait_until

pytestmark = pytest.mark.e2e

WEB = """
apiVersion: v1
kind: ConfigMap
metadata: {name: page}
data: {index.html: "%s"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: busybox:stable
        command: [sh, -c, "echo ready; exec httpd -f -p 8080 -h /www"]
        ports: [{name: http, containerPort: 8080}]
        env: [{name: VERSION, value: "%s"}]
        readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1, timeoutSeconds: 60}
        volumeMounts: [{name: page, mountPath: /www}]
      volumes: [{name: page, configMap: {name: page}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
"""


def test_apply_roll_out_and_roll_back(client: Cluster, namespace: str) -> None:
    kubectl = client.kubectl
    kubectl("apply", "-n", namespace, "-f", "-", stdin=WEB % ("one", "1"))
    kubectl("rollout", "status", "-n", namespace, "deploy/web", "--timeout=240s")
    kubectl("apply", "-n", namespace, "-f", "-", stdin=WEB % ("one", "2"))
    kubectl("rollout", "status", "-n", namespace, "deploy/web", "--timeout=240s")
    kubectl("rollout", "undo", "-n", namespace, "deploy/web")
    kubectl("rollout", "status", "-n", namespace, "deploy/web", "--timeout=240s")

    deployment = json.loads(kubectl("get", "-n", namespace, "deploy/web", "-o", "json"))

    assert deployment["spec"]["template"]["spec"]["containers"][0]["env"] == [{"name": "VERSION", "value": "1"}]
    assert deployment["status"]["availableReplicas"] == 2
    assert "REVISION" in kubectl("rollout", "history", "-n", namespace, "deploy/web")


def a_pod(client: Cluster, namespace: str) -> str:
    command = ["sh", "-c", "echo started; trap exit TERM; while :; do sleep 0.2; done"]
    client.kubectl(
        "run", "-n", namespace, "box", "--image=busybox:stable", "--restart=Never", "--command", "--", *command
    )
    client.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod/box", "--timeout=240s")
    return "box"


def test_logs_exec_and_copy(client: Cluster, namespace: str, tmp_path: Path) -> None:
    kubectl, pod = client.kubectl, a_pod(client, namespace)
    original, copied = tmp_path / "original", tmp_path / "copied"
    original.write_bytes(bytes(range(256)) * 4000)

    kubectl("cp", "-n", namespace, str(original), f"{pod}:/tmp/there")
    kubectl("cp", "-n", namespace, f"{pod}:/tmp/there", str(copied))
    failed = client.run("kubectl", "exec", "-n", namespace, pod, "--", "sh", "-c", "exit 7", ok=False)

    def logs() -> str:
        return kubectl("logs", "-n", namespace, pod)

    wait_until(lambda: logs() == "started\n", "the log tells what was printed", logs)
    assert kubectl("exec", "-n", namespace, "-i", pod, "--", "wc", "-c", stdin="x" * 100_000).strip() == "100000"
    assert failed.returncode == 7
    assert copied.read_bytes() == original.read_bytes()


def test_port_forward(client: Cluster, namespace: str) -> None:
    client.kubectl("apply", "-n", namespace, "-f", "-", stdin=WEB % ("forwarded", "1"))
    client.kubectl("rollout", "status", "-n", namespace, "deploy/web", "--timeout=240s")
    kubectl = client.clients / client.release / "kubectl"
    forward = client.spawn(kubectl, "port-forward", "-n", namespace, "svc/web", ":80", stdout=subprocess.PIPE)
    try:
        assert forward.stdout is not None
        port = forward.stdout.readline().split("127.0.0.1:")[1].split()[0]  # Forwarding from 127.0.0.1:… -> 8080
        with client.machine.network():
            pages = {urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=120).read() for _ in range(3)}
    finally:
        forward.terminate()
        forward.wait()

    assert pages == {b"forwarded"}


def test_a_mounted_configmap_follows_its_object(client: Cluster, namespace: str) -> None:
    client.kubectl("apply", "-n", namespace, "-f", "-", stdin=WEB % ("before", "1"))
    client.kubectl("rollout", "status", "-n", namespace, "deploy/web", "--timeout=240s")
    pod = client.kubectl("get", "-n", namespace, "pods", "-o", "jsonpath={.items[0].metadata.name}")
    client.kubectl("patch", "-n", namespace, "configmap/page", "-p", '{"data": {"index.html": "after"}}')

    client.kubectl(
        "exec", "-n", namespace, pod, "--", "sh", "-c",
        "i=0; while [ $i -lt 600 ] && [ \"$(cat /www/index.html)\" != after ]; do i=$((i+1)); sleep 0.2; done",
    )  # fmt: skip

    assert client.kubectl("exec", "-n", namespace, pod, "--", "cat", "/www/index.html") == "after"


def test_what_may_be_done_is_told(client: Cluster, namespace: str) -> None:
    client.kubectl("create", "serviceaccount", "-n", namespace, "reader")
    client.kubectl("create", "role", "-n", namespace, "reader", "--verb=get,list", "--resource=pods")
    client.kubectl(
        "create", "rolebinding", "-n", namespace, "reader", "--role=reader", f"--serviceaccount={namespace}:reader"
    )
    user = f"--as=system:serviceaccount:{namespace}:reader"

    may = client.kubectl("auth", "can-i", "list", "pods", "-n", namespace, user)
    may_not = client.run("kubectl", "auth", "can-i", "delete", "pods", "-n", namespace, user, ok=False)
    refused = client.run("kubectl", "delete", "pod", "x", "-n", namespace, user, ok=False)

    assert may == "yes\n"
    assert may_not.stdout == "no\n"
    assert (
        f'pods "x" is forbidden: User "system:serviceaccount:{namespace}:reader" cannot delete resource "pods" '
        f'in API group "" in the namespace "{namespace}"'
    ) in refused.stderr


def test_explain_and_api_resources(client: Cluster) -> None:
    resources = client.kubectl("api-resources")

    assert "deployments" in resources
    assert "restartPolicy" in client.kubectl("explain", "pod.spec")

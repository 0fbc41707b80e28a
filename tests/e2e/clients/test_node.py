"""The node and the scheduler through kubectl: volumes that have a place, metrics, room for critical pods."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.e2e.clients.conftest import Cluster
from tests.e2e.machine import wait_until

pytestmark = pytest.mark.e2e

VOLUMES = """
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: local-%(namespace)s}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: here-%(namespace)s}
spec:
  capacity: {storage: 2Gi}
  accessModes: [ReadWriteOncePod]
  storageClassName: local-%(namespace)s
  hostPath: {path: "%(directory)s"}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [
    {key: kubernetes.io/hostname, operator: In, values: ["%(node)s"]}]}]}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: elsewhere-%(namespace)s}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOncePod]
  storageClassName: local-%(namespace)s
  hostPath: {path: /nowhere}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [
    {key: kubernetes.io/hostname, operator: In, values: [elsewhere]}]}]}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec:
  accessModes: [ReadWriteOncePod]
  storageClassName: local-%(namespace)s
  resources: {requests: {storage: 1Gi}}
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {name: %(name)s}
spec:
  terminationGracePeriodSeconds: 0
  restartPolicy: Never
  %(more)s
  containers:
  - name: main
    image: busybox:stable
    command: [sh, -c, "%(command)s"]
    %(container)s
"""


def a_pod(name: str, *, command: str = "sleep 1000", more: str = "", container: str = "") -> str:
    return POD % {"name": name, "command": command, "more": more, "container": container}


def node_name(cluster: Cluster) -> str:
    return cluster.kubectl("get", "nodes", "-o", "name").strip().removeprefix("node/")


def test_a_pod_gets_the_volume_that_its_node_reaches_and_keeps_it_for_itself(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    values = {"namespace": namespace, "directory": str(tmp_path), "node": node_name(cluster)}
    mounted = "volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]"
    mount = "volumeMounts: [{name: data, mountPath: /data}]"
    manifest = VOLUMES % values
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=manifest)
    try:
        writer = a_pod("writer", command="echo hello > /data/file; sleep 1000", more=mounted, container=mount)
        cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=writer)
        cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod/writer", "--timeout=240s")

        claim = json.loads(cluster.kubectl("get", "-n", namespace, "pvc/data", "-o", "json"))
        assert claim["spec"]["volumeName"] == f"here-{namespace}"
        written = tmp_path / "file"
        wait_until(lambda: written.exists() and written.read_text() == "hello\n", "the volume holds what was written")

        cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=a_pod("second", more=mounted, container=mount))
        why = "jsonpath={.status.conditions[?(@.type=='PodScheduled')].reason}=Unschedulable"
        cluster.kubectl("wait", "-n", namespace, f"--for={why}", "pod/second", "--timeout=240s")
        message = cluster.kubectl(
            "get",
            "-n",
            namespace,
            "pod/second",
            "-o",
            "jsonpath={.status.conditions[?(@.type=='PodScheduled')].message}",
        )
        assert "ReadWriteOncePod access mode already in-use by another pod" in message
        cluster.kubectl("delete", "-n", namespace, "pod/writer", "--wait")
        cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod/second", "--timeout=240s")
    finally:
        cluster.kubectl("delete", "-n", namespace, "pods", "--all", "--wait")
        cluster.kubectl("delete", "-n", namespace, "-f", "-", "--wait=false", stdin=manifest)


def test_the_kubelet_tells_what_a_pod_uses(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=a_pod("busy", command="while true; do true; done"))
    cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod/busy", "--timeout=240s")
    node = f"/api/v1/nodes/{node_name(cluster)}/proxy"

    def value(path: str, pattern: str) -> float:
        found = re.search(pattern + r" (\S+)", cluster.kubectl("get", "--raw", node + path))
        return float(found[1]) if found else 0.0

    def wait_above(limit: float, path: str, pattern: str) -> None:
        wait_until(lambda: value(path, pattern) > limit, pattern, lambda: cluster.kubectl("get", "--raw", node + path))

    place = f'namespace="{namespace}",pod="busy"'
    used = f'container_cpu_usage_seconds_total{{container="main",{place}}}'
    wait_above(0, "/metrics/resource", used)
    first = value("/metrics/resource", used)
    wait_above(0, "/metrics/resource", f"pod_memory_working_set_bytes{{{place}}}")
    wait_above(0, "/metrics/cadvisor", f'container_memory_rss{{container="main",[^}}]*{place}}}')
    wait_above(0, "/metrics", r'kubelet_running_containers{container_state="running"}')
    wait_above(first, "/metrics/resource", used)
    summary = json.loads(cluster.kubectl("get", "--raw", node + "/stats/summary"))
    (pod,) = [item for item in summary["pods"] if item["podRef"]["namespace"] == namespace]
    assert pod["network"]["name"] == "eth0"
    assert pod["containers"][0]["cpu"]["usageCoreNanoSeconds"] > 0


def test_a_critical_pod_on_a_full_node_takes_the_place_of_another(cluster: Cluster, namespace: str) -> None:
    name = node_name(cluster)
    allocatable = json.loads(cluster.kubectl("get", f"node/{name}", "-o", "json"))["status"]["allocatable"]["cpu"]
    half = f"resources: {{requests: {{cpu: {int(allocatable) * 600}m}}}}"
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=a_pod("plain", container=half))
    cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod/plain", "--timeout=240s")

    bound = f"nodeName: {name}\n  priorityClassName: system-node-critical"  # The scheduler is not asked.
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=a_pod("vital", more=bound, container=half))
    cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod/vital", "--timeout=240s")

    cluster.kubectl("wait", "-n", namespace, "--for=jsonpath={.status.phase}=Failed", "pod/plain", "--timeout=240s")
    status = json.loads(cluster.kubectl("get", "-n", namespace, "pod/plain", "-o", "json"))["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "Preempting")
    assert status["message"] == "Preempted in order to admit critical pod"
    (told,) = [item for item in status["conditions"] if item["type"] == "DisruptionTarget"]
    assert told["reason"] == "TerminationByKubelet"

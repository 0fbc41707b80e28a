"""The cluster that tests get: what works in it, how it ends."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import pytest
from kubernetes.client import AppsV1Api, CoreV1Api

from haven.testing import AlreadyExists, Cluster, Forbidden, NotFound, WaitTimeout

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: main, image: nginx}]
"""


def a_pod(name: str, **spec: object) -> dict[str, object]:
    containers = [{"name": "main", "image": "busybox"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": containers, "restartPolicy": "Never", **spec},
    }


def test_a_deployment_gets_ready_pods(haven_cluster: Cluster) -> None:
    haven_cluster.apply(DEPLOYMENT)

    deployment = haven_cluster.wait_for("deployment/web", "Available")

    assert deployment["status"]["readyReplicas"] == 3
    assert [pod.phase for pod in haven_cluster.pods("app=web")] == ["Running"] * 3


def test_components_manage_fields_under_upstreams_names(haven_cluster: Cluster) -> None:
    haven_cluster.apply(DEPLOYMENT)
    haven_cluster.wait_for("deployment/web", "Available")

    client = haven_cluster.client()
    deployment = AppsV1Api(client).read_namespaced_deployment("web", "default")
    pod = CoreV1Api(client).list_namespaced_pod("default").items[0]

    assert "kube-controller-manager" in {entry.manager for entry in deployment.metadata.managed_fields}
    assert {"kube-controller-manager", "kubelet"} <= {entry.manager for entry in pod.metadata.managed_fields}


def test_dependents_go_with_their_owner(haven_cluster: Cluster) -> None:
    haven_cluster.apply(DEPLOYMENT)
    haven_cluster.wait_for("deployment/web", "Available")

    haven_cluster.delete("deployment", "web")

    haven_cluster.wait_until(lambda: not haven_cluster.list("pods") and not haven_cluster.list("rs"))


def test_namespaces_vanish_with_all_that_is_in_them(haven_cluster: Cluster) -> None:
    haven_cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    haven_cluster.wait_for("serviceaccount/default", namespace="shop")
    haven_cluster.apply(DEPLOYMENT, namespace="shop")
    haven_cluster.wait_for("deployment/web", "Available", namespace="shop")

    haven_cluster.delete("namespace", "shop")

    haven_cluster.wait_for("namespace/shop", "deleted")
    assert haven_cluster.list("deployments") == []


def test_a_pod_ends_as_the_test_says(haven_cluster: Cluster) -> None:
    haven_cluster.create(a_pod("good"))
    haven_cluster.create(a_pod("bad"))

    haven_cluster.pod("good").succeed()
    haven_cluster.pod("bad").fail(exit_code=3, reason="Broken", message="no luck")

    assert haven_cluster.pod("good").phase == "Succeeded"
    bad = haven_cluster.pod("bad").object["status"]
    assert bad["phase"] == "Failed"
    ended = bad["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (3, "Broken", "no luck")


def test_readiness_is_up_to_the_test(haven_cluster: Cluster) -> None:
    haven_cluster.apply(DEPLOYMENT)
    haven_cluster.wait_for("deployment/web", "Available")

    haven_cluster.pods("app=web")[0].ready(False)

    haven_cluster.wait_for("deployment/web", {"status": {"readyReplicas": 2}})


def test_the_api_keeps_its_rules(haven_cluster: Cluster) -> None:
    haven_cluster.create(a_pod("one"))

    with pytest.raises(AlreadyExists):
        haven_cluster.create(a_pod("one"))
    with pytest.raises(NotFound):
        haven_cluster.get("pod", "two")


def test_a_user_may_do_what_roles_allow(haven_cluster: Cluster) -> None:
    alice = haven_cluster.as_user("alice", groups=["devs"])
    with pytest.raises(Forbidden):
        alice.list("pods")

    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "devs"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "Group", "name": "devs", "apiGroup": "rbac.authorization.k8s.io"}],
    }
    haven_cluster.create(binding)

    assert alice.list("pods") == []
    assert alice.can("list", "pods")
    assert alice.can("list", "deployments")
    assert alice.can("list", "deploy")
    assert alice.can("get", "pods/log")
    assert not alice.can("create", "pods")


def test_a_user_works_in_a_namespace_of_its_own(haven_cluster: Cluster) -> None:
    haven_cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    root = haven_cluster.as_user("root", groups=["system:masters"], namespace="shop")

    root.create(a_pod("one"))
    root.apply(DEPLOYMENT)
    root.patch("deploy", "web", {"spec": {"replicas": 1}})

    haven_cluster.wait_until(lambda: len(root.list("pods", selector="app=web")) == 1, timeout=60)
    assert {item["metadata"]["namespace"] for item in haven_cluster.list("pods")} == {"shop"}


def test_a_wait_in_vain_tells_what_there_was(haven_cluster: Cluster) -> None:
    haven_cluster.behave(start_error="ImagePullBackOff")
    haven_cluster.apply(DEPLOYMENT)
    haven_cluster.settle()

    with pytest.raises(WaitTimeout, match="condition Available is True") as caught:
        haven_cluster.wait_for("deployment/web", "Available", timeout=0.3)

    assert "[main: ImagePullBackOff, not ready, 0 restarts]" in str(caught.value)


def test_nothing_is_left_of_a_closed_cluster() -> None:
    before = set(threading.enumerate())
    cluster = Cluster().start()
    kubeconfig = cluster.kubeconfig
    assert kubeconfig.exists()

    cluster.close()
    cluster.close()

    assert set(threading.enumerate()) - before == set()
    assert not Path(kubeconfig).exists()
    with pytest.raises(RuntimeError, match="closed"):
        cluster.get("pod", "x")


def test_tests_do_not_see_each_others_objects(haven_cluster: Cluster) -> None:
    assert haven_cluster.list("pods") == []
    assert haven_cluster.list("deployments") == []


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux shows what is open")
def test_no_descriptor_is_left_open() -> None:
    def cycle() -> None:
        with Cluster() as cluster:
            CoreV1Api(cluster.client()).list_namespaced_pod("default")
            cluster.create(a_pod("web"))
            cluster.wait_for("pod/web", "Ready")

    def opened() -> int:
        gc.collect()  # What clients and earlier tests leave to the collector is nobody's leak.
        return len(list(Path("/proc/self/fd").iterdir()))

    cycle()
    before = opened()

    cycle()

    assert opened() <= before


def test_a_cluster_cannot_be_asked_from_its_own_thread(haven_cluster: Cluster) -> None:
    said: list[str] = []

    def log(pod: object, container: str) -> str:
        try:
            haven_cluster.list("pods")
        except RuntimeError as error:
            said.append(str(error))
        return ""

    haven_cluster.behave(log=log)
    haven_cluster.create(a_pod("web"))

    haven_cluster.wait_for("pod/web", "Ready")

    assert "the cluster's own thread" in said[0]

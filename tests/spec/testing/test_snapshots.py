"""Going back: the API, its watchers, controllers and simulated Pods agree on what there was."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from haven.testing import Cluster, Conflict

CONFIGMAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "1"}}


def a_deployment(replicas: int) -> dict[str, object]:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "web"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template},
    }


def test_what_was_made_after_a_snapshot_is_gone_and_what_was_deleted_is_back(haven_cluster: Cluster) -> None:
    haven_cluster.create(CONFIGMAP)
    snapshot = haven_cluster.snapshot()
    before = haven_cluster.get("cm", "settings")
    haven_cluster.delete("cm", "settings")
    haven_cluster.create({**CONFIGMAP, "metadata": {"name": "later"}})

    haven_cluster.restore(snapshot)

    assert haven_cluster.get("cm", "settings") == before
    assert "later" not in [item["metadata"]["name"] for item in haven_cluster.list("cm", "default")]


def test_resource_versions_never_come_twice(haven_cluster: Cluster) -> None:
    haven_cluster.create(CONFIGMAP)
    snapshot = haven_cluster.snapshot()
    newer = haven_cluster.patch("cm", "settings", {"data": {"a": "2"}})

    haven_cluster.restore(snapshot)

    with pytest.raises(Conflict):
        haven_cluster.replace(newer)
    again = haven_cluster.patch("cm", "settings", {"data": {"a": "3"}})
    assert int(again["metadata"]["resourceVersion"]) > int(newer["metadata"]["resourceVersion"])


def test_controllers_go_on_from_the_snapshot(haven_cluster: Cluster) -> None:
    haven_cluster.apply(a_deployment(2))
    haven_cluster.wait_for("deployment/web", {"status": {"readyReplicas": 2}})
    snapshot = haven_cluster.snapshot()
    names = sorted(pod.name for pod in haven_cluster.pods("app=web"))
    haven_cluster.apply(a_deployment(5))
    haven_cluster.wait_for("deployment/web", {"status": {"readyReplicas": 5}})

    haven_cluster.restore(snapshot)

    assert sorted(pod.name for pod in haven_cluster.pods("app=web")) == names
    haven_cluster.apply(a_deployment(3))
    haven_cluster.wait_for("deployment/web", {"status": {"readyReplicas": 3}})
    haven_cluster.delete("deployment", "web")
    haven_cluster.wait_until(lambda: not haven_cluster.list("pods"))


def test_simulated_pods_remember_what_they_were_told(haven_cluster: Cluster) -> None:
    haven_cluster.apply(a_deployment(1))
    haven_cluster.wait_for("deployment/web", "Available")
    pod = haven_cluster.pods("app=web")[0]
    pod.ready(False)
    snapshot = haven_cluster.snapshot()
    pod.ready(True)

    haven_cluster.restore(snapshot)

    haven_cluster.clock.advance(minutes=1)
    haven_cluster.wait_for(f"pod/{pod.name}", "Ready=False")


def test_nodes_come_and_go_with_snapshots(haven_cluster: Cluster) -> None:
    snapshot = haven_cluster.snapshot()
    haven_cluster.add_nodes(3)

    haven_cluster.restore(snapshot)

    assert [node["metadata"]["name"] for node in haven_cluster.list("nodes")] == ["node-0"]
    haven_cluster.apply(a_deployment(2))
    haven_cluster.wait_for("deployment/web", "Available")


def test_one_snapshot_can_be_restored_often(haven_cluster: Cluster) -> None:
    snapshot = haven_cluster.snapshot()

    for number in range(3):
        haven_cluster.create({**CONFIGMAP, "metadata": {"name": f"number-{number}"}})
        haven_cluster.restore(snapshot)

    found = [item["metadata"]["name"] for item in haven_cluster.list("cm", "default")]
    assert found == ["kube-root-ca.crt"]


def test_users_rights_go_back_too(haven_cluster: Cluster) -> None:
    snapshot = haven_cluster.snapshot()
    alice = haven_cluster.as_user("alice")
    haven_cluster.create(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "alice"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "User", "name": "alice", "apiGroup": "rbac.authorization.k8s.io"}],
        }
    )
    assert alice.can("delete", "nodes")

    haven_cluster.restore(snapshot)

    assert not alice.can("delete", "nodes")


def test_a_snapshot_of_another_cluster_is_refused(haven_cluster_factory: Callable[..., Cluster]) -> None:
    one, other = haven_cluster_factory(), haven_cluster_factory()

    with pytest.raises(ValueError, match="of another cluster"):
        one.restore(other.snapshot())

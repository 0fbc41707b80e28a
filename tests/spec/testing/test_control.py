"""What programs in other languages may ask of a cluster, below /haven/ on its API server."""

from __future__ import annotations

from typing import Any

import pytest

from haven.testing import ApiError, Cluster

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web"},
    "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "web"}]},
}


def post(cluster: Cluster, path: str, **body: Any) -> Any:
    return cluster.request("POST", f"/haven/{path}", body)


def test_time_passes(haven_cluster: Cluster) -> None:
    before = haven_cluster.request("GET", "/haven/clock")["now"]

    assert post(haven_cluster, "advance", seconds=3600)["now"] >= before + 3600


def test_pods_do_as_they_are_told(haven_cluster: Cluster) -> None:
    haven_cluster.create(POD)
    post(haven_cluster, "pods/default/web", do="log", text="bye")
    post(haven_cluster, "pods/default/web", do="fail", exitCode=3, reason="Broken")

    ended = haven_cluster.get("pod", "web")["status"]["containerStatuses"][0]["state"]["terminated"]

    assert (ended["exitCode"], ended["reason"]) == (3, "Broken")


def test_rules_nodes_faults_and_the_audit_log(haven_cluster: Cluster) -> None:
    post(haven_cluster, "nodes", names=["gpu-0"], labels={"gpu": "yes"})
    post(haven_cluster, "behave", image="web", startError="ErrImagePull")
    post(haven_cluster, "faults", verb="list", resource="pods", status=503, retryAfter=1)
    post(haven_cluster, "faults", verb="list", resource="pods", status=503)
    haven_cluster.request("DELETE", "/haven/faults")
    haven_cluster.create(POD)

    haven_cluster.wait_for("pod/web", lambda pod: "ErrImagePull" in str(pod["status"]))
    assert haven_cluster.get("node", "gpu-0")["metadata"]["labels"]["gpu"] == "yes"
    (found,) = haven_cluster.request("GET", "/haven/audit?verb=create&resource=pods&components=true")["items"]
    assert (found["user"], found["body"]["metadata"]["name"]) == ("haven-testing", "web")


def test_the_state_goes_back(haven_cluster: Cluster) -> None:
    taken = post(haven_cluster, "snapshots")["id"]
    haven_cluster.create(POD)

    post(haven_cluster, f"snapshots/{taken}")

    assert haven_cluster.list("pods") == []


def test_only_administrators_may(haven_cluster: Cluster) -> None:
    with pytest.raises(ApiError, match="cannot post path"):
        haven_cluster.as_user("alice").request("POST", "/haven/settle")


def test_what_makes_no_sense_is_refused(haven_cluster: Cluster) -> None:
    haven_cluster.create(POD)

    with pytest.raises(ApiError, match="a Pod cannot 'fly'"):
        post(haven_cluster, "pods/default/web", do="fly")
    with pytest.raises(ApiError, match="POST /haven/advance"):
        post(haven_cluster, "nothing")

"""Failures on demand, as clients of other projects meet them."""

from __future__ import annotations

import time

import pytest
from kubernetes import client, watch
from kubernetes.client.exceptions import ApiException

from haven.testing import Cluster, NotRequested


def a_configmap(name: str) -> client.V1ConfigMap:
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name))


@pytest.mark.parametrize(
    ("status", "reason"), [(409, "AlreadyExists"), (500, "InternalError"), (503, "ServiceUnavailable")]
)
def test_a_request_is_answered_with_a_failure_once(haven_cluster: Cluster, status: int, reason: str) -> None:
    api = client.CoreV1Api(haven_cluster.client())
    fault = haven_cluster.faults.add(verb="create", resource="configmaps", status=status)

    with pytest.raises(ApiException) as caught:
        api.create_namespaced_config_map("default", a_configmap("one"))
    api.create_namespaced_config_map("default", a_configmap("one"))

    assert (caught.value.status, caught.value.reason is not None) == (status, True)
    assert f'"reason":"{reason}"' in caught.value.body
    assert fault.hits == 1


def test_too_many_requests_says_when_to_come_back(haven_cluster: Cluster) -> None:
    api = client.CoreV1Api(haven_cluster.client())
    haven_cluster.faults.add(verb="list", status=429, retry_after=1, times=None)

    with pytest.raises(ApiException) as caught:
        api.list_namespaced_pod("default")

    assert caught.value.status == 429
    assert caught.value.headers["Retry-After"] == "1"


def test_an_answer_can_get_lost_after_the_work_was_done(haven_cluster: Cluster) -> None:
    api = client.CoreV1Api(haven_cluster.client())
    haven_cluster.faults.add(verb="create", resource="configmaps", status=504, after_commit=True)

    with pytest.raises(ApiException):
        api.create_namespaced_config_map("default", a_configmap("one"))

    assert haven_cluster.get("configmap", "one")["metadata"]["name"] == "one"


def test_a_watch_breaks_off_after_some_events(haven_cluster: Cluster) -> None:
    api = client.CoreV1Api(haven_cluster.client())
    haven_cluster.faults.add(resource="configmaps", drop_watch=1)
    version = api.list_namespaced_config_map("default").metadata.resource_version
    for name in ("one", "two"):
        api.create_namespaced_config_map("default", a_configmap(name))
    answer = api.list_namespaced_config_map("default", watch=True, resource_version=version, _preload_content=False)

    lines = [line for line in answer.read().splitlines() if line]

    assert len(lines) == 1


def test_a_watch_expires(haven_cluster: Cluster) -> None:
    api = client.CoreV1Api(haven_cluster.client())
    haven_cluster.faults.add(resource="pods", verb="watch", status=410)

    with pytest.raises(ApiException) as caught:
        list(watch.Watch().stream(api.list_namespaced_pod, "default", resource_version="1", timeout_seconds=60))

    assert caught.value.status == 410


def test_old_versions_are_gone_after_compaction(haven_cluster: Cluster) -> None:
    api = client.CoreV1Api(haven_cluster.client())
    version = api.list_namespaced_config_map("default").metadata.resource_version
    api.create_namespaced_config_map("default", a_configmap("one"))
    haven_cluster.compact()

    with pytest.raises(ApiException) as caught:
        list(
            watch.Watch().stream(
                api.list_namespaced_config_map, "default", resource_version=version, timeout_seconds=60
            )
        )

    assert caught.value.status == 410


def test_a_slow_server_is_slow(haven_cluster: Cluster) -> None:
    api = client.CoreV1Api(haven_cluster.client())
    haven_cluster.faults.add(verb="list", resource="pods", delay=0.3)
    began = time.monotonic()

    api.list_namespaced_pod("default")

    assert time.monotonic() - began > 0.25  # Timers are not exact.


def test_a_dropped_connection_has_no_answer(haven_cluster: Cluster) -> None:
    api = client.CoreV1Api(haven_cluster.client())
    haven_cluster.faults.add(verb="get", resource="configmaps", drop=True, times=None)

    with pytest.raises(Exception, match=r"Connection aborted|Max retries exceeded"):
        api.read_namespaced_config_map("kube-root-ca.crt", "default")


def test_the_clusters_own_parts_are_spared_unless_named(haven_cluster: Cluster) -> None:
    haven_cluster.faults.add(status=500, times=None)
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "main", "image": "x"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    haven_cluster.apply({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web"}, "spec": spec})
    haven_cluster.wait_for("rs/web", {"status": {"readyReplicas": 1}})

    victim = "system:serviceaccount:kube-system:replicaset-controller"
    fault = haven_cluster.faults.add(verb="create", resource="pods", user=victim, status=500, times=1)
    haven_cluster.patch("rs", "web", {"spec": {"replicas": 2}})

    haven_cluster.wait_for("rs/web", {"status": {"readyReplicas": 2}})
    assert fault.hits == 1


def test_what_was_asked_can_be_asserted(haven_cluster: Cluster) -> None:
    api = client.CoreV1Api(haven_cluster.client())
    api.create_namespaced_config_map("default", a_configmap("one"))

    audit = haven_cluster.audit
    record = audit.assert_requested(verb="create", resource="configmaps", user="kubernetes-admin", status=201)[0]
    assert record.body["metadata"]["name"] == "one"
    audit.assert_requested(resource="configmaps", body={"metadata": {"name": "one"}}, times=1)
    audit.assert_not_requested(verb="delete")
    with pytest.raises(NotRequested, match="create configmaps default/") as caught:
        audit.assert_requested(verb="delete", resource="pods")
    assert "verb='delete', resource='pods'" in str(caught.value)


def test_a_fault_that_does_nothing_is_refused(haven_cluster: Cluster) -> None:
    with pytest.raises(ValueError, match="needs a status"):
        haven_cluster.faults.add(verb="get")


def test_a_kubelet_whose_writes_conflict_again_and_again_leaves_the_others_their_turn(haven_cluster: Cluster) -> None:
    haven_cluster.faults.add(verb="update", resource="pods/status", user="system:node:*", status=409, times=None)
    containers = [{"name": "main", "image": "web"}]
    haven_cluster.create(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": containers}}
    )

    answered = haven_cluster.submit(haven_cluster.world.objects.list("nodes")).result(60)
    haven_cluster.faults.clear()

    assert [item["metadata"]["name"] for item in answered] == ["node-0"]
    haven_cluster.wait_for("pod/web", "Ready", timeout=60)


def test_faults_and_audits_of_what_no_request_has_are_refused(haven_cluster: Cluster) -> None:
    for what in ({"verb": "POST"}, {"verb": "creates"}, {"resource": "Pod"}):
        with pytest.raises(ValueError, match="no re"):
            haven_cluster.faults.add(**what, status=500)
        with pytest.raises(ValueError, match="no re"):
            haven_cluster.audit.assert_not_requested(**what)

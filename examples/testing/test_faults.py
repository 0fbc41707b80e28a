"""What a program does when the API server is busy, changes under its hands, or goes away."""

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from haven.testing import Cluster


def count_up(api: client.CoreV1Api) -> None:
    """The code under test: add one to a counter, and try again when somebody else was faster."""
    for _ in range(5):
        configmap = api.read_namespaced_config_map("counter", "default")
        configmap.data["value"] = str(int(configmap.data["value"]) + 1)
        try:
            api.replace_namespaced_config_map("counter", "default", configmap)
        except ApiException as error:
            if error.status == 409:
                continue
            raise
        return
    raise RuntimeError("too many conflicts")


@pytest.fixture
def api(haven_cluster: Cluster) -> client.CoreV1Api:
    haven_cluster.create(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "counter"}, "data": {"value": "0"}}
    )
    return client.CoreV1Api(haven_cluster.client())


def test_a_conflict_is_tried_again(haven_cluster: Cluster, api: client.CoreV1Api) -> None:
    haven_cluster.faults.add(verb="update", resource="configmaps", status=409, times=2)

    count_up(api)

    assert haven_cluster.get("configmap", "counter")["data"] == {"value": "1"}
    haven_cluster.audit.assert_requested(verb="update", resource="configmaps", times=3)


def test_an_error_of_the_server_is_not_swallowed(haven_cluster: Cluster, api: client.CoreV1Api) -> None:
    haven_cluster.faults.add(verb="update", status=500)

    with pytest.raises(ApiException, match="500"):
        count_up(api)


def test_a_lost_answer_does_not_count_twice(haven_cluster: Cluster, api: client.CoreV1Api) -> None:
    haven_cluster.faults.add(verb="update", resource="configmaps", status=409, after_commit=True)

    count_up(api)

    # The write had happened, though the answer said otherwise: this code cannot tell, and counts again.
    assert haven_cluster.get("configmap", "counter")["data"] == {"value": "2"}
